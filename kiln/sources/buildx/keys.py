"""The attributes of a target in a bake file: their kinds, how values are read, merged and overridden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.errors import UsageError
from kiln.sources.buildx.words import fields_of, joined
from kiln.sources.hcl import value as values
from kiln.sources.hcl.value import Value

Field: TypeAlias = str | bool | tuple[str, ...] | dict[str, str]
# Lists of which the later replaces the earlier, and those that are added to.
REPLACED = ("tags", "platforms", "output", "cache-to")
ADDED = (
    "annotations", "cache-from", "secret", "ssh", "no-cache-filter", "attest", "entitlements", "ulimits", "policy",
)  # fmt: skip
TEXTS = ("description", "context", "dockerfile", "dockerfile-inline", "target", "network", "call", "shm-size")
FLAGS = ("pull", "no-cache")
MAPS = ("args", "labels", "contexts", "extra-hosts")
KNOWN = (*TEXTS, *FLAGS, *REPLACED, *ADDED, *MAPS, "inherits", "matrix", "name")
_OBJECTS = ("output", "cache-from", "cache-to", "secret", "ssh", "attest", "policy")


class Draft(Struct, frozen=True):
    """A target as files and `--set` describe it, by the names of bake files; `places` are those of its attributes."""

    name: str
    place: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    inherits: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """The line of an attribute, that of the target if it is not known."""
        return self.places.get(key, self.place)

    def text(self, key: str, default: str = "") -> str:
        """A text attribute."""
        value = self.fields.get(key, default)
        return value if isinstance(value, str) else default

    def flag(self, key: str) -> bool:
        """A bool attribute, false if it is not set."""
        return self.fields.get(key) is True

    def words(self, key: str) -> tuple[str, ...]:
        """A list attribute without empty words and repetitions."""
        value = self.fields.get(key, ())
        return tuple(dict.fromkeys(filter(None, value))) if isinstance(value, tuple) else ()

    def map(self, key: str) -> dict[str, str]:
        """A map attribute."""
        value = self.fields.get(key, {})
        return dict(value) if isinstance(value, dict) else {}

    def over(self, earlier: Draft) -> Draft:
        """This draft's attributes laid over those of an earlier one, as `inherits` and further files do it."""
        fields = dict(earlier.fields)
        for key, value in self.fields.items():
            fields[key] = _merged(key, fields.get(key), value)
        inherits = (*earlier.inherits, *self.inherits)
        return replace(self, fields=fields, inherits=inherits, places={**earlier.places, **self.places})


def _merged(key: str, earlier: Field | None, later: Field) -> Field:
    if isinstance(later, dict) and isinstance(earlier, dict):
        return earlier | later
    if key in ADDED and isinstance(earlier, tuple) and isinstance(later, tuple):
        return (*earlier, *later)
    return later


def read_field(key: str, value: Value) -> Field | None:
    """The attribute of a value, None where it is null; raises `UsageError`."""
    if value is None:
        return None
    try:
        if key in TEXTS:
            return values.text(value)
        if key in FLAGS:
            return values.boolean(value)
        if key in MAPS:
            return {name: values.text(item) for name, item in values.mapping(value).items() if item is not None}
        return tuple(_word(key, item) for item in _list(value))
    except UsageError as bad:
        raise UsageError(f"{key}: {bad.message}", hint=bad.hint, where=bad.where) from None


def _list(value: Value) -> tuple[Value, ...]:
    if isinstance(value, str):
        raise UsageError("a list is needed, not a text", hint="Put it into brackets: [...].")
    return values.items(value)


def _word(key: str, item: Value) -> str:
    """One element of a list: a text, or an object of those attributes that may have one."""
    if item is None:
        return ""
    if isinstance(item, dict) and key in _OBJECTS:
        return _object_word(key, item)
    return values.text(item)


def _object_word(key: str, item: dict[str, Value]) -> str:
    given = {name: value for name, value in item.items() if value is not None}
    if key != "ssh":
        return joined({name: values.text(value) for name, value in given.items()})
    unknown = set(given) - {"id", "paths"}
    if unknown:
        raise UsageError(f"an ssh agent has no {sorted(unknown)[0]!r}", hint="It has id and paths.")
    paths = ",".join(values.text(path) for path in values.items(given.get("paths", ())))
    return values.text(given.get("id", "default")) + ("=" + paths if paths else "")


def pushed(outputs: tuple[str, ...], push: bool) -> tuple[str, ...]:
    """The outputs after `--set *.push=`: pushing is added where only the store or docker is written, or taken away."""
    found = []
    for text in outputs:
        fields = fields_of(text)
        kind = fields.get("type", "local")
        if not push and kind == "registry":
            continue
        found.append(joined({**fields, "push": "true" if push else "false"}) if kind == "image" else text)
    if push and all(fields_of(text).get("type") == "docker" for text in outputs):
        found.append("type=image,push=true")
    return tuple(found)


def loaded(outputs: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs after `--set *.load=true`: docker is added unless files are written."""
    for text in outputs:
        fields = fields_of(text)
        kind = fields.get("type", "local")
        if kind not in ("image", "registry", "oci", "docker") or (kind == "docker" and "dest" not in fields):
            return outputs
    return (*outputs, "type=docker")
