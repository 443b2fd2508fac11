"""The limit: what the same bytes cost with nothing but read, sha256, the compressor (ISA-L level 1), sha256 and upload.

A tree of images counts as one layer. One stage each in a thread, as far apart as queues of a few megabytes let them; no
engine, no store, no cache. What a package brings is decompressed first. For a pull: download, sha256, decompress, sha256,
write.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from isal import isal_zlib

from bench.registry import Registry

_CHUNK = 1 << 20
_DEPTH = 8
_BLOCK = 512  # of a tar: a header for each file, and contents filled up


def limit(kind: str, folder: Path, registry: Registry, name: str, number: int) -> float | None:
    """Seconds for the bytes of a workload; None if it has no limit. `name` is the repository to upload to, or for a pull
    the one that has the layers."""
    if kind == "pull":
        return _timed(lambda: _pull(registry, name, folder / "unpacked"))
    sources: dict[str, Callable[[], Iterable[bytes]]] = {
        "package": lambda: _inflated(_blocks([folder / "package.tar.gz"])),
        "files": lambda: _as_tar(sorted(path for path in folder.rglob("*") if path.is_file())),
        "tree": lambda: _as_tar(sorted(path for path in (folder / "src").rglob("f*") if path.is_file())),
        "step": lambda: _step(number),
    }
    source = sources.get(kind)
    return _timed(lambda: send(source(), registry, name)) if source else None


def _timed(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def send(blocks: Iterable[bytes], registry: Registry, repository: str) -> None:
    """Hashes, compresses, hashes and uploads, each in its own thread."""
    whole = hashlib.sha256()
    registry.upload(repository, _beside(_deflated(_beside(_hashed(_beside(blocks), whole.update)))))


def _beside(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same blocks, made in a thread of their own."""
    waiting: queue.Queue[bytes | BaseException | None] = queue.Queue(_DEPTH)

    def fill() -> None:
        try:
            for block in blocks:
                waiting.put(block)
            waiting.put(None)
        except Exception as fault:  # noqa: BLE001 - it is raised again where the blocks are used
            waiting.put(fault)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    while (block := waiting.get()) is not None:
        if isinstance(block, BaseException):
            raise block
        yield block
    thread.join()


def _hashed(blocks: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for block in blocks:
        update(block)
        yield block


def _deflated(blocks: Iterable[bytes]) -> Iterator[bytes]:
    stream = isal_zlib.compressobj(level=1, wbits=31)
    for block in blocks:
        if made := stream.compress(block):
            yield made
    yield stream.flush()


def _inflated(blocks: Iterable[bytes]) -> Iterator[bytes]:
    stream = isal_zlib.decompressobj(wbits=31)
    for block in blocks:
        yield stream.decompress(block)


def _blocks(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while block := file.read(_CHUNK):
                yield block


def _as_tar(paths: Iterable[Path]) -> Iterator[bytes]:
    """As many bytes as a tar of the files has, in blocks of a megabyte or more."""
    gathered = bytearray()
    for path in paths:
        gathered += path.name.encode().ljust(_BLOCK, b"\0")
        for block in _blocks([path]):
            gathered += block
            if len(gathered) >= _CHUNK:
                yield bytes(gathered)
                gathered.clear()
        gathered += b"\0" * (-len(gathered) % _BLOCK)
    yield bytes(gathered)


def _step(number: int) -> Iterator[bytes]:
    """30 MB of random bytes and 30 MB of numbers, made while they are read."""
    with Path("/dev/urandom").open("rb", buffering=0) as file:
        for _ in range(30):
            yield file.read(1_000_000)
    for begin in range(number, number + 4_000_000, 200_000):
        yield b"\n".join(b"%d" % value for value in range(begin, begin + 200_000))


def _pull(registry: Registry, repository: str, scratch: Path) -> None:
    """Downloads and unpacks all layers into one file, which is removed."""
    digests = [digest for digest, _ in registry.layers(repository, "1")]
    with scratch.open("wb", buffering=0) as file:
        for digest in digests:
            compressed, whole = hashlib.sha256(), hashlib.sha256()
            fetched = _beside(_hashed(_beside(registry.download(repository, digest)), compressed.update))
            for block in _beside(_hashed(_beside(_inflated(fetched)), whole.update)):
                file.write(block)
    scratch.unlink()
