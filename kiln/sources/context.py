"""The CONTEXT argument: a folder, a tar on standard input or by URL, a git repository, or a lone Dockerfile."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from kiln.engine.cancel import Cancel
from kiln.errors import SourceError, UsageError
from kiln.plan.target import Context
from kiln.settings import Settings
from kiln.store import tarread
from kiln.store.compress import Inflater
from kiln.store.entry import BLOCK, CHAR, DIR, FILE, HARDLINK, Entry, parents
from kiln.store.unpack import Unpacker

_GIT = re.compile(r"^(?:git://|ssh://|git@|github\.com/|https?://[^#?]+\.git(?:[#?].*)?$)")


def open_context(text: str, scratch: Path, settings: Settings, cancel: Cancel) -> Context:
    """The context that a command line names; raises `UsageError` or `SourceError`."""
    if not text:
        raise UsageError("the context is empty", hint="Give the path of a folder, - for a tar, or a URL.")
    if text == "-":
        return _from_stream(sys.stdin.buffer.read, "standard input", scratch)
    if _GIT.match(text):
        from kiln.sources.fetch import clone, parse_git

        source = parse_git("https://" + text if text.startswith("github.com/") else text)
        folder = clone(source, scratch, settings, cancel, keep_git=False)
        return Context("folder", folder, reference=text, name=text)
    if text.startswith(("http://", "https://")):
        from kiln.sources.fetch import download

        path, _ = download(text, scratch, settings, cancel)
        with path.open("rb") as file:
            return _from_stream(file.read, text, scratch)
    folder = Path(text).absolute()
    if folder.is_dir():
        return Context("folder", folder, name=str(folder))
    archive, _, inside = text.partition("#:")
    if Path(archive).is_file():
        return Context(
            "archive", Path(archive).absolute(), reference=inside.strip("/"), name=str(Path(archive).absolute())
        )
    if not folder.exists():
        raise UsageError(
            f"the context {text!r} does not exist", hint="Give the path of a folder, - for a tar, or a URL."
        )
    raise UsageError(f"the context {text!r} is no folder", hint="Give the folder, and the Dockerfile with -f.")


def _from_stream(read: tarread.ReadSome, name: str, scratch: Path) -> Context:
    """A tar (plain or compressed) as a context, or a lone Dockerfile."""
    head = b""
    while len(head) < 512 and (piece := read(512 - len(head))):
        head += piece
    rest = [head]
    stream = Inflater(lambda size: rest.pop() if rest else read(size), name)
    if stream.kind == "none" and not _is_tar(head):
        path = scratch / f"Dockerfile-{os.urandom(8).hex()}"
        with path.open("xb") as file:
            while data := stream.read(1 << 16):
                file.write(data)
        return Context("dockerfile", path, name=name)
    folder = scratch / f"context-{os.urandom(8).hex()}"
    folder.mkdir()
    unpack_stream(stream, folder, name)
    return Context("folder", folder, reference=name, name=name)


def _is_tar(head: bytes) -> bool:
    return len(head) == 512 and (head[257:262] == b"ustar" or head == bytes(512))


def unpack_stream(stream: Inflater, folder: Path, name: str) -> None:
    """Writes the members of a tar below a folder of ours; names and links stay inside it, devices are left out."""
    made = {""}
    with Unpacker(folder, owners=False) as unpacker:
        for member in tarread.members(stream.read, name):
            if not member.path or member.entry.kind in (CHAR, BLOCK):
                continue
            for above in parents(member.path):
                if above not in made:
                    made.add(above)
                    unpacker.add(above, Entry(DIR, mode=0o755), iter(()))
            if member.entry.kind == DIR:
                made.add(member.path)
            if member.entry.kind == HARDLINK and not (folder / member.entry.link).exists():
                raise SourceError(
                    f"the archive has a hard link to {member.entry.link}, which it does not hold", where=name
                )
            content = member.chunks() if member.entry.kind == FILE else iter(())
            unpacker.add(member.path, member.entry, content)
