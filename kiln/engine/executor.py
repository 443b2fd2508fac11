"""Building the stages that a target needs, side by side where they do not need one another."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future

from msgspec.structs import replace

from kiln.dockerfile.instructions import Copy, Instruction, Program, Run
from kiln.dockerfile.suggest import closest
from kiln.engine import state as states
from kiln.engine.build import Build
from kiln.engine.copystep import folder_base
from kiln.engine.files import Files
from kiln.engine.stage import Neighbours, StageRun
from kiln.engine.state import State
from kiln.errors import CancelledBuild, DockerfileError, KilnError, RegistryError
from kiln.oci.image import Image
from kiln.oci.platform import Platform
from kiln.plan.graph import Graph, Origin, Vertex, make_vertex, origins_of
from kiln.plan.target import Context


def execute(build: Build, program: Program, graph: Graph) -> Image:
    """The image of the graph's target; raises the first error of any stage, after all stages have stopped."""
    try:
        return _Execution(build, program, graph).run()
    finally:
        if build.packing is not None:
            build.packing.close()


class _Execution:
    def __init__(self, build: Build, program: Program, graph: Graph) -> None:
        self.build, self.program, self.graph = build, program, graph
        self._aside = replace(build, early=None, packing=None)
        self._final = _chain(graph)
        self._futures: dict[int, Future[State]] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._images: dict[tuple[str, Platform], State | Files] = {}
        self._context: Files | None = None

    def run(self) -> Image:
        failures: list[BaseException] = []
        numbers = list(self.graph.vertices)
        self._futures = {number: Future() for number in numbers}
        for number in numbers:
            self._start(number, failures)
        joined = 0
        while joined < len(self._threads):  # stages start further threads
            self._threads[joined].join()
            joined += 1
        real = [failure for failure in failures if not isinstance(failure, CancelledBuild)]
        if failures:
            raise (real or failures)[0]
        image = self._futures[self.graph.target].result().image()
        return self.build.packing.packed(image) if self.build.packing else image

    def _start(self, number: int, failures: list[BaseException]) -> None:
        future = self._futures[number]

        def work() -> None:
            try:
                future.set_result(self._stage(self.graph.vertices[number]))
            except BaseException as bad:  # noqa: BLE001 (raised again by run)
                failures.append(bad)
                future.set_exception(bad)
                if not isinstance(bad, CancelledBuild):
                    self.build.cancel.cancel("another stage failed", bad if isinstance(bad, KilnError) else None)

        thread = threading.Thread(target=work, name=f"stage-{number}")
        self._threads.append(thread)
        thread.start()

    def _stage(self, vertex: Vertex) -> State:
        named = self._named_stage(vertex)
        if named is not None:
            return named
        state = self._base(vertex)
        neighbours = Neighbours(lambda name, at: self._neighbour(vertex, name, at), self._build_context)
        self._look_ahead(vertex, state)
        build = self.build if vertex.stage.index in self._final else self._aside
        return StageRun(build, vertex.stage, neighbours).run(state)

    def _look_ahead(self, vertex: Vertex, state: State) -> None:
        """A base that was never read is read while the first COPY looks at its files: it will need to know what is there."""
        steps = (item for item in vertex.stage.instructions if isinstance(item, Copy | Run) or item.name == "WORKDIR")
        first = next(steps, None)
        if not isinstance(first, Copy) or first.link or all(map(self.build.store.layers.has_toc, state.stack.diff_ids)):
            return

        def look() -> None:
            with contextlib.suppress(KilnError):  # raised again where the tree is asked for
                self.build.tree(state.stack)

        thread = threading.Thread(target=look, name="look-ahead")
        self._threads.append(thread)
        thread.start()

    def _named_stage(self, vertex: Vertex) -> State | None:
        """A named context that has the name of a stage takes its place."""
        context = self.build.contexts.get(vertex.stage.name) if vertex.stage.name else None
        if context is None:
            return None
        return self._as_state(self._open(context, vertex.platform, str(vertex.stage.place)), vertex)

    def _base(self, vertex: Vertex) -> State:
        where = str(vertex.stage.place)
        if vertex.base.stage >= 0:
            return states.from_stage(self._wait(vertex.base.stage))
        if vertex.base.name == "scratch":
            return states.scratch(vertex.platform, self.build.epoch)
        state = self._as_state(self._named(vertex.base.name, vertex.platform, where), vertex)
        if self.build.early is not None and vertex.stage.index in self._final:
            self.build.early.ask(state.stack.descriptors)
        return state

    def _as_state(self, found: State | Files, vertex: Vertex) -> State:
        """A folder given as a named context becomes a base of one layer."""
        if isinstance(found, State):
            return found
        base = states.scratch(vertex.platform, self.build.epoch)
        return folder_base(self.build, base, found, vertex.stage)

    def _wait(self, number: int) -> State:
        try:
            return self._futures[number].result()
        except KilnError as bad:
            raise CancelledBuild("a stage that this one needs failed") from bad

    def _neighbour(self, vertex: Vertex, name: str, at: Instruction) -> State | Files:
        origin = (
            vertex.origins.get(name) or origins_of(self.program, at, vertex.stage.index).get(name) or Origin(name=name)
        )
        if origin.stage >= 0:
            return self._late(origin.stage)
        if name == "scratch":
            return states.scratch(vertex.platform, self.build.epoch)
        return self._named(origin.name, vertex.platform, str(at.place))

    def _late(self, number: int) -> State:
        """A stage's result; one that only a trigger of a base image turned out to need is made here and now."""
        with self._lock:
            known = number in self._futures
            future = self._futures.setdefault(number, Future())
            vertex = self.graph.vertices.setdefault(number, make_vertex(self.program, number, self.graph))
        if known:
            return self._wait(number)
        for need in vertex.needs:
            self._late(need)
        try:
            future.set_result(self._stage(vertex))
        except BaseException as bad:
            future.set_exception(bad)
            raise
        return future.result()

    def _named(self, name: str, platform: Platform, where: str) -> State | Files:
        context = self.build.contexts.get(name) or self.build.contexts.get(_familiar(name))
        key = (name, platform)
        with self._lock:
            known = self._images.get(key)
        if known is not None:
            return known
        if context is not None:
            found = self._open(context, platform, where)
        else:
            found = states.from_image(self._image(name, platform, where), self.build.epoch)
        with self._lock:
            self._images[key] = found
        return found

    def _image(self, name: str, platform: Platform, where: str) -> Image:
        """An image by name; where there is none, a stage of nearly that name is offered."""
        try:
            return self.build.doors.image(name, platform, where)
        except RegistryError as bad:
            near = closest(name, [stage.name for stage in self.program.stages if stage.name])
            if near:
                bad.hint = f"Did you mean the stage {near}?"
            raise

    def _open(self, context: Context, platform: Platform, where: str) -> State | Files:
        if context.kind == "target":
            return states.from_image(self.build.doors.target(context.reference, platform), self.build.epoch)
        if context.kind in ("image", "layout"):
            return states.from_image(self.build.doors.image(context.reference, platform, where), self.build.epoch)
        return self.build.doors.context(context)

    def _build_context(self) -> Files:
        with self._lock:
            if self._context is None:
                if self.build.context is None:
                    raise DockerfileError("the build has no context to copy from")
                self._context = self.build.doors.context(self.build.context)
            return self._context


def _chain(graph: Graph) -> set[int]:
    """The stages whose layers become layers of the final image."""
    found, number = set(), graph.target
    while number >= 0 and number not in found:
        found.add(number)
        number = graph.vertices[number].base.stage
    return found


def _familiar(name: str) -> str:
    """`name` and `name:latest` mean the same named context."""
    return name.removesuffix(":latest") if name.endswith(":latest") else f"{name}:latest"
