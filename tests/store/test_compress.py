"""Compressed streams: what goes in comes out, in bounded pieces; damage is told."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.errors import SourceError
from kiln.store.compress import Inflater, compressor, detect

KINDS = ["gzip", "zstd", "none"]
TEXT = b"".join(b"line %d of some text that compresses\n" % (number * number) for number in range(9000))


def packed(kind: str, data: bytes, level: int | None = None) -> bytes:
    """Data compressed as a layer is."""
    stream = compressor(kind, level)
    return stream.compress(data) + stream.flush()


def inflate(data: bytes, size: int = 1 << 16, step: int = 1 << 18) -> bytes:
    """Data decompressed in pieces of at most `size`, read in pieces of `step`."""
    pieces = [data[place : place + step] for place in range(0, len(data), step)][::-1]
    inflater = Inflater(lambda _: pieces.pop() if pieces else b"", "sample")
    out = []
    while piece := inflater.read(size):
        assert len(piece) <= size or inflater.kind == "none"
        out.append(piece)
    assert inflater.read(size) == b""
    return b"".join(out)


CONTENT = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda data, times: data * times, st.binary(min_size=1, max_size=50), st.integers(1, 3000)),
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), CONTENT, st.integers(1, 5000), st.integers(1, 5000))
def test_round_trip(kind: str, data: bytes, size: int, step: int) -> None:
    if kind == "none" and detect(data) != "none":
        return
    assert inflate(packed(kind, data), max(size, len(data) // 500 + 1), step) == data


@pytest.mark.parametrize(("kind", "levels"), [("gzip", [0, 1, 2, 3, 9]), ("zstd", [1, 3, 19])])
def test_levels(kind: str, levels: list[int]) -> None:
    for level in levels:
        made = packed(kind, TEXT, level)
        assert inflate(made) == TEXT
        assert detect(made) == kind


@pytest.mark.parametrize(("kind", "tool"), [("gzip", ["gzip", "-dc"]), ("zstd", ["zstd", "-dcq"])])
def test_other_tools_read_it(kind: str, tool: list[str]) -> None:
    assert subprocess.run(tool, input=packed(kind, TEXT), capture_output=True, check=True).stdout == TEXT


@pytest.mark.parametrize("step", [1, 5, 4096])
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_the_formats_that_are_only_read(size: int, step: int) -> None:
    data = TEXT[:3000]
    assert inflate(bz2.compress(data), size, step) == data
    assert inflate(lzma.compress(data), size, step) == data
    assert inflate(gzip.compress(data, 9), size, step) == data


@pytest.mark.parametrize("step", [1, 7, 1 << 18])
def test_several_members(step: int) -> None:
    one, two = TEXT[:2000], os.urandom(500)
    for pack in (gzip.compress, bz2.compress, lzma.compress, lambda data: packed("zstd", data)):
        assert inflate(pack(one) + pack(two) + pack(b"") + pack(one), 900, step) == one + two + one


def test_padding_after_the_last_member_is_no_data() -> None:
    assert inflate(gzip.compress(TEXT) + bytes(1000)) == TEXT


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: packed("zstd", data)])
@pytest.mark.parametrize("step", [64, 1 << 18])
def test_cut_off(pack: object, step: int) -> None:
    data = pack(TEXT[:20000])  # type: ignore[operator]
    for cut in [len(data) - 1, len(data) - 4, len(data) // 2, 20, 12]:
        with pytest.raises(SourceError, match="damaged") as error:
            inflate(data[:cut], step=step)
        assert error.value.where == "sample"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged(pack: object) -> None:
    """A changed byte in the middle is noticed by the checksum if by nothing before."""
    data = bytearray(pack(os.urandom(5000)))  # type: ignore[operator]
    data[len(data) // 2] ^= 0x55
    with pytest.raises(SourceError, match="damaged"):
        inflate(bytes(data))


def test_damaged_zstd() -> None:
    data = bytearray(packed("zstd", TEXT))
    data[6:40] = b"\xff" * 34
    with pytest.raises(SourceError, match="zstd data is damaged"):
        inflate(bytes(data))


@settings(deadline=None, max_examples=120)
@given(st.sampled_from([b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=300))
def test_random_bytes_behind_a_magic(magic: bytes, data: bytes) -> None:
    try:
        inflate(magic + data)
    except SourceError:
        pass


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_bomb_is_read_in_pieces(kind: str) -> None:
    """64 MiB of zeros: the first piece is no larger than what was asked for."""
    bomb = packed(kind, bytes(64 << 20))
    pieces = [bomb]
    inflater = Inflater(lambda _: pieces.pop() if pieces else b"", "bomb")
    assert len(inflater.read(1000)) <= 1000
    assert len(inflater.read(1 << 16)) <= 1 << 16


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"", "none"), (b"tar", "none")],
)  # fmt: skip
def test_detect(head: bytes, kind: str) -> None:
    assert detect(head) == kind
