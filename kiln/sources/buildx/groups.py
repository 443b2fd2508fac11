"""Drafted targets and groups -> a collection: groups made flat, what cannot be made left out where nobody needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from msgspec import Struct, field

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import KilnError, UsageError
from kiln.sources.buildx.keys import Draft
from kiln.sources.buildx.wish import Warnings, make_wish
from kiln.sources.wish import Collection, Wish

_MAX_CHAIN = 100


class Drafts(Struct, frozen=True):
    """What files give: the names of targets in order, their drafts, groups, and where each group is written."""

    names: tuple[str, ...]
    draft_of: Callable[[str], Draft]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)


def gather(kind: str, root: Path, drafts: Drafts, environment: Mapping[str, str]) -> Collection:
    """The collection of drafts whose paths are relative to `root`; raises the `UsageError` of a target or group that
    what is made by default needs. Others that cannot be made are left out with a warning."""
    gathering = _Gathering(drafts)
    for name in drafts.names:
        gathering.make(name, root, environment)
    gathering.check_needs()
    gathering.flatten_groups()
    gathering.check_default()
    wishes = tuple(gathering.wishes.values())
    return Collection(kind, root, wishes, groups=gathering.groups, warnings=tuple(gathering.all_warnings()))


class _Gathering(Struct):
    drafts: Drafts
    wishes: dict[str, Wish] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failed: dict[str, KilnError] = field(default_factory=dict)
    failed_groups: dict[str, KilnError] = field(default_factory=dict)
    warnings: Warnings = field(default_factory=list)
    checked: set[str] = field(default_factory=set)
    known: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.known = frozenset(self.drafts.names)

    def make(self, name: str, root: Path, environment: Mapping[str, str]) -> None:
        """Makes one wish, or notes why it cannot be made."""
        try:
            self.wishes[name] = make_wish(self.drafts.draft_of(name), root, environment, self.warnings)
        except KilnError as bad:
            self.failed[name] = bad

    def check_needs(self) -> None:
        """Finds wishes that need targets that there are not, or each other."""
        for name in list(self.wishes):
            try:
                self._check_needs(name, [])
            except KilnError as bad:
                self.failed.setdefault(name, bad)
        for name in self.failed:
            self.wishes.pop(name, None)

    def _check_needs(self, name: str, way: list[str]) -> None:
        if name in way:
            circle = " -> ".join([*way[way.index(name) :], name])
            raise UsageError(f"targets need each other: {circle}", where=self.wishes[name].place)
        if name in self.failed:
            raise self.failed[name]
        if len(way) > _MAX_CHAIN:
            raise UsageError("targets need each other too deeply", where=self.wishes[way[0]].place)
        if name not in self.wishes:
            place = self.wishes[way[-1]].place
            raise UsageError(f"{way[-1]} needs {name}, which is no target", where=place, hint=self._near(name))
        for need in self.wishes[name].needs if name not in self.checked else ():
            self._check_needs(need, [*way, name])
        self.checked.add(name)

    def _near(self, name: str) -> str:
        return did_you_mean(name, (*self.drafts.names, *self.drafts.groups))

    def flatten_groups(self) -> None:
        """Replaces the groups inside groups by their targets."""
        for name in self.drafts.groups:
            try:
                self.groups[name] = tuple(dict.fromkeys(self._members(name, [])))
            except KilnError as bad:
                self.failed_groups[name] = bad.at(self.drafts.places.get(name, ""))
        if "default" not in self.drafts.groups and "default" in self.drafts.names:
            self.groups["default"] = ("default",)

    def _members(self, name: str, way: list[str]) -> Iterable[str]:
        if name in way and name not in self.known:
            circle = " -> ".join([*way[way.index(name) :], name])
            raise UsageError(f"groups hold each other: {circle}")
        if len(way) > _MAX_CHAIN:
            raise UsageError("groups hold each other too deeply")
        if name in self.drafts.groups and name not in way:
            for member in self.drafts.groups[name]:
                yield from self._members(member, [*way, name])
        elif name in self.known:
            yield name
        else:
            raise UsageError(f"the group {way[-1]} holds {name}, which is no target", hint=self._near(name))

    def check_default(self) -> None:
        """Raises what is wrong with the targets of the default; other groups with such targets are left out."""
        if "default" in self.failed_groups:
            raise self.failed_groups["default"]
        default = self.groups.get("default")
        for name in self.drafts.names if default is None else default:
            if name in self.failed:
                raise self.failed[name]
        for group, names in list(self.groups.items()):
            broken = [name for name in names if name in self.failed]
            if broken:
                self.failed_groups[group] = UsageError(f"it holds {broken[0]}", where=self.drafts.places.get(group, ""))
                del self.groups[group]

    def all_warnings(self) -> Warnings:
        """The warnings, with those about what is left out."""
        targets = [(bad.where, f"the target {name} is left out: {bad.message}") for name, bad in self.failed.items()]
        groups = [
            (bad.where, f"the group {name} is left out: {bad.message}") for name, bad in self.failed_groups.items()
        ]
        return [*self.warnings, *targets, *groups]
