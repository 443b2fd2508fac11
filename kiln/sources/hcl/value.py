"""The values of HCL as Python's, and how one becomes another.

Numbers are `int` or `Decimal` (never `float`), lists, tuples and sets are `tuple`, maps and objects are `dict`.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Protocol, TypeAlias, TypeVar, Union, runtime_checkable

from kiln.errors import UsageError

MATH = decimal.Context(prec=154, Emax=9999, Emin=-9999, traps=[decimal.InvalidOperation, decimal.DivisionByZero])
_LIMIT = Decimal(10) ** 1000


@runtime_checkable
class Members(Protocol):
    """Something with members that are worked out when they are asked for: the blocks of a file."""

    def member(self, name: str) -> Value:
        """The member of that name; raises `UsageError`."""
        ...


Value: TypeAlias = Union[bool, int, Decimal, str, tuple["Value", ...], dict[str, "Value"], Members, None]  # noqa: UP007
Function: TypeAlias = Callable[..., Value]


def kind(value: Value) -> str:
    """What a value is, in words for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a bool"
    if isinstance(value, int | Decimal):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, tuple) else "an object"


def _wanted(what: str, value: Value) -> UsageError:
    shown = f" ({value!r})" if isinstance(value, str) and len(value) < 60 else ""
    return UsageError(f"{what} is needed, not {kind(value)}{shown}")


def number(value: Value) -> int | Decimal:
    """A number, or a text that writes one; raises `UsageError`."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value and value.strip() == value and "_" not in value:
        try:
            return tidy(Decimal(value, MATH))
        except decimal.InvalidOperation:
            pass
    raise _wanted("a number", value)


def tidy(value: int | Decimal) -> int | Decimal:
    """A number as `int` where it has no fraction; raises `UsageError` for one that is too large."""
    if isinstance(value, int):
        return _bounded(value)
    if not value.is_finite():
        raise UsageError("a number must be finite")
    exact = _bounded(MATH.plus(value))
    return int(exact) if exact == exact.to_integral_value() else exact.normalize(MATH)


_Number = TypeVar("_Number", int, Decimal)


def _bounded(value: _Number) -> _Number:
    if not -_LIMIT < value < _LIMIT:
        raise UsageError("a number is too large", hint="Numbers have at most 1000 digits.")
    return value


def whole(value: Value) -> int:
    """A number without a fraction."""
    found = number(value)
    if not isinstance(found, int):
        raise UsageError(f"a whole number is needed, not {text(found)}")
    return found


def boolean(value: Value) -> bool:
    """A bool, or a text that writes one."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in ("true", "false", "1", "0"):
        return value in ("true", "1")
    raise _wanted("true or false", value)


def text(value: Value) -> str:
    """A text, or a number or bool written as one."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    raise _wanted("a text", value)


def items(value: Value) -> tuple[Value, ...]:
    """The elements of a list; those of an object in the order of their names."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, dict):
        return tuple(value[name] for name in sorted(value))
    raise _wanted("a list", value)


def mapping(value: Value) -> dict[str, Value]:
    """An object."""
    if isinstance(value, dict):
        return value
    raise _wanted("an object", value)


def pairs(value: Value) -> list[tuple[Value, Value]]:
    """(key, element): positions of a list, sorted names of an object."""
    if isinstance(value, dict):
        return [(name, value[name]) for name in sorted(value)]
    return list(enumerate(items(value)))


def same(left: Value, right: Value) -> bool:
    """Whether two values are equal; those of different kinds never are."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return left == right


def distinct(values: Iterable[Value]) -> tuple[Value, ...]:
    """Each value once, in the order of its first appearance."""
    found: dict[str, Value] = {}
    for value in values:
        found.setdefault(fingerprint(value), value)
    return tuple(found.values())


def as_set(values: Iterable[Value]) -> tuple[Value, ...]:
    """Each value once, in the order that sets have: numbers by size, texts by code point."""
    each = distinct(alike(tuple(values)))
    numbers = [value for value in each if isinstance(value, int | Decimal) and not isinstance(value, bool)]
    if len(numbers) == len(each):
        return tuple(sorted(numbers, key=Decimal))
    return tuple(sorted(each, key=lambda value: value if isinstance(value, str) else fingerprint(value)))


def fingerprint(value: Value) -> str:
    """A text that only equal values share."""
    if isinstance(value, tuple):
        return "[" + ",".join(map(fingerprint, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name!r}:{fingerprint(value[name])}" for name in sorted(value)) + "}"
    return repr(value) if isinstance(value, str) or value is None else f"{kind(value)} {text(value)}"


def alike(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Values of one list type: where texts stand among numbers and bools, all become texts."""
    plain = [value for value in values if isinstance(value, str | bool | int | Decimal)]
    mixed = len({kind(value) for value in plain}) > 1
    if not mixed or not any(isinstance(value, str) for value in plain):
        return values
    return tuple(text(value) if isinstance(value, bool | int | Decimal) else value for value in values)
