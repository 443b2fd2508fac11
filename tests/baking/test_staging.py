"""What components see, and how their hooks are run: in overlays and in copies, with the same result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest
from msgspec.structs import replace

from kiln import events, settings
from kiln.baking import hookbox, hookcopy, hooks
from kiln.baking.hooks import hook_argv
from kiln.baking.session import Session
from kiln.baking.staging import Staging
from kiln.dockerfile import parser, reading
from kiln.engine.cancel import Cancel
from kiln.errors import CancelledBuild, HookError
from kiln.plan.target import Context, Target
from kiln.sources import components
from kiln.store.entry import FILE
from kiln.store.store import Store
from tests.engine.test_views import everything, fill
from tests.services import SOURCE, processes_with, wait_for

FROM = "FROM scratch\nCOPY . /\n"


@pytest.fixture
def told():
    return []


@pytest.fixture
def cancel():
    return Cancel()


@pytest.fixture
def session(tmp_path, told, cancel, monkeypatch):
    monkeypatch.setenv("KILN_TEST_WORD", "w\udcff")
    config = settings.read(home=str(tmp_path / "home"))
    with Store(config.store_path) as store, Session(store, config, told.append, cancel) as session:
        yield session


@pytest.fixture(params=["overlay", "copy"])
def mode(request, monkeypatch):
    """Both ways of running a hook; the second as where the kernel refuses overlays."""
    if request.param == "copy":
        monkeypatch.setattr(hooks.HookRunner, "_why_not", lambda self: "a test says so")
    return request.param


@pytest.fixture
def staged(session, tmp_path):
    """Makes the stages of a tree: path -> text."""

    def make(files, links=None):
        root = fill(tmp_path / "tree", files)
        collection = components.load(root)
        return Staging(components.with_images(collection, links or {}), session)

    return make


def target(staging, component, name=""):
    place = f"src/{component}/build/{name or component}.dockerfile"
    data = (staging.root / place).read_bytes()
    folder = staging.root / "src" / component
    return Target(
        name or component,
        reading.read(parser.parse(data, place)),
        Context("folder", folder),
        place=place,
        component=component,
    )


def seen(staging, component, name=""):
    """Path -> content of the files that an image of a component sees, its build/ left out."""
    found = staging.session.contexts.files(staging.prepare(target(staging, component, name)).context)
    return {
        path: fact[2].decode() for path, fact in everything(found).items() if fact[0] == FILE and "build/" not in path
    }


def test_without_hooks_and_needs_there_is_nothing_to_do(staged):
    staging = staged({"src/a/build/a.dockerfile": FROM, "src/a/f": "1"})
    one = target(staging, "a")
    assert staging.prepare(one) is one and not (staging.session.store.scratch / "hooks").exists()
    other = replace(one, component="")
    assert staging.prepare(other) is other and not staging.has_post("a") and not staging.has_post("zz")


def test_hooks_and_needs(staged, mode, told):
    staging = staged({
        "src/a/build/a.dockerfile": FROM, "src/a/build/build-pre.sh": "cd src/a; rm old; mkdir gen; echo $KILN_TEST_WORD$PWD > gen/x\n",
        "src/a/build/build-post.sh": "cat src/a/gen/x > src/a/gen/y; rm src/a/kept\n", "src/a/old": "1", "src/a/kept": "2",
        "src/b/build/b.dockerfile": FROM, "src/b/build/component.dep": "a", "src/b/f": "3", "src/b/dependency/a/stale": "4",
        "src/c/build/c.dockerfile": FROM, "src/c/build/component.dep": "b", "src/c/build/build-pre.sh": "ls src/c/dependency/b > src/c/list\n",
    })  # fmt: skip
    data = seen_bytes(staging, "a")
    assert data == {"kept": b"2", "gen/x": b"w\xff" + os.fsencode(staging.root / "src/a") + b"\n"}
    staging.finish("a")
    staging.finish("a")
    assert set(seen_bytes(staging, "b")) == {"f", "dependency/a/gen/x", "dependency/a/gen/y"}
    data = seen_bytes(staging, "c")
    assert data["list"].split() == [b"build", b"dependency", b"f"] and "dependency/b/dependency/a/gen/y" in data
    ran = [event.step for event in told if isinstance(event, events.StepFinished)]
    assert ran == ["a build-pre.sh", "a build-post.sh", "c build-pre.sh"]
    assert [event.message for event in told if isinstance(event, events.Warned)] == (
        ["overlays are not possible here (a test says so): each hook runs in a copy of the tree"]
        if mode == "copy"
        else []
    )


def seen_bytes(staging, component):
    found = staging.session.contexts.files(staging.prepare(target(staging, component)).context)
    return {path: fact[2] for path, fact in everything(found).items() if fact[0] == FILE and "build/" not in path}


def test_a_component_that_stands_on_an_image_sees_what_was_there_before_the_last_hook(staged, mode):
    """Else it would be a matter of luck: the last hook may still run, as other images of its component may."""
    files = {
        "src/a/build/a.dockerfile": FROM, "src/a/build/build-pre.sh": "echo 1 > src/a/pre\n",
        "src/a/build/build-post.sh": "echo 1 > src/a/post; rm src/a/pre\n", "src/b/build/b.dockerfile": FROM,
    }  # fmt: skip
    files |= {"src/c/build/c.dockerfile": FROM, "src/c/build/build-pre.sh": "ls src/a > src/c/list\n"}
    staging = staged(files, {"b": ["a"], "c": ["a"]})
    seen(staging, "a")
    staging.finish("a")
    assert seen(staging, "c")["list"].split() == ["build", "pre"]
    assert seen(staging, "b") == {"dependency/a/pre": "1\n"} and seen(staging, "a") == {"pre": "1\n"}


def test_a_failure_is_that_of_all_who_need_it(staged, mode, told):
    staging = staged({
        "src/a/build/build-pre.sh": "touch src/a/x; echo out; echo err >&2; kill -9 $$\n", "src/b/build/component.dep": "a",
        "src/b/build/b.dockerfile": FROM, "src/c/build/component.dep": "b", "src/c/build/c.dockerfile": FROM,
    })  # fmt: skip
    for name in ("b", "c", "b"):
        with pytest.raises(HookError) as caught:
            seen(staging, name)
        assert caught.value.where == "src/a/build/build-pre.sh" and "exit code 137" in caught.value.message
        assert caught.value.detail == "    | out\n    | err"
    assert len([event for event in told if isinstance(event, events.StepStarted)]) == 1
    assert not (staging.root / "src/a/x").exists()


def test_a_component_without_images_runs_both_hooks(staged, mode):
    staging = staged({
        "src/a/build/build-pre.sh": "echo 1 > src/a/x\n", "src/a/build/build-post.sh": "mv src/a/x src/a/y\n",
        "src/b/build/b.dockerfile": FROM, "src/b/build/component.dep": "a",
    })  # fmt: skip
    assert seen(staging, "b") == {"dependency/a/y": "1\n"}


def test_the_dockerfile_is_that_which_the_hook_left(staged, mode):
    staging = staged(
        {"src/a/build/a.dockerfile": FROM, "src/a/build/build-pre.sh": "echo USER x >> src/a/build/a.dockerfile\n"}
    )
    assert staging.prepare(target(staging, "a")).program.source.text == f"{FROM}USER x\n"


def test_stopping_ends_the_hook(staged, mode, cancel):
    staging = staged({"src/a/build/a.dockerfile": FROM, "src/a/build/build-pre.sh": "sleep 9876512 & sleep 9876512\n"})

    def stop():
        wait_for(lambda: len(processes_with("9876512")) > 1)
        cancel.cancel("enough")

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(CancelledBuild, match="enough"):
        seen(staging, "a")
    thread.join()
    wait_for(lambda: not processes_with("9876512"), 3)


def test_long_output_is_cut_into_lines(staged, told):
    staging = staged(
        {
            "src/a/build/a.dockerfile": FROM,
            "src/a/build/build-pre.sh": "head -c 200000 /dev/zero; printf '\\nlast\\r\\n'\n",
        }
    )
    seen(staging, "a")
    texts = [event.text for event in told if isinstance(event, events.StepOutput)]
    assert max(map(len, texts)) <= 1 << 16 and sum(map(len, texts)) == 200004 and texts[-1] == "last"


@pytest.mark.parametrize(
    ("first", "argv"),
    [
        ("echo", ["bash"]), ("#!/bin/sh", ["/bin/sh"]), ("#! /usr/bin/env  python3 -u ", ["/usr/bin/env", "python3 -u"]),
        ("#!", ["bash"]), ("#!/bin/bash\r", ["/bin/bash"]), ("", ["bash"]), ("\udcff", ["bash"]),
    ],
)  # fmt: skip
def test_the_command_of_a_hook(first, argv, tmp_path):
    hook = tmp_path / "src" / "hook.sh"
    hook.parent.mkdir()
    hook.write_bytes(os.fsencode(first) + b"\nmore\n")
    assert hook_argv(hook, tmp_path) == [*argv, "src/hook.sh"]


def box(tmp_path, **order):
    """hookbox as a process, its order given."""
    for name in ("tree", "upper", "work", "copy"):
        (tmp_path / name).mkdir()
    whole = {
        "tree": str(tmp_path / "tree"), "layers": [str(tmp_path / "tree")], "upper": str(tmp_path / "upper"), "work": str(tmp_path / "work"),
        "root": os.geteuid() == 0, "argv": ["true"], "env": dict(os.environ), "copy": "", "parent": os.getpid(), **order,
    }  # fmt: skip
    return subprocess.run([sys.executable, "-P", "-m", "kiln.baking.hookbox"], input=json.dumps(whole).encode(), capture_output=True,
                          env={"PYTHONPATH": str(SOURCE)}, check=False, timeout=20)  # fmt: skip


def test_a_view_that_cannot_be_made(tmp_path):
    done = box(tmp_path, upper=str(tmp_path / "nothing"))
    assert (
        done.returncode == hookbox.NO_VIEW and done.stderr.startswith(b"hookbox: ") and b"Traceback" not in done.stderr
    )


def test_a_hook_whose_parent_is_gone_does_not_run(tmp_path):
    done = box(tmp_path, parent=1, argv=["touch", str(tmp_path / "ran")])
    assert done.returncode == hookbox.NO_VIEW and not (tmp_path / "ran").exists()


def test_a_copy_keeps_what_hooks_may_look_at(tmp_path):
    root = fill(tmp_path / "tree", {"a/f": "1", "closed/f": "2", "store/huge": "3"})
    (root / "link").symlink_to("/nowhere")
    os.mkfifo(root / "pipe")
    (root / "closed").chmod(0o555)
    os.utime(root / "a/f", ns=(1, 123456789))
    os.utime(root / "a", ns=(1, 987654321))
    before = hookcopy.make_copy(root, [], tmp_path / "copy", without=root / "store")
    copy = tmp_path / "copy"
    assert (copy / "a/f").stat().st_mtime_ns == 123456789 and (copy / "a").stat().st_mtime_ns == 987654321
    assert os.readlink(copy / "link") == "/nowhere" and (copy / "closed").stat().st_mode & 0o777 == 0o555
    assert not (copy / "store").exists() and not (copy / "pipe").exists()
    assert set(before) == {"a", "a/f", "closed", "closed/f", "link"}
    (tmp_path / "upper").mkdir()
    hookcopy.keep_changes(copy, before, tmp_path / "upper")
    assert list((tmp_path / "upper").iterdir()) == []
    (root / "closed").chmod(0o755)
