"""Bake files in JSON -> bodies. Texts are templates, as HCL's JSON syntax has it (hcl/json/spec.md).

`json` does not say where a value is written, so a small reader keeps the lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from json.decoder import scanstring  # type: ignore[attr-defined]

from msgspec import Struct

from kiln.errors import UsageError
from kiln.sources.hcl import evaluate as hcl
from kiln.sources.hcl.body import Attribute, Block, Body
from kiln.sources.hcl.scan import Text, file_text
from kiln.sources.hcl.syntax import parse_template
from kiln.sources.hcl.template import constant
from kiln.sources.hcl.value import tidy

_BLANK = " \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,300})(?:\.\d{1,300})?(?:[eE][-+]?\d{1,4})?")
_WORDS = {"true": True, "false": False, "null": None}
_MAX_DEPTH = 100
_LABELLED = ("variable", "function", "group", "target")


def parse(content: str, file: str) -> Body:
    """The body of a JSON file: variables, functions, groups and targets as blocks, the rest as attributes."""
    text = file_text(content.removeprefix("\ufeff"), file)
    reader = _Reader(text)
    node = reader.value(0)
    reader.end()
    if not isinstance(node, hcl.ObjectOf):
        raise UsageError("a bake file in JSON is an object", where=f"{file}:1")
    body = Body()
    for key, value in node.pairs:
        name = constant(key)
        if name in _LABELLED:
            body.blocks.extend(_blocks(name, value))
        else:
            body.attributes[name] = Attribute(name, value, key.place)
    return body


def _blocks(kind: str, node: hcl.Node) -> Iterator[Block]:
    for label, value in _members(node, kind):
        for inner in _each(value):
            yield Block(kind, (constant(label),), _body(kind, inner), label.place)


def _body(kind: str, node: hcl.Node) -> Body:
    body = Body()
    for key, value in _members(node, kind):
        name = constant(key)
        if kind == "variable" and name == "validation":
            body.blocks.extend(Block(name, (), _body(name, inner), key.place) for inner in _each(value))
        else:
            body.attributes[name] = Attribute(name, value, key.place)
    return body


def _each(node: hcl.Node) -> tuple[hcl.Node, ...]:
    return node.items if isinstance(node, hcl.ListOf) else (node,)


def _members(node: hcl.Node, kind: str) -> Iterator[tuple[hcl.Node, hcl.Node]]:
    for inner in _each(node):
        if not isinstance(inner, hcl.ObjectOf):
            raise UsageError(f"{kind} is an object", where=inner.place)
        yield from inner.pairs


class _Reader(Struct):
    """Reads values one after the other; `at` is the next offset."""

    text: Text
    at: int = 0

    def value(self, depth: int) -> hcl.Node:
        """The value at the offset."""
        if depth > _MAX_DEPTH:
            raise self.text.error(self.at, "the file is nested too deeply")
        self._space()
        char = self.text.content[self.at : self.at + 1]
        if char == '"':
            return self._template()
        place = self.text.place(self.at)
        if char == "{":
            return hcl.ObjectOf(place, tuple(self._pairs(depth)))
        if char == "[":
            return hcl.ListOf(place, tuple(self.value(depth + 1) for _ in self._until("]")))
        for word, known in _WORDS.items():
            if self.text.content.startswith(word, self.at):
                self.at += len(word)
                return hcl.Literal(place, known)
        return self._number(place)

    def end(self) -> None:
        """Checks that nothing follows."""
        self._space()
        if self.at < len(self.text.content):
            raise self._unexpected()

    def _number(self, place: str) -> hcl.Node:
        found = _NUMBER.match(self.text.content, self.at)
        if not found:
            raise self._unexpected()
        self.at = found.end()
        try:
            return hcl.Literal(place, tidy(Decimal(found[0])))
        except UsageError as bad:
            raise bad.at(place) from None

    def _template(self) -> hcl.Node:
        begin = self.at
        try:
            content, self.at = scanstring(self.text.content, begin + 1, True)
        except json.JSONDecodeError as bad:
            raise self.text.error(min(bad.pos, len(self.text.content)), f"the text is not JSON: {bad.msg}") from None
        return parse_template(Text(content, self.text.file, self.text.line_of(begin)))

    def _pairs(self, depth: int) -> Iterator[tuple[hcl.Node, hcl.Node]]:
        for _ in self._until("}"):
            self._space()
            if self.text.content[self.at : self.at + 1] != '"':
                raise self._unexpected()
            key = self._template()
            self._space()
            if self.text.content[self.at : self.at + 1] != ":":
                raise self._unexpected()
            self.at += 1
            yield key, self.value(depth + 1)

    def _until(self, closing: str) -> Iterator[None]:
        """Once for every element before a closing bracket."""
        self.at += 1
        self._space()
        if self.text.content[self.at : self.at + 1] == closing:
            self.at += 1
            return
        while True:
            yield
            self._space()
            mark = self.text.content[self.at : self.at + 1]
            if mark not in (",", closing) or not mark:
                raise self._unexpected()
            self.at += 1
            if mark == closing:
                return

    def _space(self) -> None:
        if self.text.content[self.at : self.at + 1] in _BLANK and (found := _SPACE.match(self.text.content, self.at)):
            self.at = found.end()

    def _unexpected(self) -> UsageError:
        rest = self.text.content[self.at : self.at + 30].splitlines()
        return self.text.error(self.at, f"{rest[0]!r} is not understood here" if rest else "the file ends too early")
