"""A drafted target -> a wish: paths made absolute, words parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from kiln.errors import KilnError, UsageError
from kiln.oci import platform as platforms
from kiln.oci.reference import Reference
from kiln.oci.reference import parse as parse_reference
from kiln.plan.outputs import CachePlace, Output
from kiln.sources.buildx import words as bakewords
from kiln.sources.buildx.keys import Draft
from kiln.sources.wish import Wish

_NETWORKS = ("default", "none", "host")
_Made = TypeVar("_Made")
Warnings = list[tuple[str, str]]


def make_wish(draft: Draft, base: Path, environment: Mapping[str, str], warnings: Warnings) -> Wish:
    """The wish of a draft whose paths are relative to `base`; raises `UsageError` with the line of an attribute.
    What Kiln does not do and what makes no other image is added to `warnings` as (place, text)."""
    _warn(draft, warnings)
    contexts = _contexts(draft, base)
    outputs, push = _outputs(draft, base)
    tags = _each(draft, "tags", _tag)
    context = _at(draft, "context", lambda: _context(draft, base))
    network = draft.text("network") or "default"
    if network not in (*_NETWORKS, "sandbox"):
        hint = f"It is one of {', '.join(_NETWORKS)}."
        raise UsageError(f"the network {network!r} is not known", where=draft.where("network"), hint=hint)
    return Wish(
        context=context, file=_file(draft, context, base), target=draft.text("target"), args=draft.map("args"),
        labels=draft.map("labels"), platforms=tuple(dict.fromkeys(_each(draft, "platforms", platforms.parse))),
        contexts=contexts,
        secrets={one.id: one for one in _each(draft, "secret", lambda text: bakewords.secret_of(text, base, environment))},
        ssh=dict(_each(draft, "ssh", lambda text: bakewords.ssh_of(text, base))),
        network="default" if network == "sandbox" else network, no_cache=draft.flag("no-cache"),
        no_cache_stages=frozenset(name.lower() for name in draft.words("no-cache-filter")), pull=draft.flag("pull"),
        hosts=tuple(f"{name}:{address}" for name, address in draft.map("extra-hosts").items()), name=draft.name,
        place=draft.place, inline=draft.text("dockerfile-inline") or None, tags=tags or _own_tag(draft.name), made_up=not tags, push=push,
        needs=tuple(dict.fromkeys(text[7:] for text in contexts.values() if text.startswith("target:"))),
        annotations=_annotations(draft), outputs=outputs,
        cache_from=_caches(draft, "cache-from", base, warnings), cache_to=_caches(draft, "cache-to", base, warnings),
    )  # fmt: skip


def _at(draft: Draft, key: str, make: Callable[[], _Made]) -> _Made:
    try:
        return make()
    except KilnError as bad:
        raise bad.at(draft.where(key)) from None


def _each(draft: Draft, key: str, parse: Callable[[str], _Made]) -> tuple[_Made, ...]:
    return _at(draft, key, lambda: tuple(parse(word) for word in draft.words(key)))


def _tag(text: str) -> Reference:
    name = parse_reference(text).with_default_tag()
    if name.digest:
        raise UsageError(f"{name}: an image is given a tag, not a digest")
    return name


def _own_tag(name: str) -> tuple[Reference, ...]:
    """The name in the store of a target without tags, if its own name can be one."""
    try:
        return (parse_reference(name).with_default_tag(),)
    except UsageError:
        return ()


def _context(draft: Draft, base: Path) -> str:
    text = draft.text("context") or "."
    if text == "-":
        raise UsageError("the context of a target cannot be read from standard input")
    return bakewords.context_of(text, base)


def _file(draft: Draft, context: str, base: Path) -> str:
    text = draft.text("dockerfile")
    if text == "-":
        raise UsageError(
            "the Dockerfile of a target cannot be read from standard input", where=draft.where("dockerfile")
        )
    if not text or draft.text("dockerfile-inline"):
        return ""
    if text.startswith("cwd://"):
        return bakewords.local_path(text, base)
    if text.startswith(("/", *bakewords.REMOTE)) or not context.startswith("/"):
        return text
    return f"{context}/{text}" if re.match(r"\.\.?/", text) else str(Path(f"{context}/{text}"))


def _contexts(draft: Draft, base: Path) -> dict[str, str]:
    return {name: bakewords.context_of(text, base) for name, text in draft.map("contexts").items() if text}


def _annotations(draft: Draft) -> dict[str, str]:
    found = {}
    for text in draft.words("annotations"):
        key, equals, value = text.partition("=")
        if not equals or not key:
            hint = "Write KEY=VALUE."
            raise UsageError(f"the annotation {text!r} has no value", where=draft.where("annotations"), hint=hint)
        found[key] = value
    return found


def _outputs(draft: Draft, base: Path) -> tuple[tuple[Output, ...], bool]:
    made = _each(draft, "output", lambda text: bakewords.output_of(text, base))
    return tuple(output for output, _ in made if output), any(push for _, push in made)


def _caches(draft: Draft, key: str, base: Path, warnings: Warnings) -> tuple[CachePlace, ...]:
    places = []
    for text in draft.words(key):
        place = _at(draft, key, lambda text=text: bakewords.cache_of(f"--{key}", text, base))  # type: ignore[misc]
        if place is None:
            warnings.append((draft.where(key), f"{draft.name}: {key} {text} is for BuildKit alone and is not used"))
        else:
            places.append(place)
    return tuple(places)


def _warn(draft: Draft, warnings: Warnings) -> None:
    if any(bakewords.attests(text) for text in draft.words("attest")):
        warnings.append((draft.where("attest"), f"{draft.name}: attestations are not made"))
    if draft.words("policy"):
        warnings.append((draft.where("policy"), f"{draft.name}: policies are not checked"))
    if draft.text("call", "build") not in ("", "build"):
        warnings.append(
            (draft.where("call"), f"{draft.name}: call {draft.text('call')} is not done, the image is built")
        )
