"""A Dockerfile with its context and command line options -> a target."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from kiln.dockerfile import parser, reading
from kiln.dockerfile.patterns import Matcher, PatternError, read_ignore_file
from kiln.errors import KilnError, SourceError, UsageError
from kiln.oci.reference import parse as parse_reference
from kiln.plan.target import Context, Target
from kiln.sources.wish import Wish

_MAX_DOCKERFILE = 8 << 20


def load(wish: Wish, context: Context) -> Target:
    """The target that a wish names, its context already at hand; raises `UsageError` and `DockerfileError`."""
    data, name, path = _read_dockerfile(wish, context)
    program = reading.read(parser.parse(data, name))
    context = _with_ignore(replace(context, mounts=wish.mounts) if wish.mounts else context, path)
    return Target(
        name=wish.name or wish.target, program=program, context=context, stage=wish.target, args=wish.args,
        labels=wish.labels, platforms=wish.platforms, contexts=_named_contexts(wish.contexts), secrets=wish.secrets,
        ssh=wish.ssh, network=wish.network, no_cache=wish.no_cache, no_cache_stages=wish.no_cache_stages, pull=wish.pull,
        hosts=wish.hosts, place=wish.place, tags=wish.tags, auto_tag=wish.auto_tag, needs=wish.needs,
        image_args=wish.image_args, annotations=wish.annotations, outputs=wish.outputs, cache_from=wish.cache_from,
        cache_to=wish.cache_to, bootstrap=wish.bootstrap, component=wish.component,
    )  # fmt: skip


def _read_dockerfile(wish: Wish, context: Context) -> tuple[bytes, str, Path | None]:
    """(content, name for places, path on disk if there is one)."""
    if wish.inline is not None:
        return wish.inline.encode(), wish.place or "inline", None
    if wish.file == "-":
        if wish.context == "-":
            raise UsageError("the context and the Dockerfile cannot both be read from standard input")
        return sys.stdin.buffer.read(_MAX_DOCKERFILE), "-", None
    if context.kind == "dockerfile":
        assert context.folder is not None
        return context.folder.read_bytes(), "-", None
    path = _dockerfile_path(wish, context)
    _check_place(path, context)
    try:
        return path.read_bytes()[:_MAX_DOCKERFILE], _shown(path, wish), path
    except IsADirectoryError:
        raise UsageError("is a folder, not a Dockerfile", where=str(path), hint="Name the file with -f.") from None
    except OSError as bad:
        raise KilnError(
            f"the Dockerfile cannot be read: {bad.strerror}", where=str(path), hint="Name it with -f, or make it."
        ) from bad


def _check_place(path: Path, context: Context) -> None:
    """A context that came from elsewhere (it has a reference) is not trusted: a link in it does not lead to a file of
    this machine, and nothing waits for what writes into a pipe of it. Raises `SourceError`."""
    folder = context.folder
    if not context.reference or folder is None or not path.is_relative_to(folder) or not os.path.lexists(path):
        return
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()) or not real.is_file():
        raise SourceError(f"{path.name} is not a file of the context", where=context.name)


def _shown(path: Path, wish: Wish) -> str:
    """How places name it: as it was given on the command line, or (for one of many) as seen from the current folder."""
    if not wish.name:
        return wish.file or path.name
    here = f"{os.getcwd()}/"
    return str(path).removeprefix(here)


def _dockerfile_path(wish: Wish, context: Context) -> Path:
    assert context.folder is not None
    if wish.file and (context.kind == "archive" or context.reference == "" or Path(wish.file).exists()):
        return Path(wish.file)
    folder = context.folder
    if context.kind == "archive":
        raise UsageError(
            "an archive as the context needs a Dockerfile of its own", where=context.name, hint="Name it with -f."
        )
    if wish.file:
        return folder / wish.file
    lower = folder / "dockerfile"
    return lower if not (folder / "Dockerfile").exists() and lower.exists() else folder / "Dockerfile"


def _with_ignore(context: Context, dockerfile: Path | None) -> Context:
    """The context with the patterns of `<Dockerfile>.dockerignore`, else of `.dockerignore`."""
    if context.folder is None or context.kind in ("dockerfile", "archive"):
        return context
    candidates = [context.folder / ".dockerignore"]
    if dockerfile is not None:
        candidates.insert(0, dockerfile.with_name(dockerfile.name + ".dockerignore"))
    for path in candidates:
        _check_place(path, context)
        try:
            patterns = tuple(read_ignore_file(path.read_text("utf-8", "surrogateescape")))
            Matcher(patterns)
        except (FileNotFoundError, IsADirectoryError):
            continue
        except PatternError as bad:
            raise KilnError(str(bad), where=str(path)) from None
        return replace(context, ignore=patterns)
    return context


def _named_contexts(given: Mapping[str, str]) -> dict[str, Context]:
    """Contexts of `--build-context name=...`; a later stage or image of that name is replaced by it."""
    found = {}
    for name, value in given.items():
        parse_reference(name)
        if value.startswith("docker-image://"):
            found[name.lower()] = Context("image", reference=value.removeprefix("docker-image://"), name=name)
        elif value.startswith("oci-layout://"):
            found[name.lower()] = Context("layout", reference=value, name=name)
        elif value.startswith("target:"):
            found[name] = Context("target", reference=value.removeprefix("target:"), name=name)
        else:
            found[name.lower()] = _folder_context(name, value)
    return found


def _folder_context(name: str, value: str) -> Context:
    folder = Path(value)
    if not folder.is_dir():
        if "://" not in value and not value.startswith((".", "/")):
            return Context("image", reference=value, name=name)
        raise UsageError(f"--build-context {name}={value}: there is no such folder")
    ignore = folder / ".dockerignore"
    patterns = tuple(read_ignore_file(ignore.read_text("utf-8", "surrogateescape"))) if ignore.is_file() else ()
    return Context("folder", folder.absolute(), ignore=patterns, name=name)
