"""Opening a package: what it is by its content, whether its name says the same, and its tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from kiln.errors import SourceError
from kiln.store import compress
from kiln.store.entry import FILE, Entry
from kiln.store.package import elf
from kiln.store.package.folders import read_folder
from kiln.store.package.limits import Gauge, Limits, shown
from kiln.store.package.listing import Listing
from kiln.store.package.opened import Opened
from kiln.store.package.tars import read_tar
from kiln.store.package.zips import read_zip

_ENDINGS = {
    ".war": "zip", ".jar": "zip", ".ear": "zip", ".zip": "zip", ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz",
    ".tar.bz2": "tar.bz2", ".tbz2": "tar.bz2", ".tar.xz": "tar.xz", ".txz": "tar.xz", ".tar.zst": "tar.zst",
    ".tzst": "tar.zst", ".gz": "tar.gz", ".bz2": "tar.bz2", ".xz": "tar.xz", ".zst": "tar.zst",
}  # fmt: skip
_PACKED = {"gzip": "tar.gz", "bzip2": "tar.bz2", "xz": "tar.xz", "zstd": "tar.zst"}
_CALLED = {
    "zip": "a zip", "elf": "a program (ELF)", "tar": "a tar", "tar.gz": "gzip data", "tar.bz2": "bzip2 data",
    "tar.xz": "xz data", "tar.zst": "zstd data",
}  # fmt: skip
_FOREIGN = {
    b"Rar!": "a rar", b"7z\xbc\xaf": "a 7z", b"MZ": "a program for Windows", b"\xcf\xfa\xed\xfe": "a program for macOS",
    b"\xca\xfe\xba\xbe": "a Java class or a program for macOS", b"#!": "a script", b"%PDF": "a PDF", b"<": "a page (HTML)",
}  # fmt: skip
_HINTS = {
    b"": "Give an archive (zip, war, jar, tar, tar.gz, tar.bz2, tar.xz, tar.zst), a program for Linux, or a folder.",
    b"#!": "Put a script into a folder or an archive, called control. A jar with a start script in front of it is not read: "
    "build it without.",
}
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_HEAD = 512


class Content(Protocol):
    """The content of a package's files; `linked` are offsets of entries that several names share."""

    linked: frozenset[int]

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Package(Struct, frozen=True):
    """What was handed over, as a tree; to be closed after use.

    `kind` is `zip`, `tar`, `elf` or `folder`; `form` also says the compression (`tar.gz`); `name` is what errors call
    it; `entries` are all paths below the root, missing folders made up, hard links as the file that they name;
    `warnings` say what of its names had to be guessed.
    """

    kind: str
    form: str
    name: str
    entries: Mapping[str, Entry]
    content: Content
    warnings: tuple[str, ...] = ()

    def read(self, path: str) -> Iterator[bytes]:
        """The content of a file in pieces; raises `SourceError` where it is damaged (perhaps at the end)."""
        entry = self.entries.get(path)
        if entry is None or entry.kind != FILE:
            raise SourceError(f'there is no file "{shown(path)}" in it', where=self.name)
        return self.content.chunks(path, entry)

    def small(self, path: str, limit: int = 1 << 16) -> bytes:
        """The content of a file of at most `limit` bytes; raises `SourceError` for a larger one."""
        if (entry := self.entries.get(path)) is not None and entry.size > limit:
            raise SourceError(f'the file "{shown(path)}" in it has more than {limit} bytes', where=self.name)
        return b"".join(self.read(path))

    def head(self, path: str, size: int) -> bytes:
        """The first bytes of a file."""
        data = b""
        for piece in self.read(path):
            data += piece[:size]
            if len(data) >= size:
                break
        return data[:size]

    def close(self) -> None:
        """Closes its files; what was spooled is gone."""
        self.content.close()

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_package(
    path: Path, scratch: Path, limits: Limits | None = None, *, name: str = "",
    skip: Callable[[str], bool] = lambda path: False,
) -> Package:  # fmt: skip
    """The package that a file or folder is. `scratch` takes the decompressed form of a compressed tar; `name` is the
    file's own name where `path` has another (a download, an upload); `skip` says which paths of a folder are not looked
    at. Raises `SourceError`, `StoreError`."""
    name = name or path.name
    gauge = Gauge(limits or Limits(), shown(name))
    if path.is_dir():
        return Package("folder", "folder", gauge.name, *read_folder(path, gauge, skip), _warnings(gauge))
    file = Opened(path, gauge.name)
    try:
        return _open(file, name, scratch, gauge)
    except BaseException as bad:
        file.close()
        if isinstance(bad, SourceError):
            bad.hint = bad.hint or "Copy or download it again."
        raise


def _open(file: Opened, name: str, scratch: Path, gauge: Gauge) -> Package:
    form = _form(file, gauge)
    _check_ending(name, form, gauge)
    if form == "zip":
        return Package("zip", form, gauge.name, *read_zip(file, gauge), _warnings(gauge))
    if form == "elf":
        return Package("elf", form, gauge.name, *_program(file, name, gauge))
    found = read_tar(file, scratch, gauge, compress.detect(file.some(0, _HEAD)))
    return Package("tar", form, gauge.name, *found, _warnings(gauge))


def _warnings(gauge: Gauge) -> tuple[str, ...]:
    found = []
    if gauge.guessed:
        found.append(
            f"{gauge.guessed} names are not marked as UTF-8 and were read as code page 437; pack them as UTF-8 if they"
            " look wrong"
        )
    if gauge.unreadable:
        found.append(f"{gauge.unreadable} names are not UTF-8; their bytes are kept as they are")
    return tuple(found)


def _form(file: Opened, gauge: Gauge) -> str:
    """What a file is, by its first bytes."""
    head = file.some(0, _HEAD)
    if head.startswith(_ZIP_MAGICS):
        return "zip"
    if head.startswith(elf.MAGIC):
        return "elf"
    packed = compress.detect(head)
    if packed != "none":
        return _PACKED[packed]
    if head[257:262] == b"ustar" or gauge.name.endswith(".tar"):
        return "tar"
    if not head:
        raise gauge.bad("it is empty", hint="Copy or download it again.")
    what = next((f"it is {what}, which is" for magic, what in _FOREIGN.items() if head.startswith(magic)), "it is")
    raise gauge.bad(f"{what} no zip, war, jar, tar or program (ELF)", hint=_HINTS.get(head[:2], _HINTS[b""]))


def _check_ending(name: str, form: str, gauge: Gauge) -> None:
    """A name that says something else than the content is refused: somebody is mistaken, or wants others to be."""
    lower = name.lower()
    ending = max((ending for ending in _ENDINGS if lower.endswith(ending)), key=len, default="")
    if ending and _ENDINGS[ending] != form:
        raise gauge.bad(f"it is called {ending} but is {_CALLED[form]}", hint="Give it the ending of what it is.")


class _Lone:
    """The content of a package that is one file."""

    linked: frozenset[int] = frozenset()

    def __init__(self, file: Opened) -> None:
        self._file = file
        self.close = file.close

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        return self._file.chunks(0, entry.size)


def _program(file: Opened, name: str, gauge: Gauge) -> tuple[dict[str, Entry], _Lone]:
    """A program alone: a package of one file, which can be run."""
    if not elf.architecture(file.some(0, elf.HEAD)):
        raise gauge.bad("it is an ELF file but no program", hint="Give the linked program, not an object file.")
    gauge.add(file.size, file.size)
    listing = Listing(gauge)
    listing.add(name.replace("/", "_"), Entry(FILE, 0o755, size=file.size))
    return listing.finish(), _Lone(file)
