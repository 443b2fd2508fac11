"""`kiln inspect`."""

from __future__ import annotations

import click
import msgspec

from kiln import settings
from kiln.cli.stored import find
from kiln.oci.image import Index, encode
from kiln.store.store import Store


@click.command("inspect")
@click.argument("name")
@click.option("--raw", is_flag=True, help="The manifest (or index) as it is.")
@click.pass_obj
def command(home: str, name: str, raw: bool) -> None:
    """Show the manifest, config and layers of an image of the store."""
    with Store(settings.read(home=home).store_path) as store:
        full, descriptor = find(store, name)
        if raw:
            click.echo(store.blobs.get(descriptor.digest))
            return
        document = store.layout.load(descriptor).document
        facts: dict[str, object] = {"name": full, "digest": descriptor.digest, "mediaType": descriptor.media_type}
        if isinstance(document, Index):
            facts["manifests"] = msgspec.to_builtins(document.manifests)
        else:
            found = store.layout.image(descriptor)
            assert found is not None
            layers = [
                {"digest": layer.digest, "diffID": diff_id, "size": layer.size, "mediaType": layer.media_type}
                for layer, diff_id in zip(found[1].layers, found[1].diff_ids, strict=True)
            ]
            facts |= {"config": msgspec.json.decode(encode(found[1].config)), "layers": layers}
            if document.annotations:
                facts["annotations"] = document.annotations
    click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2))
