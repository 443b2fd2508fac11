"""What is done for each target and why, from changed inputs to the words of `kiln plan` and the report of `kiln bake`."""

import json
import os
from xml.etree import ElementTree

import pytest

from tests.integration.bakes import WEB, bake, planned, tree
from tests.services import Http

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path):
    return tree(tmp_path / "tree", WEB)


def test_never_built_then_unchanged(kiln, place):
    assert {node["reason"] for name, node in planned(kiln, place).items() if name != "web"} == {"never built"}
    assert planned(kiln, place)["web"]["decision"] == "build"
    first = bake(kiln, place)
    assert first.results == dict.fromkeys(("lib", "web", "tool"), "built") and first.reason("web") == "never built"
    nodes = planned(kiln, place)
    assert {(node["decision"], node["reason"]) for node in nodes.values()} == {("skip", "unchanged")}
    assert nodes["web"]["needs"] == ["lib"] and nodes["web"]["place"] == "kiln.yml:3"
    again = bake(kiln, place)
    assert set(again.results.values()) == {"skipped"} and again.digests == first.digests and again.ran == 0
    assert "3 targets: 3 skipped" in kiln.run("bake", "--progress", "plain", place).err


CHANGES = [
    ("web/src/app.py", "other\n", "web", "`web/src/app.py` changed"),
    ("web/src/new.txt", "new\n", "web", "`web/src/new.txt` was added"),
    ("web/src/b.txt", None, "web", "`web/src/b.txt` was removed"),
    ("web/Dockerfile", WEB["web/Dockerfile"].replace("/src\n", "/source\n"), "web", "web/Dockerfile line 4 changed"),
    ("kiln.yml", WEB["kiln.yml"].replace('"1"', '"2"'), "web", "argument VERSION changed"),
]


@pytest.mark.parametrize(("path", "content", "name", "reason"), CHANGES, ids=[change[3] for change in CHANGES])
def test_one_change(kiln, place, path, content, name, reason):
    """The target that takes what changed is built, alone, and the reason names it."""
    bake(kiln, place)
    if content is None:
        (place / path).unlink()
    else:
        (place / path).write_text(content)
    node = planned(kiln, place)[name]
    assert (node["decision"], node["reason"]) == ("build", reason)
    done = bake(kiln, place)
    assert done.results == {"lib": "skipped", "tool": "skipped", name: "built"} and reason == done.reason(name)
    assert set(bake(kiln, place).results.values()) == {"skipped"}


def test_several_files_are_counted(kiln, place):
    bake(kiln, place)
    for name in ("app.py", "a.txt", "b.txt"):
        (place / "web/src" / name).write_text("changed\n")
    assert planned(kiln, place)["web"]["reason"] == "`web/src/a.txt` changed (and 2 others)"


def test_modes_and_times(kiln, place):
    """A new time is no change, a new mode is."""
    bake(kiln, place)
    (place / "web/src/app.py").touch()
    assert planned(kiln, place)["web"]["decision"] == "skip"
    (place / "web/src/app.py").chmod(0o755)
    assert planned(kiln, place)["web"]["reason"] == "`web/src/app.py` changed"


def test_what_the_image_does_not_take_changes_nothing(kiln, place):
    bake(kiln, place)
    (place / "web/README").write_text("changed\n")
    (place / "tool/x.log").write_text("2\n")
    (place / "tool/y.log").write_text("new\n")
    assert set(bake(kiln, place).results.values()) == {"skipped"}
    (place / "tool/.dockerignore").write_text("y.log\nDockerfile\n.dockerignore\n")
    assert planned(kiln, place)["tool"]["reason"] == "`tool/x.log` was added"


def test_a_change_back_is_no_work(kiln, place):
    """What was made once is known, and the names follow."""
    first = bake(kiln, place)
    (place / "web/src/app.py").write_text("other\n")
    second = bake(kiln, place)
    (place / "web/src/app.py").write_text(WEB["web/src/app.py"])
    third = bake(kiln, place)
    assert third.results["web"] == "skipped" and third.digests == first.digests != second.digests
    assert kiln.digest("/web:latest") == first.digests["web"]
    (place / "web/src/b.txt").write_text("other\n")
    assert planned(kiln, place)["web"]["reason"] == "`web/src/b.txt` changed"


def test_a_changed_base_rebuilds_what_stands_on_it(kiln, place):
    before = bake(kiln, place)
    (place / "lib/lib.txt").write_text("other\n")
    nodes = planned(kiln, place)
    assert nodes["web"]["decision"] == "build" and "its base `lib` is made first" in nodes["web"]["reason"]
    after = bake(kiln, place)
    assert after.results == {"lib": "built", "web": "built", "tool": "skipped"}
    old, new = (done.digests["lib"][:19] for done in (before, after))
    assert after.reason("web") == f"base `lib` moved from {old} to {new}"


def test_a_base_that_comes_out_the_same(kiln, place):
    """A comment in a base's Dockerfile: it is built, its image is what it was, nothing stands on anything new."""
    before = bake(kiln, place)
    (place / "lib/Dockerfile").write_text("FROM base\nCOPY lib.txt /lib.txt\n# a comment\n")
    after = bake(kiln, place)
    assert after.results == {"lib": "built", "web": "skipped", "tool": "skipped"} and after.digests == before.digests
    assert after.ran == 0


def test_forced(kiln, place):
    before = bake(kiln, place)
    assert {node["reason"] for node in planned(kiln, place, "tool", "--no-cache").values()} == {
        "forced: the cache is not to be used"
    }
    after = bake(kiln, place, "tool", "--no-cache")
    assert after.results == {"tool": "built"} and after.ran > 0 and after.digests["tool"] == before.digests["tool"]


def test_a_stage_that_is_always_made_anew(kiln, tmp_path):
    place = tree(
        tmp_path / "bake",
        {
            "docker-bake.json": json.dumps({"target": {"app": {"no-cache-filter": ["first"]}}}),
            "Dockerfile": "FROM base AS first\nCOPY Dockerfile /\nFROM first\nCOPY Dockerfile /again\n",
        },
    )
    bake(kiln, place)
    again = bake(kiln, place, "app")
    assert again.results == {"app": "built"} and "forced" in again.reason("app") and again.ran > 0


def test_the_epoch_counts(kiln, new_kiln, place):
    """SOURCE_DATE_EPOCH of the environment is in every layer, so it is in every key."""
    bake(kiln, place, "tool")
    later = new_kiln(SOURCE_DATE_EPOCH="1700000000")
    assert planned(later, place, "tool")["tool"]["reason"] == "option SOURCE_DATE_EPOCH changed"


def test_an_image_taken_from_the_store(kiln, place):
    before = bake(kiln, place)
    (kiln.store / "blobs" / "sha256" / before.digests["tool"].partition(":")[2]).unlink()
    assert planned(kiln, place)["tool"]["reason"] == "its result is no longer in the store"
    assert bake(kiln, place).digests == before.digests


ONBUILD = "FROM base\nONBUILD ARG FLAVOUR=none\nONBUILD COPY any /any\nONBUILD LABEL flavour=$FLAVOUR\n"


def test_onbuild_of_a_base_in_the_plan(kiln, tmp_path):
    place = tree(
        tmp_path / "onbuild",
        {
            "kiln.yml": "images:\n  - {id: lib, context: lib}\n  - {id: app, context: app, args: {FLAVOUR: a}}\n",
            "lib/Dockerfile": ONBUILD, "app/Dockerfile": "FROM lib\n", "app/any": "1\n",
        },
    )  # fmt: skip
    onbuild_counts(kiln, place)


def test_onbuild_of_a_base_from_outside(kiln, tmp_path):
    kiln.build(tree(tmp_path / "lib", {"Dockerfile": ONBUILD}), "-t", "lib")
    place = tree(
        tmp_path / "onbuild",
        {"kiln.yml": "images:\n  - {id: app, context: app, args: {FLAVOUR: a}}\n", "app/Dockerfile": "FROM lib\n",
         "app/any": "1\n"},
    )  # fmt: skip
    onbuild_counts(kiln, place)


def test_onbuild_of_a_stage(kiln, tmp_path):
    files = {
        "kiln.yml": "images:\n  - {id: app, context: app, args: {FLAVOUR: a}}\n",
        "app/Dockerfile": ONBUILD.replace("FROM base", "FROM base AS lib") + "FROM lib\n", "app/any": "1\n",
    }  # fmt: skip
    onbuild_counts(kiln, tree(tmp_path / "onbuild", files))


def onbuild_counts(kiln, place):
    """Files and arguments that triggers take are inputs like those of the Dockerfile."""
    bake(kiln, place)
    assert kiln.config("app:latest")["config"]["Labels"]["flavour"] == "a"
    assert bake(kiln, place).results["app"] == "skipped"
    (place / "app/any").write_text("2\n")
    assert bake(kiln, place).reason("app") == "`app/any` changed"
    text = (place / "kiln.yml").read_text()
    (place / "kiln.yml").write_text(text.replace("FLAVOUR: a", "FLAVOUR: b"))
    assert bake(kiln, place).reason("app") == "argument FLAVOUR changed"
    assert kiln.config("app:latest")["config"]["Labels"]["flavour"] == "b"


@pytest.mark.parametrize("header", ["ETag", "Last-Modified", ""])
def test_add_of_a_url(kiln, tmp_path, header):
    """A server's word for its file decides; without one only fetching it tells."""

    def answers(version, body):
        return {"/file.txt": (200, {header: version} if header else {}, body)}

    with Http(answers('"one"', b"1")) as server:
        place = tree(
            tmp_path / "url",
            {
                "kiln.yml": "images: [{id: app}]\n",
                "Dockerfile": f"FROM base\nADD http://{server.host}/file.txt /file\n",
            },
        )
        bake(kiln, place)
        again = bake(kiln, place)
        if header:
            assert again.results == {"app": "skipped"} and server.asked[-1] == "HEAD /file.txt"
        else:
            assert again.reason("app").endswith("may have changed: only fetching it tells")
            assert again.ran == 0
        server.answers = answers('"two"', b"2")
        done = bake(kiln, place)
        assert done.results == {"app": "built"}
        if header:
            assert done.reason("app") == f"`http://{server.host}/file.txt` changed"
        assert kiln.layers("app:latest")[-1]["file"].data == b"2"


def test_names_that_are_no_text(kiln, tmp_path):
    """A file whose name is not UTF-8, one with a line break, one with a control character: built, named in words."""
    place = tree(tmp_path / "odd", {"kiln.yml": "images: [{id: app}]\n", "Dockerfile": "FROM base\nCOPY odd /odd\n"})
    (place / "odd").mkdir()
    names = [b"\xff", b"line\nbreak", b"bell\x07<&>", "ümlaut".encode()]
    for name in names:
        (place / "odd" / os.fsdecode(name)).write_text("1")
    assert bake(kiln, place).results == {"app": "built"}
    for name in names:
        (place / "odd" / os.fsdecode(name)).write_text("2")
        assert planned(kiln, place)["app"]["reason"].endswith(" changed"), "the name is part of it"
        (place / "odd" / os.fsdecode(name)).write_text("1")
    (place / "odd" / os.fsdecode(names[2])).write_text("2")
    ElementTree.fromstring(kiln.run("plan", "--format", "svg", place).out)
    assert r"`odd/bell\x07<&>` changed" in kiln.run("plan", place).out
    assert bake(kiln, place).results == {"app": "built"}


def test_every_platform_has_files(kiln, tmp_path):
    files = {
        "kiln.yml": "images: [{id: app, platforms: [linux/amd64, linux/arm64]}]\n",
        "Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY bin-$TARGETARCH /bin\n", "bin-amd64": "1", "bin-arm64": "1",
    }  # fmt: skip
    place = tree(tmp_path / "platforms", files)
    bake(kiln, place)
    (place / "bin-arm64").write_text("2")
    assert bake(kiln, place).reason("app") == "`bin-arm64` changed"
