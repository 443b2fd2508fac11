"""What stands between the values of HCL: operators, and taking a member."""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import UsageError
from kiln.sources.hcl import value as values
from kiln.sources.hcl.value import MATH, Members, Value, boolean, number, text, tidy


def member(of: Value, key: Value) -> Value:
    """An element of a list or object; raises `UsageError` where there is none."""
    if isinstance(of, tuple):
        index = values.whole(key)
        if not 0 <= index < len(of):
            raise UsageError(f"there is no element {index} in a list of {len(of)}")
        return of[index]
    if isinstance(of, dict):
        name = text(key)
        if name not in of:
            raise UsageError(f"the object has no {name!r}", hint=did_you_mean(name, of))
        return of[name]
    if isinstance(of, Members):
        return of.member(text(key))
    raise UsageError(f"{values.kind(of)} has no members")


def as_other(value: Value, other: Value) -> Value:
    """A value in the type that it shares with the one that was not chosen."""
    if isinstance(value, tuple):
        return values.alike((*value, *other))[: len(value)] if isinstance(other, tuple) else value
    return text(value) if isinstance(other, str) else value


def divide(left: Value, right: Value) -> Value:
    """A quotient; raises `UsageError` for a divisor of 0."""
    if number(right) == 0:
        raise UsageError("division by zero")
    return tidy(MATH.divide(Decimal(number(left)), Decimal(number(right))))


def modulo(left: Value, right: Value) -> Value:
    """A remainder, which has the sign of the left number."""
    if number(right) == 0:
        raise UsageError("division by zero")
    return tidy(MATH.remainder(Decimal(number(left)), Decimal(number(right))))


def _math(operation: Callable[[Decimal, Decimal], Decimal]) -> Callable[[Value, Value], Value]:
    return lambda left, right: tidy(operation(Decimal(number(left)), Decimal(number(right))))


def _order(operation: Callable[[Decimal, Decimal], bool]) -> Callable[[Value, Value], Value]:
    return lambda left, right: operation(Decimal(number(left)), Decimal(number(right)))


OPERATIONS: dict[str, Callable[[Value, Value], Value]] = {
    "+": _math(MATH.add), "-": _math(MATH.subtract), "*": _math(MATH.multiply), "/": divide, "%": modulo,
    "<": _order(operator.lt), "<=": _order(operator.le), ">": _order(operator.gt), ">=": _order(operator.ge),
    "==": values.same, "!=": lambda left, right: not values.same(left, right),
    "&&": lambda left, right: boolean(left) & boolean(right), "||": lambda left, right: boolean(left) | boolean(right),
}  # fmt: skip
