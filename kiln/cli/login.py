"""`kiln login`."""

from __future__ import annotations

import sys

import click

from kiln import settings
from kiln.errors import UsageError


@click.command("login")
@click.argument("host", default="docker.io")
@click.option("-u", "--username", default="", help="The user's name (asked for if missing).")
@click.option(
    "-p",
    "--password",
    default="",
    help="The password. Other users can see it in the list of processes: prefer --password-stdin.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.pass_obj
def command(home: str, host: str, username: str, password: str, password_stdin: bool) -> None:
    """Keep credentials for the registry HOST, in Docker's config file or its credential helper."""
    from kiln.registry.credentials import Credential
    from kiln.registry.login import login

    if password and password_stdin:
        raise UsageError("--password and --password-stdin cannot both be given")
    if not sys.stdin.isatty() and not (password_stdin or password):
        raise UsageError("there is no terminal to ask for the password", hint="Use --password-stdin.")
    username = username or click.prompt("Username", err=True)
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    password = password or click.prompt("Password", hide_input=True, err=True)
    if not password:
        raise UsageError("the password is empty")
    place = login(settings.read(home=home), host, Credential(username, password))
    click.echo(f"logged in to {host}; the credentials are in {place}")
