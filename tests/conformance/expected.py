"""What a build gave, as it is kept in expected/<group>.json: one line a case.

    {"fails": true, "message": TEXT}
    {"config": CONFIG, "layers": COUNT, "over": "base" or "scratch", "files": {PATH: ENTRY}, "gone": [PATH, ...]}

CONFIG is the image config without times and layer digests. ENTRY is [kind, mode, uid, gid, size, content, target, xattrs, device, links] with
the empty end cut off; `files` holds what is not in the base image or differs from it, `gone` what the base image has and the build has not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .flatten import Entry, Flat

DIGEST_LENGTH = 16
BUSYBOX = "busybox"
Files = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Result:
    """What a build gave: a failure with a message, or an image."""

    config: Mapping[str, Any]
    layers: int
    files: Files
    fails: bool = False
    message: str = ""


def failure(message: str) -> Result:
    """A build that failed."""
    return Result({}, 0, {}, True, message)


def result_of(image: Flat, busybox_digest: str) -> Result:
    """The image without what differs from one build, or one release of busybox, to the next."""
    files = {path: _shortened(entry, busybox_digest) for path, entry in image.files.items()}
    return Result(config_subset(image.config), image.layers, files)


def config_subset(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image config without times and layer digests."""
    kept = {key: value for key, value in config.items() if key not in ("created", "rootfs", "history")}
    kept["history"] = [{k: v for k, v in entry.items() if k != "created"} for entry in config.get("history") or []]
    return kept


def encode(result: Result, base: Files) -> dict[str, Any]:
    """The result as JSON, its files over the base image or alone, whichever is shorter."""
    if result.fails:
        return {"fails": True, "message": result.message}
    over = "base" if sum(result.files.get(p) == e for p, e in base.items()) * 2 > len(base) > 0 else "scratch"
    below = base if over == "base" else {}
    return {
        "config": result.config,
        "layers": result.layers,
        "over": over,
        "files": {path: _to_list(entry) for path, entry in result.files.items() if below.get(path) != entry},
        "gone": [path for path in below if path not in result.files],
    }


def decode(raw: Mapping[str, Any], base: Files) -> Result:
    """The result that `encode` was given."""
    if raw.get("fails"):
        return failure(raw["message"])
    below = base if raw["over"] == "base" else {}
    files = {path: entry for path, entry in below.items() if path not in raw["gone"]}
    files |= {path: _from_list(entry) for path, entry in raw["files"].items()}
    return Result(raw["config"], raw["layers"], files)


def read_group(path: Path) -> dict[str, Any]:
    """The cases of a group by name, still encoded; none when the file is absent."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_group(path: Path, cases: Mapping[str, Any]) -> None:
    """Write the encoded cases, one a line."""
    lines = (f"{json.dumps(name)}: {_compact(cases[name])}" for name in cases)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def differences(expected: Result, actual: Result) -> list[str]:
    """What differs, a line each: `place: expected ..., got ...`. Empty when the two agree."""
    if expected.fails or actual.fails:
        return [] if expected.fails == actual.fails else [_line("build", _outcome(expected), _outcome(actual))]
    found = list(_json_differences("config", expected.config, actual.config))
    if expected.layers != actual.layers:
        found.append(_line("layers", expected.layers, actual.layers))
    return found + list(_file_differences(expected.files, actual.files))


def _outcome(result: Result) -> str:
    return f"failure ({result.message})" if result.fails else "success"


def _json_differences(place: str, expected: Any, actual: Any) -> Iterable[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            yield from _json_differences(f"{place}.{key}", expected.get(key, "(absent)"), actual.get(key, "(absent)"))
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, pair in enumerate(zip(expected, actual, strict=True)):
            yield from _json_differences(f"{place}[{index}]", *pair)
    elif expected != actual:
        yield _line(place, expected, actual)


def _file_differences(expected: Files, actual: Files) -> Iterable[str]:
    for path in sorted(expected.keys() | actual.keys()):
        place = f"/{path}"
        if path not in actual:
            yield f"{place}: missing, expected {_compact(_to_list(expected[path]))}"
        elif path not in expected:
            yield f"{place}: not expected, got {_compact(_to_list(actual[path]))}"
        else:
            yield from _entry_differences(place, expected[path], actual[path])


def _entry_differences(place: str, expected: Entry, actual: Entry) -> Iterable[str]:
    for name in Entry.__slots__:
        pair = getattr(expected, name), getattr(actual, name)
        if pair[0] != pair[1]:
            yield _line(f"{place} {name}", *(f"{value:04o}" if name == "mode" else value for value in pair))


def _line(place: str, expected: object, actual: object) -> str:
    return f"{place}: expected {expected!r}, got {actual!r}"


def _shortened(entry: Entry, busybox_digest: str) -> Entry:
    if entry.content == busybox_digest:
        return replace(entry, size=0, content=BUSYBOX)
    return entry if entry.content.startswith("=") else replace(entry, content=entry.content[:DIGEST_LENGTH])


def _to_list(entry: Entry) -> list[Any]:
    row: list[Any] = [
        entry.kind,
        f"{entry.mode:04o}",
        entry.uid,
        entry.gid,
        entry.size,
        entry.content,
        entry.target,
        [list(pair) for pair in entry.xattrs],
        entry.device,
        entry.links,
    ]
    while not row[-1] and len(row) > 4:
        row.pop()
    return row


def _from_list(row: list[Any]) -> Entry:
    empty: list[Any] = [0, "", "", [], "", ""]
    kind, mode, uid, gid, size, content, target, xattrs, device, links = row + empty[len(row) - 4 :]
    pairs = tuple((name, value) for name, value in xattrs)
    return Entry(kind, int(mode, 8), uid, gid, size, content, target, pairs, device, links)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
