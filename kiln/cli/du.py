"""`kiln du`."""

from __future__ import annotations

import time

import click
import msgspec

from kiln import settings
from kiln.cli.progress import bytes_text
from kiln.oci.reference import parse
from kiln.store.gc import Item, items
from kiln.store.store import Store


@click.command("du")
@click.option("-v", "--verbose", is_flag=True, help="Every item, least recently used first.")
@click.option("--json", "as_json", is_flag=True, help="Every item as a JSON object a line.")
@click.pass_obj
def command(home: str, verbose: bool, as_json: bool) -> None:
    """Show what the bytes of the store are for: needed by images, or kept to make the next build faster."""
    with Store(settings.read(home=home).store_path) as store:
        found = items(store)
    if as_json:
        for item in found:
            facts = {"kind": item.kind, "name": item.path.name, "size": item.size, "used": item.used, "tags": item.tags}
            click.echo(msgspec.json.encode(facts))
        return
    if verbose:
        for item in found:
            click.echo(
                f"{item.path.name[:32]:<32}  {item.kind:<20} {bytes_text(item.size):>8}  {_ago(item.used):>8}  {_tags(item)}"
            )
    click.echo(f"{'KIND':<22}{'ITEMS':>8}{'SIZE':>12}{'FREE ON PRUNE':>16}")
    for kind in dict.fromkeys(item.kind for item in found):
        some = [item for item in found if item.kind == kind]
        free = sum(item.size for item in some if not item.tags)
        click.echo(f"{kind:<22}{len(some):>8}{bytes_text(sum(item.size for item in some)):>12}{bytes_text(free):>16}")
    total, free = sum(item.size for item in found), sum(item.size for item in found if not item.tags)
    click.echo(f"{'total':<22}{len(found):>8}{bytes_text(total):>12}{bytes_text(free):>16}")


def _ago(used: float) -> str:
    seconds = max(0, int(time.time() - used))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _tags(item: Item) -> str:
    return ", ".join(parse(name).familiar for name in item.tags)
