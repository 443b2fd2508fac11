"""Decisions: whether a target is built, skipped or pulled, and why in words a person understands.

A target's key is the digest of its facts: everything that its image depends on. The facts of its last time are kept, so that
a change can be named.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

BUILD, SKIP, PULL = "build", "skip", "pull"
_SHORT = 8
# A Dockerfile that is written in another file is called after its place there.
_REMOTE = re.compile(r"\w+://|git@")
_DIGEST = re.compile(r"(?:\w+:)?[0-9a-f]{40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INLINE = re.compile(r":\d+$")
_MOST_FILES = 2000


class Decision(Struct, frozen=True):
    """What is done for a target and why. `push`: the image is here already, only a registry still wants it. `key` is empty
    where it cannot be known before another target is built; `digest` is the image's where that is known."""

    action: str
    reason: str
    key: str = ""
    digest: str = ""
    push: bool = False

    @property
    def builds(self) -> bool:
        """Whether steps may have to run."""
        return self.action == BUILD and not self.push


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a target's image depends on. `lines` are short digests of the Dockerfile's lines and `files` of paths as
    `context/path`, for telling changes; `text` and `content` are the whole digests that the key is made of."""

    source: str = ""
    text: str = ""
    lines: list[str] = []
    args: dict[str, str] = {}
    bases: dict[str, str] = {}
    content: str = ""
    files: dict[str, str] = {}
    options: dict[str, str] = {}

    def key(self) -> str:
        """64 hex digits."""
        return digest_of(
            self.text,
            sorted(self.args.items()),
            sorted(self.bases.items()),
            self.content,
            sorted(self.options.items()),
        )


def digest_of(*parts: object) -> str:
    """The digest of plain values, 64 hex digits."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def short(text: str | bytes) -> str:
    """A short digest, for comparing only."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:_SHORT]


def readable(text: str) -> str:
    """A text from outside (a path, a message) as text: bytes that are none, and control characters, are written out."""
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", whole)


def lines_of(text: str) -> list[str]:
    """The short digests of a text's lines."""
    return [short(line) for line in text.split("\n")]


def bounded(files: Mapping[str, str]) -> dict[str, str]:
    """Digests by path; where there are very many, folders stand for what is in them."""
    depth = max((path.count("/") for path in files), default=0)
    found = dict(files)
    while len(found) > _MOST_FILES and depth > 0:
        groups: dict[str, list[str]] = {}
        for path, digest in found.items():
            folder = "/".join(path.rstrip("/").split("/")[:depth])
            groups.setdefault(f"{folder}/" if path.count("/") >= depth else path, []).append(digest)
        found = {path: digests[0] if len(digests) == 1 else short("".join(digests)) for path, digests in groups.items()}
        depth -= 1
    return found if len(found) <= _MOST_FILES else {"": short("".join(found.values()))}


def change(last: Facts | None, now: Facts) -> str:
    """Why a target with these facts is not what it was: empty where nothing differs."""
    if last is None:
        return "never built"
    words = [
        *_bases(last.bases, now.bases),
        *_lines(last, now),
        *_arguments(last.args, now.args),
        *_files(last, now),
        *_options(last.options, now.options),
    ]
    more = f", and {len(words) - 2} other things" if len(words) > 3 else f"; {words[2]}" if len(words) == 3 else ""
    return "; ".join(words[:2]) + more


def _bases(last: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    words = []
    for name, digest in now.items():
        before = last.get(name)
        what = f"`{name}`" if _REMOTE.match(name) else f"base `{name}`"
        if before is None:
            words.append(f"{what} is new")
        elif before != digest:
            moved = f"moved from {shown(before)} to {shown(digest)}"
            words.append(f"{what} {moved if _DIGEST.match(digest) else 'changed'}")
    return words


def shown(digest: str) -> str:
    """A digest as people compare it: algorithm and 12 digits."""
    kind, colon, value = digest.partition(":")
    return f"{kind}:{value[:12]}" if colon else digest[:12]


def _lines(last: Facts, now: Facts) -> list[str]:
    if last.text == now.text:
        return []
    name, inline = _INLINE.subn("", now.source or "Dockerfile")
    if last.source and _INLINE.sub("", last.source) != name:
        return [f"{name} is used instead of {_INLINE.sub('', last.source)}"]
    pairs = zip(last.lines, now.lines, strict=False)
    shorter = min(len(last.lines), len(now.lines))
    number = next((index for index, (before, line) in enumerate(pairs, 1) if before != line), shorter + 1)
    return [f"the Dockerfile in {name}, line {number} of it, changed" if inline else f"{name} line {number} changed"]


def _arguments(last: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = [name for name in {**last, **now} if last.get(name) != now.get(name)]
    if not names:
        return []
    if len(names) == 1:
        return [f"argument {names[0]} changed"]
    return [f"arguments {', '.join(names[:3])}{' and others' if len(names) > 3 else ''} changed"]


def _files(last: Facts, now: Facts) -> list[str]:
    if last.content == now.content:
        return []
    changed = [path for path, digest in now.files.items() if path in last.files and last.files[path] != digest]
    added = [path for path in now.files if path not in last.files]
    removed = [path for path in last.files if path not in now.files]
    for paths, word in ((changed, "changed"), (added, "was added"), (removed, "was removed")):
        if paths:
            others = len(changed) + len(added) + len(removed) - 1
            more = f" (and {others} other{'s' * (others != 1)})" if others else ""
            return [f"`{paths[0]}` {word}{more}"]
    return ["its files changed"]


def _options(last: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = [name for name in {**last, **now} if last.get(name) != now.get(name)]
    return [f"option {names[0]} changed"] if len(names) == 1 else [f"options {', '.join(names)} changed"] * bool(names)
