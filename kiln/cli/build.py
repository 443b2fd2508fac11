"""`kiln build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from kiln import bake, settings
from kiln.cli.options import image_names, key_values, platform_list, seconds_of, secret_of, ssh_of
from kiln.cli.progress import display
from kiln.cli.watch import Watched, run_watched
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError, RunError, UsageError
from kiln.plan.outputs import Output, parse_cache, parse_output
from kiln.settings import Settings
from kiln.sources.wish import Wish
from kiln.store.files import write_whole
from kiln.store.layer import Compression


@click.command("build", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("context")
@click.option(
    "-f",
    "--file",
    default="",
    metavar="FILE",
    help="The Dockerfile (- for standard input; default: CONTEXT/Dockerfile).",
)
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME", help="A name for the image (many).")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME=VALUE", help="A build argument (many).")
@click.option("--target", default="", metavar="STAGE", help="The stage to build.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label for the image (many).")
@click.option(
    "--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="An annotation for the manifest (many)."
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="The platform to build for (many, or with commas).",
)
@click.option(
    "--build-context",
    "contexts",
    multiple=True,
    metavar="NAME=PLACE",
    help="A further context: folder, image, oci-layout://, docker-image:// (many).",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=ID,src=FILE|env=NAME",
    help="A secret for RUN --mount=type=secret (many).",
)
@click.option(
    "--ssh", "agents", multiple=True, metavar="ID[=SOCKET|KEY]", help="An ssh agent for RUN --mount=type=ssh (many)."
)
@click.option(
    "--add-host", "hosts", multiple=True, metavar="NAME:ADDRESS", help="A line for /etc/hosts of RUN steps (many)."
)
@click.option("--no-cache", is_flag=True, help="Run every step.")
@click.option(
    "--no-cache-filter",
    "no_cache_stages",
    multiple=True,
    metavar="STAGE",
    help="Run every step of these stages (many, or with commas).",
)
@click.option("--pull", is_flag=True, help="Ask the registry even for images that the store has.")
@click.option("--push", is_flag=True, help="Push the image under its names.")
@click.option("--load", is_flag=True, help="Load the image into the Docker daemon.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="TYPE...",
    help="type=image|oci|docker|local|tar[,dest=,compression=,rewrite-timestamp=] (many).",
)
@click.option(
    "--cache-from",
    multiple=True,
    metavar="TYPE...",
    help="Step results to use: REFERENCE, type=registry,ref=, type=local,src= (many).",
)
@click.option(
    "--cache-to",
    multiple=True,
    metavar="TYPE...",
    help="Where to share step results: type=registry,ref=,mode=min|max, type=local,dest= (many).",
)
@click.option("--iidfile", default="", metavar="FILE", help="Write the image's id to a file.")
@click.option("--metadata-file", default="", metavar="FILE", help="Write digests and names to a JSON file.")
@click.option(
    "--compression", type=click.Choice(["gzip", "zstd", "none"]), default="gzip", help="How new layers are compressed."
)
@click.option("--compression-level", type=int, default=None, metavar="N", help="gzip 0-3, zstd 1-22.")
@click.option(
    "--network", type=click.Choice(["default", "none", "host"]), default="default", help="The network of RUN steps."
)
@click.option("--check", is_flag=True, help="Check the Dockerfile and build nothing.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "json", "quiet", "tty"]),
    default="auto",
    help="How to show what happens.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show only errors, and the image's id at the end.")
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="How many steps may run at once."
)
@click.option("--timeout", default="", metavar="TIME", help="Stop the build after this time (300, 90s, 15m).")
@click.option(
    "--engine", type=click.Choice(["native", "docker"]), default="native", help="Who builds: Kiln, or docker build."
)
@click.option("--debug-on-error", is_flag=True, help="Open a shell where a RUN step failed.")
@click.option("--call", type=click.Choice(["build", "check"]), default="build", hidden=True)
@click.option("--provenance", default="", hidden=True)
@click.option("--sbom", default="", hidden=True)
@click.pass_obj
def command(home: str, /, **given: Any) -> None:
    """Build an image from the Dockerfile of CONTEXT: a folder, - (a tar on standard input), or the URL of a tar or of a
    git repository."""
    config = settings.read(home=home)
    if given["check"] or given["call"] == "check":
        from kiln.cli.check import check

        raise SystemExit(check(config, _wish(given, config), given))
    if given["engine"] == "docker":
        from kiln.cli.dockerengine import run_docker

        raise SystemExit(run_docker(given))
    _build(config, _request(given, config), given)


def _wish(given: dict[str, Any], config: Settings) -> Wish:
    if given["provenance"] not in ("", "false") or given["sbom"] not in ("", "false"):
        raise UsageError("attestations (--provenance, --sbom) are not supported")
    return Wish(
        context=given["context"], file=given["file"], target=given["target"],
        args=key_values("--build-arg", given["build_args"], environment=config.environment),
        labels=key_values("--label", given["labels"]), platforms=platform_list(given["platforms"]),
        contexts=key_values("--build-context", given["contexts"], required=True),
        secrets={secret.id: secret for secret in (secret_of(text, config.environment) for text in given["secrets"])},
        ssh=dict(map(ssh_of, given["agents"])), network=given["network"], no_cache=given["no_cache"],
        no_cache_stages=frozenset(name.lower() for text in given["no_cache_stages"] for name in text.split(",")),
        pull=given["pull"], hosts=tuple(given["hosts"]),
    )  # fmt: skip


def _request(given: dict[str, Any], config: Settings) -> bake.Request:
    outputs = tuple(parse_output(text) for text in given["outputs"])
    if given["load"]:
        outputs = (*outputs, Output("docker"))
    names = image_names(given["tags"])
    if given["push"] and not names and not any(output.names for output in outputs):
        raise UsageError("--push needs a name", hint="Give one with -t, for example -t 127.0.0.1:5000/team/app:1.")
    return bake.Request(
        wish=_wish(given, config), names=names, outputs=outputs, push=given["push"],
        compression=Compression(given["compression"], given["compression_level"]),
        annotations=key_values("--annotation", given["annotations"]),
        cache_from=tuple(parse_cache("--cache-from", text) for text in given["cache_from"]),
        cache_to=tuple(parse_cache("--cache-to", text) for text in given["cache_to"]),
        jobs=given["jobs"] or 0, timeout=seconds_of("--timeout", given["timeout"]), debug=given["debug_on_error"],
    )  # fmt: skip


def _build(config: Settings, request: bake.Request, given: dict[str, Any]) -> None:
    kind = "quiet" if given["quiet"] else {"tty": "tree"}.get(given["progress"], given["progress"])
    screen = display(kind, color=config.color)
    cancel = Cancel()

    def explain(bad: KilnError) -> None:
        if isinstance(bad, RunError):
            _show_failed_step(bad, given)
        else:
            _add_source(bad, given)

    try:
        work = Watched(lambda report: bake.run(request, config, report, cancel), screen, cancel, explain)
        outcome = run_watched(work)
    except KilnError as bad:
        screen.close()
        explain(bad)
        raise
    finally:
        screen.close()
    _write_results(outcome, given)


def _source_lines(where: str, given: dict[str, Any]) -> str:
    """The lines of the Dockerfile that an error is about, with numbers."""
    name, _, line = where.rpartition(":")
    path = Path(given["file"] or Path(given["context"]) / "Dockerfile")
    if not line.isdigit() or path.name != Path(name).name or not path.is_file():
        return ""
    from kiln.dockerfile import parser

    try:
        source = parser.parse(path.read_bytes(), name)
    except KilnError:
        return ""
    start = int(line)
    end = next((item.place.end for item in source.statements if item.place.start == start), start)
    lines = source.text.splitlines()
    shown = range(max(1, start - 1), min(len(lines), end + 1) + 1)
    return "\n".join(f"  {number:4d} {'>' if start <= number <= end else ' '} {lines[number - 1]}" for number in shown)


def _add_source(bad: KilnError, given: dict[str, Any]) -> None:
    if bad.where and not bad.detail:
        bad.detail = _source_lines(bad.where, given)


def _show_failed_step(bad: RunError, given: dict[str, Any]) -> None:
    parts = [_source_lines(bad.where, given)]
    if bad.log_tail:
        parts.append(f"  the last {len(bad.log_tail)} lines of its output:")
        parts += [f"    | {line}" for line in bad.log_tail]
    parts.append(f"  the whole log: {bad.log_path}")
    bad.detail = "\n".join(part for part in parts if part)


def _write_results(outcome: bake.Outcome, given: dict[str, Any]) -> None:
    published = outcome.published
    if published is None:
        return
    identity = published.config_digest if len(outcome.images) == 1 else published.descriptor.digest
    if given["iidfile"]:
        write_whole(Path(given["iidfile"]), identity.encode())
    if given["metadata_file"]:
        facts = {
            "containerimage.digest": published.descriptor.digest,
            "containerimage.config.digest": published.config_digest,
            "containerimage.descriptor": msgspec.to_builtins(published.descriptor),
            "image.name": ",".join(published.names),
        }
        write_whole(Path(given["metadata_file"]), msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
    if given["quiet"]:
        click.echo(identity)
