"""The stages of a Dockerfile as a graph: what the wanted stage needs, and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from msgspec import Struct, field

from kiln.dockerfile.flags import parse_mount
from kiln.dockerfile.instructions import Copy, Instruction, Program, Run, Stage
from kiln.dockerfile.suggest import did_you_mean
from kiln.dockerfile.words import Rules, WordError, expand
from kiln.errors import DockerfileError, UsageError
from kiln.oci.platform import Platform, local
from kiln.oci.platform import parse as parse_platform


class Origin(Struct, frozen=True):
    """What a name in FROM, `--from` or `from=` stands for: a stage (`stage`), or an image or named context (`name`)."""

    stage: int = -1
    name: str = ""


class Vertex(Struct):
    """A stage to build: its expanded base, platform, and what its instructions take from elsewhere (by written name)."""

    stage: Stage
    base: Origin
    platform: Platform
    explicit_platform: bool = False
    origins: dict[str, Origin] = field(default_factory=dict)

    @property
    def needs(self) -> list[int]:
        """The stages that have to be there before this one can be finished."""
        return [origin.stage for origin in (self.base, *self.origins.values()) if origin.stage >= 0]


class Graph(Struct):
    """The vertices that the target needs, by stage index, in the Dockerfile's order; and the global arguments."""

    target: int
    vertices: dict[int, Vertex]
    global_args: dict[str, str]
    platform: Platform


def predefined_args(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """BUILD* and TARGET* arguments (Dockerfile reference, "Automatic platform ARGs in the global scope")."""
    return {**_platform_args(build, target), "TARGETSTAGE": stage or "default"}


@functools.lru_cache(maxsize=64)
def _platform_args(build: Platform, target: Platform) -> Mapping[str, str]:
    found = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}OSVERSION"] = platform.os_version
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


def global_args(program: Program, given: Mapping[str, str], automatic: Mapping[str, str]) -> dict[str, str]:
    """The arguments before the first FROM, with those given on the command line; raises `DockerfileError`."""
    values = dict(automatic)
    for name, value in given.items():
        if name in values:
            values[name] = value
    for instruction in program.global_args:
        for name, default in instruction.pairs:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                values[name] = _expand(default, values, program, instruction)
    return values


def _expand(text: str, values: Mapping[str, str], program: Program, at: Instruction | Stage) -> str:
    try:
        return expand(text, values, Rules(escape=program.source.escape)).text
    except WordError as bad:
        raise DockerfileError(str(bad), where=str(at.place)) from None


def make_graph(program: Program, *, target: str, platform: Platform | None, args: Mapping[str, str]) -> Graph:
    """The graph for one target stage (its name; empty for the last) and platform. Raises `DockerfileError` for
    unknown and circular stages, `UsageError` for an unknown target."""
    here = local()
    index = find_target(program, target)
    name = target if target else program.stages[index].name
    values = global_args(program, args, predefined_args(here, platform or here, name))
    graph = Graph(index, {}, values, platform or here)
    waiting = [index]
    while waiting:
        number = waiting.pop()
        if number not in graph.vertices:
            graph.vertices[number] = make_vertex(program, number, graph)
            waiting += graph.vertices[number].needs
    _check_cycles(graph)
    graph.vertices = dict(sorted(graph.vertices.items()))
    return graph


def find_target(program: Program, target: str) -> int:
    """The index of the last stage of the name that `--target` gives (a number is no name); raises `UsageError`."""
    if not target:
        return len(program.stages) - 1
    found = next((stage.index for stage in reversed(program.stages) if stage.name == target.lower()), None)
    if found is None:
        names = [stage.name for stage in program.stages if stage.name]
        hint = did_you_mean(target, names) or f"Stages are {', '.join(names) or 'without names'}."
        raise UsageError(f'target stage "{target}" could not be found', where=program.source.name, hint=hint)
    return found


def _stage_index(program: Program, name: str, before: int) -> int | None:
    """The last stage of this name that stands before a stage; a number is an index."""
    for stage in reversed(program.stages[:before]):
        if stage.name and stage.name == name.lower():
            return stage.index
    if name.isdigit() and int(name) < len(program.stages):
        return int(name)
    return None


def make_vertex(program: Program, number: int, graph: Graph) -> Vertex:
    stage = program.stages[number]
    base = _base_name(program, stage, graph.global_args)
    platform, explicit = _stage_platform(program, stage, graph)
    earlier = next(
        (other.index for other in reversed(program.stages[:number]) if other.name and other.name == base), None
    )
    origin = Origin(stage=earlier) if earlier is not None else Origin(name=base)
    vertex = Vertex(stage, origin, platform, explicit)
    for instruction in stage.instructions:
        vertex.origins |= origins_of(program, instruction, number)
    return vertex


def _base_name(program: Program, stage: Stage, values: Mapping[str, str]) -> str:
    base = _expand(stage.base, values, program, stage)
    if not base:
        raise DockerfileError(
            f"base name ({stage.base}) should not be blank",
            where=str(stage.place),
            hint="Give the ARG a default before the first FROM, or pass it with --build-arg.",
        )
    return base


def _stage_platform(program: Program, stage: Stage, graph: Graph) -> tuple[Platform, bool]:
    if not stage.platform:
        return graph.platform, False
    text = _expand(stage.platform, graph.global_args, program, stage)
    if not text:
        raise DockerfileError(f"empty platform value from expression {stage.platform}", where=str(stage.place))
    try:
        return parse_platform(text), True
    except UsageError as bad:
        raise DockerfileError(bad.message, where=str(stage.place), hint=bad.hint) from None


def origins_of(program: Program, instruction: Instruction, number: int) -> dict[str, Origin]:
    """What an instruction takes from elsewhere: the name as it is written -> what it stands for."""
    found = {}
    for name in _names(instruction):
        index = _stage_index(program, name, len(program.stages))
        if isinstance(instruction, Copy) and name.isdigit() and index is None:
            raise DockerfileError(f"invalid stage index {name}", where=str(instruction.place))
        if index is not None and isinstance(instruction, Run) and name.isdigit():
            index = None
        if index is None:
            found[name] = Origin(name=name)
            continue
        if index >= number:
            index = _earlier(program, name, index, number, instruction)
        found[name] = Origin(stage=index)
    return found


def _earlier(program: Program, name: str, index: int, number: int, instruction: Instruction) -> int:
    """The stage of that name that stands before; otherwise the later one, which the check for cycles looks at."""
    for stage in reversed(program.stages[:number]):
        if stage.name == name.lower():
            return stage.index
    return index


def _names(instruction: Instruction) -> list[str]:
    if isinstance(instruction, Copy) and instruction.source_stage:
        if "$" in instruction.source_stage:
            raise DockerfileError(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global"
                " scope as a workaround",
                where=str(instruction.place),
            )
        return [instruction.source_stage]
    if isinstance(instruction, Run):
        names = []
        for text in instruction.mount_texts:
            try:
                mount = parse_mount(text, lambda word: word if "$" not in word else "0")
            except ValueError:
                continue
            if mount.source_stage and mount.type in ("bind", "cache"):
                names.append(mount.source_stage)
        return names
    return []


def _check_cycles(graph: Graph) -> None:
    """A stage that needs itself, or a later stage that is not made yet, is an error that shows the way round."""
    done: set[int] = set()

    def visit(number: int, path: list[int]) -> None:
        if number in path:
            names = " -> ".join(graph.vertices[step].stage.title for step in [*path[path.index(number) :], number])
            raise DockerfileError(
                f"circular dependency detected on stage: {graph.vertices[number].stage.title} ({names})",
                where=str(graph.vertices[number].stage.place),
            )
        if number in done:
            return
        for need in graph.vertices[number].needs:
            visit(need, [*path, number])
        done.add(number)

    for number in graph.vertices:
        visit(number, [])
    for number, vertex in graph.vertices.items():
        later = [(name, origin) for name, origin in vertex.origins.items() if origin.stage > number]
        if later:
            name = later[0][0]
            raise DockerfileError(
                f'cannot copy from stage "{name}", it needs to be defined before current stage "{vertex.stage.title}"',
                where=str(vertex.stage.place),
            )
