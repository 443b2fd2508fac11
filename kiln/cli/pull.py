"""`kiln pull`."""

from __future__ import annotations

import click

from kiln import settings
from kiln.baking.images import Images, default_platform
from kiln.cli.options import platform_list
from kiln.cli.progress import display
from kiln.oci.reference import parse
from kiln.store.store import Store


@click.command("pull")
@click.argument("name")
@click.option(
    "--platform", "platforms", multiple=True, metavar="OS/ARCH", help="The platform (default: this machine's)."
)
@click.option("--all-platforms", is_flag=True, help="Everything that an index lists.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "json", "quiet"]),
    default="auto",
    help="How to show what happens.",
)
@click.pass_obj
def command(home: str, name: str, platforms: tuple[str, ...], all_platforms: bool, progress: str) -> None:
    """Pull the image NAME from its registry into the store."""
    config = settings.read(home=home)
    screen = display(progress, color=config.color)
    wanted = None if all_platforms else next(iter(platform_list(platforms)), default_platform())
    try:
        with Store(config.store_path) as store:
            reference = parse(name).with_default_tag()
            descriptor = Images(store, config, screen).pull(reference, wanted)
    finally:
        screen.close()
    click.echo(f"{reference.name}@{descriptor.digest}")
