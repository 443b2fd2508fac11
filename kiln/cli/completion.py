"""`kiln completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL: `source <(kiln completion bash)`."""
    from kiln.cli.main import kiln

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(kiln, {}, "kiln", "_KILN_COMPLETE").source())
