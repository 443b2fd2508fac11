"""The combinations of an image's matrix."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import UsageError
from kiln.sources.catalog.item import Item
from kiln.sources.yamlplaces import Map, Seq, Value

_MAX = 10_000
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def combinations(matrix: Item) -> list[dict[str, str]]:
    """name -> value, in the order written: all combinations but those that `exclude` matches, then those of `include`.
    Raises `UsageError`."""
    axes = {name: _values(matrix, name) for name in matrix.values if name not in ("include", "exclude")}
    if math.prod(map(len, axes.values())) > _MAX:
        raise UsageError(f"the matrix has more than {_MAX} combinations", where=matrix.place())
    unwanted = list(_listed(matrix, "exclude", axes, whole=False))
    product = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    found = [made for made in product if axes and not any(some.items() <= made.items() for some in unwanted)]
    found += [some for some in _listed(matrix, "include", axes, whole=True) if some not in found]
    if not found:
        raise UsageError("the matrix has no combination", where=matrix.place())
    return found


def suffix(values: Mapping[str, str]) -> str:
    """What a combination adds to the id of its image."""
    return "".join("-" + (_UNSAFE.sub("-", value).strip("-") or "none") for value in values.values())


def _values(matrix: Item, name: str) -> tuple[str, ...]:
    if not _NAME.fullmatch(name):
        raise matrix.wrong(name, f"{name!r} is no name for a matrix value", hint="Use letters, digits, _ and -.")
    if not isinstance(matrix.values[name], Seq):
        raise matrix.wrong(name, f"{name} is a list of values")
    values = matrix.texts(name)
    if not values:
        raise matrix.wrong(name, f"{name} has no values")
    return tuple(dict.fromkeys(values))


def _listed(matrix: Item, key: str, axes: Mapping[str, tuple[str, ...]], *, whole: bool) -> Iterator[dict[str, str]]:
    for value, line in matrix.listed(key):
        where = f"{matrix.file}:{line}"
        if not isinstance(value, Map) or not value:
            raise UsageError(f"an item of {key} is a mapping of names to values", where=where)
        item = Item(value, matrix.file)
        found = {name: _one(item, name, axes) for name in value}
        missing = [name for name in axes if name not in found]
        if whole and missing:
            raise UsageError(f"an item of include has no {missing[0]}", where=where)
        yield {name: found[name] for name in (axes or found) if name in found}


def _one(item: Item, name: str, axes: Mapping[str, tuple[str, ...]]) -> str:
    if (axes and name not in axes) or not _NAME.fullmatch(name):
        raise item.wrong(name, f"the matrix has no {name!r}", hint=did_you_mean(name, axes))
    return item.text(name)


def without_matrix(values: Map) -> Map:
    """The image itself."""
    image = Map(values.line)
    image.dollar = values.dollar
    for key, value in values.items():
        if key != "matrix":
            image.put(key, value, values.lines[key])
    return image


def value_of(name: str, values: Mapping[str, Value]) -> str:
    """The value of `matrix.NAME`; raises `UsageError` if there is none."""
    found = values.get(name.removeprefix("matrix.")) if name.startswith("matrix.") else None
    if not isinstance(found, str):
        hint = did_you_mean(name, [f"matrix.{known}" for known in values]) or "Values are named under matrix."
        raise UsageError(f"${{{name}}} has no value", hint=hint)
    return found
