"""The checks of a Dockerfile: what BuildKit's build checks find, with the same names, messages and places.

docs/checks.md lists the rules. What a check needs from elsewhere is handed in: the build arguments, the automatic
platform arguments, the ignore file, and the variables of base images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from kiln.dockerfile.instructions import Program, Stage
from kiln.dockerfile.lintfrom import base_name, check_from, global_values
from kiln.dockerfile.lintrules import Config, Finding, Notes, read_config
from kiln.dockerfile.lintshape import check_shape
from kiln.dockerfile.lintstage import Given, Scope, StageCheck
from kiln.dockerfile.patterns import Matcher
from kiln.errors import DockerfileError

__all__ = ["Config", "EnvOf", "Finding", "lint", "refuse", "review"]

# The variables of the image of this name, or None where they are not known.
EnvOf = Callable[[str], Mapping[str, str] | None]
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def nothing_known(name: str) -> Mapping[str, str] | None:
    """None: the variables of no base image are known."""
    return None


def lint(
    program: Program,
    *,
    args: Mapping[str, str],
    automatic: Mapping[str, str],
    ignore: Matcher | None = None,
    stages: Collection[int] | None = None,
    env_of: EnvOf = nothing_known,
) -> list[Finding]:
    """The findings of a Dockerfile, in the order of its lines.

    `automatic` are the BUILD*, TARGET* arguments; `stages` the stages whose instructions are looked at (None: all; how
    a file is written and its FROM lines are always looked at). Raises `DockerfileError` for what cannot be evaluated.
    """
    notes = Notes(read_config(program.source, args))
    automatic = {name: args.get(name, value) for name, value in automatic.items()}
    values = global_values(program, args, automatic)
    check_shape(program, notes)
    check_from(program, values, automatic, notes)
    given = Given(args, values, ignore, program.source.escape)
    _check_stages(program, given, stages, env_of, notes)
    return sorted(notes.found, key=lambda finding: (finding.place.start, finding.rule, finding.message))


def review(
    program: Program,
    tell: Callable[[Finding], None],
    *,
    args: Mapping[str, str],
    automatic: Mapping[str, str],
    ignore: Matcher | None = None,
    stages: Collection[int] | None = None,
    env_of: EnvOf = nothing_known,
) -> None:
    """Tells every finding; raises `DockerfileError` where the Dockerfile asks that findings are errors."""
    found = lint(program, args=args, automatic=automatic, ignore=ignore, stages=stages, env_of=env_of)
    for finding in found:
        tell(finding)
    refuse(program, args, found)


def refuse(program: Program, args: Mapping[str, str], found: Sequence[Finding]) -> None:
    """Raises `DockerfileError` for findings where the Dockerfile has `# check=error=true`."""
    if found and read_config(program.source, args).error:
        rules = ", ".join(sorted({finding.rule for finding in found}))
        raise DockerfileError(
            f"lint violation found for rules: {rules}",
            where=str(found[0].place),
            hint="`kiln build --check` shows them; `# check=error=true` makes them errors.",
        )


def _check_stages(program: Program, given: Given, stages: Collection[int] | None, env_of: EnvOf, notes: Notes) -> None:
    scopes: dict[int, Scope] = {}
    for stage in program.stages:
        if stages is None or stage.index in stages:
            name = base_name(program, stage, given.global_args)
            base = _base_stage(program, stage, name)
            scope = _image_scope(name, env_of) if base is None else scopes[base]
            check = StageCheck(stage, scope.inherited(), given, notes)
            scopes[stage.index] = check.run(scope.triggers)


def _base_stage(program: Program, stage: Stage, name: str) -> int | None:
    """The last earlier stage of this name."""
    earlier = reversed(program.stages[: stage.index])
    return next((other.index for other in earlier if other.name and other.name == name), None)


def _image_scope(name: str, env_of: EnvOf) -> Scope:
    known = {} if name == "scratch" else env_of(name)
    scope = Scope(env=dict(known or {}), whole=known is not None)
    scope.env.setdefault("PATH", _DEFAULT_PATH)
    return scope
