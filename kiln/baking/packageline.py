"""What is said of a package that became an image: annotations, and the `kiln build` that does the same."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kiln.plan.target import Secret

if TYPE_CHECKING:
    from kiln.baking.packaging import Prepared, Request

_PREFIX = "org.opencontainers.image."


def notes_of(request: Request, prepared: Prepared) -> dict[str, str]:
    """What the manifest says of the package, as far as it is known before it is built (OCI image-spec, "Pre-Defined
    Annotation Keys"). A folder's name says nothing of where it comes from."""
    found = {
        "title": request.app, "version": request.version, "source": _source(request, prepared),
        "base.name": prepared.base.image, "description": request.memo,
    }  # fmt: skip
    return {f"{_PREFIX}{name}": value for name, value in found.items() if value}


def built_notes(created: str, base_digest: str) -> dict[str, str]:
    """What is known once it is built."""
    found = {"created": created, "base.digest": base_digest}
    return {f"{_PREFIX}{name}": value for name, value in found.items() if value}


def _source(request: Request, prepared: Prepared) -> str:
    if "://" in request.place:
        return without_query(request.place)
    return prepared.place if prepared.context.kind == "archive" else ""


def without_query(url: str) -> str:
    """A URL as it can be shown: what may be secret in it is not there."""
    from kiln.sources.git import shown

    return shown(url)


def build_line(prepared: Prepared, request: Request, quote: Callable[[str], str]) -> str:
    """The `kiln build` command that does the same with the Dockerfile in a file; for a URL, after a comment that says what
    to download."""
    words = ["kiln", "build", "-f", "Dockerfile", "-t", prepared.name.familiar]
    words += ["--push"] if request.push else []
    for secret in request.secrets.values():
        words += ["--secret", _secret(secret)]
    for name, value in notes_of(request, prepared).items():
        words += ["--annotation", f"{name}={value}"]
    line = " ".join(map(quote, [*words, _context(prepared, request)]))
    if "://" not in request.place:
        return line
    return f"# first download {without_query(request.place)} as {prepared.place}\n{line}"


def _context(prepared: Prepared, request: Request) -> str:
    """The context as `kiln build` takes it: a folder of a folder, or `ARCHIVE#:FOLDER`."""
    place = prepared.place if "://" in request.place else request.place
    if prepared.context.kind == "folder":
        place = str(Path(place) / prepared.root) if prepared.root else place
    elif prepared.root:
        place = f"{place}#:{prepared.root}"
    return f"./{place}" if place.startswith("-") else place


def _secret(secret: Secret) -> str:
    """A secret as `--secret` takes it: a line of CSV."""
    row = [f"id={secret.id}", f"src={secret.path}" if secret.path is not None else f"env={secret.env}"]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue()
