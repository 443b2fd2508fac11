"""Layers are applied as the image specification says."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from .flatten import Entry, Tree
from .tree import archive

Member = Mapping[str, Any]


def flattened(*layers: Sequence[Member]) -> dict[str, Entry]:
    """The files after all the layers."""
    tree = Tree()
    for members in layers:
        tree.apply(io.BytesIO(archive(members, "plain")))
    return tree.entries()


def test_a_whiteout_removes_what_is_below_it_only() -> None:
    """A whiteout counts for lower layers, in whatever order its own layer has its members."""
    lower = [{"name": "d/", "type": "dir"}, {"name": "d/a", "text": "a"}, {"name": "d/b", "text": "b"}]
    upper = [{"name": "d/a", "text": "new"}, {"name": "d/.wh.a"}, {"name": "d/.wh.b"}]
    assert sorted(flattened(lower, upper)) == ["d", "d/a"]


def test_an_opaque_folder_keeps_its_own_files() -> None:
    """What the layer itself puts there stays."""
    lower = [{"name": "d/", "type": "dir"}, {"name": "d/a", "text": "a"}, {"name": "d/s/b", "text": "b"}]
    upper = [{"name": "d/", "type": "dir", "mode": "0700"}, {"name": "d/new"}, {"name": "d/.wh..wh..opq"}]
    files = flattened(lower, upper)
    assert sorted(files) == ["d", "d/new"]
    assert files["d"].mode == 0o700


def test_kinds_replace_each_other() -> None:
    """A file takes the place of a folder and all in it; a folder takes the place of a symlink."""
    lower = [{"name": "d/a"}, {"name": "l", "type": "symlink", "link": "d"}]
    files = flattened(lower, [{"name": "d", "text": "file"}, {"name": "l/", "type": "dir"}])
    assert {path: entry.kind for path, entry in files.items()} == {"d": "f", "l": "d"}


def test_parents_that_are_symlinks_are_followed() -> None:
    """A member below a symlink of a lower layer lands where that leads, inside of the root."""
    lower = [{"name": "real/", "type": "dir"}, {"name": "l", "type": "symlink", "link": "/../real"}]
    assert sorted(flattened(lower, [{"name": "l/f"}])) == ["l", "real", "real/f"]


def test_hard_links_have_the_facts_of_their_file() -> None:
    """They share a group as long as two of them are left."""
    layer = [{"name": "a", "text": "x", "mode": "0600"}, {"name": "b", "type": "hardlink", "link": "a"}]
    files = flattened(layer)
    assert files["a"] == files["b"] == Entry("f", 0o600, 0, 0, 1, "=x", links="a")
    assert flattened(layer, [{"name": ".wh.a"}])["b"].links == ""


def test_an_empty_layer_changes_nothing() -> None:
    """Not one of no members, nor one of no bytes."""
    tree = Tree()
    tree.apply(io.BytesIO(b""))
    tree.apply(io.BytesIO(archive([], "plain")))
    assert tree.entries() == {}
