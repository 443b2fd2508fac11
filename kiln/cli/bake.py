"""`kiln bake`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from kiln import bake, settings
from kiln.baking.many import Report
from kiln.cli.collection import collection_options, read_request
from kiln.cli.options import seconds_of
from kiln.cli.progress import display
from kiln.cli.report import report_lines
from kiln.cli.watch import Watched, run_watched
from kiln.engine.cancel import Cancel
from kiln.errors import CancelledBuild, KilnError, RunError
from kiln.plan.outputs import Output
from kiln.store.files import write_whole


@click.command("bake", context_settings={"help_option_names": ["-h", "--help"]})
@collection_options
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="Targets made at once.")
@click.option("--keep-going", is_flag=True, help="After a failure make what does not depend on it.")
@click.option("--timeout", default="", metavar="TIME", help="Stop after this time (300, 90s, 15m).")
@click.option("--load", is_flag=True, help="Load the images that are asked for into the Docker daemon.")
@click.option("--metadata-file", default="", metavar="FILE", help="Write digests, names and reasons to a JSON file.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "json", "quiet", "tty"]),
    default="auto",
    help="How to show what happens.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show only errors, and the images' names at the end.")
@click.pass_obj
def command(home: str, /, **given: Any) -> None:
    """Make the images of PATH (a folder or file): a catalog (kiln.yml, image.yml), a component tree, a bake file or compose
    services. In dependency order, side by side, only what changed."""
    config = settings.read(home=home)
    kind = "quiet" if given["quiet"] else {"tty": "tree"}.get(given["progress"], given["progress"])
    screen = display(kind, color=config.color)
    cancel = Cancel()

    request = _request(given)
    work = Watched(lambda report: bake.run_many(request, config, report, cancel), screen, cancel)
    try:
        outcome = run_watched(work)
    finally:
        screen.close()
    report = outcome.report
    _write_results(outcome, given)
    if kind != "json":
        for line in report_lines(report, color=False):
            click.echo(line, err=True)
    if given["quiet"]:
        for name in _names(report):
            click.echo(name)
    _fail(report)


def _request(given: dict[str, Any]) -> bake.ManyRequest:
    return replace(
        read_request(given), keep_going=given["keep_going"], jobs=given["jobs"] or 0,
        timeout=seconds_of("--timeout", given["timeout"]), outputs=(Output("docker"),) if given["load"] else (),
    )  # fmt: skip


def _names(report: Report) -> list[str]:
    return [row.names[0] for row in report.rows if row.is_good and row.names]


def _write_results(outcome: bake.ManyOutcome, given: dict[str, Any]) -> None:
    """The result file of a catalog and the metadata file: what is right now, also where something else failed."""
    report, result = outcome.report, outcome.plan.request.collection.result
    if result is not None:
        write_whole(result, "".join(f"{name}\n" for name in _names(report)).encode())
    if given["metadata_file"]:
        facts = {row.name: _metadata(report, row.name) for row in report.rows if row.is_good}
        write_whole(Path(given["metadata_file"]), msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")


def _metadata(report: Report, name: str) -> dict[str, object]:
    row = next(row for row in report.rows if row.name == name)
    return {
        "containerimage.digest": row.digest,
        "containerimage.descriptor": msgspec.to_builtins(report.descriptors[name]),
        "image.name": ",".join(row.names),
        "kiln.result": row.result,
        "kiln.reason": row.reason,
        "kiln.pushed": row.pushed,
    }


def _fail(report: Report) -> None:
    """Ends with the first failure where there is one: the report has named them all."""
    from kiln.cli.main import show_error

    failures = report.failures
    if not failures and not any(row.result == "not reached" for row in report.rows):
        return
    for bad in failures:
        if isinstance(bad, KilnError):
            _explain(bad)
            show_error(bad)
        else:
            raise bad
    stopped = [bad for bad in failures if isinstance(bad, CancelledBuild)]
    if not failures or stopped:
        raise SystemExit(stopped[0].exit_code if stopped else 130)
    first = failures[0]
    raise SystemExit(first.exit_code if isinstance(first, KilnError) else 1)


def _explain(bad: KilnError) -> None:
    if isinstance(bad, RunError) and not bad.detail:
        lines = [f"    | {line}" for line in bad.log_tail]
        bad.detail = "\n".join([*lines, f"  the whole log: {bad.log_path}"])
