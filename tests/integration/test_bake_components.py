"""Component trees: what images see, what hooks may do, and that the tree is never written into."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.integration.componenttree import ALL, INTO, Tree, bake, commit, content, fates, listing, realistic, sha256
from tests.services import SOURCE, processes_with, wait_for

pytestmark = pytest.mark.integration
EXAMPLE = SOURCE / "examples" / "components"


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "tree")


def test_the_story(kiln, tree):
    """Two components, a sibling that nobody declares, files of the root, generated files, both hooks."""
    tree.write("version/NUMBER", "1.8\n")
    tree.component("other", files={"sdk/lib.txt": "sdk\n"})
    pre = f"""#!/bin/bash
{INTO}mkdir -p ../dependency ../generated
cp -arfT ../../other/sdk ../dependency/sdk
cp ../../../version/NUMBER ../generated/number
git rev-parse HEAD > ../generated/commit
cat "$OLDPWD/version/NUMBER" ../version > ../generated/both
echo working; popd > /dev/null
[ "$(pwd)" = "{tree.root}" ] && [ -d src ] && [ "$0" = src/a/build/build-pre.sh ]
"""
    post = f"{INTO}cat ../generated/number > ../generated/after\n"
    tree.component("a", ALL, pre=pre, post=post, files={"version": "own\n"})
    tree.component("b", ALL, needs=["# first", "", "  a  # the only one"], files={"mine": "b\n"})
    head = commit(tree.root)
    before = listing(tree.root)
    ended = bake(kiln, tree)
    assert "| working" in ended.err and fates(ended.err) == {"a": "built", "b": "built"}
    seen = content(kiln, "a:latest")
    assert seen["dependency/sdk/lib.txt"] == b"sdk\n" and seen["generated/commit"].decode().strip() == head
    assert seen["generated/both"] == b"1.8\nown\n" and "generated/after" not in seen
    seen = content(kiln, "b:latest")
    assert seen["dependency/a/generated/after"] == b"1.8\n" and seen["dependency/a/dependency/sdk/lib.txt"] == b"sdk\n"
    assert seen["mine"] == b"b\n" and seen["dependency/a/version"] == b"own\n"
    assert listing(tree.root) == before
    assert fates(bake(kiln, tree).err) == {"a": "skipped", "b": "skipped"} and kiln.scratch() == []


def test_what_changed_is_built_and_nothing_else(kiln, tree):
    tree.write("shared", "1")
    tree.component("a", ALL, pre=f"{INTO}mkdir ../generated; cp ../../../shared ../generated/\n", files={"f": "a"})
    tree.component("b", ALL, needs=["a"], files={"f": "b"})
    tree.component("c", "FROM a\nCOPY f /c\n", files={"f": "c"})
    tree.component("d", ALL, files={"f": "d"})
    bake(kiln, tree)
    assert set(fates(bake(kiln, tree).err).values()) == {"skipped"}
    tree.write("src/d/f", "other")
    assert fates(bake(kiln, tree).err) == {"a": "skipped", "b": "skipped", "c": "skipped", "d": "built"}
    tree.write("src/d/f", "d")
    assert fates(bake(kiln, tree).err)["d"] == "skipped"
    tree.write("shared", "2")
    ended = bake(kiln, tree)
    assert fates(ended.err) == {"a": "built", "b": "built", "c": "built", "d": "skipped"}
    assert "src/a/generated/shared" in ended.err
    tree.write("unrelated", "x")
    assert set(fates(bake(kiln, tree).err).values()) == {"skipped"}


def test_plan_changes_nothing(kiln, tree):
    tree.component("a", ALL, pre=f"{INTO}echo x > ../made\n", post=f"{INTO}echo y > ../more\n", files={"f": "a"})
    tree.component("b", ALL, needs=["a"])
    before, blobs = listing(tree.root), kiln.blobs()
    ended = kiln.run("plan", tree.root)
    assert "never built" in ended.out and "last hook of a" in ended.out
    assert listing(tree.root) == before and kiln.blobs() == blobs
    bake(kiln, tree)
    assert kiln.run("plan", tree.root).out.count("unchanged") == 2


def test_hooks_need_no_executable_bit_and_choose_their_interpreter(kiln, tree):
    tree.component("a", ALL, pre=f"{INTO}[[ a == a ]] && echo bash > ../said\n")
    tree.component("b", ALL, pre="#!/usr/bin/env python3\nimport json\nopen('src/b/said', 'w').write('python')\n")
    tree.component("c", ALL, pre="#!/bin/sh -e\nfalse\necho never > src/c/said\n")
    tree.component("d", ALL, pre="#!/no/such/program\n")
    tree.write("json.py", "raise SystemExit('a module of the tree was used')\n")
    tree.write("kiln/__init__.py", "raise SystemExit('a module of the tree was used')\n")
    # The hook of b is run by Python with its own folder first, so the module above is not in its way.
    ended = bake(kiln, tree, "--keep-going", code=1)
    assert fates(ended.err) == {"a": "built", "b": "built", "c": "failed", "d": "failed"}
    assert content(kiln, "a:latest")["said"] == b"bash\n" and content(kiln, "b:latest")["said"] == b"python"
    assert "/no/such/program: No such file or directory" in ended.err and "exit code 127" in ended.err


def test_a_failing_hook_fails_its_component_alone(kiln, tree):
    tree.component("a", ALL, pre="#!/bin/bash\necho before; touch src/a/x; echo trouble >&2; exit 3\n", files={"f": ""})
    tree.component("b", ALL, needs=["a"])
    tree.component("c", ALL, files={"f": ""})
    before = listing(tree.root)
    ended = bake(kiln, tree, "--keep-going", code=1)
    assert fates(ended.err) == {"a": "failed", "b": "not reached", "c": "built"}
    assert "src/a/build/build-pre.sh: the hook of a failed: it ended with exit code 3" in ended.err
    assert "    | trouble" in ended.err and "Nothing of this component was built" in ended.err
    assert listing(tree.root) == before and [entry for entry in kiln.index() if "/a:" in str(entry)] == []
    tree.write("src/a/build/build-pre.sh", "true\n")
    assert fates(bake(kiln, tree).err) == {"a": "built", "b": "built", "c": "skipped"}


def test_a_failing_last_hook(kiln, tree):
    tree.component("a", ALL, post="exit 4\n", files={"f": ""})
    tree.component("b", ALL, needs=["a"])
    ended = bake(kiln, tree, code=1)
    assert fates(ended.err) == {"a": "failed", "b": "not reached"}
    assert "build-post.sh" in ended.err and "Its images are made" in ended.err


def test_hooks_may_take_away_and_rename(kiln, tree):
    """Nothing of it happens to the tree, all of it to the images."""
    pre = f"{INTO}cd ..; rm gone; mv old new; mv folder moved; rm -r sub; mkdir sub; echo y > sub/y; chmod 700 kept\n"
    tree.component("a", ALL, pre=pre, files={path: path for path in ("gone", "old", "folder/f", "sub/x", "kept")})
    tree.component("b", ALL, needs=["a"], pre=f"{INTO}ls ../dependency/a > ../listed; rm -r ../dependency/a\n")
    before = listing(tree.root)
    bake(kiln, tree)
    names = {name for name in content(kiln, "a:latest") if not name.startswith("build")}
    assert names == {"new", "moved/f", "sub/y", "kept"} and kiln.layers("a:latest")[0]["kept"].mode & 0o777 == 0o700
    assert content(kiln, "b:latest")["listed"].split() == [b"build", b"kept", b"moved", b"new", b"sub"]
    assert not any(name.startswith("dependency/a") for name in content(kiln, "b:latest"))
    assert listing(tree.root) == before


def test_own_folders_named_like_temporary_ones_survive(kiln, tree):
    files = {"dependency/own": "own", "generated/own": "own", "dependency/b/stale": "stale"}
    tree.component("a", ALL, needs=["b"], pre=f"{INTO}touch ../generated/new\n", files=files)
    tree.component("b", ALL, files={"f": "b"})
    tree.component("c", ALL, needs=["b"], files=files)
    before = listing(tree.root)
    bake(kiln, tree)
    for name in ("a:latest", "c:latest"):
        seen = content(kiln, name)
        assert seen["dependency/own"] == seen["generated/own"] == b"own" and seen["dependency/b/f"] == b"b"
        assert "dependency/b/stale" not in seen
    assert listing(tree.root) == before


def test_background_processes_end_with_their_hook(kiln, tree):
    tree.component("a", ALL, pre="sleep 98765431 & disown; setsid sleep 98765431 & echo on\n", files={"f": ""})
    bake(kiln, tree, seconds=20)
    assert processes_with("98765431") == []


@pytest.mark.parametrize("stage", ["hook", "build"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_being_ended(stage, end, kiln, tree):
    """The tree is as it was, no process is left, and the next run is not disturbed."""
    if stage == "build" and os.geteuid() != 0:
        pytest.skip("RUN steps in these tests run as root")
    word = f"9876{end:d}{len(stage)}{os.getpid()}"
    slow = f"\nsleep {word}\n" if stage == "hook" else "\n"
    run = f"RUN sleep {word}\n" if stage == "build" else ""
    tree.component("a", f"FROM base\nCOPY . /a\n{run}", pre=f"{INTO}mkdir ../dependency ../generated; rm ../f; cd ..{slow}",
                   files={"f": "f"})  # fmt: skip
    before = listing(tree.root)
    process = kiln.start("bake", "--progress", "plain", tree.root)
    wait_for(lambda: any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in processes_with(word)), 20)
    os.kill(process.pid, end)
    _, err = process.communicate(timeout=20)
    assert process.returncode == (-9 if end == signal.SIGKILL else 130), err
    wait_for(lambda: not processes_with(word), 5)
    assert listing(tree.root) == before and kiln.mounts() == []
    tree.component(
        "a", "FROM base\nCOPY . /a\n", pre=f"{INTO}mkdir ../dependency ../generated; rm ../f\n", files={"f": "f"}
    )
    assert fates(bake(kiln, tree).err) == {"a": "built"} and kiln.scratch() == []


def test_edges_of_every_kind(kiln, tree):
    tree.component("one", {"one": ALL, "two": "FROM three AS x\nCOPY f /two\n"}, files={"f": "f"})
    tree.component("mid", {"three": "from one:latest\nCOPY f /three\n"}, files={"f": "f"})
    tree.component("args", "ARG WHICH=two\nARG TAG=1\nFROM ${WHICH}:${TAG}\nCOPY f /args\n", files={"f": "f"})
    tree.component("plat", "FROM --platform=$BUILDPLATFORM two\nCOPY f /plat\n", files={"f": "f"})
    tree.component("copy", "FROM scratch\nCOPY --from=args:5 /args /x\n")
    tree.component("last", {"last.common": "FROM copy\nCOPY --from=plat /plat /y\n"})
    shown = json.loads(kiln.run("plan", tree.root, "--format", "json").out)
    nodes = {node["name"]: set(node["needs"]) for node in (shown if isinstance(shown, list) else shown["targets"])}
    assert nodes["two"] == {"three"} and nodes["three"] == {"one"} and nodes["args"] == {"two"} == nodes["plat"]
    assert nodes["copy"] == {"args"} and nodes["last"] == {"copy", "plat"}
    ended = bake(kiln, tree, "-j", "1", "last")
    assert set(fates(ended.err).values()) == {"built"} and len(fates(ended.err)) == 7
    assert content(kiln, "last:latest") == {"x": b"f", "y": b"f"}


def test_components_and_images_by_name(kiln, tree):
    tree.component("a", {"a": ALL, "a-more": ALL}, files={"f": ""})
    tree.component("b", {"b1": "FROM a\n", "b2": ALL}, files={"f": ""})
    tree.component("c", ALL, files={"f": ""})
    assert fates(bake(kiln, tree, "b1").err) == {"b1": "built", "a": "built"}
    assert set(fates(bake(kiln, tree, "b,c").err)) == {"a", "b1", "b2", "c"}
    assert set(fates(bake(kiln, tree, "a").err)) == {"a", "a-more"}, "the component, not only its image of that name"
    ended = bake(kiln, tree, "bb", code=2)
    assert "there is no target 'bb'" in ended.err


def test_variants(kiln, tree):
    tree.component("a", {"a.k8s": "FROM scratch\nLABEL v=k8s\n", "a.yarn": "FROM scratch\nLABEL v=yarn\n", "b.common": "FROM scratch\nLABEL v=c\n",
                         "c": "FROM scratch\nLABEL v=none\n"})  # fmt: skip
    ended = bake(kiln, tree, code=1)
    assert "'a' is made twice: by src/a/build/a.k8s.dockerfile and by src/a/build/a.yarn.dockerfile" in ended.err
    bake(kiln, tree, "--variant", "k8s")
    labels = {name: kiln.config(f"{name}:latest")["config"]["Labels"]["v"] for name in "abc"}
    assert labels == {"a": "k8s", "b": "c", "c": "none"}
    bake(kiln, tree, "--variant", "yarn")
    assert kiln.config("a:latest")["config"]["Labels"]["v"] == "yarn"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("cycle", ["a -> c -> b -> a", "src/b/build/component.dep:1"]),
        ("images", ["x -> y -> x", "src/x/build/x.dockerfile"]),
        ("twice", ["'x' is made twice", "src/x/build/x.dockerfile", "src/y/build/x.dockerfile"]),
        ("unknown", ["needs 'z'", "src/a/build/component.dep:1"]),
    ],
)
def test_wrong_trees_build_nothing(wrong, words, kiln, tree):
    tree.component("good", ALL, pre="touch src/good/ran\n", files={"f": ""})
    if wrong == "cycle":
        tree.component("a", ALL, needs=["c"]).component("c", ALL, needs=["b"]).component("b", ALL, needs=["a"])
    elif wrong == "images":
        tree.component("x", "FROM y\n").component("y", "FROM x\n")
    elif wrong == "twice":
        tree.component("x", ALL).component("y", {"x": ALL})
    else:
        tree.component("a", ALL, needs=["z"])
    names = len(kiln.index())
    ended = bake(kiln, tree, code=1)
    for word in words:
        assert word in ended.err
    assert len(kiln.index()) == names and "build-pre" not in ended.err


def test_deep_folders_links_sockets_and_closed_files(kiln, tree, monkeypatch):
    tree.component("a", "FROM scratch\nCOPY deep /\n", pre=f"{INTO}echo x > ../deep/1/2/3/new\n",
                   files={"deep/1/2/3/4/f": "f", "build/sub/folder/x.dockerfile": "nonsense"})  # fmt: skip
    tree.component("b", ALL, needs=["a", "linked"], files={"grüße/日本語": "x", "we ird:,\\name": "y"})
    tree.component("real", files={"f": "real"})
    (tree.root / "src" / "linked").symlink_to("real")
    (tree.root / "src/a/deep/absolute").symlink_to("/etc/hostname")
    (tree.root / "src/a/deep/dangling").symlink_to("../nowhere")
    (tree.root / "src/a/secret").write_text("x")
    (tree.root / "src/a/secret").chmod(0)
    (tree.root / "node_modules/.deep").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(tree.root)  # the name of a socket has to be short
        bound.bind("src/b/socket")
        before = listing(tree.root)
        bake(kiln, tree, "a", *(["b"] if os.geteuid() == 0 else []))
        assert listing(tree.root) == before
    assert content(kiln, "a:latest") == {
        "1/2/3/4/f": b"f", "1/2/3/new": b"x\n", "absolute": b"/etc/hostname", "dangling": b"../nowhere"
    }  # fmt: skip
    if os.geteuid() == 0:
        seen = content(kiln, "b:latest")
        assert (
            seen["grüße/日本語"] == b"x" and seen["we ird:,\\name"] == b"y" and seen["dependency/linked/f"] == b"real"
        )


def test_a_component_that_is_a_link_out_of_the_tree(kiln, tree, tmp_path):
    outside = tmp_path / "outside"
    Tree(tmp_path / "x").component("c", ALL, pre=f"{INTO}touch ../written\n").root.joinpath("src/c").rename(outside)
    tree.component("a", ALL, files={"f": ""})
    (tree.root / "src/c").symlink_to(outside)
    before = listing(outside)
    ended = bake(kiln, tree, "--keep-going", code=1)
    assert fates(ended.err) == {"a": "built", "c": "failed"} and "outside of the tree" in ended.err
    assert listing(outside) == before


def test_a_dockerfile_that_a_hook_writes_over(kiln, tree):
    """Its text counts as the hook left it, and so does what it copies."""
    text = "FROM scratch\\nCOPY f new /\\n"
    tree.component("a", "FROM scratch\nCOPY f /\n", pre=f"{INTO}printf '{text}' > a.dockerfile; cp ../../../shared ../new\n",
                   files={"f": "f"})  # fmt: skip
    tree.write("shared", "1")
    bake(kiln, tree)
    assert content(kiln, "a:latest") == {"f": b"f", "new": b"1"}
    assert fates(bake(kiln, tree).err) == {"a": "skipped"}
    tree.write("shared", "2")
    assert fates(bake(kiln, tree).err) == {"a": "built"} and content(kiln, "a:latest")["new"] == b"2"


def test_a_hook_that_cannot_be_read(kiln, tree):
    tree.component("a", ALL, pre="true\n").component("b", ALL, files={"f": ""})
    hook = tree.root / "src/a/build/build-pre.sh"
    hook.unlink()
    hook.symlink_to("missing")
    assert fates(bake(kiln, tree).err) == {"a": "built", "b": "built"}, "a link to nothing is no hook"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_a_tree_of_a_real_size(kiln, registry, tmp_path):
    tree = realistic(tmp_path / "tree")
    commit_id = (tree.root / ".git/refs/heads/main").read_text().strip()
    before = listing(tree.root)
    names = [path.name for path in tree.root.rglob("*") if path.is_file() and ".git" not in path.parts]
    hooks = [name for name in names if name == "build-pre.sh"]
    dockerfiles = [name for name in names if name.endswith(".dockerfile")]
    assert (len(names), len(hooks), len(dockerfiles), len(list((tree.root / "src").iterdir()))) == (964, 5, 32, 38)
    config = tree.configure(registry.host, namespace="real/pai")
    ended = bake(kiln, tree, "-c", config, seconds=120)
    assert ended.err.strip().endswith("32 targets: 32 built")
    pushed = kiln.run("push", "-c", config, tree.root, seconds=120).out.splitlines()
    assert len(pushed) == 32
    for name, _, digest in (line.partition("@") for line in pushed):
        found = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{name}:1.10"],
            capture_output=True,
            check=True,
        )
        assert f"sha256:{sha256(found.stdout)}" == digest == kiln.digest(f"/{name.rpartition('/')[2]}:latest")
    seen = content(kiln, "part-22:latest")
    assert seen["srv/part-22/generated/commit"].decode().strip() == commit_id
    assert seen["srv/part-22/dependency/tools/file-000"] == (tree.root / "src/lib-13/file-000").read_bytes()
    assert seen["srv/part-22/dependency/lib-07/file-001"] == (tree.root / "src/lib-07/file-001").read_bytes()
    assert listing(tree.root) == before
    assert bake(kiln, tree, "-c", config, seconds=60).err.strip().endswith("32 targets: 32 skipped")
    tree.write("src/lib-07/file-001", "new")
    again = fates(bake(kiln, tree, "-c", config, seconds=60).err)
    built = {name for name, fate in again.items() if fate == "built"}
    assert {"part-07", "part-07-extra", "part-22"} <= built and "part-00" not in built and len(built) < 20


def test_the_example(kiln, tmp_path):
    tree = Tree(tmp_path / "tree")
    shutil.copytree(EXAMPLE, tree.root)
    kiln.run("tag", "base", "debian:bookworm")
    before = listing(tree.root)
    ended = bake(kiln, tree)
    assert fates(ended.err) == dict.fromkeys(["base-tools", "api", "web", "web-mirror", "docs"], "built")
    assert "collected version 1.4.0" in ended.err and listing(tree.root) == before
    sums = content(kiln, "web:latest")["srv/SUMS"].decode()
    assert sums.splitlines()[0] == f"{sha256(b'1.4.0' + bytes([10]))}  NUMBER"
    assert content(kiln, "docs:latest") == {
        "old/index.html": b"<h1>Hello</h1>\n",
        "new/index.html": b"<h1>Hello</h1>\n",
    }
