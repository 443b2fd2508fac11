"""`kiln schema`."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> None:
    """Print the JSON schema of kiln.yml, for editors: save it, and name it in the file's first line with
    `# yaml-language-server: $schema=FILE`."""
    from kiln.sources.catalog.schema import schema

    click.echo(json.dumps(schema(), indent=2))
