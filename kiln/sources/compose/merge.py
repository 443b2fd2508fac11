"""Compose files laid over each other, and services that extend others."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import UsageError
from kiln.sources.buildx.words import REMOTE
from kiln.sources.yamlplaces import Map, Seq, Value

_MAPPINGS = ("args", "labels", "additional_contexts", "environment")
_MAX_FILES = 50


class Service(Struct, frozen=True):
    """A service with the file it is written in."""

    name: str
    fields: Map
    file: str
    line: int

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"


def as_map(value: Value, file: str, line: int, what: str) -> Map:
    """A mapping, an empty one for nothing; raises `UsageError`."""
    if value is None:
        return Map(line)
    if not isinstance(value, Map):
        raise UsageError(f"{what} is a mapping", where=f"{file}:{line}")
    return value


def merged(earlier: Value, later: Value, key: str = "") -> Value:
    """Two values of a key: mappings are merged, lists added, others replaced. `build: FOLDER` stands for a mapping."""
    if key == "build":
        earlier, later = _build(earlier), _build(later)
    if key in _MAPPINGS:
        earlier, later = pairs(earlier), pairs(later)
    if later is None:
        return earlier
    if isinstance(earlier, Map) and isinstance(later, Map):
        made = Map(earlier.line)
        for name in (*earlier, *(name for name in later if name not in earlier)):
            line = later.lines[name] if name in later else earlier.lines[name]
            both = name in earlier and name in later
            value = merged(earlier[name], later[name], name) if both else later.get(name, earlier.get(name))
            made.put(name, value, line)
        return made
    if isinstance(earlier, Seq) and isinstance(later, Seq):
        items = Seq(earlier.line)
        for value, line in zip((*earlier, *later), (*earlier.lines, *later.lines), strict=True):
            if value not in items:
                items.append(value)
                items.lines.append(line)
        return items
    return later


def _build(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    made = Map(0)
    made.put("context", value, 0)
    return made


def pairs(value: Value) -> Value:
    """A list of NAME=VALUE as a mapping; a name alone has no value."""
    if not isinstance(value, Seq):
        return value
    made = Map(value.line)
    for item, line in zip(value, value.lines, strict=True):
        if isinstance(item, str):
            name, equals, word = item.partition("=")
            made.put(name, word if equals else None, line)
    return made


class Services(Struct):
    """The services of one file; those that extend another are completed when they are asked for."""

    file: str
    raw: Map
    open_file: Callable[[str, str], Services]
    made: dict[str, Service] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)

    def get(self, name: str, where: str = "") -> Service:
        """A service with what it extends; raises `UsageError`."""
        if name in self.made:
            return self.made[name]
        if name not in self.raw:
            raise UsageError(f"there is no service {name}", where=where or self.file, hint=did_you_mean(name, self.raw))
        line = self.raw.lines[name]
        if name in self.active or len(self.active) > _MAX_FILES:
            circle = " -> ".join([*self.active, name])
            raise UsageError(f"services extend each other: {circle}", where=f"{self.file}:{line}")
        self.active.append(name)
        fields = as_map(self.raw[name], self.file, line, f"the service {name}")
        if fields.get("extends") is not None:
            fields = self._extended(fields)
        self.active.pop()
        self.made[name] = Service(name, fields, self.file, line)
        return self.made[name]

    def _of_other_file(self, other: str, name: str, where: str) -> Service:
        """A service of another file, whose context is made relative to this one."""
        base = self.open_file(other, where).get(name, where)
        build = _build(base.fields.get("build"))
        folder = other.rpartition("/")[0]
        if not folder or not isinstance(build, Map):
            return base
        moved = Map(build.line)
        moved.put("context", ".", build.line)
        for key, value in build.items():
            moved.put(key, value, build.lines[key])
        context = moved["context"]
        if isinstance(context, str) and not context.startswith(("/", *REMOTE)):
            moved.put("context", f"{folder}/{context}", moved.lines["context"])
        fields = Map(base.fields.line)
        for key, value in base.fields.items():
            fields.put(key, moved if key == "build" else value, base.fields.lines[key])
        return Service(base.name, fields, base.file, base.line)

    def _extended(self, fields: Map) -> Map:
        where = f"{self.file}:{fields.lines['extends']}"
        given = fields["extends"]
        if isinstance(given, str):
            base = self.get(given, where)
        else:
            wanted = as_map(given, self.file, fields.lines["extends"], "extends")
            name, other = wanted.get("service"), wanted.get("file")
            if not isinstance(name, str):
                raise UsageError("extends names no service", where=where)
            base = self.get(name, where) if other is None else self._of_other_file(str(other), name, where)
        own = Map(fields.line)
        for key, value in fields.items():
            if key != "extends":
                own.put(key, value, fields.lines[key])
        both = merged(base.fields, own)
        return both if isinstance(both, Map) else own
