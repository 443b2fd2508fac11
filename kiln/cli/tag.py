"""`kiln tag`."""

from __future__ import annotations

import click

from kiln import settings
from kiln.cli.options import image_names
from kiln.cli.stored import find
from kiln.store.store import Store


@click.command("tag")
@click.argument("name")
@click.argument("new", nargs=-1, required=True)
@click.pass_obj
def command(home: str, name: str, new: tuple[str, ...]) -> None:
    """Give the image NAME further names."""
    names = image_names(new)
    with Store(settings.read(home=home).store_path) as store:
        _, descriptor = find(store, name)
        store.layout.tag([str(reference) for reference in names], descriptor)
