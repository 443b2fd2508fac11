"""`kiln package`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from kiln import bake, settings
from kiln.baking import packaging
from kiln.baking.packageline import build_line
from kiln.cli.options import seconds_of, secret_of
from kiln.cli.progress import display
from kiln.cli.watch import Watched, run_watched
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError, RunError


@click.command("package", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("place", metavar="PACKAGE")
@click.option("--app", required=True, metavar="NAME", help="The application's name, which the image gets.")
@click.option("--version", required=True, metavar="VERSION", help="The image's tag.")
@click.option(
    "--base", default="", metavar="NAME", help="The base (default: the one that fits; see `kiln bases list`)."
)
@click.option("--memo", default="", metavar="TEXT", help="A note that the image keeps.")
@click.option("--namespace", default="", metavar="NAME", help="What stands before the application's name.")
@click.option("--registry", default="", metavar="HOST[:PORT]", help="The registry.")
@click.option("--push", is_flag=True, help="Push the image.")
@click.option("--checksum", default="", metavar="sha256:HEX", help="The digest that the package must have.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=None, help="What the application listens on (default: the base's)."
)
@click.option(
    "--secret", "secrets", multiple=True, metavar="id=ID,src=FILE|env=NAME",
    help="A secret for the base's commands, for instance id=pip.conf,src=FILE (many).",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite an image of this name and version.")
@click.option("--allow-private", is_flag=True, help="Let the URL lead to private addresses.")
@click.option("--debug-on-error", is_flag=True, help="Open a shell where a command of the template failed.")
@click.option("--dry-run", is_flag=True, help="Show what it is, the name, the Dockerfile and the same as `kiln build`.")
@click.option("--timeout", default="", metavar="TIME", help="Stop after this time (300, 90s, 15m).")
@click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet", "tty"]), default="auto",
              help="How to show what happens.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Show only errors, and the image at the end.")
@click.pass_obj
def command(home: str, /, **given: Any) -> None:
    """Make an image of what is compiled: PACKAGE is a war, jar, tar, zip, program or folder, or the URL of one."""
    config = settings.read(home=home)
    request = packaging.Request(
        given["place"], given["app"], given["version"], given["base"], given["memo"], given["namespace"],
        given["registry"], given["push"], given["checksum"],
        given["port"] or 0, given["force"], given["allow_private"],
        {secret.id: secret for secret in (secret_of(text, config.environment) for text in given["secrets"])},
        given["debug_on_error"],
    )  # fmt: skip
    is_quiet = given["quiet"] or (given["dry_run"] and given["progress"] == "auto")
    kind = "quiet" if is_quiet else given["progress"]
    screen = display({"tty": "tree"}.get(kind, kind), color=config.color)
    cancel = Cancel()
    timeout = seconds_of("--timeout", given["timeout"])
    work = Watched(
        lambda report: bake.package(request, config, report, cancel, dry_run=given["dry_run"], timeout=timeout),
        screen, cancel, _explain,
    )  # fmt: skip
    try:
        outcome = run_watched(work)
    except KilnError as bad:
        screen.close()
        _explain(bad)
        raise
    finally:
        screen.close()
    if given["dry_run"]:
        _show(outcome.prepared, request)
    elif outcome.published is not None:
        click.echo(f"{outcome.prepared.name.familiar}@{outcome.published.descriptor.digest}")


def _explain(bad: KilnError) -> None:
    if isinstance(bad, RunError) and not bad.detail:
        bad.detail = "\n".join([*(f"    | {line}" for line in bad.log_tail), f"  the whole log: {bad.log_path}"])


def _show(prepared: packaging.Prepared, request: packaging.Request) -> None:
    lines = [f"package   {prepared.place}", f"image     {prepared.name.familiar}"]
    lines.append(f"base      {prepared.base.name} ({prepared.base.image}): {prepared.reason}")
    others = [one for one in prepared.candidates if one.reason != prepared.reason]
    lines += [f"{'also fits' if number == 0 else '':<9} {one.reason}" for number, one in enumerate(others)]
    lines += [f"left out  {', '.join(one[3:] for one in prepared.left_out)}"] if prepared.left_out else []
    lines += [f"warning   {text}" for text in prepared.warnings]
    lines += [
        "",
        "# Dockerfile",
        prepared.dockerfile.rstrip(),
        "",
        build_line(prepared, request, shlex.quote),
    ]
    click.echo("\n".join(lines))
