"""Functions of HCL for lists, objects and sets."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

from kiln.errors import KilnError, UsageError
from kiln.sources.hcl.operators import member
from kiln.sources.hcl.value import (
    Function,
    Value,
    alike,
    as_set,
    distinct,
    fingerprint,
    items,
    kind,
    mapping,
    pairs,
    same,
    text,
    whole,
)

_MAX_ITEMS = 100_000


def _chunk(value: Value, size: Value) -> Value:
    given, width = items(value), whole(size)
    if width < 0:
        raise UsageError("the size of a chunk cannot be negative")
    width = width or max(len(given), 1)
    return tuple(given[at : at + width] for at in range(0, len(given), width))


def _coalesce(*given: Value) -> Value:
    for value in alike(given):
        if value is not None:
            return value
    raise UsageError("all values are null")


def _coalesce_list(*given: Value) -> Value:
    for value in given:
        if value is not None and items(value):
            return value
    raise UsageError("all lists are empty")


def _concat(*given: Value) -> Value:
    return tuple(itertools.chain.from_iterable(map(items, given)))


def _contains(value: Value, wanted: Value) -> Value:
    return any(same(item, wanted) for item in items(value))


def _element(value: Value, index: Value) -> Value:
    given, at = items(value), whole(index)
    if not given:
        raise UsageError("the list is empty")
    if at < 0:
        raise UsageError("the position cannot be negative")
    return given[at % len(given)]


def _flatten(value: Value) -> Value:
    found: list[Value] = []
    for item in items(value):
        found.extend(items(_flatten(item)) if isinstance(item, tuple) else (item,))
    return tuple(found)


def _has_index(value: Value, key: Value) -> Value:
    items(value)
    try:
        member(value, key)
    except KilnError:
        return False
    return True


def _index_of(value: Value, wanted: Value) -> Value:
    for at, item in enumerate(items(value)):
        if same(item, wanted):
            return at
    raise UsageError("the list does not hold the value")


def _length(value: Value) -> Value:
    if not isinstance(value, tuple | dict):
        raise UsageError(f"a list or object is needed, not {kind(value)}", hint="Use strlen for texts.")
    return len(value)


def _lookup(value: Value, key: Value, *default: Value) -> Value:
    found = mapping(value)
    if text(key) in found:
        return found[text(key)]
    if not default:
        raise UsageError(f"the object has no {text(key)!r}")
    return default[0]


def _merge(*given: Value) -> Value:
    found: dict[str, Value] = {}
    for value in given:
        found |= mapping(value) if value is not None else {}
    return found


def _slice(value: Value, begin: Value, end: Value) -> Value:
    given, first, last = items(value), whole(begin), whole(end)
    if not 0 <= first <= last <= len(given):
        raise UsageError(f"{first} to {last} is not a part of a list of {len(given)}")
    return given[first:last]


def _zipmap(keys: Value, elements: Value) -> Value:
    names, given = items(keys), items(elements)
    if len(names) != len(given):
        raise UsageError(f"there are {len(names)} keys and {len(given)} values")
    return {text(name): value for name, value in zip(names, given, strict=True)}


def _sets(operation: Callable[[set[str], set[str]], set[str]]) -> Function:
    """A function of sets from one of sets of fingerprints."""

    def function(*given: Value) -> Value:
        if not given:
            raise UsageError("at least one set is needed")
        every = alike(tuple(itertools.chain.from_iterable(map(items, given))))
        known = {fingerprint(value): value for value in every}
        shown = iter(every)
        prints = [{fingerprint(value) for value in itertools.islice(shown, len(items(each)))} for each in given]
        kept = functools.reduce(operation, prints)
        return as_set(value for name, value in known.items() if name in kept)

    return function


def _set_product(*given: Value) -> Value:
    lists = [alike(items(each)) for each in given]
    if len(lists) < 2 or math.prod(map(len, lists)) > _MAX_ITEMS:
        raise UsageError("at least two lists are needed" if len(lists) < 2 else "the product is too large")
    return tuple(itertools.product(*lists))


FUNCTIONS: dict[str, Function] = {
    "chunklist": _chunk, "coalesce": _coalesce, "coalescelist": _coalesce_list,
    "compact": lambda value: tuple(item for item in items(value) if item not in ("", None)),
    "concat": _concat, "contains": _contains, "distinct": lambda value: distinct(alike(items(value))), "element": _element,
    "flatten": _flatten, "hasindex": _has_index, "index": member, "indexof": _index_of,
    "keys": lambda value: tuple(sorted(mapping(value))), "length": _length, "lookup": _lookup, "merge": _merge,
    "reverselist": lambda value: items(value)[::-1], "slice": _slice,
    "sort": lambda value: tuple(sorted(map(text, items(value)))),
    "values": lambda value: tuple(item for _, item in pairs(mapping(value))), "zipmap": _zipmap,
    "sethaselement": _contains, "setproduct": _set_product,
    "setintersection": _sets(lambda left, right: left & right), "setunion": _sets(lambda left, right: left | right),
    "setsubtract": _sets(lambda left, right: left - right),
    "setsymmetricdifference": _sets(lambda left, right: left ^ right),
}  # fmt: skip
