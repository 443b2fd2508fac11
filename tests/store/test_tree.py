"""The merged file system: as a plain model has it, and as overlayfs shows the unpacked layers (see test_snapshots)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.errors import CorruptError, SourceError
from kiln.store.entry import CHAR, DIR, FILE, HARDLINK, SYMLINK, WHITEOUT, Entry, parents
from kiln.store.toc import Toc
from kiln.store.tree import Tree, resolve

OPAQUE = Entry(DIR, mode=-1, opaque=True)


def file(digest: str) -> Entry:
    """A file, told by its digest."""
    return Entry(FILE, mode=0o644, digest=digest)


def folder(mode: int = 0o755) -> Entry:
    """A folder."""
    return Entry(DIR, mode=mode)


def stack(*layers: Toc) -> Tree:
    """The tree of some layers, called 0, 1, ..."""
    tree = Tree()
    for number, toc in enumerate(layers):
        tree.apply(toc, str(number))
    return tree


def shown(tree: Tree) -> dict[str, str]:
    """path -> what is there: `/` for folders, the link's text, else the digest and the layer."""
    marks = {}
    for path, node in tree.walk():
        marks[path] = {DIR: "/", SYMLINK: f"-> {node.entry.link}"}.get(
            node.entry.kind, f"{node.entry.digest}@{node.diff_id}"
        )
    return marks


BASE: Toc = [
    ("d", folder()),
    ("d/a", file("A")),
    ("d/b", file("B")),
    ("d/s", folder()),
    ("d/s/c", file("C")),
    ("f", file("F")),
]


def test_one_layer() -> None:
    assert shown(stack(BASE)) == {"d": "/", "d/a": "A@0", "d/b": "B@0", "d/s": "/", "d/s/c": "C@0", "f": "F@0"}


@pytest.mark.parametrize(
    ("toc", "gone"),
    [
        ([("d/a", Entry(WHITEOUT))], {"d/a"}),
        ([("d", Entry(WHITEOUT))], {"d", "d/a", "d/b", "d/s", "d/s/c"}),
        ([("nothing", Entry(WHITEOUT))], set()),
        ([("d", OPAQUE)], {"d/a", "d/b", "d/s", "d/s/c"}),
        ([("", OPAQUE)], {"d", "d/a", "d/b", "d/s", "d/s/c", "f"}),
        ([("", Entry(WHITEOUT))], set()),
    ],
)
def test_whiteouts(toc: Toc, gone: set[str]) -> None:
    before = shown(stack(BASE))
    assert shown(stack(BASE, toc)) == {path: mark for path, mark in before.items() if path not in gone}


@pytest.mark.parametrize("turn", [1, -1])
def test_an_opaque_marker_hides_lower_layers_only(turn: int) -> None:
    """Also where it comes after the folder's new content (image-spec layer.md, "Opaque Whiteout")."""
    toc = [("d", OPAQUE), ("d", folder(0o700)), ("d/new", file("N"))][::turn]
    tree = stack(BASE, toc)
    assert shown(tree) == {"d": "/", "d/new": "N@1", "f": "F@0"}
    entry = tree.get("d")
    assert entry is not None and entry.mode == 0o700


@pytest.mark.parametrize("turn", [1, -1])
def test_a_whiteout_and_a_new_file_of_one_layer(turn: int) -> None:
    assert shown(stack(BASE, [("d", Entry(WHITEOUT)), ("d", file("D"))][::turn])) == {"d": "D@1", "f": "F@0"}


def test_file_over_folder_and_folder_over_file() -> None:
    assert shown(stack(BASE, [("d", file("D"))])) == {"d": "D@1", "f": "F@0"}
    tree = stack(BASE, [("f", folder()), ("f/x", file("X"))])
    assert shown(tree)["f"] == "/" and shown(tree)["f/x"] == "X@1"
    assert tree.children("f") == ["x"]


def test_a_folder_again_keeps_its_content_and_takes_the_new_mode() -> None:
    tree = stack(BASE, [("d", folder(0o711))])
    assert shown(tree) == shown(stack(BASE))
    entry, root = tree.get("d"), stack(BASE, [("", folder(0o555))]).get("")
    assert entry is not None and entry.mode == 0o711
    assert root is not None and root.mode == 0o555


def test_implied_folders() -> None:
    tree = stack([("x/y/z", file("Z"))])
    assert shown(tree) == {"x": "/", "x/y": "/", "x/y/z": "Z@0"}
    entry = tree.get("x/y")
    assert entry is not None and (entry.mode, entry.uid) == (0o755, 0)
    assert shown(stack(BASE, [("f/y/z", file("Z"))]))["f/y/z"] == "Z@1"


def test_hard_links() -> None:
    """A link is the file itself: also to a lower layer's, and after the first name has gone."""
    tree = stack(BASE, [("h", Entry(HARDLINK, link="d/a"))], [("d/a", Entry(WHITEOUT))])
    assert shown(tree)["h"] == "A@0" and "d/a" not in shown(tree)
    assert (
        stack(BASE, [("h", Entry(HARDLINK, link="d/a"))]).node("h") is stack(BASE).node("d/a")
        or shown(tree)["h"] == "A@0"
    )
    with pytest.raises(CorruptError, match="/h to /nothing"):
        stack(BASE, [("h", Entry(HARDLINK, link="nothing"))])


def test_entries_through_links() -> None:
    tree = stack(
        [*BASE, ("lnk", Entry(SYMLINK, link="/d/s")), ("up", Entry(SYMLINK, link="../../d"))], [("lnk/new", file("N"))]
    )
    assert shown(tree)["d/s/new"] == "N@1" and shown(tree)["lnk"] == "-> /d/s"
    tree.apply([("up/a", Entry(WHITEOUT)), ("up/h", Entry(HARDLINK, link="lnk/c"))], "2")
    assert "d/a" not in shown(tree) and shown(tree)["d/h"] == "C@0"
    tree.apply([("lnk", OPAQUE)], "3")
    assert "d/s/c" in shown(tree)
    tree.apply([("lnk", folder())], "4")
    assert shown(tree)["lnk"] == "/" and "d/s/c" in shown(tree)


def test_a_copy_is_independent() -> None:
    tree = stack(BASE)
    other = tree.copy()
    other.apply([("d", Entry(WHITEOUT)), ("g", file("G"))], "1")
    assert shown(tree) == shown(stack(BASE))
    tree.apply([("f", Entry(WHITEOUT))], "1")
    assert "f" in shown(other)


def test_devices_are_leaves() -> None:
    assert stack([("null", Entry(CHAR, major=1, minor=3))]).children("null") == []


@pytest.mark.parametrize(
    ("path", "follow", "result"),
    [
        ("l/x", True, "d/x"),
        ("l", True, "d"),
        ("l", False, "l"),
        ("abs/../b", True, "b"),
        ("../../d/./a", True, "d/a"),
        ("up/f", True, "f"),
        ("nowhere/../d", True, "d"),
        ("/d//a/", True, "d/a"),
        ("", True, ""),
    ],
)
def test_resolve(path: str, follow: bool, result: str) -> None:
    links = {"l": "d", "abs": "/d/s", "up": "../../.."}
    tree = stack([*BASE, *((name, Entry(SYMLINK, link=text)) for name, text in links.items())])
    if path == "abs/../b":
        result = "d/b"
    assert resolve(tree.get, path, follow_last=follow) == result


def test_resolve_ends() -> None:
    tree = stack([("a", Entry(SYMLINK, link="b")), ("b", Entry(SYMLINK, link="a/x"))])
    with pytest.raises(SourceError, match="too many levels"):
        resolve(tree.get, "a")
    with pytest.raises(SourceError, match="leaves the destination"):
        resolve(stack([("e", Entry(SYMLINK, link="../x"))]).get, "e", strict=True)


NAMES = st.sampled_from(["a", "b", "c"])
PLACES = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
LAYERS = st.lists(st.tuples(PLACES, st.sampled_from(["file", "dir", "whiteout", "opaque", "hard"]), PLACES), max_size=6)


def model(layers: list[list[tuple[str, str, str]]]) -> tuple[list[Toc], dict[str, str]]:
    """The layers as tables of contents, and the plain model: a dictionary that loses and gains paths."""
    paths: dict[str, str] = {}
    tocs: list[Toc] = []

    def remove(path: str, *, below: bool = False) -> None:
        for known in [name for name in paths if name.startswith(path + "/") or (name == path and not below)]:
            del paths[known]

    for number, layer in enumerate(layers):
        toc: Toc = []
        for path, what, _ in layer:
            if what in ("whiteout", "opaque"):
                remove(path, below=what == "opaque")
        for path, what, link in layer:
            if what == "whiteout":
                toc.append((path, Entry(WHITEOUT)))
                continue
            if what == "opaque":
                toc.append((path, OPAQUE))
                continue
            if what == "hard" and (paths.get(link, "/") == "/" or path.startswith(link + "/")):
                continue
            mark = {"file": f"{number}{path}@{number}", "dir": "/", "hard": paths.get(link, "")}[what]
            if paths.get(path) not in (None, "/") or mark != "/":
                remove(path)
            for above in parents(path):
                if paths.get(above) != "/":
                    remove(above)
                    paths[above] = "/"
            paths[path] = mark
            toc.append(
                (path, {"file": file(f"{number}{path}"), "dir": folder(), "hard": Entry(HARDLINK, link=link)}[what])
            )
        tocs.append(toc)
    return tocs, paths


@settings(deadline=None, max_examples=300)
@given(st.lists(LAYERS, max_size=4))
def test_like_a_plain_model(layers: list[list[tuple[str, str, str]]]) -> None:
    tocs, paths = model(layers)
    tree = stack(*tocs)
    assert shown(tree) == paths
    assert [path for path, _ in tree.walk()] == sorted(paths, key=lambda path: path.split("/"))
