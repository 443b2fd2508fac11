"""Files put together without copying: overlays as the kernel sees them, mounts, single files."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.baking import hookcopy
from kiln.engine.fileindex import FileIndex
from kiln.engine.files import FolderFiles
from kiln.engine.views import Mounted, OneFile, Overlaid, is_file
from kiln.store.entry import DIR, FILE


def files_of(folder: Path) -> FolderFiles:
    return FolderFiles(folder, FileIndex(None, folder))


def everything(files, path=""):
    """Path -> (kind, mode, content or target), and each path found by `children` is found by `get`."""
    found = {}
    for name in files.children(path):
        inner = f"{path}/{name}" if path else name
        entry = files.get(inner)
        found[inner] = (
            entry.kind,
            entry.mode,
            b"".join(files.chunks(inner, entry)) if entry.kind == FILE else entry.link,
        )
        if entry.kind == DIR:
            found |= everything(files, inner)
    return found


def fill(folder: Path, content: dict[str, str]) -> Path:
    for path, text in content.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    folder.mkdir(exist_ok=True)
    return folder


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mknod(path, stat.S_IFCHR, 0)
    except OSError as bad:
        pytest.skip(f"whiteouts cannot be made here: {bad}")


def opaque(path: Path) -> None:
    os.setxattr(path, "user.overlay.opaque", b"y")


def test_overlaid(tmp_path):
    lower = fill(
        tmp_path / "lower",
        {"gone": "1", "kept": "2", "changed": "3", "folder/a": "4", "closed/a": "5", "was/folder": "6", "file": "7"},
    )
    upper = fill(
        tmp_path / "upper", {"changed": "new", "folder/b": "8", "closed/b": "9", "was": "a file", "file/inner": "x"}
    )
    whiteout(upper / "gone")
    whiteout(upper / "folder/never")
    opaque(upper / "closed")
    view = Overlaid(files_of(upper), files_of(lower))
    found = {path: fact[2].decode() for path, fact in everything(view).items() if fact[0] == FILE}
    assert found == {
        "kept": "2",
        "changed": "new",
        "folder/a": "4",
        "folder/b": "8",
        "closed/b": "9",
        "was": "a file",
        "file/inner": "x",
    }
    assert view.get("gone") is None and view.get("closed/a") is None and view.get("was/folder") is None
    assert view.get("closed/a/deeper") is None and view.get("nothing") is None
    entry = view.get("folder/a")
    assert view.digest("folder/a", entry) == view.known_digest("folder/a", entry) != ""
    view.learned("kept", "ab" * 32)
    assert view.known_digest("kept", view.get("kept")) == "ab" * 32


def test_a_layer_that_hides_everything(tmp_path):
    lower, upper = fill(tmp_path / "lower", {"a": "1"}), fill(tmp_path / "upper", {"b": "2"})
    opaque(upper)
    assert list(everything(Overlaid(files_of(upper), files_of(lower)))) == ["b"]


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "folder", "link", "remove", "mode", "move"]), PATHS, PATHS), max_size=8
)


def act(root: Path, step: tuple[str, str, str]) -> None:
    """One change that a hook may make; what cannot be done is left."""
    kind, path, other = step
    place = root / path
    try:
        if kind == "write":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{path} {other}")
        elif kind == "folder":
            place.mkdir(parents=True)
        elif kind == "link":
            place.symlink_to(other)
        elif kind == "remove":
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        elif kind == "mode" and not place.is_symlink():
            place.chmod(0o700 if place.is_dir() else 0o755)
        elif kind == "move":
            place.rename(root / other)
    except OSError:
        return


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=3))
def test_what_hooks_change_is_seen_through_layers(hooks):
    """The tree, and each hook's changes as a layer over it, is the tree with all of the changes made."""
    with TemporaryDirectory() as top:
        root, layers = Path(top, "root"), []
        root.mkdir()
        for step in hooks[0]:
            act(root, step)
        for number, steps in enumerate(hooks[1:]):
            copy, upper = Path(top, f"copy{number}"), Path(top, f"upper{number}")
            upper.mkdir()
            before = hookcopy.make_copy(root, layers, copy, without=Path(top, "none"))
            for step in steps:
                act(copy, step)
            expected = everything(files_of(copy))
            hookcopy.keep_changes(copy, before, upper)
            layers.insert(0, upper)
            view = files_of(root)
            for layer in reversed(layers):
                view = Overlaid(files_of(layer), view)
            assert everything(view) == expected


def test_mounted(tmp_path):
    base = fill(tmp_path / "base", {"f": "1", "dependency/own": "2", "dependency/lib/stale": "3", "file": "4"})
    lib, deep = fill(tmp_path / "lib", {"x": "5"}), fill(tmp_path / "deep", {"y": "6"})
    view = Mounted(
        files_of(base), {"dependency/lib": files_of(lib), "new/way/deep": files_of(deep), "file/below": files_of(deep)}
    )
    found = {path: fact[2].decode() for path, fact in everything(view).items() if fact[0] == FILE}
    assert found == {
        "f": "1",
        "dependency/own": "2",
        "dependency/lib/x": "5",
        "new/way/deep/y": "6",
        "file/below/y": "6",
    }
    assert view.get("dependency/lib/stale") is None and view.get("new").kind == DIR
    entry = view.get("dependency/lib/x")
    assert view.digest("dependency/lib/x", entry) == view.known_digest("dependency/lib/x", entry)
    assert view.inode("f", view.get("f")) is None


def test_one_file(tmp_path):
    fill(tmp_path, {"f": "1"})
    view = OneFile(files_of(tmp_path), "f")
    entry = view.get("")
    assert b"".join(view.chunks("", entry)) == b"1" and view.get("x") is None and view.children("") == []
    assert is_file(tmp_path / "f") and not is_file(tmp_path) and not is_file(tmp_path / "nothing")
