"""The catalog, `image.yml` or `kiln.yml`: a list of images, made together -> a collection of wishes."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import UsageError
from kiln.sources import yamlplaces
from kiln.sources.catalog.engine import engine, manager
from kiln.sources.catalog.ground import Draft, Ground
from kiln.sources.catalog.image import image
from kiln.sources.catalog.item import Item, as_pairs, item_of
from kiln.sources.catalog.keys import DEFAULTS, FORMS, PREFIX, RECIPES, TOP
from kiln.sources.catalog.matrix import combinations, suffix, value_of, without_matrix
from kiln.sources.mirror import Mirrors
from kiln.sources.wish import Collection, Destination, Wish
from kiln.sources.yamlplaces import Lookup, Map, Seq, Value

_MAX_NESTED = 50
_ID = re.compile(r"\w[\w./:@+-]*")
_LATER = ("images", "defaults", "variables")
_READERS: Mapping[str, Callable[[Item, Ground, str], Draft]] = {"engine": engine, "manager": manager, "": image}
_ELSEWHERE = {
    "": {
        name: f"{name} belongs to images of type {kind}."
        for kind in ("manager", "engine") for name in FORMS[kind] if name not in FORMS[""]
    } | {"type": "Write type in the image itself."},
    "typed": {name: f"{name} belongs to images without a type." for name in FORMS[""]},
}  # fmt: skip


def load(path: Path, *, environment: Mapping[str, str], mirrors: Mirrors, now: datetime.datetime) -> Collection:
    """What a catalog asks for, with the repositories of enabled images checked out. Raises `UsageError` with the place
    of what is wrong in it, and `SourceError` for a repository that cannot be had."""
    return _Loader(path, environment, mirrors, now).load()


class _Loader:
    def __init__(self, path: Path, environment: Mapping[str, str], mirrors: Mirrors, now: datetime.datetime) -> None:
        self.file = path.name
        whole = item_of(yamlplaces.read(path), 1, self.file, "a catalog")
        self.whole = Item(_without_extensions(whole.values), self.file).check(TOP, "the catalog")
        self.environment = {**self._variables(environment), **environment}
        self.top = self._top()
        self.ground = Ground(
            path.absolute().parent, self.file, environment, mirrors, now, self.top.text("tag"),
            self.top.text("pfsd_rpm", "bash"),
        )  # fmt: skip
        self.defaults = self.whole.map("defaults").check(DEFAULTS, "defaults", elsewhere=_ELSEWHERE[""]).values
        self.drafts: dict[str, Draft] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.places: dict[str, str] = {}

    def load(self) -> Collection:
        self.ground.reference(self.top, "tag", f"name:{self.ground.tag or 'latest'}")
        for value, line in self.whole.listed("images"):
            self._image(item_of(value, line, self.file, "an image"))
        for draft in self.drafts.values():
            if draft.wanted:
                self._connect(draft)
        self._read_groups()
        wishes = tuple(draft.wish for draft in self.drafts.values())
        result = self.top.text("result")
        return Collection(
            "catalog", self.ground.root, wishes, groups=self.groups, aliases=self._aliases(wishes),
            result=self.ground.path(result) if result else None, destination=Destination(prefix=self._registry()),
        )  # fmt: skip

    def _variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        given = self.whole.map("variables")
        filled = yamlplaces.substituted(given.values, environment.get, self.file)
        assert isinstance(filled, Map)
        variables = Item(filled, self.file)
        return {name: variables.text(name) for name in filled}

    def _top(self) -> Item:
        """The keys that are about the whole catalog, with `${NAME}` filled."""
        values = Map(self.whole.values.line)
        for key, value in self.whole.values.items():
            if key not in _LATER:
                line = self.whole.values.lines[key]
                values.put(key, yamlplaces.substituted(value, self.environment.get, self.file, line), line)
        top = Item(values, self.file)
        if top.text("version", "1") not in ("1", "1.0"):
            raise top.wrong("version", f"the version {top.text('version')!r} of the format is not known, only 1")
        return top

    def _registry(self) -> str:
        prefix = self.top.text("registry").rstrip("/")
        if prefix:
            self.ground.reference(self.top, "registry", f"{prefix}/name")
        return prefix

    def _image(self, item: Item) -> None:
        """Adds the image, or one for each combination of its matrix."""
        if not item.has("matrix"):
            self._add(_kind(item, self.environment.get), item.values, self._lookup({}), "")
            return
        matrix = yamlplaces.substituted(item.map("matrix").values, self._lookup({}), self.file)
        assert isinstance(matrix, Map)
        if item.has("type"):
            raise item.wrong("matrix", "matrix belongs to images without a type")
        values = without_matrix(item.values)
        names = tuple(
            self._add("", values, self._lookup(combination), suffix(combination))
            for combination in combinations(Item(matrix, self.file))
        )
        group = self._identity(Item(values, self.file), self._lookup({}))
        self._claim(group, item.place())
        self.groups[group] = names

    def _lookup(self, matrix: Mapping[str, str]) -> Lookup:
        environment = self.environment
        return lambda name: value_of(name, matrix) if "." in name else environment.get(name)

    def _identity(self, item: Item, lookup: Lookup) -> str:
        key = "name" if item.has("name") else "id"
        text = item.text(key)
        return yamlplaces.fill(text, lookup, item.place(key)) if "$" in text else text

    def _add(self, kind: str, values: Map, lookup: Lookup, ending: str) -> str:
        """Reads one image; returns its id."""
        form = FORMS[kind]
        merged = _merged(values, self.defaults, kind, self.file) if self.defaults else values
        filled = yamlplaces.substituted(merged, lookup, self.file)
        assert isinstance(filled, Map)
        item = Item(filled, self.file)
        item.check(form, "an image" if not kind else f"an {kind}" if kind == "engine" else f"a {kind}",
                   elsewhere=_ELSEWHERE["typed" if kind else ""])  # fmt: skip
        if item.has("id") and item.has("name"):
            raise item.wrong("name", "an image has id or name, not both")
        key = "name" if item.has("name") else "id"
        name = item.text(key) + ending
        if not _ID.fullmatch(name):
            problem = f"{name!r} is no id" if item.has(key) else "an image has no id"
            raise item.wrong(key, problem, hint="Use letters, digits and _ . - / : @ +")
        self._claim(name, item.place(key))
        try:
            self.drafts[name] = _READERS[kind](item, self.ground, name)
        except OSError as bad:
            raise UsageError(f"{bad.filename or name}: {bad.strerror}", where=item.place()) from bad
        return name

    def _claim(self, name: str, place: str) -> None:
        if name in self.places:
            raise UsageError(f"the id {name!r} is given twice, here and at {self.places[name]}", where=place)
        self.places[name] = place

    def _connect(self, draft: Draft) -> None:
        """Checks the ids that an image names; one that has a matrix is needed in every combination."""
        for name, place, single in draft.wanted:
            if name not in self.drafts and (single or name not in self.groups):
                raise self._unknown(name, place)
        needs = dict.fromkeys(each for name, _, _ in draft.wanted for each in self.groups.get(name, (name,)))
        self.drafts[draft.wish.name] = replace(draft, wish=replace(draft.wish, needs=tuple(needs)))

    def _unknown(self, name: str, place: str) -> UsageError:
        if name in self.groups:
            shown = ", ".join(self.groups[name][:5])
            return UsageError(f"{name!r} is several images", where=place, hint=f"Name one of them: {shown}.")
        known = [*self.drafts, *self.groups]
        return UsageError(f"there is no image {name!r}", where=place, hint=did_you_mean(name, known))

    def _read_groups(self) -> None:
        given = self.top.map("groups")
        for name in given.values:
            self._claim(name, given.place(name))
        for name in given.values:
            self._group(given, name, ())

    def _group(self, given: Item, name: str, above: tuple[str, ...]) -> tuple[str, ...]:
        """The ids in a group, also those of groups in it."""
        if name in self.groups:
            return self.groups[name]
        if name in above or len(above) > _MAX_NESTED:
            how = "part of itself" if name in above else "nested too deep"
            raise given.wrong(name, f"the group {name!r} is {how}")
        found: dict[str, None] = {}
        for member in given.texts(name):
            if member in given.values or member in self.groups:
                found |= dict.fromkeys(self._group(given, member, (*above, name)))
            elif member in self.drafts:
                found[member] = None
            else:
                hint = did_you_mean(member, [*self.drafts, *self.groups, *given.values])
                raise given.wrong(name, f"there is no image {member!r}", hint=hint)
        self.groups[name] = tuple(found)
        return self.groups[name]

    def _aliases(self, wishes: tuple[Wish, ...]) -> dict[str, tuple[str, ...]]:
        """The names of results, with and without their tags, unless they name something else already."""
        found: dict[str, dict[str, None]] = {}
        for wish in wishes:
            for tag in wish.tags:
                for word in (tag.familiar, tag.familiar.removesuffix(f":{tag.tag}")):
                    if word not in self.places:
                        found.setdefault(word, {})[wish.name] = None
        return {word: tuple(names) for word, names in found.items()}


def _without_extensions(values: Map) -> Map:
    """Without the keys that are there for anchors."""
    kept = Map(values.line)
    for key, value in values.items():
        if not key.startswith(PREFIX):
            kept.put(key, value, values.lines[key])
    return kept


def _kind(item: Item, lookup: Lookup) -> str:
    """engine, manager, or nothing for the richer form."""
    text = item.text("type")
    kind = yamlplaces.fill(text, lookup, item.place("type")) if "$" in text else text
    if kind not in FORMS or (not kind and "type" in item.values):
        hint = did_you_mean(kind, ("engine", "manager")) or "Types are engine and manager; other images have no type."
        raise item.wrong("type", f"the type {kind!r} is not known", hint=hint)
    return kind


def _merged(values: Map, defaults: Map, kind: str, file: str) -> Map:
    """An image with the defaults that its form knows; mappings are merged key by key, the image's own win."""
    merged = Map(values.line)
    merged.dollar = values.dollar or defaults.dollar
    own_recipe = any(key in values for key in RECIPES)
    for key, value in defaults.items():
        if key in FORMS[kind] and key not in values and not (own_recipe and key in RECIPES):
            merged.put(key, value, defaults.lines[key])
    for key, value in values.items():
        merged.put(key, _both(key, defaults.get(key), value, file), values.lines[key])
    return merged


def _both(key: str, default: Value, own: Value, file: str) -> Value:
    pairs = DEFAULTS[key].kind == "pairs" if key in DEFAULTS else False
    if pairs and isinstance(default, Seq) and isinstance(own, Map | Seq):
        default = as_pairs(key, default, file)
    if pairs and isinstance(own, Seq) and isinstance(default, Map):
        own = as_pairs(key, own, file)
    if not isinstance(default, Map) or not isinstance(own, Map):
        return own
    both = Map(own.line)
    both.dollar = default.dollar or own.dollar
    for source in (default, own):
        for name, value in source.items():
            both.put(name, value, source.lines[name])
    return both
