"""Strings quoted as BuildKit's history lines have them (Go's %q)."""

from __future__ import annotations

_SHORT = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def quote(text: str) -> str:
    """One string in double quotes; what cannot be printed is escaped."""
    return '"' + "".join(_char(char) for char in text) + '"'


def _char(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if char == " " or char.isprintable():
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote_rune(number: int) -> str:
    """A number as Go quotes it with %q: the character of that code in single quotes."""
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        number = 0xFFFD
    char = chr(number)
    return "'" + {"'": "\\'", '"': '"'}.get(char, _char(char)) + "'"


def quote_list(words: list[str]) -> str:
    """A list of strings: `["a" "b"]`."""
    return "[" + " ".join(quote(word) for word in words) + "]"
