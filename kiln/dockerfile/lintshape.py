"""Checks of how a Dockerfile is written: casing, names of stages, comments, empty lines. They look at every stage."""

from __future__ import annotations

from collections.abc import Iterator

from kiln.dockerfile.instructions import Arg, Maintainer, Program, Stage
from kiln.dockerfile.lintrules import Notes, quoted
from kiln.dockerfile.parser import Dockerfile, Place

_RESERVED = frozenset({"context", "scratch"})


def check_shape(program: Program, notes: Notes) -> None:
    """Notes what can be told from the text alone."""
    for place in program.source.empty_continuations:
        notes.add("NoEmptyContinuation", place)
    _check_casing(program, notes)
    for stage in program.stages:
        _check_from(stage, notes)
        for instruction in stage.instructions:
            if isinstance(instruction, Maintainer):
                notes.add("MaintainerDeprecated", instruction.place)
    _check_names(program, notes)
    _check_descriptions(program, notes)


def _check_casing(program: Program, notes: Notes) -> None:
    """The casing that most keywords have is right; upper case where there are as many of both."""
    keywords = list(_keywords(program))
    lower = sum(keyword.islower() for keyword, _ in keywords)
    upper = sum(keyword.isupper() for keyword, _ in keywords)
    wanted = "lowercase" if lower > upper else "uppercase"
    for keyword, place in keywords:
        if not (keyword.islower() if wanted == "lowercase" else keyword.isupper()):
            notes.add("ConsistentInstructionCasing", place, keyword, wanted)


def _keywords(program: Program) -> Iterator[tuple[str, Place]]:
    for stage in program.stages:
        yield stage.keyword, stage.place
        for instruction in stage.instructions:
            yield instruction.keyword, instruction.place


def _check_from(stage: Stage, notes: Notes) -> None:
    if stage.written_name != stage.name:
        notes.add("StageNameCasing", stage.place, stage.written_name)
    fits = {"lower": str.islower, "upper": str.isupper}
    # A FROM of mixed case is a matter of ConsistentInstructionCasing alone.
    for same in fits.values():
        if stage.as_keyword and same(stage.keyword) and not same(stage.as_keyword):
            notes.add("FromAsCasing", stage.place, stage.as_keyword, stage.keyword)


def _check_names(program: Program, notes: Notes) -> None:
    seen: set[str] = set()
    for stage in program.stages:
        if stage.name in _RESERVED:
            notes.add("ReservedStageName", stage.place, quoted(stage.name))
        if stage.name in seen:
            notes.add("DuplicateStageName", stage.place, quoted(stage.name))
        if stage.name:
            seen.add(stage.name)


def _check_descriptions(program: Program, notes: Notes) -> None:
    """The line above ARG or FROM ... AS, where it is a comment, begins with the name it describes."""
    for stage in program.stages:
        if stage.name:
            _check_description(program.source, "FROM", [stage.name], stage.place, notes)
    instructions = [*program.global_args, *(item for stage in program.stages for item in stage.instructions)]
    for item in instructions:
        if isinstance(item, Arg):
            _check_description(program.source, "ARG", [name for name, _ in item.pairs], item.place, notes)


def _check_description(source: Dockerfile, keyword: str, names: list[str], place: Place, notes: Notes) -> None:
    comment = _comment_above(source, place.start)
    if comment and comment.split(" ")[0] not in names:
        notes.add("InvalidDefinitionDescription", place, keyword, names[0] if len(names) == 1 else "<arg_key>")


def _comment_above(source: Dockerfile, line: int) -> str:
    """The comment on the line above, empty where that is none or a parser directive (these stand on the first lines)."""
    if line - 1 <= len(source.directives):
        return ""
    above = source.text.split("\n")[line - 2].strip()
    return above[1:].strip() if above.startswith("#") else ""
