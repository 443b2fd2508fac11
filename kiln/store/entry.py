"""Entries: what a layer says about one path. Paths are relative, without leading slash; the root is the empty string."""

from __future__ import annotations

import posixpath

import msgspec

FILE, DIR, SYMLINK, HARDLINK = "file", "dir", "symlink", "hardlink"
CHAR, BLOCK, FIFO, WHITEOUT = "char", "block", "fifo", "whiteout"

WHITEOUT_PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """One path of a layer.

    `mode` are the permission bits with setuid, setgid and sticky; `size` is bytes of content; `mtime` is seconds since
    the epoch; `link` is a symlink's text or the path a hard link shares its content with; `digest` is the sha256 of a
    file's content (64 hex digits, empty if not known); `offset` is where the content begins in the uncompressed tar;
    `opaque` marks a directory that hides everything below it in lower layers; `sparse` are (offset, length) pieces of
    a sparse member of a foreign tar.
    """

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: str = ""
    digest: str = ""
    offset: int = -1
    major: int = 0
    minor: int = 0
    opaque: bool = False
    xattrs: dict[str, bytes] | None = None
    sparse: tuple[tuple[int, int], ...] | None = None


def clean(path: str) -> str:
    """A path as entries have it: `..` stays inside the root, no leading slash."""
    if path and path[0] not in "/." and "//" not in path and "/." not in path:
        return path.removesuffix("/")  # as nearly all are; the long way takes ten times as long
    return posixpath.normpath("/" + path).lstrip("/")


def parent(path: str) -> str:
    """The folder of a path; empty for what lies in the root."""
    return path.rpartition("/")[0]


def parents(path: str) -> list[str]:
    """All folders above a path, outermost first, without the root."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]


def copy_of(entry: Entry, **changes: object) -> Entry:
    """The entry with other fields."""
    return msgspec.structs.replace(entry, **changes)
