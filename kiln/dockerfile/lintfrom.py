"""Checks of FROM: its arguments, its platform, and whether its default names an image. They look at every stage."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kiln.dockerfile.instructions import Program, Stage
from kiln.dockerfile.lintrules import Notes, quoted
from kiln.dockerfile.lintsuggest import suggestion
from kiln.dockerfile.parser import Place
from kiln.dockerfile.words import Expansion, Rules, WordError, expand
from kiln.errors import DockerfileError

# The grammar of image references: github.com/distribution/reference.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?![0-9a-f]{{64}}$)(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)
_ALIASES = {
    "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386",
}  # fmt: skip
_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd"})


def global_values(program: Program, given: Mapping[str, str], automatic: Mapping[str, str]) -> dict[str, str]:
    """The variables of FROM lines: the automatic ones, then the ARGs before the first FROM; raises `DockerfileError`."""
    values = dict(automatic)
    for instruction in program.global_args:
        for name, default in instruction.pairs:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                values[name] = _expand(program, default, values, instruction.place).text
    return values


def base_name(program: Program, stage: Stage, values: Mapping[str, str]) -> str:
    """What FROM names, with its variables replaced; raises `DockerfileError`."""
    return _expand(program, stage.base, values, stage.place).text


def check_from(program: Program, values: Mapping[str, str], automatic: Mapping[str, str], notes: Notes) -> None:
    """Notes what is doubtful in FROM lines; `values` are the variables with those of the command line."""
    defaults = global_values(program, {}, automatic)
    declared = {name for instruction in program.global_args for name, _ in instruction.pairs}
    known = sorted(declared | set(values))
    for stage in program.stages:
        _check_arguments(_expand(program, stage.base, values, stage.place), known, stage, notes)
        if not _REFERENCE.fullmatch(base_name(program, stage, defaults)):
            notes.add("InvalidDefaultArgInFrom", stage.place, stage.base)
        if stage.platform:
            platform = _expand(program, stage.platform, values, stage.place)
            _check_arguments(platform, known, stage, notes)
            _check_platform(platform, values, stage, notes)


def _expand(program: Program, text: str, values: Mapping[str, str], place: Place) -> Expansion:
    try:
        return expand(text, values, Rules(escape=program.source.escape))
    except WordError as bad:
        raise DockerfileError(str(bad), where=str(place)) from None


def _check_arguments(expansion: Expansion, known: list[str], stage: Stage, notes: Notes) -> None:
    for name in sorted(expansion.unmatched - set(known)):
        notes.add("UndefinedArgInFrom", stage.place, name, suggestion(name, known))


def _check_platform(platform: Expansion, values: Mapping[str, str], stage: Stage, notes: Notes) -> None:
    if platform.unmatched:
        return
    if platform.matched == {"TARGETPLATFORM"} and platform.text == values["TARGETPLATFORM"]:
        notes.add("RedundantTargetPlatform", stage.place, stage.platform)
    if not platform.matched and not any(word in stage.name for word in _platform_words(platform.text, values)):
        notes.add("FromPlatformFlagConstDisallowed", stage.place, quoted(platform.text))


def _platform_words(text: str, values: Mapping[str, str]) -> tuple[str, str]:
    """(system, architecture) under their usual names; a stage that is named by one of them is meant for it."""
    first, _, rest = text.lower().partition("/")
    if rest:
        return first, _usual(rest.partition("/")[0])
    return (first, values.get("BUILDARCH", "")) if first in _SYSTEMS else ("linux", _usual(first))


def _usual(architecture: str) -> str:
    return _ALIASES.get(architecture, architecture)
