"""`--set TARGET.KEY=VALUE`: values that a command line puts over those of the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import UsageError
from kiln.sources.buildx.keys import Draft, Field, loaded, pushed

_LISTS = {
    "output": "output", "cache-to": "cache-to", "cache-from": "cache-from", "tags": "tags", "platform": "platforms",
    "platforms": "platforms", "secrets": "secret", "secret": "secret", "ssh": "ssh", "attest": "attest",
    "entitlements": "entitlements", "annotations": "annotations", "no-cache-filter": "no-cache-filter",
    "ulimits": "ulimits", "policy": "policy",
}  # fmt: skip
_ALWAYS_ADDED = ("entitlements", "annotations", "attest")
_MAPS = ("args", "labels", "contexts", "extra-hosts")
_TEXTS = ("context", "dockerfile", "dockerfile-inline", "target", "network", "call", "shm-size")
_FLAGS = ("no-cache", "pull", "push", "load")
_KNOWN = (*_LISTS, *_MAPS, *_TEXTS, *_FLAGS)
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Override(Struct):
    """What is set for one key of a target; `item` is the name in a map."""

    key: str
    item: str = ""
    words: list[str] = field(default_factory=list)
    append: bool = False


Overrides = dict[str, dict[tuple[str, str], Override]]


def read_sets(sets: Sequence[str], names: Iterable[str], environment: Mapping[str, str]) -> Overrides:
    """What is set for each target; raises `UsageError` for a text that is not understood or names no target."""
    found: Overrides = {}
    known = sorted(names)
    for text in sets:
        pattern, key, item, append, value = _split(text)
        matching = [pattern] if pattern in known else [name for name in known if fnmatchcase(name, pattern)]
        if not matching:
            raise UsageError(f"--set {text}: no target matches {pattern!r}", hint=did_you_mean(pattern, known))
        if value is None:
            value = environment.get(item)
        if value is None:
            continue
        for name in matching:
            override = found.setdefault(name, {}).setdefault((key, item), Override(key, item))
            override.words.append(value)
            override.append = append
    return found


def _split(text: str) -> tuple[str, str, str, bool, str | None]:
    """(pattern, key, name in a map, whether it is added, value) of a text."""
    left, equals, value = text.partition("=")
    append = left.endswith("+")
    pattern, *keys = left.removesuffix("+").split(".", 2)
    if not keys or not pattern or not keys[0]:
        raise UsageError(
            f"--set {text}: not understood", hint="Write TARGET.KEY=VALUE, for example *.platform=linux/arm64."
        )
    key, item = keys[0], keys[1] if len(keys) > 1 else ""
    if key not in _KNOWN:
        raise UsageError(f"--set {text}: a target has no key {key!r}", hint=did_you_mean(key, _KNOWN))
    if (key in _MAPS) != bool(item):
        example = f"{pattern}.{key}.NAME=VALUE" if key in _MAPS else f"{pattern}.{key}=VALUE"
        raise UsageError(f"--set {text}: not understood", hint=f"Write {example}.")
    if not equals and key != "args":
        raise UsageError(f"--set {text}: the value is missing", hint=f"Write {left}=VALUE.")
    return pattern, key, item, append, value if equals else None


def apply(draft: Draft, overrides: Mapping[tuple[str, str], Override]) -> Draft:
    """The draft with what is set for it; raises `UsageError`."""
    fields, places = dict(draft.fields), dict(draft.places)
    for override in overrides.values():
        key = _LISTS.get(override.key, override.key)
        key = "output" if key in ("push", "load") else key
        fields[key] = _value(override, fields.get(key))
        places[key] = "--set"
    return replace(draft, fields=fields, places=places)


def _value(override: Override, earlier: Field | None) -> Field:
    key, last = override.key, override.words[-1]
    if key in _MAPS:
        return {**(earlier if isinstance(earlier, dict) else {}), override.item: last}
    if key in _LISTS:
        before = earlier if isinstance(earlier, tuple) and (override.append or key in _ALWAYS_ADDED) else ()
        return (*before, *override.words)
    if key not in _FLAGS:
        return last
    if last not in (*_TRUE, *_FALSE):
        raise UsageError(f"--set {key}={last}: must be true or false")
    outputs = earlier if isinstance(earlier, tuple) else ()
    if key == "push":
        return pushed(outputs, last in _TRUE)
    if key == "load":
        return loaded(outputs) if last in _TRUE else outputs
    return last in _TRUE
