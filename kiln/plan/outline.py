"""What a target takes from outside, read off its Dockerfile without building anything: images by name, arguments, files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.dockerfile.instructions import Arg, Copy, Env, Instruction, OnBuild, Program, Run
from kiln.dockerfile.words import Rules, WordError, expand
from kiln.errors import DockerfileError
from kiln.plan.graph import Graph, Vertex

_REMOTE = re.compile(r"^(?:https?://|git://|ssh://|git@)")


class Take(Struct, frozen=True):
    """Files of a context (empty: the main one) that an instruction takes: what an expanded COPY names, or what is at a
    path (a bind mount; the empty path is everything)."""

    context: str
    copy: Copy | None = None
    path: str = ""


class Outline(Struct):
    """`images` are names in FROM, `--from` and `from=` that are no stages, in order; `arguments` the names of ARG; `takes`
    are files of contexts; `remotes` URLs and git repositories with their checksum or empty; `triggers` says whether the
    result has ONBUILD instructions, `fires` whether a stage has that another one stands on; `runs` whether a command runs."""

    images: list[str] = field(default_factory=list)
    arguments: set[str] = field(default_factory=set)
    takes: list[Take] = field(default_factory=list)
    remotes: list[tuple[str, str]] = field(default_factory=list)
    triggers: bool = False
    fires: bool = False
    runs: bool = False


def merged(outlines: Sequence[Outline]) -> Outline:
    """What a target takes for all of its platforms; images are those of the first."""
    first = outlines[0]
    for other in outlines[1:]:
        first.takes += [take for take in other.takes if take not in first.takes]
        first.remotes += [remote for remote in other.remotes if remote not in first.remotes]
        first.arguments |= other.arguments
    return first


def outline(program: Program, graph: Graph, args: Mapping[str, str], folders: frozenset[str] = frozenset()) -> Outline:
    """The outline of the graph's target; `folders` are the names of contexts that are folders, not images.

    Variables that only a base image may set are not known here: an instruction that uses one counts as taking the whole
    context. Raises `DockerfileError`.
    """
    return _Reader(program, graph, args, folders).read()


class _Reader:
    def __init__(self, program: Program, graph: Graph, args: Mapping[str, str], folders: frozenset[str]) -> None:
        self.program, self.graph, self.args, self.folders = program, graph, args, folders
        self.found = Outline()
        self.known: dict[int, tuple[dict[str, str], bool]] = {}

    def read(self) -> Outline:
        for instruction in self.program.global_args:
            self.found.arguments.update(name for name, _ in instruction.pairs)
        for number, vertex in self.graph.vertices.items():
            self.known[number] = self._stage(vertex)
        self.found.images = list(dict.fromkeys(self.found.images))
        return self.found

    def _stage(self, vertex: Vertex) -> tuple[dict[str, str], bool]:
        """(variables, whether there can be others) at the end of a stage."""
        if vertex.base.stage >= 0:
            values, complete = self.known.get(vertex.base.stage, ({}, False))
            values = dict(values)
        else:
            values, complete = {}, vertex.base.name == "scratch"
            self._image(vertex.base.name)
        for instruction in vertex.stage.instructions:
            self._instruction(instruction, vertex, values, complete)
        return values, complete

    def _image(self, name: str) -> None:
        if name in self.folders:
            self.found.takes.append(Take(name))
        elif name != "scratch":
            self.found.images.append(name)

    def _instruction(self, item: Instruction, vertex: Vertex, values: dict[str, str], complete: bool) -> None:
        if isinstance(item, Arg):
            self._arg(item, values, complete)
        elif isinstance(item, Env):
            fresh = {name: self._expand(value, values, complete, item) for name, value in item.pairs}
            for name, value in fresh.items():
                values.pop(name, None)
                if value is not None:
                    values[name] = value
        elif isinstance(item, Copy):
            self._copy(item, vertex, values, complete)
        elif isinstance(item, Run):
            self._run(item, vertex, values)
        elif isinstance(item, OnBuild):
            final = vertex.stage.index == self.graph.target
            self.found.triggers, self.found.fires = self.found.triggers or final, self.found.fires or not final

    def _arg(self, item: Arg, values: dict[str, str], complete: bool) -> None:
        for name, default in item.pairs:
            self.found.arguments.add(name)
            value = self.args.get(name)
            if value is None and default is not None:
                value = self._expand(default, values, complete, item)
                if value is None:
                    values.pop(name, None)
                    continue
            if value is None:
                value = self.graph.global_args.get(name)
            if value is not None:
                values[name] = value

    def _expand(self, text: str, values: dict[str, str], complete: bool, item: Instruction) -> str | None:
        """An expanded word; None where it depends on what is not known."""
        if "$" not in text and "\\" not in text and '"' not in text and "'" not in text:
            return text
        try:
            expansion = expand(text, values, Rules(escape=self.program.source.escape))
        except WordError as bad:
            if complete:
                raise DockerfileError(str(bad), where=str(item.place)) from None
            return None
        return None if expansion.unmatched and not complete else expansion.text

    def _copy(self, item: Copy, vertex: Vertex, values: dict[str, str], complete: bool) -> None:
        context = self._origin(item.source_stage, vertex)
        words = [self._expand(source, values, complete, item) for source in item.sources]
        sources = [word for word in words if word is not None]
        remote = [word for word in sources if _REMOTE.match(word)]
        self.found.remotes += [(word, item.checksum) for word in remote]
        if context is None:
            return
        local = tuple(word for word in sources if word not in remote)
        if len(sources) < len(words):
            self.found.takes.append(Take(context))
        elif local:
            self.found.takes.append(Take(context, _with_sources(item, local)))

    def _origin(self, name: str, vertex: Vertex) -> str | None:
        """The context that a `--from` stands for (empty: the main one), None for a stage or an image."""
        if not name:
            return ""
        origin = vertex.origins.get(name)
        if origin is not None and origin.stage >= 0:
            return None
        if name in self.folders:
            return name
        if name != "scratch":
            self.found.images.append(name)
        return None

    def _run(self, item: Run, vertex: Vertex, values: dict[str, str]) -> None:
        self.found.runs = True
        for mount in item.mounts(lambda word: self._expand(word, values, False, item) or ""):
            if mount.type not in ("bind", "cache") or (mount.type == "cache" and not mount.source_stage):
                continue
            context = self._origin(mount.source_stage, vertex)
            if context is not None:
                self.found.takes.append(Take(context, path=mount.source.strip("/")))


def _with_sources(item: Copy, sources: tuple[str, ...]) -> Copy:
    return item if sources == item.sources and not item.heredocs else replace(item, sources=sources, heredocs=())
