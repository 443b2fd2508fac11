"""`kiln plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kiln import bake, events, settings
from kiln.baking.planning import Planned
from kiln.cli.collection import collection_options, read_request
from kiln.engine.cancel import Cancel
from kiln.plan import drawing
from kiln.store.files import write_whole


@click.command("plan", context_settings={"help_option_names": ["-h", "--help"]})
@collection_options
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "dot", "svg"]), default=None,
    help="How to show it (default: a table, or what the name of the -o file says).",
)  # fmt: skip
@click.option("-o", "--output", default="", metavar="FILE", help="Write it to a file.")
@click.pass_obj
def command(home: str, /, **given: Any) -> None:
    """Show what `kiln bake` would do with PATH, and why. Nothing is built."""
    config = settings.read(home=home)
    cancel = Cancel()
    planned = bake.plan_many(read_request(given), config, _only_warnings, cancel)
    form = given["form"] or {".json": "json", ".dot": "dot", ".gv": "dot", ".svg": "svg"}.get(
        Path(given["output"]).suffix, "table"
    )
    text = drawing.FORMS[form]([_node(one) for one in planned])
    if given["output"]:
        write_whole(Path(given["output"]), text.encode())
    else:
        click.echo(text, nl=False)


def _node(one: Planned) -> drawing.Node:
    target, decision = one.target, one.decision
    return drawing.Node(
        name=target.name, decision=decision.action, reason=decision.reason, needs=one.needs, depth=one.depth,
        images=tuple(name.familiar for name in target.tags), pushes=tuple(name.familiar for name in target.pushes),
        digest=decision.digest, key=decision.key, place=target.place,
    )  # fmt: skip


def _only_warnings(event: events.Event) -> None:
    if isinstance(event, events.Warned):
        place = f"{event.where}: " if event.where else ""
        click.echo(f"warning: {place}{event.message}", err=True)
