"""`kiln`: finds the verb, runs it, shows an error once."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from typing import Any, NoReturn

import click

from kiln import __version__
from kiln.errors import KilnError

_VERBS = {
    "build": "Build an image from a Dockerfile",
    "bake": "Make all images of a catalog, a component tree or a bake file",
    "plan": "Show what a bake would do, and why",
    "package": "Make an image of what is compiled: a war, a jar, an archive, a program",
    "bases": "List, add and check the bases of packages",
    "schema": "Print the JSON schema of kiln.yml",
    "bootstrap": "Make a base image from distribution packages",
    "push": "Push an image of the store to its registry",
    "pull": "Pull an image into the store",
    "copy": "Copy an image from registry to registry",
    "inspect": "Show an image's config and layers",
    "images": "List the images of the store",
    "tag": "Give an image another name",
    "rmi": "Take names of images away",
    "login": "Keep credentials for a registry",
    "logout": "Forget credentials for a registry",
    "du": "Show what the store's bytes are for",
    "prune": "Remove what no image and no running build needs",
    "doctor": "Say what this machine can do",
    "completion": "Print the shell's completion script",
    "version": "Print the version",
}


class _Verbs(click.Group):
    """Loads a verb's file when the verb is used: a build with nothing to do must start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"kiln.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as bad:
            from kiln.dockerfile.suggest import did_you_mean

            raise click.UsageError(f"{bad.message} {did_you_mean(args[0], list(_VERBS))}".strip(), ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home", metavar="FOLDER", default="", help="The folder of the store (default: $KILN_HOME or ~/.local/share/kiln)."
)
@click.version_option(__version__, prog_name="kiln")
@click.pass_context
def kiln(ctx: click.Context, home: str) -> None:
    """Makes container images from Dockerfiles: in parallel, without a daemon, only what changed."""
    ctx.obj = home


def main() -> None:
    """The entry point: exit code 0, 1 for a failure, 2 for wrong usage, 130 when stopped."""
    signal.signal(signal.SIGTERM, _terminated)
    # Plans are many small objects that live to the end: looking for garbage among them often is wasted.
    gc.set_threshold(50_000)
    try:
        code: Any = kiln.main(standalone_mode=False)
    except click.ClickException as bad:
        bad.show()
        code = bad.exit_code
    except click.exceptions.Abort:
        code = 130
    except KeyboardInterrupt:
        code = 130
    except KilnError as bad:
        show_error(bad)
        code = bad.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    except OSError as bad:
        show_error(KilnError(f"{bad.strerror or bad}", where=str(bad.filename or "")))
        code = 1
    except Exception as bad:  # noqa: BLE001 (no traceback reaches a user)
        show_error(_unexpected(bad))
        code = 1
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> NoReturn:
    """Ends the process at once. Everything has been closed by now; taking apart what is in memory would only take time (0.02 s,
    more after a large build)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


def _terminated(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _unexpected(bad: Exception) -> KilnError:
    """A fault of Kiln's own: the traceback goes to a file."""
    import tempfile
    import traceback

    fd, path = tempfile.mkstemp(prefix="kiln-fault-", suffix=".txt")
    with open(fd, "w") as file:
        traceback.print_exception(bad, file=file)
    return KilnError(f"a fault in Kiln: {type(bad).__name__}: {bad}", hint=f"Please report it with the file {path}.")


def show_error(bad: KilnError) -> None:
    """The error on standard error: message, detail, hint."""
    click.echo(f"kiln: error: {bad}", err=True)
    if bad.detail:
        click.echo(bad.detail, err=True)
    if bad.hint:
        click.echo(f"  hint: {bad.hint}", err=True)
