"""`kiln push`."""

from __future__ import annotations

import click

from kiln import settings
from kiln.baking.publish import push_named
from kiln.cli.progress import display
from kiln.cli.stored import find
from kiln.errors import KilnError
from kiln.oci.reference import parse
from kiln.store.store import Store


@click.command("push")
@click.argument("name")
@click.argument("destination", required=False)
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "json", "quiet"]),
    default="auto",
    help="How to show what happens.",
)
@click.pass_obj
def command(home: str, name: str, destination: str | None, progress: str) -> None:
    """Push the image NAME of the store, under its own name or as DESTINATION."""
    config = settings.read(home=home)
    screen = display(progress, color=config.color)
    try:
        with Store(config.store_path) as store:
            _, descriptor = find(store, name)
            target = parse(destination or name).with_default_tag()
            digest = push_named(store, config, screen, target, descriptor)
    except KilnError as bad:
        screen.close()
        raise bad from None
    screen.close()
    click.echo(f"{target.name}@{digest}")
