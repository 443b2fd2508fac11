"""Compressed streams: what a layer is written with, and what an archive or layer may be read from."""

from __future__ import annotations

import bz2
import lzma
import sys
from typing import Any, Protocol, cast

from kiln.errors import SourceError
from kiln.store.tarread import ReadSome

_CHUNK = 1 << 18
_XZ_MEMORY = 128 << 20  # xz -9 takes 65 MiB
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))


class Compressor(Protocol):
    """Takes bytes, gives compressed bytes; `flush` ends the stream."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Stored:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(kind: str, level: int | None = None) -> Compressor:
    """A compressor for `gzip` (ISA-L levels 0 to 3, default 2), `zstd` (1 to 22, default 3) or `none`."""
    if kind == "none":
        return _Stored()
    if kind == "zstd":
        made: Compressor = _zstd().ZstdCompressor(level=3 if level is None else level)
        return made
    from isal import isal_zlib

    stream: Compressor = isal_zlib.compressobj(level=2 if level is None else min(level, 3), wbits=31)
    return stream


def _zstd() -> Any:
    """The zstd module: the standard library's, or its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def detect(head: bytes) -> str:
    """`gzip`, `bzip2`, `xz`, `zstd` or `none`, by the first bytes."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return "none"


def _errors(kind: str) -> tuple[type[Exception], ...]:
    """What a kind's decompressor raises for damaged data."""
    if kind == "zstd":
        zstd_error: type[Exception] = _zstd().ZstdError
        return (zstd_error,)
    if kind == "gzip":
        from isal import isal_zlib

        return (cast("type[Exception]", isal_zlib.error),)
    return ()


class Inflater:
    """Reads a stream decompressed, whatever of the known kinds it is in; output is bounded by what is asked for.

    `trailing` is what was read beyond the end of the stream."""

    def __init__(self, read: ReadSome, name: str) -> None:
        self._read = read
        self._name = name
        head = b""
        while len(head) < 6 and (piece := read(_CHUNK)):
            head += piece
        self.kind = detect(head)
        self._input = head
        self._stream: Any = self._new() if self.kind != "none" else None
        self._ended = False
        self.trailing = b""
        self._damage: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, lzma.LZMAError, *_errors(self.kind))

    def read(self, size: int) -> bytes:
        """Up to `size` bytes (more than none unless the stream has ended); raises `SourceError` for damaged data."""
        if self._stream is None:
            data, self._input = self._input, b""
            return data or self._read(size)
        try:
            return self._inflate(size)
        except self._damage as bad:
            raise self._bad(str(bad)) from bad

    def _inflate(self, size: int) -> bytes:
        while not self._ended:
            stream = self._stream
            if stream.eof:
                if not self._next_member():
                    break
                continue
            if self._input or getattr(stream, "needs_input", True) is False or self._pending():
                data = self._decompress(size)
                if data:
                    return data
                if stream.eof:
                    continue
            if not self._input and not self._pending():
                self._input = self._read(_CHUNK)
                if not self._input:
                    raise EOFError("the compressed data is cut off")
        return b""

    def _pending(self) -> bool:
        return (
            bool(getattr(self._stream, "unconsumed_tail", b"")) or getattr(self._stream, "needs_input", True) is False
        )

    def _decompress(self, size: int) -> bytes:
        data = getattr(self._stream, "unconsumed_tail", b"") + self._input
        self._input = b""
        return bytes(self._stream.decompress(data, size))

    def _next_member(self) -> bool:
        """Goes on with the next gzip member, zstd frame, or xz stream; padding ends the data."""
        rest = self._stream.unused_data + self._input
        while len(rest) < 6 and (piece := self._read(_CHUNK)):
            rest += piece
        self._input = b""
        if detect(rest) != self.kind:
            self._ended = True
            self.trailing = rest
            return False
        self._stream = self._new()
        self._input = rest
        return True

    def _new(self) -> Any:
        """A decompressor for the next member; all kinds have decompress, eof and unused_data."""
        if self.kind == "gzip":
            from isal import isal_zlib

            return isal_zlib.decompressobj(wbits=31)
        if self.kind == "zstd":
            return _zstd().ZstdDecompressor()
        return bz2.BZ2Decompressor() if self.kind == "bzip2" else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def _bad(self, why: str) -> SourceError:
        return SourceError(f"the {self.kind} data is damaged: {why}", where=self._name)
