"""Types as HCL writes them (`list(string)`), and values made to fit them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from kiln.errors import UsageError
from kiln.sources.hcl import evaluate as hcl
from kiln.sources.hcl import value as values
from kiln.sources.hcl.value import Value

_PLAIN = {"string": values.text, "number": values.number, "bool": values.boolean}


class Type(Struct, frozen=True):
    """A type: `kind` string, number, bool, any, list, set, map, tuple or object. `of` are the types inside, `names`
    those of an object's members and `optional` which of them may be left out."""

    kind: str
    of: tuple[Type, ...] = ()
    names: tuple[str, ...] = ()
    optional: Mapping[str, Value] = field(default_factory=dict)


def read_type(node: hcl.Node) -> Type:
    """The type that an expression writes; raises `UsageError`."""
    if isinstance(node, hcl.Literal) and node.value == "any":
        return Type("any")
    if isinstance(node, hcl.Name) and (node.name in _PLAIN or node.name == "any"):
        return Type(node.name)
    if isinstance(node, hcl.Call) and len(node.arguments) == 1:
        inner = node.arguments[0]
        if node.name in ("list", "set", "map"):
            return Type(node.name, (read_type(inner),))
        if node.name == "tuple" and isinstance(inner, hcl.ListOf):
            return Type("tuple", tuple(map(read_type, inner.items)))
        if node.name == "object" and isinstance(inner, hcl.ObjectOf):
            return _object(inner)
    hint = "Types are string, number, bool, any, list(T), set(T), map(T), tuple([T]), object({name = T})."
    raise UsageError("this is not a type", where=node.place, hint=hint)


def _object(node: hcl.ObjectOf) -> Type:
    names, types, optional = [], [], {}
    for key, value in node.pairs:
        name = key.value if isinstance(key, hcl.Literal) else None
        if not isinstance(name, str):
            raise UsageError("the name of a member must be a plain word", where=key.place)
        if isinstance(value, hcl.Call) and value.name == "optional" and value.arguments:
            default = value.arguments[1] if len(value.arguments) > 1 else None
            optional[name] = default.value if isinstance(default, hcl.Literal) else None
            value = value.arguments[0]
        names.append(name)
        types.append(read_type(value))
    return Type("object", tuple(types), tuple(names), optional)


def fit(value: Value, wanted: Type) -> Value:
    """The value as one of a type; raises `UsageError` where it cannot be."""
    if value is None or wanted.kind == "any":
        return value
    if wanted.kind in _PLAIN:
        return _PLAIN[wanted.kind](value)
    if wanted.kind in ("list", "set"):
        made = tuple(fit(item, wanted.of[0]) for item in values.items(value))
        return values.as_set(made) if wanted.kind == "set" else made
    if wanted.kind == "map":
        return {name: fit(item, wanted.of[0]) for name, item in values.mapping(value).items()}
    return _fit_tuple(value, wanted) if wanted.kind == "tuple" else _fit_object(value, wanted)


def _fit_tuple(value: Value, wanted: Type) -> Value:
    given = values.items(value)
    if len(given) != len(wanted.of):
        raise UsageError(f"a tuple of {len(wanted.of)} is needed, not one of {len(given)}")
    return tuple(map(fit, given, wanted.of))


def _fit_object(value: Value, wanted: Type) -> Value:
    given = values.mapping(value)
    missing = [name for name in wanted.names if name not in given and name not in wanted.optional]
    if missing:
        raise UsageError(f"the object needs {missing[0]!r}")
    return {
        name: fit(given.get(name, wanted.optional.get(name)), kind)
        for name, kind in zip(wanted.names, wanted.of, strict=True)
    }
