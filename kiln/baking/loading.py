"""From a collection of wishes to a plan: what is wanted and what that needs, linked by the names that Dockerfiles use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kiln.baking.images import default_platform
from kiln.baking.inputs import Shape, shape_of
from kiln.baking.session import Session
from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import KilnError, PlanError, UsageError
from kiln.oci.reference import DEFAULT_HOST, Reference
from kiln.oci.reference import parse as parse_reference
from kiln.plan.graph import make_graph
from kiln.plan.order import Node, Order, check_duplicates, make_order
from kiln.plan.outline import merged
from kiln.plan.outputs import Output
from kiln.plan.target import Context, Target
from kiln.sources import dockerfile as dockerfile_source
from kiln.sources.components import with_images
from kiln.sources.context import open_context
from kiln.sources.wish import Collection, Destination, Wish


class Request(Struct, frozen=True):
    """A bake as it was asked for. `targets` are words (targets, groups, components, images), empty for the default;
    `push` pushes every image, `outputs` are further outputs of those that were asked for. `jobs` is how many targets may
    be made at once."""

    collection: Collection
    targets: tuple[str, ...] = ()
    push: bool = False
    destination: Destination = Destination()
    no_cache: bool = False
    pull: bool = False
    outputs: tuple[Output, ...] = ()
    keep_going: bool = False
    jobs: int = 0


class Plan(Struct, frozen=True):
    """The targets of a bake by name, their order, and the names that were asked for. `links` are, for each target, the
    image names of its Dockerfile that stand for other targets."""

    request: Request
    shapes: Mapping[str, Shape]
    order: Order
    links: Mapping[str, Mapping[str, str]]
    wanted: frozenset[str]


def load(request: Request, session: Session) -> Plan:
    """The plan of a request, checked; raises `PlanError`, `UsageError`, and what a Dockerfile or context has wrong."""
    return _Loader(request, session).load()


class _Loader:
    def __init__(self, request: Request, session: Session) -> None:
        self.request, self.session = request, session
        self.collection = request.collection
        self.wishes = {wish.name: wish for wish in self.collection.wishes}
        self.names = _Names(self.collection, request.destination)
        self.wanted: frozenset[str] = frozenset()
        self.shapes: dict[str, Shape] = {}
        self.links: dict[str, dict[str, str]] = {}

    def load(self) -> Plan:
        nodes = check_duplicates(
            Node(wish.name, wish.place, wish.needs, wish.enabled) for wish in self.collection.wishes
        )
        wanted = chosen(self.collection, self.request.targets)
        self.wanted = frozenset(wanted)
        make_order(nodes, wanted)
        waiting = list(wanted)
        while waiting:
            name = waiting.pop()
            if name in self.shapes or not (name in self.wishes and self.wishes[name].enabled):
                continue
            self._load(self.wishes[name])
            needs = tuple(dict.fromkeys([*self.wishes[name].needs, *self.links[name].values()]))
            if needs != nodes[name].needs:
                nodes[name] = replace(nodes[name], needs=needs)
            waiting += needs
        order = make_order(nodes, wanted)
        self._check_pushes(order)
        return Plan(self._seen(), self.shapes, order, self.links, frozenset(wanted))

    def _seen(self) -> Request:
        """The request with components that see those whose images they use."""
        if self.collection.kind != "components":
            return self.request
        links = {name: found.values() for name, found in self.links.items()}
        return replace(self.request, collection=with_images(self.collection, links))

    def _load(self, wish: Wish) -> None:
        try:
            target = self._target(wish)
            platforms = target.platforms or (default_platform(),)
            shapes = [
                shape_of(
                    target,
                    make_graph(target.program, target=target.stage, platform=platform, args=target.args),
                    platforms,
                )
                for platform in platforms
            ]
        except KilnError as bad:
            raise bad.at(wish.place) from None
        shape = shapes[0]
        links = {name: need for one in shapes for name in one.outline.images if (need := self._link(target, name))}
        links |= {name: context.reference for name, context in target.contexts.items() if context.kind == "target"}
        if len(shapes) > 1:
            shape = replace(shape, outline=merged([one.outline for one in shapes]))
        if links:
            contexts = {name: Context("target", reference=need, name=name) for name, need in links.items()}
            shape = replace(shape, target=replace(target, contexts={**target.contexts, **contexts}))
        self.shapes[wish.name] = shape
        self.links[wish.name] = links

    def _link(self, target: Target, name: str) -> str:
        """The target that an image name of a Dockerfile stands for, empty for an image from elsewhere."""
        context = target.contexts.get(name) or target.contexts.get(name.lower())
        if context is not None:
            return context.reference if context.kind == "target" else ""
        found = self.names.target(name)
        return found if found != target.name else ""

    def _target(self, wish: Wish) -> Target:
        request = self.request
        context = open_context(wish.context, self.session.store.scratch, self.session.settings, self.session.cancel)
        recipe = wish if wish.bootstrap is None else replace(wish, inline="FROM scratch\n")
        loaded = dockerfile_source.load(recipe, context)
        pushed = self._is_pushed(wish)
        tag = (
            "" if self.collection.kind == "components" else request.destination.tag
        )  # a tree's is for registries alone
        local = tuple(with_tag(name, tag) for name in wish.tags)
        return replace(
            loaded,
            tags=local,
            pushes=tuple(destination(name, request.destination) for name in local) if pushed else (),
            args={**loaded.args, **{arg: self._name_of(need) for arg, need in wish.image_args.items()}},
            no_cache=loaded.no_cache or request.no_cache,
            pull=loaded.pull or request.pull,
            outputs=(*loaded.outputs, *request.outputs) if wish.name in self.wanted else (),
        )

    def _is_pushed(self, wish: Wish) -> bool:
        """Whether a target's image is pushed; raises `UsageError` for one that was asked for and has no name to push."""
        if not (wish.push or self.request.push):
            return False
        if not wish.made_up or self.request.destination.prefix:
            return True
        if wish.name in self.wanted:
            raise UsageError(
                f"the target {wish.name!r} has no name to push it under",
                where=wish.place,
                hint="Give it tags, or name a registry with --registry.",
            )
        return False

    def _name_of(self, need: str) -> str:
        wish = self.wishes.get(need)
        return with_tag(wish.tags[0], self.request.destination.tag).familiar if wish is not None and wish.tags else need

    def _check_pushes(self, order: Order) -> None:
        """No two targets may have one name: the later would take it from the earlier."""
        owners: dict[Reference, Target] = {}
        for name in order.names:
            target = self.shapes[name].target
            for reference in dict.fromkeys([*target.tags, *target.pushes]):
                owner = owners.setdefault(reference, target)
                if owner is not target:
                    raise PlanError(
                        f"the targets {owner.name!r} (at {owner.place}) and {name!r} both make {reference.familiar}",
                        where=target.place,
                        hint="Give one of them another name or tag.",
                    )


def chosen(collection: Collection, words: Iterable[str]) -> list[str]:
    """The targets that words name: targets, groups, aliases; without words the group `default` or all that are enabled."""
    known = {wish.name for wish in collection.wishes}
    groups = {**collection.aliases, **collection.groups}
    if not words:
        default = groups.get("default")
        return list(default) if default else [wish.name for wish in collection.wishes if wish.enabled]
    found: list[str] = []
    for word in words:
        if word in groups:
            found += groups[word]
        elif word in known:
            found.append(word)
        else:
            names = sorted({*known, *groups})
            hint = did_you_mean(word, names) or f"Targets are {', '.join(names[:20])}."
            raise UsageError(f"there is no target {word!r}", hint=hint, where=str(collection.root))
    return list(dict.fromkeys(found))


def with_tag(name: Reference, tag: str) -> Reference:
    """A name with another tag, if one is given."""
    return replace(name, tag=tag) if tag else name


def destination(name: Reference, place: Destination) -> Reference:
    """Where an image of this name is pushed: below the prefix, if there is one."""
    if not place.prefix:
        return with_tag(name, place.tag)
    own = replace(name, tag="", digest="")
    path = own.familiar if own.host == DEFAULT_HOST else own.repository
    return parse_reference(f"{place.prefix.rstrip('/')}/{path}:{place.tag or name.tag or 'latest'}")


def destination_of(collection: Collection, registry: str, tag: str) -> Destination:
    """Where images go: as a request says, else as the collection does; raises `UsageError` for what cannot be a name."""
    place = collection.destination
    if registry:
        place = Destination(registry.removeprefix("https://").removeprefix("http://"), place.tag)
    if tag:
        place = replace(place, tag=tag)
    if place.prefix or place.tag:
        try:
            parse_reference(f"{place.prefix or 'registry.invalid'}/name:{place.tag or 'latest'}")
        except UsageError as bad:
            raise UsageError(f"images cannot be named like that: {bad.message}", hint=bad.hint) from None
    return place


class _Names:
    """Which target makes the image of a name, however it is written: by the target's own name, or as one of its tags."""

    def __init__(self, collection: Collection, place: Destination) -> None:
        self._any_tag = collection.kind == "components"
        self._by_name = {wish.name: wish.name for wish in collection.wishes}
        self._by_reference: dict[str, str] = {}
        self._by_repository: dict[str, str] = {}
        for wish in collection.wishes:
            for name in wish.tags:
                for reference in (with_tag(name, place.tag), name, destination(name, place)):
                    self._by_reference.setdefault(str(reference), wish.name)
                    if self._any_tag or wish.auto_tag:
                        self._by_repository.setdefault(reference.name, wish.name)

    def target(self, text: str) -> str:
        """The name of the target, or empty."""
        if text in self._by_name:
            return text
        try:
            reference = parse_reference(text)
        except UsageError:
            return ""
        exact = self._by_reference.get(str(reference.with_default_tag()))
        if exact is not None or reference.digest:
            return exact or ""
        return self._by_repository.get(reference.name, "") if self._any_tag or not reference.tag else ""
