"""`kiln images`."""

from __future__ import annotations

import click
import msgspec

from kiln import settings
from kiln.cli.progress import bytes_text
from kiln.errors import KilnError
from kiln.oci.image import Descriptor, Index
from kiln.oci.reference import parse
from kiln.store.store import Store


@click.command("images")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("-q", "--quiet", is_flag=True, help="Only digests.")
@click.pass_obj
def command(home: str, as_json: bool, quiet: bool) -> None:
    """List the images of the store."""
    with Store(settings.read(home=home).store_path) as store:
        rows = [_row(store, name, descriptor) for name, descriptor in store.layout.names().items()]
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row))
        return
    if quiet:
        for row in rows:
            click.echo(row["digest"])
        return
    width = max([len(str(row["name"])) for row in rows] + [4])
    click.echo(f"{'NAME':<{width}}  {'DIGEST':<19}  {'PLATFORM':<14}  {'CREATED':<20}  SIZE")
    for row in rows:
        size = bytes_text(int(str(row["size"])))
        click.echo(
            f"{row['name']:<{width}}  {str(row['digest'])[:19]}  {row['platform']:<14}  {row['created']:<20}  {size}"
        )


def _row(store: Store, name: str, descriptor: Descriptor) -> dict[str, object]:
    row: dict[str, object] = {
        "name": parse(name).familiar, "digest": descriptor.digest, "platform": "", "created": "", "size": 0,
    }  # fmt: skip
    try:
        document = store.layout.load(descriptor).document
        if isinstance(document, Index):
            platforms = [str(entry.platform) for entry in document.manifests if entry.platform]
            return row | {"platform": ",".join(platforms)}
        found = store.layout.image(descriptor)
        assert found is not None
        config = found[1].config
        size = sum(layer.size for layer in document.layers) + document.config.size
        return row | {"platform": str(config.platform), "created": config.created[:19], "size": size}
    except KilnError as bad:
        return row | {"platform": f"damaged: {bad.message}"}
