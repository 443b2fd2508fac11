"""What a build is asked to give: the `--output`, `--cache-from` and `--cache-to` words, parsed."""

from __future__ import annotations

import csv
from pathlib import Path

from msgspec import Struct, field

from kiln.errors import UsageError

_TYPES = ("image", "oci", "docker", "local", "tar", "registry")
_FORM = ("compression", "compression-level", "force-compression", "rewrite-timestamp", "oci-mediatypes")
_KEYS = {
    "image": ("name", "push", *_FORM),
    "oci": ("dest", "name", *_FORM),
    "docker": ("dest", "name", *_FORM),
    "local": ("dest", "rewrite-timestamp"),
    "tar": ("dest", "rewrite-timestamp"),
}


class Output(Struct, frozen=True):
    """One `--output`. `dest` is a path or `-`; `options` are the other key=value words."""

    type: str
    dest: str = ""
    names: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        """A true or false option; raises `UsageError` for anything else."""
        value = self.options.get(name, "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise UsageError(f"--output {name}={value}: must be true or false")
        return value in ("true", "1")

    @property
    def compression(self) -> str:
        """`gzip`, `zstd`, `none` or empty for the build's own."""
        kind = {"uncompressed": "none"}.get(self.options.get("compression", ""), self.options.get("compression", ""))
        if kind not in ("", "gzip", "zstd", "none"):
            raise UsageError(f"--output compression={kind}: must be gzip, zstd or uncompressed")
        return kind


def _fields(flag: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in next(csv.reader([text]), []):
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{flag} {text}: {word!r} is not key=value")
        found[key.strip().lower()] = value
    return found


def parse_output(text: str) -> Output:
    """An output from `type=...,dest=...` or from a path alone (`-` is a tar on standard output, others a folder)."""
    if "=" not in text:
        return Output("tar", "-") if text == "-" else Output("local", text)
    fields = _fields("--output", text)
    kind = fields.pop("type", "")
    if kind not in _TYPES:
        raise UsageError(f"--output {text}: unknown type {kind!r}", hint=f"Types are {', '.join(_TYPES)}.")
    if kind == "registry":
        kind, fields["push"] = "image", "true"
    unknown = set(fields) - set(_KEYS[kind])
    if unknown:
        raise UsageError(
            f"--output {text}: unknown key {sorted(unknown)[0]!r}",
            hint=f"Keys of type={kind} are {', '.join(_KEYS[kind])}.",
        )
    names = tuple(name for name in fields.pop("name", "").split(",") if name)
    dest = fields.pop("dest", "")
    if kind == "local" and not dest:
        raise UsageError(f"--output {text}: dest is missing", hint="Write --output type=local,dest=FOLDER.")
    made = Output(kind, dest, names, fields)
    _ = made.compression
    return made


class CachePlace(Struct, frozen=True):
    """One `--cache-from` or `--cache-to`: `registry` (a reference) or `local` (a folder); `mode` min or max."""

    type: str
    reference: str = ""
    folder: Path | None = None
    mode: str = "min"


def parse_cache(flag: str, text: str) -> CachePlace:
    """A cache place; a reference alone means `type=registry`. Raises `UsageError`."""
    if "=" not in text:
        return CachePlace("registry", text)
    fields = _fields(flag, text)
    kind = fields.pop("type", "registry")
    mode = fields.pop("mode", "min")
    if mode not in ("min", "max"):
        raise UsageError(f"{flag} mode={mode}: must be min or max")
    if kind == "registry" and fields.get("ref"):
        return CachePlace(kind, fields["ref"], mode=mode)
    folder = fields.get("dest" if flag == "--cache-to" else "src")
    if kind == "local" and folder:
        return CachePlace(kind, folder=Path(folder), mode=mode)
    raise UsageError(
        f"{flag} {text}: not understood",
        hint="Write type=registry,ref=REFERENCE or type=local,dest=FOLDER (src=FOLDER to read).",
    )
