"""`kiln logout`."""

from __future__ import annotations

import click

from kiln import settings


@click.command("logout")
@click.argument("host", default="docker.io")
@click.pass_obj
def command(home: str, host: str) -> None:
    """Forget the credentials for the registry HOST."""
    from kiln.registry.login import logout

    known = logout(settings.read(home=home), host)
    click.echo(f"logged out of {host}" if known else f"there were no credentials for {host}")
