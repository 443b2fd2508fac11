"""`kiln bases`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from kiln import bake, events, settings
from kiln.baking import packaging
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError, UsageError
from kiln.oci.reference import parse as parse_reference
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
    if not found:
        click.echo("There are no bases: `kiln bases add` adds one.")
        return
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
    base = packaging.find_base(packaging.load_bases(home), name)
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
    _check(given, packaging.load_bases(home), home)
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


def _check(given: dict[str, Any], known: dict[str, bases.Base], home: Path) -> None:
    """Raises `UsageError` naming the option that is wrong."""
    name = given["name"]
    if name in known and not given["force"]:
        raise UsageError(f"there is a base {name!r} already", hint="Replace it with --force.")
    alike = [other for other in known if other != name and other.casefold() == name.casefold()]
    if alike:
        raise UsageError(f"{name!r} differs from the base {alike[0]!r} only by case", hint="Take another name.")
    try:
        parse_reference(given["image"])
    except UsageError as bad:
        raise UsageError(f"--image: {bad.message}", hint=bad.hint) from None
    templates.find(given["template"], packaging.template_folders(home))


@command.command("remove")
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Remove a base from $KILN_HOME/bases.toml, also one that is written wrongly."""
    path = _home(ctx) / bases.FILE
    before = path.read_text() if path.is_file() else ""
    text = _without(before, name)
    if text == before:
        raise UsageError(
            f"there is no table [base.{name}] in {path}",
            hint="`kiln bases list` shows all; `replace = true` at the top of that file leaves out the shipped ones.",
        )
    write_whole(path, text.encode())
    click.echo(f"{name} is no longer in {path}")


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
    """A file without the table of one base, and without the tables in it."""
    kept, skipping = [], False
    spelled = "|".join(re.escape(one) for one in (name, _quoted(name), f"'{name}'"))
    head = re.compile(rf"\s*\[\s*base\s*\.\s*(?:{spelled})\s*(?:\.|\])")
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            skipping = head.match(line) is not None
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
    if not found:
        raise UsageError("there are no bases to check", hint="Add one with `kiln bases add`.")
    for name in names or tuple(found):
        try:
            bake.check_base(packaging.find_base(found, name), config, events.silent, Cancel())
            click.echo(f"ok      {name}")
        except KilnError as failure:
            bad += 1
            click.echo(f"failed  {name}: {failure}")
            if failure.hint:
                click.echo(f"        {failure.hint}")
    if bad:
        raise SystemExit(1)
