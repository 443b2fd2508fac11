"""Snapshots: layers unpacked as overlayfs wants them, and shown by overlayfs as the merged tree has them."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.errors import StoreError
from kiln.oci import media
from kiln.oci.digest import chain_id, sha256
from kiln.oci.image import Descriptor
from kiln.store.entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, OPAQUE_NAME, SYMLINK, WHITEOUT, Entry
from kiln.store.snapshots import Snapshots
from kiln.store.store import Store
from kiln.store.unpack import Unpacker

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="unpacking owners and devices needs root")]
TYPES = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
Members = list[tuple[str, str, str]]


def layer(store: Store, members: Members) -> tuple[str, Descriptor]:
    """A layer of (name, what, content or link) as another tool writes it: whiteouts by their names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.uid, info.gid = TYPES[what], 1234, 11, 22
            info.mode = 0o751 if what == "dir" else 0o640
            info.linkname = text if what in ("link", "hard") else ""
            info.size = len(text) if what == "file" else 0
            tar.addfile(info, io.BytesIO(text.encode()))
    data = out.getvalue()
    return sha256(data), Descriptor(media.OCI_LAYER, store.blobs.put(data), len(data))


def unpack(store: Store, *layers: Members) -> tuple[list[Path], tuple[str, ...], tuple[Descriptor, ...]]:
    """(snapshots, diffIDs, descriptors)."""
    made = [layer(store, members) for members in layers]
    diff_ids, descriptors = tuple(pair[0] for pair in made), tuple(pair[1] for pair in made)
    return (
        Snapshots(store.root, store.layers, store.scratch, "trusted").lowers(diff_ids, descriptors),
        diff_ids,
        descriptors,
    )


BASE: Members = [
    ("d", "dir", ""),
    ("d/a", "file", "A"),
    ("d/s", "dir", ""),
    ("d/s/c", "file", "C"),
    ("f", "file", "F"),
    ("l", "link", "d/s"),
]


def test_unpacked(store: Store) -> None:
    (fs,), diff_ids, _ = unpack(store, [*BASE, ("h", "hard", "d/a")])
    info = (fs / "d").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o751, 11, 22, 1234)
    info = (fs / "d/a").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime, info.st_nlink) == (
        0o640,
        11,
        22,
        1234,
        2,
    )
    assert (fs / "h").samefile(fs / "d/a") and (fs / "h").read_text() == "A"
    assert os.readlink(fs / "l") == "d/s" and (fs / "l").lstat().st_uid == 11
    snapshots = Snapshots(store.root, store.layers, store.scratch, "trusted")
    assert snapshots.path(chain_id(diff_ids)) / "fs" == fs and snapshots.has(chain_id(diff_ids))


def test_whiteouts_and_opaque_folders_as_overlayfs_wants_them(store: Store) -> None:
    (_, fs), _, _ = unpack(
        store, BASE, [("d", "dir", ""), ("d/.wh.a", "file", ""), ("d/s", "dir", ""), (f"d/s/{OPAQUE_NAME}", "file", "")]
    )
    info = (fs / "d/a").lstat()
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    assert os.getxattr(fs / "d/s", "trusted.overlay.opaque") == b"y"
    assert not (fs / "d/s" / OPAQUE_NAME).exists()


def test_a_stale_snapshot_is_made_again(store: Store) -> None:
    (fs,), diff_ids, descriptors = unpack(store, BASE)
    (fs / "left").write_text("from before the crash")
    (fs.parent / "boot").write_text("another boot")
    snapshots = Snapshots(store.root, store.layers, store.scratch, "trusted")
    assert not snapshots.has(chain_id(diff_ids))
    assert snapshots.lowers(diff_ids, descriptors) == [fs]
    assert not (fs / "left").exists() and (fs / "d/a").exists()


def test_adopt(store: Store, tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "x").write_text("x")
    snapshots = Snapshots(store.root, store.layers, store.scratch, "trusted")
    (store.root / "snapshots").mkdir(exist_ok=True)
    snapshots.adopt(tmp_path / "upper", "sha256:" + "ab" * 32)
    assert snapshots.has("sha256:" + "ab" * 32)
    assert (snapshots.path("sha256:" + "ab" * 32) / "fs" / "x").read_text() == "x"


def test_hard_link_into_a_lower_layer_is_a_copy(store: Store) -> None:
    (_, fs), _, _ = unpack(store, BASE, [("h", "hard", "d/a")])
    assert (fs / "h").read_text() == "A" and not (fs / "d").exists()


def test_folders_that_a_layer_leaves_out(store: Store) -> None:
    """They are as in the layer below; overlayfs shows the topmost folder's mode and owner."""
    (_, fs), _, _ = unpack(store, BASE, [("d/new", "file", "N"), ("q/w/e", "file", "E")])
    assert ((fs / "d").stat().st_mode & 0o7777, (fs / "d").stat().st_uid) == (0o751, 11)
    assert ((fs / "q/w").stat().st_mode & 0o7777, (fs / "q/w").stat().st_uid) == (0o755, 0)


def test_entries_through_links_of_lower_layers(store: Store) -> None:
    (_, fs), _, _ = unpack(store, BASE, [("l/new", "file", "N")])
    assert (fs / "d/s/new").read_text() == "N" and not os.path.lexists(fs / "l")


def test_opaque_marker_without_its_folder(store: Store) -> None:
    (_, fs), diff_ids, descriptors = unpack(store, BASE, [(f"d/{OPAQUE_NAME}", "file", "")])
    entry = store.layers.tree(diff_ids, descriptors).get("d")
    assert entry is not None and entry.mode == 0o751
    assert ((fs / "d").stat().st_mode & 0o7777, (fs / "d").stat().st_uid) == (0o751, 11)


@contextlib.contextmanager
def mounted(lowers: list[Path], place: Path) -> Iterator[Path]:
    """The overlay of some snapshots, base first."""
    place.mkdir()
    lower = ":".join(str(path) for path in [*lowers[::-1], place.parent / "empty"])
    (place.parent / "empty").mkdir(exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", place], check=False
    ).returncode:
        pytest.skip("overlayfs cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def on_disk(root: Path) -> dict[str, str]:
    """path -> `/` or content."""
    return {str(path.relative_to(root)): "/" if path.is_dir() else path.read_text() for path in root.rglob("*")}


def in_tree(store: Store, diff_ids: tuple[str, ...], descriptors: tuple[Descriptor, ...]) -> dict[str, str]:
    """The same by the merged tree."""
    return {
        path: "/" if node.entry.kind == DIR else store.layers.small_file(node.diff_id, node.entry).decode()
        for path, node in store.layers.tree(diff_ids, descriptors).walk()
    }


PLACES = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)
LAYERS = st.dictionaries(PLACES, st.sampled_from(["file", "dir", "whiteout", "opaque"]), max_size=4)


def members_of(layer_: dict[str, str], number: int, below: set[str]) -> Members:
    """A layer as differs write them: folders first, no path below a file, no whiteout beside a new entry of its name or
    of something that is not there (overlayfs lists such a name, with containerd's unpacker too)."""
    found: Members = []
    for path, what in sorted(layer_.items()):
        above = [layer_.get(path[:size]) for size in range(1, len(path), 2)]
        if any(kind in ("file", "whiteout") for kind in above):
            continue
        if what == "whiteout":
            if path in below and "opaque" not in above:
                found.append((path[:-1] + ".wh." + path[-1], "file", ""))
        elif what == "opaque":
            found += [(path, "dir", ""), (f"{path}/{OPAQUE_NAME}", "file", "")]
        else:
            found.append((path, what, f"{path} of {number}" if what == "file" else ""))
    return found


@settings(deadline=None, max_examples=20)
@given(st.lists(LAYERS, min_size=1, max_size=3))
def test_overlayfs_shows_what_the_tree_says(layers: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store") as store:
        done: list[Members] = []
        for number, one in enumerate(layers):
            _, diff_ids, descriptors = unpack(store, *done)
            done.append(members_of(one, number, set(in_tree(store, diff_ids, descriptors))))
        lowers, diff_ids, descriptors = unpack(store, *done)
        with mounted(lowers, Path(folder) / "m") as place:
            assert on_disk(place) == in_tree(store, diff_ids, descriptors)


def test_whiteout_and_new_folder_of_one_name(store: Store, tmp_path: Path) -> None:
    """The whiteout hides the lower layers' folder, so the new one begins empty."""
    lowers, _, _ = unpack(store, BASE, [(".wh.d", "file", ""), ("d", "dir", ""), ("d/x", "file", "X")])
    with mounted(lowers, tmp_path / "m") as place:
        assert on_disk(place / "d") == {"x": "X"}


def test_nothing_is_written_through_a_planted_link(tmp_path: Path) -> None:
    """A link in the target where an entry needs a folder: the entry fails, nothing outside changes."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "file").write_text("mine")
    (root / "evil").symlink_to(outside)
    (root / "evilfile").symlink_to(outside / "file")
    (root / "ok").mkdir()
    with Unpacker(root, overlay="trusted") as unpacker:
        for entry in (Entry(FILE, mode=0o644), Entry(DIR), Entry(SYMLINK, link="x"), Entry(FIFO), Entry(WHITEOUT)):
            with pytest.raises(StoreError, match="/evil/x cannot be unpacked"):
                unpacker.add("evil/x", entry, iter(()))
        with pytest.raises(StoreError):
            unpacker.add("h", Entry(HARDLINK, link="evil/file"), iter(()))
        unpacker.add("evilfile", Entry(FILE, mode=0o600, size=1), iter([b"x"]))
        unpacker.add("hardlink", Entry(HARDLINK, link="evil"), iter(()))
        unpacker.add("evil", Entry(DIR, mode=0o700, mtime=5), iter(()))
        unpacker.add("evil/x", Entry(FILE, mode=0o600, size=1), iter([b"y"]))
        unpacker.finish()
    assert [path.name for path in outside.iterdir()] == ["file"] and (outside / "file").read_text() == "mine"
    assert (outside / "file").stat().st_nlink == 1
    assert not (root / "evil").is_symlink() and (root / "evil/x").read_text() == "y"
    assert not (root / "evilfile").is_symlink() and (root / "hardlink").is_symlink()


def test_devices(tmp_path: Path) -> None:
    with Unpacker(tmp_path) as unpacker:
        unpacker.add("null", Entry(CHAR, mode=0o666, uid=1, gid=2, major=1, minor=3, mtime=9), iter(()))
        unpacker.add("disk", Entry(BLOCK, mode=0o600, major=8, minor=1), iter(()))
        unpacker.add("pipe", Entry(FIFO, mode=0o640), iter(()))
        unpacker.add("gone", Entry(WHITEOUT), iter(()))
    info = (tmp_path / "null").stat()
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o666, 1, 2, 9)
    assert stat.S_ISBLK((tmp_path / "disk").stat().st_mode) and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert not (tmp_path / "gone").exists()


def test_replacing(tmp_path: Path) -> None:
    with Unpacker(tmp_path) as unpacker:
        unpacker.add("d", Entry(DIR, mode=0o755, mtime=77), iter(()))
        unpacker.add("d/x", Entry(FILE, size=1), iter([b"x"]))
        unpacker.add("d", Entry(FILE, mode=0o4755, uid=5, size=2), iter([b"f", b"g"]))
        assert ((tmp_path / "d").read_bytes(), (tmp_path / "d").stat().st_mode & 0o7777) == (b"fg", 0o4755)
        unpacker.add("d", Entry(DIR, mode=0o1777, mtime=77), iter(()))
        unpacker.add("d/y", Entry(FILE, mode=0o644, size=0, xattrs={"user.k": b"v"}), iter(()))
        unpacker.finish()
    assert ((tmp_path / "d").stat().st_mtime, (tmp_path / "d").stat().st_mode & 0o7777) == (77, 0o1777)
    with contextlib.suppress(OSError):
        assert os.getxattr(tmp_path / "d/y", "user.k") == b"v"


def test_a_folder_that_comes_twice_has_its_last_time(tmp_path: Path) -> None:
    with Unpacker(tmp_path) as unpacker:
        unpacker.add("d", Entry(DIR, mode=0o755, mtime=1), iter(()))
        unpacker.add("d", Entry(DIR, mode=0o755, mtime=2), iter(()))
        unpacker.finish()
    assert (tmp_path / "d").stat().st_mtime == 2


def test_a_folder_that_became_a_file(tmp_path: Path) -> None:
    with Unpacker(tmp_path) as unpacker:
        unpacker.add("d", Entry(DIR, mode=0o755, mtime=1), iter(()))
        unpacker.add("d", Entry(FILE, mode=0o644, mtime=5), iter(()))
        unpacker.finish()
    assert (tmp_path / "d").stat().st_mtime == 5
