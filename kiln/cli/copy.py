"""`kiln copy`."""

from __future__ import annotations

import click

from kiln import settings
from kiln.cli.options import platform_list
from kiln.oci.reference import parse


@click.command("copy")
@click.argument("source")
@click.argument("destination")
@click.option(
    "--platform", "platforms", multiple=True, metavar="OS/ARCH", help="One platform of an index (default: all)."
)
@click.pass_obj
def command(home: str, source: str, destination: str, platforms: tuple[str, ...]) -> None:
    """Copy an image from registry to registry, byte for byte, without storing it here."""
    from kiln.registry.client import Client
    from kiln.registry.copy import copy

    config = settings.read(home=home)
    target = parse(destination).with_default_tag()
    with Client(config) as client:
        digest = copy(client, parse(source).with_default_tag(), target, next(iter(platform_list(platforms)), None))
    click.echo(f"{target.name}@{digest}")
