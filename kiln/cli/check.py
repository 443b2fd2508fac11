"""`kiln build --check`: what should be looked at in a Dockerfile, shown as `docker build --check` shows it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from kiln.baking.images import stored_env
from kiln.dockerfile.lint import Finding, lint, refuse
from kiln.dockerfile.parser import Dockerfile, Place
from kiln.dockerfile.patterns import Matcher
from kiln.engine.cancel import Cancel
from kiln.oci.platform import Platform, local
from kiln.plan.graph import Graph, make_graph, predefined_args
from kiln.plan.target import Target
from kiln.settings import Settings
from kiln.sources.context import open_context
from kiln.sources.dockerfile import load
from kiln.sources.wish import Wish

_RULE = "-" * 20


def check(config: Settings, wish: Wish, given: Mapping[str, Any]) -> int:
    """Shows the findings of a Dockerfile; 0 without findings, 1 with some.

    Raises the `KilnError` that a build would end with before its first step, after the findings were shown.
    """
    with tempfile.TemporaryDirectory(prefix="kiln-check-") as scratch:
        target = load(wish, open_context(wish.context, Path(scratch), config, Cancel()))
    found = _find(config, target)
    if given["progress"] == "json":
        _show_json(found)
    else:
        _show(found, target.program.source)
    refuse(target.program, target.args, found)
    _graph(target)
    return 1 if found else 0


def _find(config: Settings, target: Target) -> list[Finding]:
    """The findings in the stages that the target needs, or in all stages where none is named."""
    platform = _platform(target)
    stage = target.stage or target.program.stages[-1].name
    return lint(
        target.program,
        args=target.args,
        automatic=predefined_args(local(), platform, stage),
        ignore=Matcher(target.context.ignore),
        stages=_graph(target).vertices if target.stage else None,
        env_of=lambda name: None if name.lower() in target.contexts else stored_env(config.store_path, name, platform),
    )


def _graph(target: Target) -> Graph:
    return make_graph(target.program, target=target.stage, platform=_platform(target), args=target.args)


def _platform(target: Target) -> Platform:
    return target.platforms[0] if target.platforms else local()


def _show_json(found: list[Finding]) -> None:
    for finding in found:
        place = finding.place
        facts = {
            "rule": finding.rule,
            "description": finding.description,
            "message": finding.message,
            "url": finding.url,
            "file": place.file,
            "line": place.start,
            "end": place.end,
        }
        click.echo(msgspec.json.encode(facts))


def _show(found: list[Finding], source: Dockerfile) -> None:
    for finding in found:
        click.echo(f"WARNING: {finding.rule} - {finding.url}\n{finding.message}\n{finding.place}")
        click.echo("\n".join([_RULE, *_excerpt(source, finding.place), _RULE, ""]))
    click.echo(_summary(len(found)))


def _excerpt(source: Dockerfile, place: Place) -> list[str]:
    """The marked lines of a place with a few lines around them."""
    lines = source.text.splitlines()
    after = 2 if place.start == place.end else 1
    shown = range(max(1, place.start - 1), min(len(lines), place.end + after) + 1)
    return [
        f"{number:4d} | {'>>>' if place.start <= number <= place.end else '   '} {lines[number - 1]}".rstrip()
        for number in shown
    ]


def _summary(count: int) -> str:
    if not count:
        return "Check complete, no warnings found."
    return f"Check complete, {count} {'warning has' if count == 1 else 'warnings have'} been found!"
