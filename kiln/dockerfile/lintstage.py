"""Checks of the instructions of a stage, in order, with the variables that each one has."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Callable, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.dockerfile.instructions import (
    Arg,
    Command,
    Copy,
    Env,
    HealthCheck,
    Instruction,
    Label,
    OnBuild,
    Run,
    Stage,
    Text,
    Words,
)
from kiln.dockerfile.lintrules import Notes, quoted
from kiln.dockerfile.lintsuggest import suggestion
from kiln.dockerfile.parser import Place, parse_line
from kiln.dockerfile.patterns import Matcher
from kiln.dockerfile.reading import read_instruction
from kiln.dockerfile.words import Rules, WordError, expand
from kiln.errors import DockerfileError

# These two steer the making of an SBOM and are no variables of the stage.
_NOT_ENV = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
_SECRET = r"apikey|auth|credentials?|key|password|pword|passwd|secret|token"
_IS_SECRET = re.compile(rf"(?:_|^)(?:{_SECRET})(?:_|$)", re.IGNORECASE)
_IS_HARMLESS = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_REMOTE = re.compile(r"^(?:https?://|git://|ssh://|git@)")
_WHOLE_CONTEXT = frozenset({"*", "**", "**/*"})


class Scope(Struct):
    """What a stage hands to the stages made from it. `whole` is False where the base image's variables are not known."""

    env: dict[str, str] = field(default_factory=dict)
    args: set[str] = field(default_factory=set)
    whole: bool = True
    shell: bool = False
    workdir: bool = False
    triggers: tuple[str, ...] = ()

    def inherited(self) -> Scope:
        """A scope of its own for a stage that begins with this one."""
        return replace(self, env=dict(self.env), args=set(self.args), triggers=())

    def set(self, name: str, value: str) -> None:
        """Sets a variable; the one set last is the last of `env`, which decides between equally near suggestions."""
        self.env.pop(name, None)
        self.env[name] = value


class Given(Struct, frozen=True):
    """What a build hands to its stages: the `args` of the command line, the global ones, the context's ignore file."""

    args: Mapping[str, str]
    global_args: Mapping[str, str]
    ignore: Matcher | None
    escape: str


class StageCheck:
    """Walks through one stage; `scope` is what its base hands over and becomes what the stage itself hands over."""

    def __init__(self, stage: Stage, scope: Scope, given: Given, notes: Notes) -> None:
        self.stage, self.scope, self.given, self.notes = stage, scope, given, notes
        self.rules = Rules(escape=given.escape)
        self.last: dict[str, Place] = {}

    def run(self, triggers: tuple[str, ...]) -> Scope:
        """The scope after the last instruction; the base stage's ONBUILD triggers come first, at the place of FROM."""
        for text in triggers:
            statement = parse_line(text, self.stage.place, self.given.escape)
            self._visit(read_instruction(statement, self.given.escape))
        for instruction in self.stage.instructions:
            self._visit(instruction)
        return self.scope

    def _visit(self, item: Instruction) -> None:
        if isinstance(item, Copy):
            # Patterns of --exclude are not expanded by BuildKit.
            item = replace(item, exclude=())
        if not isinstance(item, Arg):
            item = item.expand(self._expander(item.place, self.rules))
        check = _CHECKS.get(type(item))
        if check is not None:
            check(self, item)

    def _expander(self, place: Place, rules: Rules) -> Callable[[str], str]:
        """Replaces variables and notes those that are not defined. A reference to one that the unknown base image may
        define is left as it is written."""
        rules = replace(rules, keep_unset=not self.scope.whole)

        def expander(text: str) -> str:
            try:
                expansion = expand(text, self.scope.env, rules)
            except WordError as bad:
                raise DockerfileError(str(bad), where=str(place)) from None
            if self.scope.whole:
                self._undefined(place, expansion.unmatched)
            return expansion.text

        return expander

    def _undefined(self, place: Place, names: set[str]) -> None:
        for name in sorted(names - self.scope.args - _NOT_ENV):
            self.notes.add("UndefinedVar", place, name, suggestion(name, self.scope.env, "$"))

    def _arg(self, item: Arg) -> None:
        expander = self._expander(item.place, self.rules)
        for name, default in item.pairs:
            self._secret("ARG", name, item.place)
            value = self.given.args.get(name)
            if value is None:
                value = self.given.global_args.get(name) if default is None else expander(default)
            if value is not None and name not in _NOT_ENV:
                self.scope.set(name, value)
            self.scope.args.add(name)

    def _env(self, item: Env) -> None:
        if item.legacy:
            self.notes.add("LegacyKeyValueFormat", item.place, item.keyword)
        if item.name == "ENV":
            for name, value in item.pairs:
                self._secret("ENV", name, item.place)
                self.scope.set(name, value)

    def _secret(self, keyword: str, name: str, place: Place) -> None:
        if _IS_SECRET.search(name) and not _IS_HARMLESS.search(name):
            self.notes.add("SecretsUsedInArgOrEnv", place, keyword, quoted(name))

    def _command(self, item: Command) -> None:
        if item.name == "SHELL":
            self.scope.shell = True
            return
        self._once(item)
        if item.shell and not self.scope.shell:
            self.notes.add("JSONArgsRecommended", item.place, item.keyword)

    def _healthcheck(self, item: HealthCheck) -> None:
        self._once(item)

    def _once(self, item: Instruction) -> None:
        """The earlier one is the one that does nothing, so it is the one that is noted."""
        if item.name in self.last:
            self.notes.add("MultipleInstructionsDisallowed", self.last[item.name], item.keyword)
        self.last[item.name] = item.place

    def _text(self, item: Text) -> None:
        if item.name != "WORKDIR":
            return
        unknown = not self.scope.whole and item.text.startswith("$")
        if not (self.scope.workdir or unknown or item.text.startswith("/")):
            self.notes.add("WorkdirRelativePath", item.place, quoted(item.text))
        self.scope.workdir = True

    def _expose(self, item: Words) -> None:
        if item.name != "EXPOSE":
            return
        for word in item.words:
            try:
                ports = expand(word, self.scope.env, self.rules).words
            except WordError as bad:
                raise DockerfileError(str(bad), where=str(item.place)) from None
            for port in ports:
                self._port(port, item.place)

    def _port(self, port: str, place: Place) -> None:
        *host, inner = port.split(":")
        protocol = inner.partition("/")[2]
        if protocol != protocol.lower():
            self.notes.add("ExposeProtoCasing", place, port)
        if any(host):
            self.notes.add("ExposeInvalidFormat", place, port)

    def _mounts(self, item: Run) -> None:
        expander = self._expander(item.place, self.rules)
        for text in item.mount_texts:
            for entry in next(csv.reader([text]), []):
                expander(entry.partition("=")[2])

    def _copy(self, item: Copy) -> None:
        item.expand_heredocs(self._expander(item.place, Rules(skip_quotes=True)))
        ignore = self.given.ignore
        # With `!` patterns it cannot be told from the patterns alone what remains.
        if item.source_stage or not ignore or ignore.has_negation:
            return
        for source in item.sources:
            path = posixpath.normpath(source)
            if not _REMOTE.match(source) and _is_ignored(path, ignore):
                self.notes.add("CopyIgnoredFile", item.place, "Add" if item.is_add else "Copy", quoted(path))

    def _onbuild(self, item: OnBuild) -> None:
        self.scope.triggers += (item.trigger,)


def _is_ignored(path: str, ignore: Matcher) -> bool:
    """Whether the path or a parent is matched, as BuildKit compares them: a leading slash stays."""
    if path in (".", "/"):
        return any(pattern.text in _WHOLE_CONTEXT for pattern in ignore.patterns)
    parts = path.split("/")
    return any(ignore.verdict("/".join(parts[:count]), None)[0] for count in range(1, len(parts) + 1))


_CHECKS: Mapping[type[Instruction], Callable[..., None]] = {
    Arg: StageCheck._arg,
    Env: StageCheck._env,
    Label: StageCheck._env,
    Command: StageCheck._command,
    HealthCheck: StageCheck._healthcheck,
    Text: StageCheck._text,
    Words: StageCheck._expose,
    Run: StageCheck._mounts,
    Copy: StageCheck._copy,
    OnBuild: StageCheck._onbuild,
}
