"""`kiln push`: one image of the store, or those of a component tree to where its configuration says."""

from __future__ import annotations

from pathlib import Path

import click

from kiln import settings
from kiln.baking.loading import destination
from kiln.baking.publish import push_named
from kiln.baking.session import Session, open_session
from kiln.cli.progress import Display, display
from kiln.cli.stored import find
from kiln.dockerfile.suggest import did_you_mean
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError, UsageError
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference, parse
from kiln.settings import Settings
from kiln.sources import components
from kiln.sources.wish import Collection, Destination
from kiln.store.store import Store

_USAGE = "Push one image: kiln push NAME [DESTINATION]. Push a tree's: kiln push -c FOLDER [PATH] [-i IMAGE,...]."


@click.command("push", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", nargs=-1, metavar="NAME [DESTINATION] | [PATH]")
@click.option(
    "-c", "--config", default="", metavar="FOLDER", help="Push a component tree's images as this configuration says."
)
@click.option("-i", "--images", multiple=True, metavar="IMAGE,...", help="With -c: only these images (default: all).")
@click.option("--variant", default="", metavar="NAME", help="With -c: the variant of the tree (default: all).")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "json", "quiet"]),
    default="auto",
    help="How to show what happens.",
)  # fmt: skip
@click.pass_obj
def command(
    home: str, words: tuple[str, ...], config: str, images: tuple[str, ...], variant: str, progress: str
) -> None:
    """Push the image NAME of the store, under its own name or as DESTINATION; with -c, the images of the component tree at PATH
    (default: the current folder)."""
    most, least = (1, 0) if config else (2, 1)
    if not least <= len(words) <= most or ((images or variant) and not config):
        raise UsageError("push takes other words", hint=_USAGE)
    config_of_user = settings.read(home=home)
    screen = display(progress, color=config_of_user.color)
    try:
        if config:
            wanted = [name for text in images for name in text.split(",") if name]
            tree = _tree(Path(words[0] if words else "."), Path(config), variant)
            lines = _push_tree(tree, wanted, config_of_user, screen)
        else:
            lines = [_push_one(words[0], words[-1], config_of_user, screen)]
    finally:
        screen.close()
    for line in lines:
        click.echo(line)


def _push_one(name: str, target: str, config: Settings, screen: Display) -> str:
    with Store(config.store_path) as store:
        _, descriptor = find(store, name)
        place = parse(target).with_default_tag()
        digest = push_named(store, config, screen, place, descriptor)
    return f"{place.name}@{digest}"


def _tree(path: Path, config: Path, variant: str) -> Collection:
    root = path.absolute()
    if not components.is_tree(root):
        raise UsageError("is no component tree: it has no src/*/build/*.dockerfile", where=str(path), hint=_USAGE)
    found = components.load(root, variant=variant, config=config)
    if not found.destination.prefix:
        raise UsageError("names neither a registry nor a namespace to push to", where=str(config))
    return found


def _push_tree(tree: Collection, wanted: list[str], config: Settings, screen: Display) -> list[str]:
    """Pushes images one after the other; nothing before all of them are known to be there."""
    names = _chosen(tree, wanted)
    with open_session(config, screen, Cancel()) as session:
        session.use_login(tree.destination)
        found = [_image(session.store, name, tree.destination) for name in names]
        done: list[str] = []
        for place, descriptor in found:
            try:
                done.append(f"{place.name}@{_send(session, place, descriptor)}")
            except KilnError as bad:
                left = [other.familiar for other, _ in found[len(done) :]]
                bad.detail = "\n".join(
                    filter(None, [bad.detail, f"  pushed: {len(done)} of {len(found)}", *_lines(left)])
                )
                raise
        return done


def _send(session: Session, place: Reference, descriptor: Descriptor) -> str:
    return push_named(session.store, session.settings, session.report, place, descriptor, session.client)


def _lines(left: list[str]) -> list[str]:
    return [f"  not pushed: {name}" for name in left]


def _chosen(tree: Collection, wanted: list[str]) -> list[str]:
    """The names of the tree's images that are wanted; a component that is no image stands for all of its images."""
    known = {wish.name: (wish.name,) for wish in tree.wishes}
    for word in wanted:
        if word not in known and word not in tree.aliases:
            hint = did_you_mean(word, list(known)) or f"Images are {', '.join(known)}."
            raise UsageError(f"the tree has no image {word!r}", where=str(tree.root), hint=hint)
    found = [name for word in wanted for name in known.get(word) or tree.aliases[word]]
    return list(dict.fromkeys(found)) if wanted else list(known)


def _image(store: Store, name: str, place: Destination) -> tuple[Reference, Descriptor]:
    """(where an image goes, what it is)."""
    local = parse(name).with_default_tag()
    descriptor = store.layout.names().get(str(local))
    if descriptor is None:
        raise KilnError(f"the image {name} was never built", hint=f"Build it with `kiln bake PATH {name}`.")
    return destination(local, place), descriptor
