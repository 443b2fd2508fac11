"""`kiln rmi`."""

from __future__ import annotations

import click

from kiln import settings
from kiln.cli.stored import find
from kiln.oci.reference import parse
from kiln.store.store import Store


@click.command("rmi")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def command(home: str, names: tuple[str, ...]) -> None:
    """Take NAMES of images away; `kiln prune` then frees what nothing else needs."""
    with Store(settings.read(home=home).store_path) as store:
        found = [find(store, name)[0] for name in names]
        for name in found:
            store.layout.untag(name)
            click.echo(f"removed {parse(name).familiar}")
