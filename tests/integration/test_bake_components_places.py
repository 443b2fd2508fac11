"""Component trees where overlays are hard or impossible: odd places, copies, plain users; the images are always the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.componenttree import ALL, INTO, Tree, bake, fates, listing
from tests.integration.test_build_rootless import rootless, user  # noqa: F401
from tests.services import Kiln, processes_with, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "tree")


def hooked(tree):
    pre = f"{INTO}cp -arfT ../../lib ../dependency/lib2; rm ../gone; mkdir -p ../generated; ls -1 ../dependency > ../generated/list\n"
    tree.component("lib", files={"f": "lib", "g/h": "h"})
    tree.component("a", ALL, needs=["lib"], pre=pre, post=f"{INTO}rm -r ../sub; date +%Y > ../generated/post\n",
                   files={"gone": "", "kept": "", "sub/x": ""})  # fmt: skip
    tree.component("b", ALL, needs=["a"])
    tree.component("c", "FROM a\nCOPY . /c\n")
    return tree


def seen_of(kiln):
    return {name: kiln.digest(f"{name}:latest") for name in ("a", "b", "c")}


@pytest.mark.parametrize("place", ["we ird:a,b\\c ü/t:r,e", "tree"])
def test_places_with_separators_in_their_names(place, new_kiln, tmp_path):
    expected = new_kiln("plain")
    tree = hooked(Tree(tmp_path / "expected"))
    bake(expected, tree)
    kiln, other = new_kiln("ho:me,x\\y z"), hooked(Tree(tmp_path / place))
    before = listing(other.root)
    assert "warning" not in bake(kiln, other).err
    assert seen_of(kiln) == seen_of(expected) and listing(other.root) == before


def test_a_home_inside_of_the_tree(new_kiln, kiln, tmp_path):
    """An overlay cannot hold its own folder for changes: hooks run in copies, and the images are the same."""
    expected = hooked(Tree(tmp_path / "expected"))
    bake(kiln, expected)
    tree = hooked(Tree(tmp_path / "tree"))
    before = listing(tree.root)
    shutil.copytree(kiln.home, tree.root / "kiln-home", symlinks=True)
    inside = Kiln(tree.root / "kiln-home", kiln.env)
    ended = bake(inside, tree, "--no-cache")
    assert "each hook runs in a copy of the tree" in ended.err
    assert seen_of(inside) == seen_of(kiln) and inside.scratch() == []
    after = listing(tree.root, without="kiln-home")
    assert after == {path: fact for path, fact in before.items() if path != "."}
    assert set(fates(bake(inside, tree).err).values()) == {"skipped"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes a right away from root")
def test_without_any_namespaces(kiln, new_kiln, tmp_path):
    """As in a container without rights: hooks run in copies, and what they leave running ends with them."""
    tree = hooked(Tree(tmp_path / "tree"))
    tree.component(
        "d", ALL, pre="sleep 98765437 & echo on\n", files={"dependency/lib/stale": "", "f": ""}, needs=["lib"]
    )
    before = listing(tree.root)
    bake(kiln, tree)
    home = new_kiln("bare").home
    bare = Kiln(home, kiln.env, prefix=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"))
    ended = bake(bare, tree, seconds=30)
    assert "cannot make namespaces: Operation not permitted" in ended.err
    assert seen_of(bare) == seen_of(kiln) and bare.digest("d:latest") == kiln.digest("d:latest")
    assert listing(tree.root) == before and processes_with("98765437") == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes a right away from root")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_without_any_namespaces_ended(end, kiln, tree):
    word = f"98765{end:d}"
    tree.component("a", ALL, pre=f"sleep {word} & sleep {word}\n", files={"f": ""})
    bare = Kiln(kiln.home, kiln.env, prefix=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"))
    process = bare.start("bake", tree.root)
    wait_for(
        lambda: len([pid for pid in processes_with(word) if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]) == 2,
        20,
    )
    os.kill(process.pid, end)
    process.communicate(timeout=20)
    wait_for(lambda: not processes_with(word), 5)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts the tree read-only")
def test_a_tree_that_cannot_be_written(kiln, tmp_path):
    tree = hooked(Tree(tmp_path / "tree"))
    target = Tree(tmp_path / "readonly")
    target.root.mkdir()
    script = f'mount --bind {tree.root} {target.root} && mount -o remount,ro,bind {target.root} && exec "$@"'
    guarded = Kiln(kiln.home, kiln.env, prefix=("unshare", "-m", "sh", "-c", script, "sh"))
    assert set(fates(bake(guarded, target).err).values()) == {"built"}


@pytest.fixture
def open_tree(open_folder, user):  # noqa: F811
    """A tree that belongs to the plain user of the test."""
    tree = hooked(Tree(open_folder / "tree"))
    tree.component("d", ALL, needs=["lib"], pre=f"{INTO}id -u > ../id; rm ../closed/f; mv ../closed ../opened\n",
                   files={"closed/f": "", "closed/g": "", "dependency/lib/stale": ""})  # fmt: skip
    subprocess.run(["chown", "-R", f"{user}:", str(tree.root)], check=True)
    return tree


@pytest.mark.root
def test_a_plain_user(rootless, open_tree, kiln):  # noqa: F811
    """What root makes, but for what the hooks say about the user."""
    before = listing(open_tree.root)
    ended = bake(rootless, open_tree, seconds=60)
    assert "warning" not in ended.err and listing(open_tree.root) == before and rootless.scratch() == []
    bake(kiln, open_tree)
    assert seen_of(rootless) == seen_of(kiln)
    names = {path for layer in rootless.layers("d:latest") for path, member in layer.items() if not member.isdir()}
    assert "dependency/lib/stale" not in names and "opened/g" in names and "closed/g" not in names
    assert set(fates(bake(rootless, open_tree).err).values()) == {"skipped"}


@pytest.mark.root
def test_a_plain_user_whose_home_is_in_the_tree(rootless, open_tree, user):  # noqa: F811
    bake(rootless, open_tree)
    place = open_tree.root / "home"
    place.mkdir()
    subprocess.run(["chown", f"{user}:", str(place)], check=True)
    inside = Kiln(place, rootless.env, prefix=rootless.prefix, python=rootless.python)
    before = listing(open_tree.root, without="home")
    ended = bake(inside, open_tree, seconds=60)
    assert "in a copy of the tree" in ended.err and listing(open_tree.root, without="home") == before
    assert {name: inside.digest(f"{name}:latest") for name in "abd"} == {
        name: rootless.digest(f"{name}:latest") for name in "abd"
    }


@pytest.mark.root
def test_a_plain_user_killed_in_a_hook(rootless, open_tree, user):  # noqa: F811
    """What a hook closed with its last breath is removed all the same."""
    open_tree.component(
        "d", ALL, pre=f"{INTO}mkdir -p ../x/y; touch ../x/y/z; chmod 0 ../x/y; sleep 98765499\n", files={"f": ""}
    )
    before = listing(open_tree.root)
    process = rootless.start("bake", open_tree.root)
    wait_for(lambda: any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in processes_with("98765499")), 20)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    wait_for(lambda: not processes_with("98765499"), 5)
    assert listing(open_tree.root) == before
    open_tree.component("d", ALL, pre="true\n")
    bake(rootless, open_tree)
    assert rootless.scratch() == []
