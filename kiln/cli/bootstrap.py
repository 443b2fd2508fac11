"""`kiln bootstrap`."""

from __future__ import annotations

import click

from kiln import events, settings
from kiln.baking.images import default_platform
from kiln.baking.publish import push_named
from kiln.cli.options import image_names, platform_list
from kiln.cli.progress import display
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError, UsageError
from kiln.plan.target import Bootstrap
from kiln.sources.bootstrap import make
from kiln.store.store import Store


@click.group("bootstrap")
def command() -> None:
    """Make a base image from distribution packages, the same bytes for the same packages."""


@command.command("debian")
@click.option("--suite", default="bookworm", metavar="SUITE", help="The release: bookworm, trixie, sid.")
@click.option("--include", default="", metavar="PACKAGES", help="Further packages, with commas.")
@click.option("--mirror", default="", metavar="URL", help="Where packages come from (default: mmdebstrap's).")
@click.option("--variant", default="minbase", metavar="NAME", help="mmdebstrap's variant: minbase, apt, essential, ...")
@click.option("--components", default="", metavar="NAMES", help="Archive areas, with commas (default: main).")
@click.option("-t", "--tag", "tags", multiple=True, required=True, metavar="NAME", help="A name for the image (many).")
@click.option(
    "--platform", "platforms", multiple=True, metavar="OS/ARCH", help="The platform (default: this machine's)."
)
@click.option("--push", is_flag=True, help="Push the image under its names.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "json", "quiet"]),
    default="auto",
    help="How to show what happens.",
)
@click.pass_context
def debian(ctx: click.Context, /, **given: object) -> None:
    """Make a Debian image by mmdebstrap."""
    config = settings.read(home=ctx.find_root().obj or "")
    names = image_names(given["tags"])  # type: ignore[arg-type]
    platforms = platform_list(given["platforms"])  # type: ignore[arg-type]
    if len(platforms) > 1:
        raise UsageError("--platform can be given once here")
    include = tuple(name for name in str(given["include"]).split(",") if name)
    wish = Bootstrap(
        str(given["suite"]), include, str(given["mirror"]), str(given["variant"]), str(given["components"])
    )
    screen = display(str(given["progress"]), color=config.color)
    step, title, begin = "bootstrap", f"[bootstrap] {wish.suite}", events.now()
    screen(events.StepStarted(time=begin, step=step, name=title))
    try:
        with Store(config.store_path) as store:
            image = make(
                wish, store, platforms[0] if platforms else default_platform(), config, Cancel(),
                lambda line: screen(events.StepOutput(time=events.now(), step=step, text=line)),
            )  # fmt: skip
            descriptor = store.layout.put_image(image)
            store.layout.tag([str(name) for name in names], descriptor.plain())
            size = image.layers[0].size
            screen(
                events.StepFinished(time=events.now(), step=step, name=title, seconds=events.now() - begin, size=size)
            )
            for name in names:
                if given["push"]:
                    push_named(store, config, screen, name, descriptor.plain())
                screen(
                    events.ImageReady(
                        time=events.now(), digest=descriptor.digest, name=name.familiar, pushed=bool(given["push"])
                    )
                )
    except KilnError as bad:
        screen(
            events.StepFinished(time=events.now(), step=step, name=title, seconds=events.now() - begin, error=str(bad))
        )
        raise
    finally:
        screen.close()
