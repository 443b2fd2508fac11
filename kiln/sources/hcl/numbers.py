"""Functions of HCL for numbers, bools and comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal

from kiln.errors import UsageError
from kiln.sources.hcl.operators import OPERATIONS, divide, modulo
from kiln.sources.hcl.value import MATH, Function, Value, boolean, number, same, text, tidy, whole

_MAX_RANGE = 1024


def _rounded(how: str) -> Callable[[Value], Value]:
    return lambda value: int(Decimal(number(value)).to_integral_value(how))


def _log(value: Value, base: Value) -> Value:
    return tidy(Decimal(repr(math.log(number(value)) / math.log(number(base)))).quantize(Decimal("1e-15")))


def _pow(value: Value, exponent: Value) -> Value:
    if abs(Decimal(number(exponent))) > 4000:
        raise UsageError("a number is too large", hint="Numbers have at most 1000 digits.")
    if number(exponent) == 0:
        return 1
    if isinstance(number(exponent), int):
        return tidy(MATH.power(Decimal(number(value)), Decimal(number(exponent))))
    return tidy(Decimal(repr(float(number(value)) ** float(number(exponent)))))


def _parse_int(value: Value, base: Value) -> Value:
    word, places = text(value), whole(base)
    if not 2 <= places <= 36:
        raise UsageError(f"the base must be between 2 and 36, not {places}")
    try:
        if "_" in word or word.strip() != word or len(word) > 300:
            raise ValueError
        return int(word, places)
    except ValueError:
        raise UsageError(f"{word!r} is not a whole number of base {places}") from None


def _range(*bounds: Value) -> Value:
    numbers = [number(bound) for bound in bounds]
    if not 1 <= len(numbers) <= 3:
        raise UsageError("one to three numbers are needed")
    begin, end = (0, numbers[0]) if len(numbers) == 1 else numbers[:2]
    step = numbers[2] if len(numbers) == 3 else (1 if end >= begin else -1)
    if step == 0 or ((end > begin) != (step > 0) and end != begin):
        raise UsageError("the step does not lead from the first number to the last")
    found: list[Value] = []
    while (begin < end) if step > 0 else (begin > end):
        if len(found) >= _MAX_RANGE:
            raise UsageError(f"a range has at most {_MAX_RANGE} numbers")
        found.append(tidy(begin))
        begin += step
    return tuple(found)


def _extreme(best: Callable[..., int | Decimal]) -> Callable[..., Value]:
    def function(*given: Value) -> Value:
        if not given:
            raise UsageError("at least one number is needed")
        return best(*map(number, given)) if len(given) > 1 else number(given[0])

    return function


def _sign(value: Value) -> Value:
    return (number(value) > 0) - (number(value) < 0)


def _two(operation: Callable[[Value, Value], Value]) -> Function:
    def function(left: Value, right: Value) -> Value:
        return operation(left, right)

    return function


FUNCTIONS: dict[str, Function] = {
    "absolute": lambda value: abs(number(value)),
    "add": _two(OPERATIONS["+"]), "subtract": _two(OPERATIONS["-"]), "multiply": _two(OPERATIONS["*"]),
    "divide": _two(divide), "modulo": _two(modulo), "negate": lambda value: tidy(-number(value)),
    "ceil": _rounded(ROUND_CEILING), "floor": _rounded(ROUND_FLOOR), "int": _rounded(ROUND_DOWN),
    "log": _log, "pow": _pow, "signum": _sign, "parseint": _parse_int, "range": _range,
    "max": _extreme(max), "min": _extreme(min),
    "equal": _two(same), "notequal": _two(lambda left, right: not same(left, right)),
    "greaterthan": _two(OPERATIONS[">"]), "greaterthanorequalto": _two(OPERATIONS[">="]),
    "lessthan": _two(OPERATIONS["<"]), "lessthanorequalto": _two(OPERATIONS["<="]),
    "and": _two(OPERATIONS["&&"]), "or": _two(OPERATIONS["||"]), "not": lambda value: not boolean(value),
}  # fmt: skip
