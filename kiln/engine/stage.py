"""Evaluating one stage: its instructions in order, each a new state."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kiln.dockerfile.instructions import (
    Arg,
    Command,
    Copy,
    Env,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Stage,
    Text,
    Words,
)
from kiln.dockerfile.parser import parse_line
from kiln.dockerfile.reading import read_instruction
from kiln.dockerfile.words import Rules, WordError, expand
from kiln.engine import state as states
from kiln.engine.build import Build
from kiln.engine.copystep import CopyStep, workdir_step
from kiln.engine.files import Files
from kiln.engine.runstep import Origin, RunStep, agent_environment, command_line
from kiln.engine.state import State
from kiln.engine.step import Step
from kiln.errors import DockerfileError, KilnError

_NOT_ENV = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})


class Neighbours(Struct, frozen=True):
    """What a stage can take from: the state behind a written name (stage, image, named context of an image), or files
    of a named context; the build context's files."""

    state: Callable[[str, Instruction], State | Files]
    context: Callable[[], Files]


class StageRun:
    """One stage being evaluated."""

    def __init__(self, build: Build, stage: Stage, neighbours: Neighbours) -> None:
        self.build, self.stage, self.neighbours = build, stage, neighbours
        self.fresh = build.no_cache or stage.name in build.no_cache_stages
        self._number = 0
        self._total = 0

    def run(self, state: State) -> State:
        """The state after the last instruction; triggers of the base image come first."""
        instructions = [*self._triggers(state), *self.stage.instructions]
        if state.run.on_build:
            state = state.with_run(on_build=None)
        self._total = sum(isinstance(item, Copy | Run) or item.name == "WORKDIR" for item in instructions)
        for instruction in instructions:
            self.build.cancel.check()
            state = self._apply(state, instruction)
        return state

    def _triggers(self, state: State) -> list[Instruction]:
        found = []
        for text in state.run.on_build or ():
            statement = parse_line(text, self.stage.place, self.build.escape)
            found.append(replace(read_instruction(statement, self.build.escape), on_build=True))
        return found

    def _apply(self, state: State, instruction: Instruction) -> State:
        try:
            if isinstance(instruction, Arg):
                return self._arg(state, instruction)
            expanded = instruction.expand(self._expander(state))
            if isinstance(expanded, Copy):
                quoted = self._expander(state, Rules(skip_quotes=True))
                expanded = expanded.expand_heredocs(quoted)
            _check_text(instruction)
            return self._dispatch(state, expanded)
        except WordError as bad:
            raise DockerfileError(str(bad), where=str(instruction.place)) from None
        except KilnError as bad:
            raise bad.at(str(instruction.place)) from None

    def _expander(self, state: State, rules: Rules | None = None) -> Callable[[str], str]:
        chosen = rules or Rules(escape=self.build.escape)
        variables = state.variables
        return lambda word: expand(word, variables, chosen).text

    def _dispatch(self, state: State, item: Instruction) -> State:
        if isinstance(item, Run):
            return self._run(state, item)
        if isinstance(item, Copy):
            return self._copy(state, item)
        if isinstance(item, Text) and item.name == "WORKDIR":
            return self._workdir(state, item)
        if isinstance(item, Words):
            return states.apply_words(state, item, self.build.escape)
        appliers: Mapping[type[Instruction], Callable[[State, Instruction], State]] = _APPLIERS
        return appliers[type(item)](state, item)

    def _arg(self, state: State, instruction: Arg) -> State:
        words = []
        for name, default in instruction.pairs:
            value = self._arg_value(state, name, default)
            if value is not None and name not in _NOT_ENV:
                state = state.with_env(name, value)
            state = replace(state, args=(*state.args, (name, value or "")))
            words.append(name if value is None else f"{name}={value}")
        return state.with_history(f"ARG {' '.join(words)}")

    def _arg_value(self, state: State, name: str, default: str | None) -> str | None:
        if name in self.build.args:
            self.build.used_args.add(name)
            return self.build.args[name]
        if default is not None:
            return self._expander(state)(default)
        return self.build.global_args.get(name)

    def _step(self, instruction: Instruction, line: str) -> Callable[[dict[str, str]], Step]:
        self._number += 1
        mark = "ONBUILD " if instruction.on_build else ""
        name = f"[{self.build.prefix}{self.stage.title} {self._number}/{self._total}] {mark}{line}"
        identity = f"{self.build.prefix}{self.stage.index}.{self._number}"
        return lambda facts: Step(identity, name, str(instruction.place), self.fresh, facts)

    def _workdir(self, state: State, item: Text) -> State:
        path = states.new_workdir(state, item.text)
        state = state.with_run(working_dir=path)
        if path == "/":
            return state.with_history(f"WORKDIR {path}")
        step = self._step(item, f"WORKDIR {path}")({"parent": state.chain, "instruction": path})
        result = workdir_step(self.build, state, path.strip("/"), step, str(item.place))
        return state.with_layer(result.layer, result.created).with_history(f"WORKDIR {path}", layer=True)

    def _copy(self, state: State, item: Copy) -> State:
        files = self.neighbours.context() if not item.source_stage else self._files_of(item.source_stage, item)
        line = _copy_line(item)
        step = CopyStep(self.build, state, item, files, str(item.place))
        result = step.run(self._step(item, item.code), fresh=self.fresh)
        return state.with_layer(result.layer, result.created).with_history(f"{line} # buildkit", layer=True)

    def _files_of(self, name: str, instruction: Instruction) -> Files:
        found = self.neighbours.state(name, instruction)
        return self.build.files(found.stack) if isinstance(found, State) else found

    def _run(self, state: State, item: Run) -> State:
        mounts = item.mounts(self._expander(state))

        def origin(name: str) -> Origin:
            if not name:
                return Origin(files=self.neighbours.context())
            found = self.neighbours.state(name, item)
            return Origin(stack=found.stack) if isinstance(found, State) else Origin(files=found)

        inside = state
        for name, value in agent_environment(mounts, self.build).items():
            if name not in state.variables:
                inside = inside.with_env(name, value)
        result = RunStep(self.build, inside, item, mounts, origin).run(self._step(item, item.code))
        argv, _ = command_line(state, item)
        line = f"RUN {_with_args(state, argv)} # buildkit"
        return state.with_layer(result.layer, result.created).with_history(line, layer=True)


def _check_text(item: Instruction) -> None:
    """An image's config is JSON, which holds text only; the content of inline files is not part of it."""
    texts = [item.code, *(item.args if isinstance(item, Run) else ())]
    if isinstance(item, Run):
        texts += [document.text for document in item.heredocs]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise DockerfileError(
            f"{item.keyword} has bytes that are not UTF-8", hint="Save the Dockerfile as UTF-8."
        ) from None


def _with_args(state: State, argv: list[str]) -> str:
    """A command line as history has it: `|N NAME=VALUE ...` before it where build arguments were declared."""
    values = {name: state.variables.get(name, value) for name, value in state.args}
    words = [f"{name}={value}" for name, value in values.items()]
    return " ".join([f"|{len(words)}", *words, *argv] if words else argv)


def _copy_line(item: Copy) -> str:
    words = ["ADD" if item.is_add else "COPY"]
    words += ["--parents"] if item.parents else []
    words += [f"--chown={item.chown}"] if item.chown else []
    words += [f"--chmod={item.chmod}"] if item.chmod else []
    words += item.sources
    words += [f"<<{document.name}" for document in item.heredocs]
    return " ".join([*words, item.destination])


_APPLIERS: dict[type[Instruction], Callable[..., State]] = {
    Env: states.apply_env,
    Label: states.apply_label,
    Maintainer: states.apply_maintainer,
    Command: states.apply_command,
    HealthCheck: states.apply_healthcheck,
    Text: states.apply_text,
    OnBuild: states.apply_onbuild,
}
