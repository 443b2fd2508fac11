"""COPY and ADD: selections -> changes of a tree."""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from kiln.engine.edit import Edit, Origin, Written
from kiln.engine.modes import Change
from kiln.engine.select import Item, Selection, taken
from kiln.engine.users import Owner
from kiln.errors import SourceError
from kiln.store import tarread
from kiln.store.ahead import Ahead
from kiln.store.blobs import disk_error
from kiln.store.compress import Inflater
from kiln.store.entry import DIR, FILE, HARDLINK, SYMLINK, Entry, copy_of, parent
from kiln.store.layers import tar_content
from kiln.store.tree import resolve

Beneath = Callable[[str], Written | None]


class Look(Struct, frozen=True):
    """What the copied files shall look like: owner (None: as at the source) and mode (None: as at the source)."""

    owner: Owner | None = None
    mode: Change | None = None
    symbolic: bool = False

    def of(self, entry: Entry, time: int) -> Entry:
        """The entry with owner and mode changed, and the time set."""
        uid, gid = self.owner or (entry.uid, entry.gid)
        mode = entry.mode if entry.kind != SYMLINK else 0o777
        if self.mode is not None and entry.kind != SYMLINK:
            mode = self.mode(entry.mode, entry.kind == DIR)
        return Entry(
            entry.kind, mode, uid, gid, entry.size, time, entry.link, entry.digest, -1, entry.major, entry.minor, False,
            entry.xattrs, entry.sparse,
        )  # fmt: skip

    @property
    def folder_mode(self) -> int:
        """The mode of folders that are made for the destination: an octal `--chmod` reaches them through a umask."""
        return 0o755 if self.mode is None or self.symbolic else self.mode(0o755, True) & 0o777 & ~0o022


def put_selection(edit: Edit, selection: Selection, destination: str, look: Look) -> None:
    """Copies one selection to `destination` (absolute; a slash at its end means a folder). Raises `SourceError`."""
    target = _target(edit, selection, destination, look)
    origin, links = _origin(selection, target), object()
    start = f"{target}/" if target else ""
    _put_item(edit, selection, selection.first, target, look, origin, links)
    for part in selection.parts:
        for item in taken(selection.files, part):
            if item.alone:
                edit.put(start + item.relative, Written(look.of(item.entry, edit.time), origin))
            else:
                _put_item(edit, selection, item, start + item.relative, look, origin, links)


def _origin(selection: Selection, target: str) -> Origin:
    path = selection.first.path
    if selection.root.kind != DIR:
        return Origin(selection.files, path, len(target))
    return Origin(selection.files, f"{path}/" if path else "", len(target) + 1 if target else 0)


def _target(edit: Edit, selection: Selection, destination: str, look: Look) -> str:
    """Where the selection's root goes; the folders above it are made."""
    folder, _, name = destination.rpartition("/")
    edit.mkdirs(edit.resolve(destination if name in ("", ".") else folder), look.owner, look.folder_mode)
    target = edit.resolve(destination)
    if selection.root.kind == DIR:
        if edit.get(target) is None:
            edit.mkdirs(target, look.owner, look.folder_mode)
        elif not edit.is_dir(target):
            raise SourceError(f"cannot copy to non-directory: /{target}", hint="Name another destination.")
        return target
    if edit.is_dir(target):
        target = posixpath.join(target, selection.name)
    edit.mkdirs(parent(target), look.owner, look.folder_mode)
    return target


def _put_item(
    edit: Edit, selection: Selection, item: Item, target: str, look: Look, origin: Origin, links: object
) -> None:
    entry = item.entry
    changed = look.of(entry, edit.time)
    if entry.kind == FILE:
        inode = selection.files.inode(item.path, entry)
        edit.put(target, Written(changed, origin, None if inode is None else (links, inode)))
    elif entry.kind != DIR:
        edit.put(target, Written(changed))
    elif item.relative:
        there = edit.get(target)
        if selection.lazy and there is not None and there.kind == DIR:
            changed = copy_of(there, mode=changed.mode)
        edit.put(target, Written(changed))


def put_bytes(edit: Edit, name: str, data: bytes, destination: str, look: Look) -> None:
    """Copies an inline file called `name` to `destination`."""
    folder, _, last = destination.rpartition("/")
    edit.mkdirs(edit.resolve(destination if last in ("", ".") else folder), look.owner, look.folder_mode)
    target = edit.resolve(destination)
    if edit.is_dir(target):
        target = posixpath.join(target, name)
    edit.mkdirs(parent(target), look.owner, look.folder_mode)
    entry = look.of(Entry(FILE, mode=0o644, size=len(data)), edit.time)
    edit.put(target, Written(entry, content=lambda: iter((data,) if data else ())))


def is_archive(selection: Selection) -> bool:
    """Whether a selection is one file that is a tar, plain or compressed: its first member can be read."""
    if selection.root.kind != FILE:
        return False
    item = selection.first
    try:
        return next(_members(selection.files.chunks(item.path, item.entry), item.path), None) is not None
    except SourceError:
        return False


def _members(stream: Iterator[bytes], path: str) -> Iterator[tarread.Member]:
    inflater = Inflater(lambda _: next(stream, b""), f"/{path}")
    return tarread.members(inflater.read, f"/{path}")


def unpack(edit: Edit, selection: Selection, destination: str, look: Look, spool: Path, beneath: Beneath) -> None:
    """Puts the members of an archive below `destination`; their content waits, uncompressed, in the file `spool`.
    `beneath` gives a file of the layers below, for hard links to it.

    Names and links stay inside the destination. Raises `SourceError`.
    """
    item = selection.first
    target = edit.resolve(destination)
    edit.mkdirs(target, look.owner)
    inflater = Inflater(_reader(selection.files.chunks(item.path, item.entry)), f"/{item.path}")
    with spool.open("wb", buffering=0) as copy, contextlib.closing(Ahead(inflater.read)) as ahead:

        def read(size: int) -> bytes:
            data = ahead.read(size)
            view = memoryview(data)
            try:
                while view:
                    view = view[copy.write(view) :]
            except OSError as bad:
                raise disk_error(bad, spool) from bad
            return data

        for member in tarread.members(read, f"/{item.path}"):
            if member.path:
                _unpack_member(edit, target, member, look, spool, beneath)


def _reader(stream: Iterator[bytes]) -> Callable[[int], bytes]:
    return lambda _: next(stream, b"")


def _check_name(member: tarread.Member) -> None:
    """A name that leaves the destination is refused; an absolute one means the destination's root."""
    if posixpath.normpath(member.raw_name).split("/")[0] == "..":
        raise SourceError(f'invalid entry name "{member.raw_name}" in the archive: it leaves the destination')


def _digest(member: tarread.Member) -> str:
    """The digest of a file's content; taken here, where most of the time goes into waiting for the next bytes. Not of a sparse
    one, which may claim to be huge: that is left to the layer, whose writing can be stopped."""
    if member.entry.kind != FILE or member.entry.sparse is not None:
        return ""
    hasher = hashlib.sha256()
    for chunk in member.chunks():
        hasher.update(chunk)
    return hasher.hexdigest()


def _unpack_member(edit: Edit, target: str, member: tarread.Member, look: Look, spool: Path, beneath: Beneath) -> None:
    def below(path: str) -> str:
        return f"{target}/{path}".strip("/")

    _check_name(member)
    folder = below(resolve(lambda path: edit.get(below(path)), parent(member.path), strict=True))
    edit.mkdirs(folder, None)
    path = posixpath.join(folder, posixpath.basename(member.path))
    entry = copy_of(member.entry, opaque=False, sparse=None, digest=_digest(member))
    if entry.kind == SYMLINK:
        entry = copy_of(entry, mode=0o777)
    if look.owner is not None:
        entry = copy_of(entry, uid=look.owner.uid, gid=look.owner.gid)
    if entry.kind == HARDLINK:
        linked = edit.written(below(entry.link)) or beneath(below(entry.link))
        if linked is None:
            raise SourceError(f"the archive has a hard link {member.path} to {entry.link}, which does not exist")
        facts = {"uid": entry.uid, "gid": entry.gid, "mtime": entry.mtime}
        if linked.entry.kind != SYMLINK:
            facts["mode"] = entry.mode
        edit.replace(path, edit.relink(linked, copy_of(linked.entry, **facts)))
        return
    inode = (str(spool), member.entry.offset) if entry.kind in (FILE, SYMLINK) else None
    edit.replace(path, Written(entry, content=lambda: tar_content(spool, member.entry), inode=inode))
