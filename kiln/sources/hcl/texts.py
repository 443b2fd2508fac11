"""Functions of HCL for texts: cutting, joining, searching, formatting."""

from __future__ import annotations

import json
import posixpath
import re
from decimal import Decimal

from kiln.errors import UsageError
from kiln.sources.hcl.value import Function, Value, boolean, items, kind, number, text, whole

_MAX_TEXT = 8 << 20
_VERB = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>\d+)?(?:\.(?P<digits>\d+))?(?:\[(?P<at>\d+)\])?(?P<verb>.)", re.DOTALL
)


def _indent(spaces: Value, value: Value) -> Value:
    if whole(spaces) > 1000:
        raise UsageError("an indent has at most 1000 spaces")
    return text(value).replace("\n", "\n" + " " * whole(spaces))


def _join(separator: Value, *lists: Value) -> Value:
    return text(separator).join(text(item) for each in lists for item in items(each))


def _substr(value: Value, offset: Value, length: Value) -> Value:
    word, begin, count = text(value), whole(offset), whole(length)
    if begin < 0:
        begin = max(len(word) + begin, 0)
    return word[begin:] if count < 0 else word[begin : begin + count]


def _title(value: Value) -> Value:
    return re.sub(r"(^|\W)([^\W\d_])", lambda found: found[1] + found[2].upper(), text(value))


def _split(separator: Value, value: Value) -> Value:
    if not text(separator):
        return tuple(text(value))
    return tuple(text(value).split(text(separator)))


def _replace(value: Value, old: Value, new: Value) -> Value:
    word = text(value)
    if (word.count(text(old)) + 1) * len(text(new)) > _MAX_TEXT:
        raise UsageError("the result is too long")
    return word.replace(text(old), text(new))


def _pattern(value: Value) -> re.Pattern[str]:
    try:
        return re.compile(text(value).replace(r"\z", r"\Z"))
    except (re.error, RecursionError, OverflowError) as bad:
        raise UsageError(f"{text(value)!r} is not a regular expression: {bad}") from None


def _captured(found: re.Match[str]) -> Value:
    if found.re.groupindex:
        return dict(found.groupdict())
    return tuple(found.groups()) if found.re.groups else found[0]


def _regex(pattern: Value, value: Value) -> Value:
    found = _pattern(pattern).search(text(value))
    if not found:
        raise UsageError(f"{text(pattern)!r} matches nothing in {text(value)!r}")
    return _captured(found)


def _regex_all(pattern: Value, value: Value) -> Value:
    return tuple(_captured(found) for found in _pattern(pattern).finditer(text(value)))


def _regex_replace(value: Value, pattern: Value, replacement: Value) -> Value:
    """Go's replacement: `$1`, `$name`, `${name}`, `$$`; a group that there is not is empty."""
    compiled = _pattern(pattern)

    def inserted(found: re.Match[str], reference: re.Match[str]) -> str:
        if reference[0] == "$$":
            return "$"
        name = reference[1] or reference[2]
        if name.isdigit():
            return (found[int(name)] or "") if int(name) <= compiled.groups else ""
        return found.groupdict().get(name) or ""

    template = text(replacement)
    return compiled.sub(
        lambda found: re.sub(r"\$\$|\$(\w+)|\$\{(\w+)\}", lambda one: inserted(found, one), template), text(value)
    )


def format_text(form: Value, *given: Value) -> str:
    """Go's `fmt` verbs: %s %d %q %v %t %f %e %g %x %X %o %b %c %%, with flags, width, precision and [position]."""
    used = 0
    out, at, form_text = [], 0, text(form)
    for found in _VERB.finditer(form_text):
        out.append(form_text[at : found.start()])
        at = found.end()
        if found["verb"] == "%":
            out.append("%")
            continue
        used = int(found["at"]) if found["at"] else used + 1
        if not 1 <= used <= len(given):
            raise UsageError(f"there is no value for {found[0]}")
        out.append(_formatted(found, given[used - 1]))
    if not any(found["at"] for found in _VERB.finditer(form_text)) and used < len(given):
        raise UsageError(f"{len(given)} values were given, {used} are used")
    return "".join(out) + form_text[at:]


def _formatted(found: re.Match[str], value: Value) -> str:
    flags, width = found["flags"], int(found["width"] or 0)
    if width > 1000 or int(found["digits"] or 0) > 1000:
        raise UsageError(f"{found[0]} is too wide")
    word = _verb(found["verb"], value, flags, found["digits"])
    if "-" in flags:
        return word.ljust(width)
    if "0" in flags and found["verb"] not in "sqvt":
        return word.zfill(width)
    return word.rjust(width)


def _verb(verb: str, value: Value, flags: str, digits: str | None) -> str:
    if verb == "v":
        return json_text(value) if "#" in flags or not isinstance(value, str) else value
    if verb == "s":
        word = text(value)
        return word[: int(digits)] if digits else word
    if verb == "q":
        return json_text(text(value))
    if verb == "t":
        return text(boolean(value))
    sign = "+" if "+" in flags else " " if " " in flags else ""
    if verb in "fFeEgG":
        return _fraction(verb, number(value), sign, digits)
    if verb in "dxXobc":
        if verb in "xX" and isinstance(value, str):
            return value.encode().hex() if verb == "x" else value.encode().hex().upper()
        return f"{whole(value):{sign}{'#' if '#' in flags else ''}{verb}}"
    raise UsageError(f"%{verb} is not known", hint="Verbs are %s %d %q %v %t %f %e %g %x %o %b.")


def _fraction(verb: str, value: int | Decimal, sign: str, digits: str | None) -> str:
    if verb in "eE":
        return f"{float(value):{sign}.{digits or 6}{verb}}"
    if verb in "gG":
        return f"{float(value):{sign}.{digits or 17}{verb}}" if digits else f"{sign}{float(value)!r}".removesuffix(".0")
    return f"{Decimal(value):{sign}.{digits or 6}f}"


def json_text(value: Value) -> str:
    """JSON without white space, as Go writes it; raises `UsageError` for what is no value."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        word = json.dumps(value, ensure_ascii=False)
        for char in "<>&\u2028\u2029":
            word = word.replace(char, f"\\u{ord(char):04x}")
        return word
    if isinstance(value, int | Decimal):
        return text(value)
    if isinstance(value, tuple):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json_text(name)}:{json_text(value[name])}" for name in sorted(value)) + "}"
    raise UsageError(f"{kind(value)} cannot be written as JSON")


def _format_list(form: Value, *given: Value) -> Value:
    lengths = {len(each) for each in given if isinstance(each, tuple)}
    if len(lengths) > 1:
        raise UsageError("the lists have different lengths")
    rounds = lengths.pop() if lengths else 1
    rows = [[each[row] if isinstance(each, tuple) else each for each in given] for row in range(rounds)]
    return tuple(format_text(form, *row) for row in rows)


def _sanitize(value: Value) -> Value:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", text(value))


FUNCTIONS: dict[str, Function] = {
    "basename": lambda value: posixpath.basename(text(value).rstrip("/")) or ("/" if text(value) else "."),
    "dirname": lambda value: posixpath.normpath(posixpath.dirname(text(value)) or "."),
    "byteslen": lambda value: len(text(value).encode()),
    "chomp": lambda value: text(value).rstrip("\r\n"),
    "format": format_text, "formatlist": _format_list, "indent": _indent, "join": _join,
    "lower": lambda value: text(value).lower(), "upper": lambda value: text(value).upper(), "title": _title,
    "regex": _regex, "regexall": _regex_all, "regex_replace": _regex_replace, "replace": _replace,
    "reverse": lambda value: text(value)[::-1], "strrev": lambda value: text(value)[::-1],
    "sanitize": _sanitize, "split": _split, "strlen": lambda value: len(text(value)), "substr": _substr,
    "trim": lambda value, chars: text(value).strip(text(chars)), "trimspace": lambda value: text(value).strip(),
    "trimprefix": lambda value, prefix: text(value).removeprefix(text(prefix)),
    "trimsuffix": lambda value, suffix: text(value).removesuffix(text(suffix)),
}  # fmt: skip
