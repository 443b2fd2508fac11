"""What the beginning of a jar says of it. Source: PKWARE APPNOTE.TXT, section 4.3.7; JAR File Specification."""

from __future__ import annotations

import re
import struct
import zlib

MANIFEST = "META-INF/MANIFEST.MF"
_MAIN_CLASS = re.compile(r"^Main-Class:[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)
_LOCAL, _LOCAL_SIZE, _LATER = b"PK\x03\x04", 30, 1 << 3
_MOST = 1 << 16


def main_class(manifest: str) -> str:
    """The Main-Class that a manifest names, empty for none."""
    found = _MAIN_CLASS.search(manifest.replace("\r\n", "\n").replace("\n ", ""))
    return found[1] if found else ""


def manifest_of(head: bytes) -> str:
    """The manifest of a jar by its first bytes, where it stands first as packers put it; else empty."""
    at = 0
    while head[at : at + 4] == _LOCAL and at + _LOCAL_SIZE <= len(head):
        flags, method, _, _, _, packed, _, name_size, extra = struct.unpack_from("<4H3I2H", head, at + 6)
        begin = at + _LOCAL_SIZE + name_size + extra
        name = head[at + _LOCAL_SIZE : at + _LOCAL_SIZE + name_size]
        if name == MANIFEST.encode():
            return _text(head[begin:], method, packed if not flags & _LATER else 0)
        if flags & _LATER and not name.endswith(b"/"):
            return ""  # where it ends only its directory says
        at = begin + packed
    return ""


def _text(data: bytes, method: int, packed: int) -> str:
    if method == 0:
        return data[: min(packed, _MOST)].decode("utf-8", "replace")
    try:
        return zlib.decompressobj(wbits=-15).decompress(data, _MOST).decode("utf-8", "replace")
    except zlib.error:
        return ""
