"""Deciding what is done for each target of a plan: keys, results here and in registries, reasons."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kiln import events
from kiln.baking import results
from kiln.baking.bases import Bases
from kiln.baking.inputs import Look, Shape, facts_of, shape_of
from kiln.baking.loading import Plan, destination
from kiln.baking.results import Result, Results
from kiln.baking.session import Session
from kiln.baking.staging import Staging
from kiln.errors import KilnError, NotFoundError, RegistryError
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.plan.decide import BUILD, PULL, SKIP, Decision, Facts, change, readable, shown
from kiln.plan.graph import make_graph
from kiln.plan.target import Context, Target

_THREADS = 8


class Made(Struct, frozen=True):
    """The image of a target that is done: what it is, its final names, where it can be had: in the store, or (`place`) in
    a registry. `triggers`: it has ONBUILD instructions."""

    descriptor: Descriptor
    names: tuple[Reference, ...] = ()
    stored: bool = True
    place: Reference | None = None
    triggers: bool = False


class Verdict(Struct, frozen=True):
    """A decision with what it was made from; `result` is the image where one of this key exists."""

    target: Target
    decision: Decision
    facts: Facts | None = None
    result: Result | None = None
    place: Reference | None = None


class Planner:
    """Decides for the targets of one plan. Thread-safe."""

    def __init__(self, plan: Plan, session: Session) -> None:
        self.plan, self.session = plan, session
        self.results = Results(session.store)
        self.bases = Bases(session)
        self.staging = Staging(plan.request.collection, session)
        self.look = Look(session.contexts, plan.request.collection.root, epoch=session.settings.epoch)
        self._heads: dict[Reference, str] = {}
        self._silent: set[str] = set()
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Asks for everything that can be asked beforehand: bases, and what registries have; raises `PlanError`, and
        `RegistryError` for a registry that cannot be reached. Files are read while registries answer, and not before they are
        asked: the HTTP library is read in first."""
        names = list(dict.fromkeys(name for shape in self._shapes() for name in shape.target.pushes))
        hosts = list(dict.fromkeys(name.host for name in names))
        if names:
            self.session.client.open()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="kiln-ask") as pool:
            answers = [pool.submit(self._reach, host) for host in hosts]
            heads = {name: pool.submit(self._head, name) for name in names}
            try:
                self.bases.check(
                    [(shape, name, image) for shape in self._shapes() for name, image in self._outside(shape).items()]
                )
                if names:
                    self._read_ahead()
                for answer in answers:
                    answer.result()
                self._heads.update({name: answer.result() for name, answer in heads.items()})
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _read_ahead(self) -> None:
        """Looks at the files of all contexts that no hook will change."""
        hooked = {name for name, hooks in self.plan.request.collection.hooks.items() if hooks.pre or hooks.post}
        if hooked:
            return
        for shape in self._shapes():
            self.session.cancel.check()
            with contextlib.suppress(KilnError):
                self.look.remember(replace(shape, target=self.staging.prepare(shape.target)))

    def _reach(self, host: str) -> None:
        try:
            self.session.client.ping(host)
        except RegistryError as bad:
            bad.message = f"the registry {host} cannot be used, so nothing was built: {bad.message}"
            raise

    def _shapes(self) -> list[Shape]:
        return [self.plan.shapes[name] for name in self.plan.order.names]

    def _outside(self, shape: Shape) -> dict[str, str]:
        """Names in the Dockerfile that are no targets -> the images that they mean."""
        found = {}
        for name in shape.outline.images:
            if name in self.plan.links[shape.target.name]:
                continue
            context = shape.target.contexts.get(name) or shape.target.contexts.get(name.lower())
            found[name] = context.reference if context is not None else name
        return found

    def _head(self, name: Reference) -> str:
        try:
            found = self.session.client.head_manifest(name)
        except NotFoundError:
            return ""
        return found.digest if found is not None else ""

    def head(self, name: Reference) -> str:
        """The digest that a registry has under a name, empty for none; asked once."""
        with self._lock:
            known = self._heads.get(name)
        if known is None:
            known = self._head(name)
            with self._lock:
                self._heads[name] = known
        return known

    def place(self, name: str) -> str:
        """What a target's last result is kept under."""
        return f"{self.plan.request.collection.root}\0{name}"

    def decide(self, name: str, made: Mapping[str, Made]) -> Verdict:
        """The verdict about a target whose needs are all made; its component's first hook runs before. Raises `HookError`."""
        target = self._named(self.staging.prepare(self.plan.shapes[name].target), made)
        shape = self._shape(target)
        try:
            outside = {**self._bases(shape, made), **self._remotes(shape)}
            facts = facts_of(shape, self.look, outside, whole=self._whole(shape, made))
        except KilnError as bad:
            return Verdict(target, Decision(BUILD, f"its inputs cannot be read: {readable(str(bad))}"))
        unsure = [name for name, version in facts.bases.items() if not version]
        if unsure:
            return Verdict(target, Decision(BUILD, f"`{unsure[0]}` may have changed: only fetching it tells"))
        key = facts.key()
        if target.no_cache:
            return Verdict(target, Decision(BUILD, "forced: the cache is not to be used", key), facts)
        if target.no_cache_stages:
            names = ", ".join(sorted(target.no_cache_stages))
            return Verdict(target, Decision(BUILD, f"forced: no cache is to be used for {names}", key), facts)
        if lost := self._lost_output(target, facts):
            return Verdict(target, Decision(BUILD, lost, key), facts)
        local = self.results.get(key)
        if local is not None:
            return self._known(target, facts, self._with_own_names(target, local))
        return self._from_registry(target, facts) or Verdict(
            target, Decision(BUILD, self._reason(target, facts), key), facts
        )

    def _shape(self, target: Target) -> Shape:
        """The shape of a target, anew where a hook has written over its Dockerfile."""
        planned = self.plan.shapes[target.name]
        if target.program == planned.target.program:
            return replace(planned, target=target)
        graph = make_graph(target.program, target=target.stage, platform=planned.platforms[0], args=target.args)
        return shape_of(target, graph, planned.platforms)

    def _named(self, target: Target, made: Mapping[str, Made]) -> Target:
        """With the names that the images it stands on have in the end."""
        names = {arg: made[need].names[0].familiar for arg, need in target.image_args.items() if made[need].names}
        if not names:
            return target
        contexts = {name: Context("target", reference=target.image_args[arg], name=name) for arg, name in names.items()}
        return replace(target, args={**target.args, **names}, contexts={**target.contexts, **contexts})

    def _bases(self, shape: Shape, made: Mapping[str, Made]) -> dict[str, str]:
        links = self.plan.links[shape.target.name]
        found = {need: made[need].descriptor.digest for need in links.values()}
        several = len(shape.platforms) > 1
        for platform in shape.platforms:
            mark = f" ({platform})" if several else ""
            for name, image in self._outside(shape).items():
                found[f"{name}{mark}"] = self.bases.find(image, platform, refresh=shape.target.pull).digest
        return found

    def _remotes(self, shape: Shape) -> dict[str, str]:
        """URL or repository that ADD names -> a text that changes when it does, empty where that cannot be known."""
        if not shape.outline.remotes:
            return {}
        from kiln.sources.remote import version

        return {
            address: version(address, checksum, self.session.settings, self.session.cancel)
            for address, checksum in shape.outline.remotes
        }

    def _whole(self, shape: Shape, made: Mapping[str, Made]) -> bool:
        if shape.outline.fires or any(made[need].triggers for need in self.plan.links[shape.target.name].values()):
            return True
        return any(
            self.bases.find(image, shape.platforms[0], refresh=shape.target.pull).triggers
            for image in self._outside(shape).values()
        )

    def _known(self, target: Target, facts: Facts, local: Result) -> Verdict:
        """The image is here: there is nothing to do, unless a registry lacks it."""
        target = keep_names(target, local)
        for name in target.pushes:
            found = self.head(name)
            if found != local.descriptor.digest:
                why = (
                    f"its result is missing in the registry ({name.familiar})"
                    if not found
                    else f"{name.familiar} is another image there ({shown(found)})"
                )
                decision = Decision(BUILD, why, local.key, local.descriptor.digest, push=True)
                return Verdict(target, decision, facts, local)
        words = "unchanged, and the registry has it" if target.pushes else "unchanged"
        return Verdict(target, Decision(SKIP, words, local.key, local.descriptor.digest), facts, local)

    def _with_own_names(self, target: Target, local: Result) -> Result:
        """A result with the names that this target gave it: another may have the same inputs."""
        last = self.results.last(self.place(target.name)) if target.auto_tag else None
        return msgspec.structs.replace(local, names=last.names) if last is not None and last.key == local.key else local

    def lookup(self, target: Target) -> Reference | None:
        """Where a result of a target may be shared: where it is pushed, or would be."""
        if target.pushes:
            return target.pushes[0]
        place = self.plan.request.destination
        return destination(target.tags[0], place) if place.prefix and target.tags else None

    def _from_registry(self, target: Target, facts: Facts) -> Verdict | None:
        """A result that another machine shared."""
        where = self.lookup(target)
        if where is None:
            return None
        found = self._shared(where, results.key_tag(facts.key()))
        if found is None or found.key != facts.key():
            return None
        target, digest = keep_names(target, found), found.descriptor.digest
        if target.pushes and all(self.head(name) == digest for name in target.pushes):
            decision = Decision(SKIP, "unchanged: the registry has it", found.key, digest)
        elif not self.head(where.with_digest(digest)):
            return None
        else:
            decision = Decision(PULL, f"made elsewhere from the same inputs ({shown(digest)})", found.key, digest)
        return Verdict(target, decision, facts, found, where.with_digest(digest))

    def _shared(self, where: Reference, tag: str) -> Result | None:
        """A result beside the images of a registry. One that does not answer shares nothing, and is not asked again."""
        if where.host in self._silent:
            return None
        try:
            return results.find(self.session.client, where, tag)
        except RegistryError as bad:
            self._silent.add(where.host)
            message = f"{where.host} is not asked for what others made: {bad}"
            self.session.report(events.Warned(time=events.now(), message=message))
            return None

    def _lost_output(self, target: Target, facts: Facts) -> str:
        """Why an archive or folder that a target gives out has to be written; empty where all are there, of this key."""
        if not target.outputs:
            return ""
        last = self.results.last(self.place(target.name))
        if last is None:
            return change(None, Facts())
        for output in target.outputs:
            if output.dest == "-" or (output.dest and not os.path.lexists(output.dest)):
                return f"its output {output.dest} is missing"
        return "" if last.key == facts.key() else change(last.facts, facts)

    def _reason(self, target: Target, facts: Facts) -> str:
        last = self.results.last(self.place(target.name))
        where = self.lookup(target)
        if last is None and where is not None:
            last = self._shared(where, results.last_tag(where.tag, auto=target.auto_tag))
        words = change(last.facts if last is not None else None, facts)
        return words or "its result is no longer in the store"


def keep_names(target: Target, known: Result) -> Target:
    """A target whose name changes with time keeps, where nothing else changed, the name that its image has."""
    if not target.auto_tag or not known.names:
        return target
    from kiln.oci.reference import parse

    own = {name.name for name in target.tags}
    names = tuple(name for name in map(parse, known.names) if name.name in own)
    if not names:
        return target
    tag = names[0].tag
    return replace(target, tags=names, pushes=tuple(replace(name, tag=tag) for name in target.pushes))
