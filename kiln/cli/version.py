"""`kiln version`."""

from __future__ import annotations

import platform

import click

from kiln import __version__


@click.command("version")
def command() -> None:
    """Print the version."""
    click.echo(f"kiln {__version__} (Python {platform.python_version()}, {platform.machine()})")
