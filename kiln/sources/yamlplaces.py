"""YAML whose every value knows its line. Scalars stay texts, as they are written: `1.10` is no number here.

Read event by event, without recursion; what a document may hold (depth, size behind aliases) is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeAlias

import yaml

from kiln.errors import KilnError, UsageError

MAX_BYTES = 64 << 20
_MAX_DEPTH = 100
_ALIASED = 1_000_000
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_REFERENCE = re.compile(r"\$(?:\$|\{([^}]*)\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)?)(?:(:-)(.*))?", re.DOTALL)

Lookup: TypeAlias = Callable[[str], str | None]


class Map(dict[str, "Value"]):
    """A mapping: `line` where it begins, `lines` where each key is; `dollar` if something in it may hold `${NAME}`."""

    __slots__ = ("dollar", "line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}
        self.dollar = False

    def put(self, key: str, value: Value, line: int) -> None:
        """Sets a key with its line."""
        self[key] = value
        self.lines[key] = line


class Seq(list["Value"]):
    """A list: `line` where it begins, `lines` where each item does; `dollar` as for `Map`."""

    __slots__ = ("dollar", "line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []
        self.dollar = False


Value: TypeAlias = Map | Seq | str | None


def read(path: Path) -> Value:
    """The document of a file (None: an empty one); raises `UsageError` with `file:line`."""
    try:
        data = path.read_bytes()
    except OSError as bad:
        raise UsageError(f"cannot be read: {bad.strerror}", where=str(path)) from bad
    return parse(data, path.name)


def parse(data: bytes, name: str) -> Value:
    """The one document in `data`, with anchors and `<<` resolved; `name` stands in the places of errors. Shared parts
    (aliases) are one object: nobody may change them. Raises `UsageError`."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"is larger than {MAX_BYTES >> 20} MiB", where=name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        line = data.count(b"\n", 0, bad.start) + 1
        raise UsageError("is not UTF-8", where=f"{name}:{line}") from bad
    try:
        return _Builder(name).build(yaml.CSafeLoader(text))
    except yaml.MarkedYAMLError as bad:
        hint = "Inside of [ ] and { }, write texts with ${ in quotes." if "${" in text else ""
        raise UsageError(_words(bad), where=_place(name, bad), hint=hint) from bad
    except yaml.YAMLError as bad:
        raise UsageError(f"is not YAML: {' '.join(str(bad).split())}", where=name) from bad


def _words(bad: yaml.MarkedYAMLError) -> str:
    return "is not YAML: " + ", ".join(part for part in (bad.context, bad.problem) if part)


def _place(name: str, bad: yaml.MarkedYAMLError) -> str:
    mark = bad.problem_mark or bad.context_mark
    return f"{name}:{mark.line + 1}" if mark else name


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


class _Builder:
    """Values out of events. `_open` holds what is not closed yet; of a mapping also the key that waits for its value."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: list[Map | Seq] = []
        self._keys: list[tuple[str, int] | None] = []
        self._starts: list[tuple[str | None, int]] = []
        self._heights = [0]
        self._anchors: dict[str, tuple[Value, int, int] | None] = {}
        self._count = 0
        self._aliased = 0
        self._merges: list[Map] = []
        self._root: Value = None

    def build(self, events: yaml.CSafeLoader) -> Value:
        documents = 0
        while (event := events.get_event()) is not None:
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent):
                self._start(event, Map(_line(event)))
            elif isinstance(event, yaml.SequenceStartEvent):
                self._start(event, Seq(_line(event)))
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor or "", _line(event))
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._fail("a second document begins here; one is read", _line(event))
        return self._root

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._count += 1
        text: str = event.value
        tag = event.tag
        value: str | None = text
        if tag is not None and tag != "!":
            self._known_tag(tag, _line(event))
            value = None if tag == "tag:yaml.org,2002:null" else text
        elif text in _NULLS and event.implicit[0] and not event.style and tag is None:
            value = None
        if "\0" in text:
            self._fail("a text holds a NUL character", _line(event))
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1, 0)
        self._add(value, _line(event), plain=not event.style)

    def _known_tag(self, tag: str, line: int) -> None:
        if tag not in _TAGS:
            self._fail(f"the tag {tag} is not known here", line)

    def _start(self, event: yaml.CollectionStartEvent, value: Map | Seq) -> None:
        self._count += 1
        if event.tag is not None and event.tag != "!":
            self._known_tag(event.tag, value.line)
        if len(self._open) >= _MAX_DEPTH:
            self._fail(f"is nested more than {_MAX_DEPTH} levels deep", value.line)
        if self._open and isinstance(self._open[-1], Map) and self._keys[-1] is None:
            self._fail("a key must be a text, not a list or a mapping", value.line)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._starts.append((event.anchor, self._count + self._aliased - 1))
        self._heights.append(0)
        self._open.append(value)
        self._keys.append(None)

    def _end(self) -> None:
        value = self._open.pop()
        self._keys.pop()
        anchor, before = self._starts.pop()
        height = self._heights.pop() + 1
        self._heights[-1] = max(self._heights[-1], height)
        if isinstance(value, Map) and self._merges and self._merges[-1] is value:
            self._merges.pop()
            self._merge(value)
        if anchor is not None:
            self._anchors[anchor] = (value, self._count + self._aliased - before, height)
        self._add(value, value.line)

    def _alias(self, anchor: str, line: int) -> None:
        if anchor not in self._anchors:
            self._fail(f"*{anchor} names nothing: no &{anchor} stands above", line)
        found = self._anchors[anchor]
        if found is None:
            self._fail(f"*{anchor} stands inside of what it names", line)
        value, size, height = found
        self._heights[-1] = max(self._heights[-1], height)
        if len(self._open) + height > _MAX_DEPTH:
            self._fail(f"is nested more than {_MAX_DEPTH} levels deep", line)
        self._aliased += size
        if self._aliased > max(_ALIASED, 20 * self._count):
            self._fail("the aliases of this file stand for more than can be read", line)
        self._add(value, line)

    def _add(self, value: Value, line: int, *, plain: bool = False) -> None:
        if not self._open:
            self._root = value
            return
        parent = self._open[-1]
        if isinstance(parent, Seq):
            parent.append(value)
            parent.lines.append(line)
        elif (waiting := self._keys[-1]) is None:
            self._keys[-1] = self._key(parent, value, line, plain)
            return
        else:
            self._keys[-1] = None
            parent[waiting[0]] = value
        if "$" in value if isinstance(value, str) else value is not None and value.dollar:
            parent.dollar = True

    def _key(self, parent: Map, value: Value, line: int, plain: bool) -> tuple[str, int]:
        if value is not None and not isinstance(value, str):
            self._fail("a key must be a text, not a list or a mapping", line)
        key = value or ""
        if key in parent.lines:
            self._fail(f"the key {key!r} is given twice, here and on line {parent.lines[key]}", line)
        if key == "<<" and plain:
            self._merges.append(parent)
        parent.lines[key] = line
        return key, line

    def _merge(self, value: Map) -> None:
        """Puts the keys of what `<<` names below those that are written out; of several the first wins."""
        line = value.lines.pop("<<")
        given = value.pop("<<")
        for other in given if isinstance(given, Seq) else (given,):
            if not isinstance(other, Map):
                self._fail("<< takes a mapping or a list of mappings", line)
            for key, inner in other.items():
                if key not in value:
                    value.put(key, inner, other.lines[key])

    def _fail(self, message: str, line: int) -> NoReturn:
        raise UsageError(message, where=f"{self._name}:{line}")


def substituted(value: Value, lookup: Lookup, name: str, line: int = 0) -> Value:
    """`value` with `${NAME}` (what `lookup` gives), `${NAME:-default}` (used where that is nothing or empty) and `$$` (one
    `$`) replaced in its scalars, not in its keys. NAME may be `word.word`. Raises `UsageError` for a name without value."""
    if isinstance(value, str):
        return fill(value, lookup, f"{name}:{line}") if "$" in value else value
    if value is None or not value.dollar:
        return value
    if isinstance(value, Map):
        changed = Map(value.line)
        for key, inner in value.items():
            changed.put(key, substituted(inner, lookup, name, value.lines[key]), value.lines[key])
        return changed
    items = Seq(value.line)
    for inner, at in zip(value, value.lines, strict=True):
        items.append(substituted(inner, lookup, name, at))
        items.lines.append(at)
    return items


def fill(text: str, lookup: Lookup, where: str) -> str:
    """One text with its `${NAME}`, `${NAME:-default}` and `$$` replaced; a `$` before anything else stays."""

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        parts = _NAME.fullmatch(found[1])
        if parts is None or not found[0].endswith("}") or "${" in found[1]:
            raise UsageError(
                f"{found[0]!r} is not understood",
                where=where,
                hint="Write ${NAME} or ${NAME:-default}, and $$ for a $.",
            )
        try:
            value = lookup(parts[1])
        except KilnError as bad:
            raise bad.at(where) from None
        if value or (value is not None and parts[2] is None):
            return value
        if parts[2] is None:
            raise UsageError(
                f"${{{parts[1]}}} has no value", where=where,
                hint=f"Set {parts[1]}, write ${{{parts[1]}:-default}}, or $${{{parts[1]}}} for the text itself.",
            )  # fmt: skip
        return parts[3]

    return _REFERENCE.sub(replace, text)
