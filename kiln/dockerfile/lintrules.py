"""The rules of `kiln build --check`, what a finding is, and which rules a Dockerfile asks for.

Names, messages and addresses are those of docs.docker.com/reference/build-checks/, so that `# check=` lines work in both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from msgspec import Struct, field

from kiln.dockerfile.flags import FALSE, TRUE
from kiln.dockerfile.parser import Dockerfile, Place
from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import DockerfileError

_URL = "https://docs.docker.com/go/dockerfile/rule/"
_BETWEEN_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OPTIONS = ("skip", "error", "experimental")
_BUILD_ARG = "BUILDKIT_DOCKERFILE_CHECK"


class Rule(Struct, frozen=True):
    """One check. `message` is a format for the words of a finding; an experimental rule is off unless it is named."""

    name: str
    description: str
    message: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """Where the rule is explained."""
        return f"{_URL}{_BETWEEN_WORDS.sub('-', self.name).lower()}/"


class Finding(Struct, frozen=True):
    """One thing that a person should look at; `place` is the instruction it is about."""

    rule: str
    description: str
    message: str
    place: Place
    url: str


_TABLE = (
    Rule("StageNameCasing", "Stage names should be lowercase", "Stage name '{0}' should be lowercase"),
    Rule(
        "FromAsCasing",
        "The 'as' keyword should match the case of the 'from' keyword",
        "'{0}' and '{1}' keywords' casing do not match",
    ),
    Rule(
        "NoEmptyContinuation",
        "Empty continuation lines will become errors in a future release",
        "Empty continuation line",
    ),
    Rule(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        "Command '{0}' should match the case of the command majority ({1})",
    ),
    Rule(
        "DuplicateStageName", "Stage names should be unique", "Duplicate stage name {0}, stage names should be unique"
    ),
    Rule(
        "ReservedStageName",
        "Reserved words should not be used as stage names",
        "Stage name should not use the same name as reserved stage {0}",
    ),
    Rule(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        "JSON arguments recommended for {0} to prevent unintended behavior related to OS signals",
    ),
    Rule(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        "Maintainer instruction is deprecated in favor of using label",
    ),
    Rule("UndefinedArgInFrom", "FROM command must use declared ARGs", "FROM argument '{0}' is not declared{1}"),
    Rule(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base"
        " image changes",
        "Relative workdir {0} can have unexpected results if the base image changes",
    ),
    Rule("UndefinedVar", "Variables should be defined before their use", "Usage of undefined variable '${0}'{1}"),
    Rule(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
        "Multiple {0} instructions should not be used in the same stage because only the last one will be used",
    ),
    Rule(
        "LegacyKeyValueFormat",
        "Legacy key/value format with whitespace separator should not be used",
        '"{0} key=value" should be used instead of legacy "{0} key value" format',
    ),
    Rule(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        "Setting platform to predefined {0} in FROM is redundant as this is the default behavior",
    ),
    Rule(
        "SecretsUsedInArgOrEnv",
        "Sensitive data should not be used in the ARG or ENV commands",
        "Do not use ARG or ENV instructions for sensitive data ({0} {1})",
    ),
    Rule(
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
        "Default value for ARG {0} results in empty or invalid base image name",
    ),
    Rule(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        "FROM --platform flag should not use constant value {0}",
    ),
    Rule(
        "CopyIgnoredFile",
        "Attempting to Copy file that is excluded by .dockerignore",
        "Attempting to {0} file {1} that is excluded by .dockerignore",
        experimental=True,
    ),
    Rule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is"
        " not intended to be a description comment, add an empty line or comment between the instruction and the"
        " comment.",
        "Comment for {0} should follow the format: `# {1} <description>`",
        experimental=True,
    ),
    Rule(
        "ExposeProtoCasing",
        "Protocol in EXPOSE instruction should be lowercase",
        "Defined protocol '{0}' in EXPOSE instruction should be lowercase",
    ),
    Rule(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a"
        " future release",
        "EXPOSE instruction should not define an IP address or host-port mapping, found '{0}'",
    ),
)
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _TABLE}


class Config(Struct, frozen=True):
    """What a Dockerfile asks of the checks; `all` in `skip` or `experimental` stands for every rule."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, rule: Rule) -> bool:
        """Whether the rule is on. Only naming it among the experimental ones turns an experimental rule on or off."""
        if rule.experimental:
            return bool(self.experimental & {"all", rule.name})
        return not self.skip & {"all", rule.name}


def read_config(source: Dockerfile, args: Mapping[str, str]) -> Config:
    """The Dockerfile's `# check=` line, or the build argument BUILDKIT_DOCKERFILE_CHECK instead of it.

    Like BuildKit, the line is read up to its first white space. Raises `DockerfileError` for an unknown option.
    """
    if _BUILD_ARG in args:
        return _parse(args[_BUILD_ARG].strip(), f"--build-arg {_BUILD_ARG}")
    if "check" not in source.directives:
        return Config()
    # Directives stand on the first lines, one each.
    line = list(source.directives).index("check") + 1
    return _parse(source.directives["check"].split()[0], f"{source.name}:{line}")


def _parse(text: str, where: str) -> Config:
    options: dict[str, str] = {}
    for part in text.split(";") if text else ():
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or name not in _OPTIONS:
            hint = did_you_mean(name, _OPTIONS) or "Write it without spaces, for example skip=RuleA,RuleB;error=true."
            raise DockerfileError(
                f'failed to parse check options: invalid check option "{name}"', where=where, hint=hint
            )
        options[name] = value.strip()
    return Config(_names(options, "skip"), _names(options, "experimental"), _is_true(options.get("error", "0"), where))


def _names(options: Mapping[str, str], option: str) -> frozenset[str]:
    return frozenset(name.strip() for name in options.get(option, "").split(","))


def _is_true(text: str, where: str) -> bool:
    if text not in TRUE | FALSE:
        message = f'failed to parse check options: failed to parse check option "error={text}"'
        raise DockerfileError(message, where=where, hint="Write error=true.")
    return text in TRUE


class Notes(Struct, frozen=True):
    """Collects the findings of the rules that are on."""

    config: Config
    found: list[Finding] = field(default_factory=list)

    def add(self, name: str, place: Place, *words: str) -> None:
        """Keeps a finding of the rule called `name`, unless the rule is off."""
        rule = RULES[name]
        if self.config.wants(rule):
            self.found.append(Finding(name, rule.description, rule.message.format(*words), place, rule.url))


def quoted(text: str) -> str:
    """In double quotes, with quotes and control characters escaped."""
    return json.dumps(text, ensure_ascii=False)
