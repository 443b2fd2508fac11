"""Files to build from: the same for the same seed, compressible like programs and texts are.

A pool of text and one of random bytes are made once; contents are slices of them at places that the seed chooses. No slice
repeats within a compressor's window.
"""

from __future__ import annotations

import functools
import io
import random
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

_POOL = 8_000_000
_RANDOM_SHARE = 0.31


@functools.cache
def _text() -> bytes:
    """Words of a vocabulary of 3,000, some much more frequent than others, which gzip makes about three times smaller."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randrange(3, 10))) for _ in range(3000)]
    often = [1 / rank for rank in range(1, 3001)]
    return " ".join(chance.choices(words, often, k=_POOL // 6)).encode()[:_POOL]


@functools.cache
def _noise() -> bytes:
    return random.Random(8).randbytes(_POOL)


def _slice(pool: bytes, size: int, chance: random.Random) -> bytes:
    """`size` bytes of a pool, from a chosen place on, around its end if need be."""
    begin = chance.randrange(len(pool))
    found = pool[begin : begin + size]
    while len(found) < size:
        found += pool[: size - len(found)]
    return found


def text(size: int, chance: random.Random) -> bytes:
    """That many bytes of text."""
    return _slice(_text(), size, chance)


def mixed(size: int, chance: random.Random) -> bytes:
    """That many bytes, a third of them random, the others text: gzip leaves about 57 %."""
    noise = int(size * _RANDOM_SHARE)
    return chance.randbytes(min(noise, 64)) + _slice(_noise(), noise, chance)[64:] + text(size - max(noise, 0), chance)


def write_tree(folder: Path, sizes: Iterable[int], seed: int, *, plain: bool = False, wide: int = 100) -> list[Path]:
    """Writes a file of each size, spread over subfolders of `wide` files each; returns them in the order of the sizes.
    `plain` files are text only."""
    chance = random.Random(seed)
    make = text if plain else mixed
    written = []
    for number, size in enumerate(sizes):
        path = folder / f"d{number // wide}" / f"f{number}"
        if number % wide == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(size, chance))
        written.append(path)
    return written


def small_sizes(count: int, seed: int = 1) -> list[int]:
    """Sizes in bytes as sources have them: 100 to 6,000."""
    chance = random.Random(seed)
    return [chance.randrange(100, 6000) for _ in range(count)]


def mixed_sizes(total: int) -> list[int]:
    """Sizes in bytes that make `total`: a fifth in four large files, two fifths each in 200 middling and 8,000 small ones."""
    large, middling, small = total // 5 // 4, total * 2 // 5 // 200, total * 2 // 5 // 8000
    return [large] * 4 + [middling] * 200 + [small] * 8000


def write_package(path: Path, seed: int, files: int = 600, raw: int = 60_000_000) -> None:
    """A tar.gz of `files` files with `raw` bytes together, compressed as `tar czf` does (60 MB become about 34 MB)."""
    chance = random.Random(seed)
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        for number in range(files):
            data = mixed(raw // files, chance)
            entry = tarfile.TarInfo(f"app/d{number % 20}/f{number}.bin")
            entry.size, entry.mtime, entry.mode = len(data), 1_600_000_000 + seed, 0o644
            file.write(deflate.compress(entry.tobuf() + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)))
        file.write(deflate.compress(b"\0" * 2 * tarfile.BLOCKSIZE) + deflate.flush())


def write_layer(paths: Iterable[Path], below: Path, name: str) -> bytes:
    """A tar of files as bytes, for images that no builder made; names count from `below` and begin with `name`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in paths:
            archive.add(path, f"{name}/{path.relative_to(below)}")
    return buffer.getvalue()
