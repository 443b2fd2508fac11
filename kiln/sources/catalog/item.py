"""One mapping of a catalog: its keys checked against the table, its values read with the place in every error."""

from __future__ import annotations

from collections.abc import Mapping

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import UsageError
from kiln.sources.catalog.keys import NETWORKS, Key
from kiln.sources.yamlplaces import Map, Seq, Value

_FLAGS = {
    word: value
    for value, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for word in words
}  # fmt: skip


class Item:
    """A mapping with the name of its file. A key with nothing behind it counts as absent."""

    __slots__ = ("file", "values")

    def __init__(self, values: Map, file: str) -> None:
        self.values, self.file = values, file

    def check(self, known: Mapping[str, Key], what: str, *, elsewhere: Mapping[str, str] | None = None) -> Item:
        """Itself, if it has no key but the known ones and all that are required. `what` names it in errors; `elsewhere`
        says of further keys where they belong. Raises `UsageError`."""
        if not self.values.keys() <= known.keys():
            self._unknown(known, what, elsewhere or {})
        for key in known.values():
            if key.required and self.values.get(key.name) is None:
                raise UsageError(f"{what} has no {key.name}", where=self.place())
        return self

    def _unknown(self, known: Mapping[str, Key], what: str, elsewhere: Mapping[str, str]) -> None:
        name = next(name for name in self.values if name not in known)
        hint = elsewhere.get(name) or did_you_mean(name, known) or f"Keys are {', '.join(known)}."
        raise UsageError(f"{what} has no key {name!r}", where=self.place(name), hint=hint)

    def place(self, key: str = "") -> str:
        """`file:line` of a key, or of the mapping itself."""
        return f"{self.file}:{self.values.lines.get(key, self.values.line)}"

    def wrong(self, key: str, message: str, *, hint: str = "") -> UsageError:
        """The error to raise at a key."""
        return UsageError(message, where=self.place(key), hint=hint)

    def has(self, key: str) -> bool:
        """Whether there is something behind a key."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """One text; numbers and dates are texts as they are written."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, str):
            return value
        raise self.wrong(key, f"{key} is one text, not {_shape(value)}")

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self.values.get(key)
        if value is None:
            return default
        found = _FLAGS.get(value.lower()) if isinstance(value, str) else None
        if found is None:
            shape = repr(value) if isinstance(value, str) else _shape(value)
            raise self.wrong(key, f"{key} is true or false, not {shape}")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """One text or a list of texts; empty ones are left out."""
        value = self.values.get(key)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,) if value else ()
        if isinstance(value, Map):
            raise self.wrong(key, f"{key} is a text or a list of texts, not a mapping")
        return tuple(text for text in self._items(key, value) if text)

    def _items(self, key: str, value: Seq) -> list[str]:
        texts = []
        for item, line in zip(value, value.lines, strict=True):
            if isinstance(item, Map | Seq):
                raise UsageError(f"an item of {key} is a text, not {_shape(item)}", where=f"{self.file}:{line}")
            texts.append(item or "")
        return texts

    def map(self, key: str) -> Item:
        """The mapping behind a key; an empty one where there is none."""
        value = self.values.get(key)
        if value is None:
            return Item(Map(self.values.lines.get(key, self.values.line)), self.file)
        if not isinstance(value, Map):
            raise self.wrong(key, f"{key} is a mapping, not {_shape(value)}")
        return Item(value, self.file)

    def listed(self, key: str) -> list[tuple[Value, int]]:
        """The items of a list with their lines."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, Seq):
            raise self.wrong(key, f"{key} is a list, not {_shape(value)}")
        return list(zip(value, value.lines, strict=True))

    def pairs(self, key: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
        """A mapping of texts, or a list of NAME=VALUE. A name without a value takes that of `environment`, is left out
        if it has none there, and is empty where no environment is given."""
        value = self.values.get(key)
        if value is None:
            return {}
        if isinstance(value, str):
            raise self.wrong(key, f"{key} is a mapping or a list of NAME=VALUE, not a text")
        pairs = as_pairs(key, value, self.file)
        found = {}
        for name, inner in pairs.items():
            if inner is None:
                inner = "" if environment is None else environment.get(name)
            if isinstance(inner, Map | Seq):
                raise Item(pairs, self.file).wrong(name, f"{key}: {name} is a text, not {_shape(inner)}")
            if inner is not None:
                found[name] = inner
        return found

    def network(self) -> str:
        """The network of RUN steps."""
        value = self.text("network", "default")
        if value not in NETWORKS:
            raise self.wrong("network", f"network is one of {', '.join(NETWORKS)}, not {value!r}")
        return value


def as_pairs(key: str, value: Map | Seq, file: str) -> Map:
    """A list of NAME=VALUE as a mapping (a NAME alone has no value); raises `UsageError`."""
    if isinstance(value, Map):
        return value
    pairs = Map(value.line)
    pairs.dollar = value.dollar
    for item, line in zip(value, value.lines, strict=True):
        name, equals, text = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not name:
            raise UsageError(f"an item of {key} is NAME=VALUE", where=f"{file}:{line}")
        pairs.put(name, text if equals else None, line)
    return pairs


def _shape(value: Value) -> str:
    if value is None:
        return "nothing"
    return "a text" if isinstance(value, str) else "a list" if isinstance(value, Seq) else "a mapping"


def item_of(value: Value, line: int, file: str, what: str) -> Item:
    """The mapping that an item of a list is; raises `UsageError`."""
    if not isinstance(value, Map):
        raise UsageError(f"{what} is a mapping, not {_shape(value)}", where=f"{file}:{line}")
    return Item(value, file)
