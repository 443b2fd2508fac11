"""`kiln prune`."""

from __future__ import annotations

import re

import click

from kiln import settings
from kiln.cli.progress import bytes_text
from kiln.errors import UsageError
from kiln.store.gc import prune
from kiln.store.store import Store

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@click.command("prune")
@click.option(
    "--keep",
    default="0",
    metavar="SIZE",
    help="Stop when at most this much is left (10GB, 500MB); default: keep only what images need.",
)
@click.pass_obj
def command(home: str, keep: str) -> None:
    """Remove what no image and no running build needs, least recently used first."""
    with Store(settings.read(home=home).store_path) as store:
        done = prune(store, keep=parse_bytes(keep))
    click.echo(f"removed {done.removed} items, {bytes_text(done.freed)}; {bytes_text(done.left)} are left")


def parse_bytes(text: str) -> int:
    """Bytes from `10GB`, `500MB`, `1.5g` (1000 a step); raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if match is None:
        raise UsageError(f"--keep {text}: is no size", hint="Write it like 10GB or 500MB.")
    return int(float(match.group(1)) * _UNITS[match.group(2)])
