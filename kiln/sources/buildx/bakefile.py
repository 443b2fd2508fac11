"""Bake files (docker-bake.hcl, docker-bake.json) -> a collection of wishes, as `docker buildx bake` reads them.

buildx takes paths relative to the folder where it is called. A bake file can be named from anywhere here, so paths are
relative to the folder of the first file, which is the same for everybody who calls it from there.

A target that nothing of the default needs and that cannot be made (a tag of a variable that is not set) does not stop
the others: it is left out with a warning.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import KilnError, UsageError
from kiln.sources.buildx import keys as bakekeys
from kiln.sources.buildx import sets as bakesets
from kiln.sources.buildx.groups import Drafts, gather
from kiln.sources.buildx.keys import Draft
from kiln.sources.buildx.scope import Made, World
from kiln.sources.hcl import evaluate as hcl
from kiln.sources.hcl import value as hclvalue
from kiln.sources.hcl.body import Block, Body
from kiln.sources.wish import Collection

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_MAX_MATRIX = 1000
_MAX_CHAIN = 100


def load(paths: Sequence[Path], *, environment: Mapping[str, str], sets: Sequence[str] = ()) -> Collection:
    """The targets of bake files, the later laid over the earlier, with `--set` texts. Raises `UsageError`."""
    world = World(environment)
    for path in paths:
        world.add(read_body(path))
    world.check_variables()
    _make_targets(world)
    groups = {name: _group_members(block, world) for name, block in world.groups.items()}
    groups |= _matrix_groups(world)
    drafts = _drafts(world)
    overrides = bakesets.read_sets(sets, drafts, environment)
    places = {name: block.place for name, block in world.groups.items()}
    given = Drafts(tuple(drafts), finished(drafts, overrides), groups, places)
    return gather("bake", Path(paths[0]).absolute().parent, given, environment)


def read_body(path: Path) -> Body:
    """What one bake file holds; `.json` files are JSON, all others HCL or JSON by their first character."""
    try:
        content = path.read_text("utf-8")
    except OSError as bad:
        raise UsageError(f"the bake file cannot be read: {bad.strerror}", where=str(path)) from bad
    except UnicodeDecodeError:
        raise UsageError("the bake file is not a text in UTF-8", where=str(path)) from None
    if path.suffix == ".json" or content.lstrip("\ufeff \t\r\n").startswith("{"):
        from kiln.sources.hcl import json as hcljson

        return hcljson.parse(content, str(path))
    from kiln.sources.hcl import syntax as hclsyntax

    return hclsyntax.parse(content, str(path))


def _make_targets(world: World) -> None:
    """Works out the names of all targets; those of matrices come last, as they may be made of other targets."""
    for block in sorted(world.targets, key=lambda block: "matrix" in block.body.attributes):
        try:
            names = _add_rounds(world, block)
        except KilnError as bad:
            raise bad.at(block.place) from None
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            hint = 'Give each its own name: name = "app-${...}".'
            raise UsageError(f"the matrix makes several targets called {twice[0]}", where=block.place, hint=hint)


def _add_rounds(world: World, block: Block) -> list[str]:
    attributes, names = block.body.attributes, []
    if "name" in attributes and "matrix" not in attributes:
        raise UsageError("name is for targets with a matrix", where=attributes["name"].place)
    for scope in _rounds(world, block):
        name = block.labels[0]
        if "name" in attributes:
            name = hclvalue.text(hcl.evaluate(attributes["name"].value, scope))
        if not _NAME.fullmatch(name):
            hint = "Names have letters, digits, - and _; the function sanitize makes one."
            raise UsageError(f"{name!r} is not a name for a target", where=block.place, hint=hint)
        names.append(name)
        world.made.setdefault(name, []).append(Made(name, block, scope))
    return names


def _rounds(world: World, block: Block) -> Iterator[hcl.Scope]:
    """A scope for each combination of the matrix, the world itself without one."""
    attribute = block.body.attributes.get("matrix")
    if attribute is None:
        yield world
        return
    matrix = hclvalue.mapping(hcl.evaluate(attribute.value, world))
    names = sorted(matrix)
    for count, values in enumerate(itertools.product(*(hclvalue.items(matrix[name]) for name in names))):
        if count >= _MAX_MATRIX:
            raise UsageError(f"the matrix makes more than {_MAX_MATRIX} targets", where=attribute.place)
        yield hcl.Local(world, dict(zip(names, values, strict=True)))


def _matrix_groups(world: World) -> dict[str, tuple[str, ...]]:
    """A matrix's own name stands for all its targets."""
    found: dict[str, tuple[str, ...]] = {}
    for name, made in world.made.items():
        for label in {one.block.labels[0] for one in made if "matrix" in one.block.body.attributes}:
            found[label] = (*found.get(label, ()), name)
    return {label: names for label, names in found.items() if names != (label,)}


def _group_members(block: Block, world: World) -> tuple[str, ...]:
    attribute = block.body.attributes.get("targets")
    if attribute is None:
        return ()
    try:
        value = hcl.evaluate(attribute.value, world)
        names = bakekeys.read_field("targets", value)
    except KilnError as bad:
        raise bad.at(attribute.place) from None
    return tuple(filter(None, names)) if isinstance(names, tuple) else ()


def _drafts(world: World) -> dict[str, Draft]:
    """Each target as its blocks write it, without what it inherits."""
    found: dict[str, Draft] = {}
    for name, made in world.made.items():
        for one in made:
            draft = _draft(one)
            found[name] = replace(draft.over(found[name]), place=found[name].place) if name in found else draft
    return found


def _draft(made: Made) -> Draft:
    fields: dict[str, bakekeys.Field] = {}
    places: dict[str, str] = {}
    inherits: tuple[str, ...] = ()
    for key, attribute in made.block.body.attributes.items():
        if key in ("matrix", "name"):
            continue
        places[key] = attribute.place
        try:
            value = bakekeys.read_field(key, hcl.evaluate(attribute.value, made.scope))
        except KilnError as bad:
            raise bad.at(attribute.place) from None
        if key == "inherits":
            inherits = value if isinstance(value, tuple) else ()
        elif value is not None:
            fields[key] = value
    return Draft(made.name, made.block.place, fields, inherits, places)


def finished(drafts: Mapping[str, Draft], overrides: bakesets.Overrides) -> Callable[[str], Draft]:
    """A function from a target's name to its draft with what it inherits and what is set. It raises `UsageError`."""
    return _Inheritance(drafts, overrides).draft


class _Inheritance(Struct):
    """Lays drafts over those they inherit; `active` are the names on the way."""

    drafts: Mapping[str, Draft]
    overrides: bakesets.Overrides
    known: dict[str, Draft] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)

    def draft(self, name: str) -> Draft:
        """The finished draft of a target."""
        if name in self.known:
            return self.known[name]
        own = self.drafts[name]
        if name in self.active:
            circle = " -> ".join([*self.active[self.active.index(name) :], name])
            raise UsageError(f"targets inherit each other: {circle}", where=own.where("inherits"))
        if len(self.active) >= _MAX_CHAIN:
            raise UsageError("targets inherit each other too deeply", where=own.where("inherits"))
        self.active.append(name)
        try:
            made = replace(own, inherits=()).over(self._base(own))
        finally:
            self.active.pop()
        self.known[name] = bakesets.apply(made, self.overrides.get(name, {}))
        return self.known[name]

    def _base(self, own: Draft) -> Draft:
        base = Draft(own.name, own.place)
        for name in own.inherits:
            if name and name not in self.drafts:
                hint = did_you_mean(name, self.drafts)
                message = f"{own.name} inherits {name}, which is no target"
                raise UsageError(message, where=own.where("inherits"), hint=hint)
            base = self.draft(name).over(base) if name else base
        return base
