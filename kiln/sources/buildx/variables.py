"""The variable of a bake file: its default, its type, and what the environment makes of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping

from kiln.errors import UsageError
from kiln.sources.hcl import evaluate as hcl
from kiln.sources.hcl import value as hclvalue
from kiln.sources.hcl.body import Block
from kiln.sources.hcl.coding import json_value
from kiln.sources.hcl.types import Type, fit, read_type
from kiln.sources.hcl.value import Value

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_PLAIN = ("string", "number", "bool")


def from_environment(name: str, default: Value, wanted: Type | None, environment: Mapping[str, str]) -> Value:
    """The value of a variable: that of the environment read as the type (or as the default's type), else the default.

    A typed variable is also taken from NAME_JSON. Lists are written as CSV, maps as CSV of `key:value`, as buildx has it.
    Raises `UsageError`.
    """
    if wanted and name not in environment and f"{name}_JSON" in environment:
        return fit(json_value(environment[f"{name}_JSON"]), wanted)
    if name not in environment:
        return fit(default, wanted) if wanted else default
    try:
        return _read(environment[name], wanted or _type_of(default))
    except UsageError as bad:
        raise UsageError(f"{name} in the environment: {bad.message}", hint=bad.hint) from None


def _type_of(default: Value) -> Type:
    if isinstance(default, bool):
        return Type("bool")
    if default is None or isinstance(default, str):
        return Type("string")
    if isinstance(default, tuple | dict):
        hint = "Give the variable a type, for example type = list(string)."
        raise UsageError("a list or object without a type cannot be set", hint=hint)
    return Type("number")


def _read(word: str, wanted: Type) -> Value:
    if wanted.kind == "bool":
        if word not in (*_TRUE, *_FALSE):
            raise UsageError(f"{word!r} is neither true nor false")
        return word in _TRUE
    if wanted.kind in ("string", "number", "any"):
        return hclvalue.number(word) if wanted.kind == "number" else word
    if wanted.kind in ("list", "set") and wanted.of[0].kind in _PLAIN:
        items = tuple(_read(item, wanted.of[0]) for item in _csv(word))
        return hclvalue.as_set(items) if wanted.kind == "set" else items
    if wanted.kind == "map" and wanted.of[0].kind in _PLAIN:
        pairs = [item.partition(":") for item in _csv(word)]
        if not all(colon for _, colon, _ in pairs):
            raise UsageError(f"{word!r} is not a list of key:value")
        return {key: _read(item, wanted.of[0]) for key, _, item in pairs}
    raise UsageError(f"a value of type {wanted.kind} cannot be read from it", hint="Set NAME_JSON to a JSON text.")


def _csv(word: str) -> list[str]:
    try:
        return next(csv.reader([word], strict=True), [])
    except csv.Error as bad:
        raise UsageError(f"{word!r} is not CSV: {bad}") from None


def type_of(block: Block) -> Type | None:
    """The type that a variable's block names."""
    attribute = block.body.attributes.get("type")
    return read_type(attribute.value) if attribute else None


def validate(block: Block, scope: hcl.Scope) -> None:
    """Checks the `validation` blocks of a variable; raises `UsageError` with their message."""
    for inner in block.body.blocks:
        condition = inner.body.attributes.get("condition")
        message = inner.body.attributes.get("error_message")
        if inner.kind != "validation" or not condition:
            raise UsageError(f"{inner.kind} is not understood in a variable", where=inner.place)
        if not hclvalue.boolean(hcl.evaluate(condition.value, scope)):
            text = hclvalue.text(hcl.evaluate(message.value, scope)) if message else "the condition is not met"
            raise UsageError(f"variable {block.labels[0]}: {text}", where=condition.place)
