"""`kiln bases`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kiln import bake, events, settings
from kiln.baking import packaging
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError, UsageError
from kiln.sources.package import bases, templates
from kiln.store.files import write_whole


@click.group("bases", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """The bases that `kiln package` puts packages on."""


def _home(ctx: click.Context) -> Path:
    return settings.read(home=ctx.find_root().obj or "").home


@command.command("list")
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List the bases."""
    found = packaging.load_bases(_home(ctx))
    name_width, image_width = (
        max(len(text) for text in texts) for texts in (found, [one.image for one in found.values()])
    )
    click.echo(f"{'NAME':<{name_width}}  {'IMAGE':<{image_width}}  TEMPLATE  PORT   FOR")
    for base in found.values():
        click.echo(
            f"{base.name:<{name_width}}  {base.image:<{image_width}}  {base.template:<8}  {base.port:<5}  {base.description}"
        )


@command.command("show")
@click.argument("name")
@click.pass_context
def show(ctx: click.Context, name: str) -> None:
    """Show a base and its template."""
    home = _home(ctx)
    base = _find(packaging.load_bases(home), name)
    template = templates.find(base.template, packaging.template_folders(home))
    click.echo(f"image     {base.image}\nport      {base.port}\ncontrol   {base.control}\ndefined   {base.place}")
    click.echo(f"template  {template.place}\n\n{template.text.rstrip()}")


@command.command("add")
@click.argument("name")
@click.option("--image", required=True, metavar="REFERENCE", help="The base image.")
@click.option(
    "--template", required=True, metavar="NAME", help="The template: a shipped one, or one of $KILN_HOME/templates."
)
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="What its programs listen on.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.option("--force", is_flag=True, help="Replace a base of this name.")
@click.pass_context
def add(ctx: click.Context, /, **given: Any) -> None:
    """Add a base to $KILN_HOME/bases.toml."""
    home = _home(ctx)
    path = home / bases.FILE
    if given["name"] in packaging.load_bases(home) and not given["force"]:
        raise UsageError(f"there is a base {given['name']!r} already", hint="Replace it with --force.")
    before = path.read_text() if path.is_file() else ""
    text = f"{_without(before, given['name'])}{_table(given)}"
    check = home / f".{bases.FILE}.new"
    write_whole(check, text.encode())
    try:
        bases.load([check], packaging.template_folders(home))
    finally:
        check.unlink(missing_ok=True)
    write_whole(path, text.encode())
    click.echo(f"{given['name']} is in {path}")


def _table(given: dict[str, Any]) -> str:
    lines = [f"[base.{_quoted(given['name'])}]", f"image = {_quoted(given['image'])}", f"template = {_quoted(given['template'])}",
             f"port = {given['port']}"]  # fmt: skip
    lines += [f"description = {_quoted(given['description'])}"] if given["description"] else []
    return "\n" + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML, which JSON's strings are."""
    import json

    return json.dumps(text, ensure_ascii=False)


def _without(text: str, name: str) -> str:
    """A file without the table of one base."""
    kept, skipping = [], False
    heads = (f"[base.{name}]", f"[base.{_quoted(name)}]")
    for line in text.splitlines(keepends=True):
        if line.startswith("["):
            skipping = line.strip() in heads
        if not skipping:
            kept.append(line)
    return "".join(kept)


@command.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Build a trivial package on each base (or on those named)."""
    config = settings.read(home=ctx.find_root().obj or "")
    found = packaging.load_bases(config.home)
    bad = 0
    for name in names or tuple(found):
        try:
            bake.check_base(_find(found, name), config, events.silent, Cancel())
            click.echo(f"ok      {name}")
        except KilnError as failure:
            bad += 1
            click.echo(f"failed  {name}: {failure}")
            if failure.hint:
                click.echo(f"        {failure.hint}")
    if bad:
        raise SystemExit(1)


def _find(found: dict[str, bases.Base], name: str) -> bases.Base:
    if name not in found:
        from kiln.dockerfile.suggest import did_you_mean

        raise UsageError(
            f"there is no base {name!r}", hint=did_you_mean(name, list(found)) or f"Bases are {', '.join(found)}."
        )
    return found[name]
