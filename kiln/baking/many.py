"""Baking a plan: decide and make each target when what it needs is done, push while others build, report at the end."""

from __future__ import annotations

import os
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

from msgspec import Struct, field
from msgspec.structs import replace

from kiln import events
from kiln.baking import results
from kiln.baking.deciding import Made, Planner, Verdict
from kiln.baking.loading import Plan
from kiln.baking.results import Result
from kiln.baking.schedule import Schedule, failure_text
from kiln.baking.session import Session
from kiln.errors import CancelledBuild, RegistryError, StoreError
from kiln.oci.image import Descriptor, Image
from kiln.oci.platform import Platform
from kiln.oci.reference import Reference
from kiln.plan.decide import PULL, SKIP
from kiln.plan.target import Target

BUILT, PUSHED, PULLED, SKIPPED, FAILED, UNREACHED = "built", "pushed", "pulled", "skipped", "failed", "not reached"
_PUSHES = 4


class Row(Struct, frozen=True):
    """One line of the final report. `result` is built, pushed, pulled, skipped, failed or not reached; `reason` says why
    in words; `failure` is what went wrong."""

    name: str
    result: str
    reason: str = ""
    seconds: float = 0.0
    digest: str = ""
    names: tuple[str, ...] = ()
    pushed: bool = False
    failure: BaseException | None = None

    @property
    def is_good(self) -> bool:
        """Whether the image is what it should be."""
        return self.result not in (FAILED, UNREACHED)


class Report(Struct, frozen=True):
    """What a bake gave, one row a target in the plan's order."""

    build: str
    rows: tuple[Row, ...]
    descriptors: dict[str, Descriptor] = field(default_factory=dict)

    @property
    def failures(self) -> list[BaseException]:
        """What went wrong, in the plan's order."""
        return [row.failure for row in self.rows if row.failure is not None]


def bake(plan: Plan, session: Session, planner: Planner | None = None) -> Report:
    """Makes the targets of a plan. What fails is in the report; raises only what stops everything before it begins."""
    return _Bake(plan, session, planner or Planner(plan, session)).run()


class _Bake:
    def __init__(self, plan: Plan, session: Session, planner: Planner) -> None:
        self.plan, self.session, self.planner = plan, session, planner
        self.made: dict[str, Made] = {}
        self.rows: dict[str, Row] = {}
        self.pushes: dict[str, Future[None]] = {}
        self.pool = ThreadPoolExecutor(_PUSHES, thread_name_prefix="kiln-push")
        self.lost: set[str] = set()
        self.lock = threading.Lock()
        self.known = session.store.layout.names()
        self.left = Counter(self._component(name) for name in plan.order.names)
        self.fetching: dict[str, threading.Lock] = {}
        self.recorded: set[str] = set()

    def run(self) -> Report:
        """Everything, in order; each target is reported when it ends."""
        self.planner.prepare()
        request = self.plan.request
        schedule = Schedule(
            self.plan.order, self._work, self.session.cancel,
            jobs=request.jobs or max(2, os.cpu_count() or 2), keep_going=request.keep_going,
        )  # fmt: skip
        try:
            run = schedule.run()
        finally:
            self.pool.shutdown(wait=True, cancel_futures=bool(self.session.cancel.reason))
        for name, need in run.unreached.items():
            why = f"{need} failed" if need else self.session.cancel.reason or "another target failed"
            self._row(Row(name, UNREACHED, why))
        self.session.clean_up()
        descriptors = {name: made.descriptor for name, made in self.made.items()}
        return Report(self.session.build_id, tuple(self.rows[name] for name in self.plan.order.names), descriptors)

    def _row(self, row: Row) -> None:
        self.rows[row.name] = row
        if row.failure is not None:
            self.session.error = self.session.error or f"{row.name}: {row.reason}"
        self.session.report(
            events.TargetFinished(
                time=events.now(), target=row.name, result=row.result, reason=row.reason, seconds=row.seconds,
                digest=row.digest, names=row.names, pushed=row.pushed, error=row.reason if row.failure else "",
            )
        )  # fmt: skip

    def _work(self, name: str) -> None:
        """Makes one target; its row is complete now or, where it is pushed, when that has ended."""
        begin = events.now()
        try:
            result, reason = self._decided(name, begin)
            self._end_component(name)
        except BaseException as bad:
            self._row(Row(name, FAILED, failure_text(bad), round(events.now() - begin, 3), failure=bad))
            raise
        made = self.made[name]
        names = tuple(reference.familiar for reference in made.names)
        row = Row(name, result, reason, round(events.now() - begin, 3), made.descriptor.digest, names)
        push = self.pushes.get(name)
        if push is None:
            self._row(row)
        else:
            push.add_done_callback(lambda ended: self._row(self._pushed(row, ended)))

    def _decided(self, name: str, begin: float) -> tuple[str, str]:
        """(what became of a target, why)."""
        verdict = self.planner.decide(name, self.made)
        decision = verdict.decision
        self.session.report(
            events.TargetDecided(time=begin, target=name, decision=decision.action, reason=decision.reason)
        )
        before = self.planner.results.last(self.planner.place(name)) if decision.builds else None
        result = self._make(verdict)
        same = before is not None and before.descriptor.digest == self.made[name].descriptor.digest
        return result, f"{decision.reason}; it came out the same" if same else decision.reason

    def _pushed(self, row: Row, push: Future[None]) -> Row:
        bad = CancelledBuild(self.session.cancel.reason or "stopped") if push.cancelled() else push.exception()
        if bad is None:
            return replace(row, pushed=True)
        return replace(row, result=FAILED, reason=f"made, but not pushed: {failure_text(bad)}", failure=bad)

    def _component(self, name: str) -> str:
        return self.plan.shapes[name].target.component

    def _end_component(self, name: str) -> None:
        """After the last image of a component its last hook runs, before anything that needs the component."""
        component = self._component(name)
        with self.lock:
            self.left[component] -= 1
            last = not self.left[component]
        if last:
            self.planner.staging.finish(component)

    def _make(self, verdict: Verdict) -> str:
        """Makes one target; returns what became of it."""
        result, action = verdict.result, verdict.decision.action
        if result is None:
            self._build(verdict)
            return BUILT
        if action == PULL:
            self._fetch(verdict.place, result.descriptor)
            self._keep(verdict, result.descriptor)
        stored = action == PULL or verdict.place is None
        if stored:
            self._tag(verdict.target, result.descriptor)
        self._done(verdict, result.descriptor, stored=stored)
        if action == SKIP:
            if stored:
                self.planner.results.remember(self.planner.place(verdict.target.name), result)
            return SKIPPED
        self._push(verdict, result)
        return PULLED if action == PULL else PUSHED

    def _done(self, verdict: Verdict, descriptor: Descriptor, *, stored: bool) -> None:
        target = verdict.target
        names = target.pushes or target.tags
        triggers = self.plan.shapes[target.name].outline.triggers
        self.made[target.name] = Made(descriptor, names, stored, verdict.place, triggers)

    def _tag(self, target: Target, descriptor: Descriptor) -> None:
        """Gives the image its names where they do not stand for it yet."""
        names = [str(name) for name in dict.fromkeys([*target.tags, *target.pushes])]
        if any(name not in self.known or self.known[name].digest != descriptor.digest for name in names):
            self.session.store.layout.tag(names, descriptor)

    def _fetch(self, place: Reference | None, descriptor: Descriptor) -> None:
        """Brings an image that another machine made into the store."""
        assert place is not None
        self.session.images().pull(place.with_digest(descriptor.digest), None)

    def image_of(self, name: str, platform: Platform) -> Image:
        """The image of a target that is made, fetched now if it is only in a registry."""
        made = self.made[name]
        if not made.stored:
            with self.lock:
                lock = self.fetching.setdefault(name, threading.Lock())
            with lock:
                if not self.made[name].stored:
                    self._fetch(made.place, made.descriptor)
                    self.made[name] = replace(made, stored=True)
        found = self.session.store.layout.image(made.descriptor, platform)
        if found is None:
            raise StoreError(f"the image of {name} has nothing for {platform}")
        image = found[1]
        for diff_id, layer in zip(image.diff_ids, image.layers, strict=True):
            if diff_id not in self.recorded:
                self.session.store.layers.add_blob(diff_id, layer)
                self.recorded.add(diff_id)
        return image

    def _build(self, verdict: Verdict) -> None:
        from kiln.baking.building import build

        target = verdict.target
        built = build(self.session, target, self.plan.shapes[target.name].platforms[0], self.image_of)
        self._done(verdict, built.descriptor, stored=True)
        result = self._keep(verdict, built.descriptor)
        self._push(verdict, result)
        built.give_out()

    def _keep(self, verdict: Verdict, descriptor: Descriptor) -> Result | None:
        """Remembers what was made from what: from here on this target is finished, whatever happens next."""
        if verdict.facts is None or not verdict.decision.key:
            return None
        names = [str(name) for name in verdict.target.tags]
        result = Result(verdict.decision.key, descriptor, names, verdict.facts)
        self.planner.results.put(self.planner.place(verdict.target.name), result)
        return result

    def _push(self, verdict: Verdict, result: Result | None) -> None:
        """Begins pushing; others build meanwhile."""
        if verdict.target.pushes:
            descriptor = self.made[verdict.target.name].descriptor
            self.pushes[verdict.target.name] = self.pool.submit(self._send, verdict.target, descriptor, result)

    def _send(self, target: Target, descriptor: Descriptor, result: Result | None) -> None:
        session = self.session
        for name in target.pushes:
            session.cancel.check()
            if name.host in self.lost:
                raise RegistryError("is not asked again: it did not answer an earlier push", where=name.host)
            if self.planner.head(name) != descriptor.digest:
                self._send_to(name, descriptor)
        if result is not None:
            results.publish(session.client, target.pushes[0], result, auto=target.auto_tag)

    def _send_to(self, name: Reference, descriptor: Descriptor) -> None:
        from kiln.baking.publish import push_named
        from kiln.registry.faults import TransientError

        session = self.session
        try:
            push_named(
                session.store, session.settings, session.report, name, descriptor, session.client, asked=True,
                elsewhere=session.elsewhere.stream,
            )  # fmt: skip
        except RegistryError as bad:
            if isinstance(bad, TransientError) and not bad.status:
                self.lost.add(name.host)
            raise
