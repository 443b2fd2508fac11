"""`kiln doctor`."""

from __future__ import annotations

import click
import msgspec

from kiln import settings
from kiln.baking.checkup import examine


@click.command("doctor")
@click.option("--registry", "registries", multiple=True, metavar="HOST", help="Also ask this registry (many).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a finding.")
@click.pass_obj
def command(home: str, registries: tuple[str, ...], as_json: bool) -> None:
    """Say what this machine can do for Kiln, and how to mend what is missing. Exit code 1 if a build with RUN cannot work."""
    findings = examine(settings.read(home=home), registries)
    for finding in findings:
        if as_json:
            click.echo(msgspec.json.encode(msgspec.to_builtins(finding)))
            continue
        mark = {"ok": "ok  ", "note": "note", "bad": "BAD "}[finding.state]
        click.echo(f"{mark}  {finding.name}: {finding.text}")
        if finding.hint:
            click.echo(f"      hint: {finding.hint}")
    raise SystemExit(1 if any(finding.state == "bad" for finding in findings) else 0)
