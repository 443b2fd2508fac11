"""Compressing in parallel: one honest stream, whoever took part."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import time
import zlib

import pytest

from kiln.store import press as presses
from kiln.store.compress import Inflater
from kiln.store.press import Press

SIZES = ((), (1,), (70_000,), (256 << 10,), (1 << 20,), (1 << 20, 1 << 20, 7), (1 << 20,) * 12, (5, 1 << 20, 300))


def chunks(sizes: tuple[int, ...]) -> list[bytes]:
    source = random.Random(len(sizes))
    words = [source.randbytes(8) for _ in range(300)]
    return [b"".join(source.choices(words, k=size // 8 + 1))[:size] for size in sizes]


def pressed(kind: str, data: list[bytes], level: int | None = None) -> bytes:
    out: list[bytes] = []
    press = Press(kind, level, out.append)
    for chunk in data[:-1]:
        press.add(chunk)
    press.finish(data[-1] if data else b"")
    return b"".join(out)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_what_comes_out_is_what_went_in(kind: str, sizes: tuple[int, ...]) -> None:
    data = chunks(sizes)
    packed = iter([pressed(kind, data)])
    inflater = Inflater(lambda _: next(packed, b""), "x")
    assert b"".join(iter(lambda: inflater.read(1 << 20), b"")) == b"".join(data)


@pytest.mark.parametrize("level", [None, 0, 1, 2, 3, 9])
def test_gzip_is_one_member_that_others_read(level: int | None) -> None:
    data = chunks((1 << 20, 1 << 20, 77))
    packed = pressed("gzip", data, level)
    stream = zlib.decompressobj(wbits=31)
    assert stream.decompress(packed) == b"".join(data) and stream.eof and not stream.unused_data
    assert gzip.decompress(packed) == b"".join(data)
    assert subprocess.run(["gzip", "-t"], input=packed, check=False).returncode == 0


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_the_number_of_threads_does_not_matter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = chunks((1 << 20,) * 6)
    found = set()
    for workers in (1, 2, 4):
        monkeypatch.setattr(presses, "_MOST_WORKERS", workers)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, count=workers: set(range(count)))
        found.add(pressed(kind, data))
    assert len(found) == 1


@pytest.mark.parametrize("size", [0, 1, 30_000, 256 << 10])
def test_a_small_stream_is_as_small_as_by_zlib(size: int) -> None:
    data = chunks((size,))
    packed = pressed("gzip", data)
    assert len(packed) <= len(zlib.compress(b"".join(data), 5, 31)) + 16
    assert gzip.decompress(packed) == b"".join(data)
    assert subprocess.run(["gzip", "-t"], input=packed, check=False).returncode == 0


def test_a_level_that_is_asked_for_counts_for_small_streams_too() -> None:
    data = chunks((30_000,))
    from isal import isal_zlib

    assert len({pressed("gzip", data, level) for level in (None, 0, 1, 2)}) == 4
    assert isal_zlib.decompress(pressed("gzip", data, 0), wbits=31) == b"".join(data)


def test_chunks_alone_cost_next_to_nothing() -> None:
    data = chunks((1 << 20,) * 8)
    from isal import isal_zlib

    whole = len(isal_zlib.compress(b"".join(data), 1, 31))
    assert len(pressed("gzip", data)) < whole * 1.02


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_a_failed_write_comes_out_and_threads_end(kind: str) -> None:
    def full(data: bytes) -> None:
        raise OSError("no space")

    press = Press(kind, None, full)
    with pytest.raises(OSError, match="no space"):
        for _ in range(100):
            press.add(b"x" * (1 << 20))
        press.finish(b"")
    press.stop()
    press.stop()


def test_memory_is_bounded() -> None:
    """A slow disk holds the caller back: what is in flight does not grow."""
    waiting: list[int] = []

    def slow(data: bytes) -> None:
        time.sleep(0.01)

    press = Press("gzip", None, slow)
    for _ in range(40):
        press.add(bytes(1 << 20))
        waiting.append(press._queue.qsize())
    press.finish(b"")
    assert max(waiting) <= press._workers + 2
