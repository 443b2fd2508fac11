"""Statements -> typed instructions: one reader a keyword, all bad input told with its line."""

from __future__ import annotations

import re
from collections.abc import Callable

from kiln.dockerfile.flags import parse_mount, read_flags
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
    Program,
    Run,
    Stage,
    Text,
    Words,
)
from kiln.dockerfile.parser import Dockerfile, Statement, json_array, parse_heredoc, split_space, split_words
from kiln.dockerfile.suggest import did_you_mean
from kiln.dockerfile.words import WordError
from kiln.errors import DockerfileError

_STAGE_NAME = re.compile(r"^[a-z][a-z0-9\-_.]*$")


def read(source: Dockerfile) -> Program:
    """Types every statement; raises `DockerfileError` with its line."""
    program = Program(source)
    for statement in source.statements:
        if statement.keyword.lower() == "from":
            program.stages.append(_stage(statement, len(program.stages)))
            continue
        instruction = read_instruction(statement, source.escape)
        if program.stages:
            program.stages[-1].instructions.append(instruction)
        elif isinstance(instruction, Arg):
            program.global_args.append(instruction)
        else:
            raise DockerfileError(
                f"no build stage in current context: {statement.keyword} stands before the first FROM",
                where=str(statement.place),
                hint="Only ARG, comments and parser directives may stand before FROM.",
            )
    if not program.stages:
        raise DockerfileError(
            "dockerfile contains no stages to build", where=source.name, hint="Add a FROM instruction."
        )
    return program


def read_instruction(statement: Statement, escape: str) -> Instruction:
    """One typed instruction; raises `DockerfileError` with its line."""
    reader = _READERS.get(statement.keyword.lower())
    if reader is None:
        hint = did_you_mean(statement.keyword, [*_READERS, "from"]).upper().replace("DID YOU MEAN", "Did you mean")
        raise DockerfileError(
            f"unknown instruction: {statement.keyword}",
            where=str(statement.place),
            hint=hint or f"Instructions are {', '.join(sorted(name.upper() for name in _READERS))} and FROM.",
        )
    try:
        return reader(statement, escape)
    except (ValueError, WordError) as bad:
        raise DockerfileError(str(bad), where=str(statement.place)) from None


def _stage(statement: Statement, index: int) -> Stage:
    flags = read_flags(statement, strings=("platform",))
    words = split_space(statement.rest)
    written = ""
    if len(words) == 3 and words[1].lower() == "as":
        written = words[2]
        if not _STAGE_NAME.match(written.lower()):
            raise DockerfileError(
                f'invalid name for build stage: "{written}", name can\'t start with a number or contain symbols',
                where=str(statement.place),
            )
    elif len(words) != 1:
        raise DockerfileError(
            "FROM requires either one or three arguments",
            where=str(statement.place),
            hint="Write FROM image [AS name].",
        )
    return Stage(
        index=index, base=words[0], name=written.lower(), platform=flags.text("platform"), code=statement.code,
        keyword=statement.keyword, place=statement.place, written_name=written,
        as_keyword=words[1] if written else "", comments=statement.comments,
    )  # fmt: skip


def _one(statement: Statement) -> str:
    read_flags(statement)
    if not statement.rest:
        raise ValueError(f"{statement.keyword.upper()} requires exactly one argument")
    return statement.rest


def _some(statement: Statement, words: list[str]) -> list[str]:
    if not words:
        raise ValueError(f"{statement.keyword.upper()} requires at least one argument")
    return words


def _common(statement: Statement) -> dict[str, object]:
    return {"keyword": statement.keyword, "code": statement.code, "place": statement.place}


def _read_pairs(statement: Statement, escape: str) -> Instruction:
    read_flags(statement)
    name = statement.keyword.upper()
    words = _some(statement, split_words(statement.rest, escape))
    kind = Label if name == "LABEL" else Env
    if "=" not in words[0]:
        key, *value = re.split(r"[\t\v\f\r ]+", statement.rest, maxsplit=1)
        if not value:
            raise ValueError(f"{name} must have two arguments")
        return kind(**_common(statement), pairs=((key, value[0]),), legacy=True)  # type: ignore[arg-type]
    pairs = []
    for word in words:
        key, equals, rest = word.partition("=")
        if not equals:
            raise ValueError(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not key:
            raise ValueError(f"{name} names can not be blank")
        pairs.append((key, rest))
    return kind(**_common(statement), pairs=tuple(pairs))  # type: ignore[arg-type]


def _read_maintainer(statement: Statement, escape: str) -> Instruction:
    return Maintainer(**_common(statement), author=_one(statement))  # type: ignore[arg-type]


def _read_arg(statement: Statement, escape: str) -> Instruction:
    pairs: list[tuple[str, str | None]] = []
    for word in _some(statement, split_words(statement.rest, escape)):
        name, equals, value = word.partition("=")
        if not name:
            raise ValueError("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(**_common(statement), pairs=tuple(pairs), comments=statement.comments)  # type: ignore[arg-type]


def _list(statement: Statement) -> list[str]:
    array = json_array(statement.rest)
    return split_space(statement.rest) if array is None else array


def _read_copy(statement: Statement, escape: str) -> Instruction:
    name = statement.keyword.upper()
    only = {"COPY": (("from",), ("parents",)), "ADD": (("checksum",), ("keep-git-dir", "unpack"))}[name]
    flags = read_flags(statement, strings=("chown", "chmod", *only[0]), bools=("link", *only[1]), lists=("exclude",))
    words = _list(statement)
    if len(words) < 2:
        raise ValueError(
            f"{name} requires at least two arguments, but only {'one was' if words else 'none were'} provided."
            " Destination could not be determined"
        )
    if parse_heredoc(words[-1]):
        raise ValueError(f"{name} cannot accept a heredoc as a destination")
    contents = {heredoc.name: heredoc for heredoc in statement.heredocs}
    opened = [(word, parse_heredoc(word) if contents else None) for word in words[:-1]]
    return Copy(
        **_common(statement),  # type: ignore[arg-type]
        sources=tuple(word for word, heredoc in opened if heredoc is None),
        destination=words[-1],
        heredocs=tuple(contents[heredoc.name] for _, heredoc in opened if heredoc is not None),
        source_stage=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.bools.get("link", False),
        parents=flags.bools.get("parents", False),
        exclude=tuple(flags.lists.get("exclude", ())),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.bools.get("keep-git-dir"),
        unpack=flags.bools.get("unpack"),
    )


def _shell_or_json(rest: str) -> tuple[tuple[str, ...], bool]:
    """(arguments, whether a shell reads them)."""
    array = json_array(rest)
    if array is None:
        return ((rest,) if rest else ()), True
    return tuple(array), False


def _read_run(statement: Statement, escape: str) -> Instruction:
    flags = read_flags(statement, strings=("network",), lists=("mount",))
    if flags.text("network") not in ("", "default", "none", "host"):
        raise ValueError(f'network mode "{flags.text("network")}" is not supported (one of default, none, host)')
    args, shell = _shell_or_json(statement.rest)
    for text in flags.lists.get("mount", ()):
        _check_mount_early(text)
    return Run(
        **_common(statement),  # type: ignore[arg-type]
        args=args,
        shell=shell,
        heredocs=statement.heredocs,
        mount_texts=tuple(flags.lists.get("mount", ())),
        network=flags.text("network"),
    )


def _check_mount_early(text: str) -> None:
    """What can be told before variables are known: the stage that `from` names must not hide in one."""
    if re.search(r"(?:^|,)from=[^,]*\$.", text):
        raise ValueError("'from' doesn't support variable expansion, define alias stage instead")
    if "$" not in text:
        parse_mount(text, lambda word: word)


def _read_command(statement: Statement, escape: str) -> Instruction:
    read_flags(statement)
    args, shell = _shell_or_json(statement.rest)
    if statement.keyword.upper() == "SHELL":
        if not args:
            raise ValueError("SHELL requires at least one argument")
        if shell:
            raise ValueError(f'SHELL requires the arguments to be in JSON form: write SHELL ["{args[0]}"]')
    return Command(**_common(statement), args=args, shell=shell)  # type: ignore[arg-type]


_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration (`1m30s`, `500ms`, `0`); raises `ValueError`."""
    body = text.lstrip("+-")
    if body == "0":
        return 0
    if not body or _DURATION.sub("", body):
        raise ValueError(f'invalid duration "{text}": write it like 30s or 1m30s')
    total = sum(round(float(number) * _UNITS[unit]) for number, unit in _DURATION.findall(body))
    return -total if text.startswith("-") else total


def _interval(name: str, text: str) -> int:
    value = parse_duration(text) if text else 0
    if value and value < 10**6:
        raise ValueError(f'Interval "{name}" cannot be less than 1ms')
    return value


def _read_healthcheck(statement: Statement, escape: str) -> Instruction:
    if not statement.rest:
        raise ValueError("HEALTHCHECK requires at least one argument")
    kind, *rest = statement.rest.split(None, 1)
    if kind.upper() == "NONE":
        if rest:
            raise ValueError("HEALTHCHECK NONE takes no arguments")
        return HealthCheck(**_common(statement), test=("NONE",))  # type: ignore[arg-type]
    flags = read_flags(statement, strings=("interval", "timeout", "start-period", "start-interval", "retries"))
    if kind.upper() != "CMD":
        raise ValueError(f'unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    args, shell = _shell_or_json(rest[0] if rest else "")
    if not args:
        raise ValueError("missing command after HEALTHCHECK CMD")
    retries = flags.text("retries") or "0"
    if not retries.lstrip("-").isdigit() or int(retries) < 0:
        raise ValueError(f"--retries cannot be negative or no number ({retries})")
    return HealthCheck(
        **_common(statement),  # type: ignore[arg-type]
        test=("CMD-SHELL" if shell else "CMD", *args),
        interval=_interval("interval", flags.text("interval")),
        timeout=_interval("timeout", flags.text("timeout")),
        start_period=_interval("start-period", flags.text("start-period")),
        start_interval=_interval("start-interval", flags.text("start-interval")),
        retries=int(retries),
    )


def _read_words(statement: Statement, escape: str) -> Instruction:
    read_flags(statement)
    if statement.keyword.upper() == "EXPOSE":
        words = sorted(_some(statement, split_space(statement.rest)))
    else:
        words = [word.strip() for word in _some(statement, _list(statement))]
        if not all(words):
            raise ValueError("VOLUME specified can not be an empty string")
    return Words(**_common(statement), words=tuple(words))  # type: ignore[arg-type]


def _read_text(statement: Statement, escape: str) -> Instruction:
    return Text(**_common(statement), text=_one(statement))  # type: ignore[arg-type]


def _read_onbuild(statement: Statement, escape: str) -> Instruction:
    read_flags(statement)
    if not statement.rest:
        raise ValueError("ONBUILD requires at least one argument")
    keyword = split_space(statement.rest)[0].upper()
    if keyword == "ONBUILD":
        raise ValueError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if keyword in ("MAINTAINER", "FROM"):
        raise ValueError(f"{keyword} isn't allowed as an ONBUILD trigger")
    trigger = re.sub(r"(?i)^\s*ONBUILD\s*", "", statement.code)
    trigger += "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in statement.heredocs)
    return OnBuild(**_common(statement), trigger=trigger)  # type: ignore[arg-type]


_READERS: dict[str, Callable[[Statement, str], Instruction]] = {
    "add": _read_copy, "arg": _read_arg, "cmd": _read_command, "copy": _read_copy, "entrypoint": _read_command,
    "env": _read_pairs, "expose": _read_words, "healthcheck": _read_healthcheck, "label": _read_pairs,
    "maintainer": _read_maintainer, "onbuild": _read_onbuild, "run": _read_run, "shell": _read_command,
    "stopsignal": _read_text, "user": _read_text, "volume": _read_words, "workdir": _read_text,
}  # fmt: skip
