"""The words inside a target's attributes: secrets, ssh agents, outputs and cache places, as text or as object."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from kiln.errors import UsageError
from kiln.plan.outputs import CachePlace, Output, parse_cache, parse_output
from kiln.plan.target import Secret

REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")
_FOREIGN_CACHES = ("inline", "gha", "s3", "azblob")
# What these say about an image in BuildKit's own store has no meaning here.
_IDLE_OUTPUT_KEYS = ("unpack", "store", "name-canonical", "dangling-name-prefix")
_SECRET_HINT = "Write id=ID,src=FILE or id=ID,env=NAME."


def fields_of(text: str) -> dict[str, str]:
    """The key=value words of a text; a word alone has the key ``. Raises `UsageError`."""
    found: dict[str, str] = {}
    try:
        words = next(csv.reader([text], strict=True), [])
    except csv.Error as bad:
        raise UsageError(f"{text!r} is not key=value,...: {bad}") from None
    for word in words:
        key, equals, value = word.partition("=")
        found[key.strip().lower() if equals else ""] = value if equals else word
    return found


def joined(fields: Mapping[str, str]) -> str:
    """The text that `fields_of` reads."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([f"{key}={value}" for key, value in fields.items()])
    return out.getvalue()


def local_path(text: str, base: Path) -> str:
    """A path of this machine made absolute; `cwd://` stands for `base`."""
    if _absolute(text):
        return text
    inside = text.removeprefix("cwd://")
    return str(Path(f"{base}/{Path(inside).expanduser() if inside.startswith('~') else inside}"))


def _absolute(text: str) -> bool:
    return text.startswith("/")


def secret_of(text: str, base: Path, environment: Mapping[str, str]) -> Secret:
    """A secret from `id=ID,src=FILE` or `id=ID,env=NAME`; neither means a variable or file called ID.

    Whether the file is there is seen when a step reads it: other targets do not need it.
    """
    fields = fields_of(text)
    identity, kind = fields.get("id", ""), fields.get("type", "")
    unknown = set(fields) - {"id", "type", "src", "source", "env"}
    if not identity or unknown or kind not in ("", "file", "env"):
        raise UsageError(f"the secret {text!r} is not understood", hint=_SECRET_HINT)
    path, env = fields.get("src", fields.get("source", "")), fields.get("env", "")
    if kind == "env" and not env:
        path, env = "", path or identity
    if not path and not env:
        path, env = ("", identity) if identity in environment else (identity, "")
    return Secret(identity, Path(local_path(path, base)) if path else None, env)


def ssh_of(text: str, base: Path) -> tuple[str, str]:
    """(id, sockets or key files) from `default` or `ID=PATH,PATH`."""
    identity, _, value = text.partition("=")
    paths = [local_path(path, base) for path in value.split(",") if path]
    return identity or "default", ",".join(paths)


def output_of(text: str, base: Path) -> tuple[Output | None, bool]:
    """(the output, None where the image in the store is all that is wanted; whether it is pushed)."""
    fields = fields_of(text) if "=" in text else {}
    if fields.get("type") == "cacheonly":
        return None, False
    for key in _IDLE_OUTPUT_KEYS:
        fields.pop(key, "")
    output = parse_output(joined(fields) if fields else text)
    push = output.type == "image" and output.flag("push")
    options = {key: value for key, value in output.options.items() if key != "push"}
    if output.type == "image" and not output.names and not options:
        return None, push
    dest = local_path(output.dest, base) if output.dest and output.dest != "-" else output.dest
    return replace(output, dest=dest, options=options), push


def cache_of(flag: str, text: str, base: Path) -> CachePlace | None:
    """A cache place, None for a kind that only BuildKit has."""
    if "=" in text and fields_of(text).get("type") in _FOREIGN_CACHES:
        return None
    place = parse_cache(flag, text)
    return replace(place, folder=Path(local_path(str(place.folder), base))) if place.folder else place


def context_of(text: str, base: Path) -> str:
    """The text of a context: a URL, git text, image, layout or target as it is, a path made absolute."""
    if text.startswith(("docker-image://", "target:", *REMOTE)):
        return text
    if text.startswith("oci-layout://"):
        return "oci-layout://" + local_path(text.removeprefix("oci-layout://"), base)
    return str(Path(text)) if _absolute(text) else local_path(text, base)


def attests(text: str) -> bool:
    """Whether an attestation is asked for (rather than switched off)."""
    fields = fields_of(text)
    return fields.get("disabled", "false").lower() not in ("true", "1")
