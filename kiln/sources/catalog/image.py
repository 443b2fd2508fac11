"""Images of a catalog: what all of them share, and those of the richer form."""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from kiln.errors import KilnError, UsageError
from kiln.oci.platform import Platform
from kiln.oci.platform import parse as parse_platform
from kiln.oci.reference import Reference
from kiln.plan.outputs import CachePlace, Output, parse_cache, parse_output
from kiln.plan.target import Bootstrap, Context, Secret
from kiln.sources.catalog.ground import Checkout, Draft, Ground
from kiln.sources.catalog.item import Item
from kiln.sources.catalog.keys import BOOTSTRAP, RECIPES
from kiln.sources.git import is_git
from kiln.sources.wish import Wish

T = TypeVar("T")


def shared(item: Item, ground: Ground, name: str, *, push: bool) -> Draft:
    """What images of every form have; `push` is the default. Raises `UsageError` and `SourceError`."""
    enabled = item.flag("enable", True)
    contexts, wanted = _contexts(item, ground, enabled)
    needs = item.texts("needs")
    wanted += tuple((need, item.place("needs"), False) for need in needs)
    wish = Wish(
        context=str(ground.root), name=name, place=item.place(), enabled=enabled, push=item.flag("push", push),
        target=item.text("target"), args=item.pairs("args", ground.environment), labels=item.pairs("labels"),
        annotations=item.pairs("annotations"), platforms=_platforms(item), contexts=contexts,
        secrets=_secrets(item, ground, enabled), ssh=_agents(item, ground), network=item.network(),
        no_cache=item.flag("no_cache"), pull=item.flag("pull"), needs=needs, mounts=_sources(item, ground, enabled),
        outputs=_each(item, "outputs", lambda text: _output(text, ground)),
        cache_from=_each(item, "cache_from", lambda text: _cache("--cache-from", text, ground)),
        cache_to=_each(item, "cache_to", lambda text: _cache("--cache-to", text, ground)),
    )  # fmt: skip
    return Draft(wish, wanted)


def image(item: Item, ground: Ground, name: str) -> Draft:
    """An image of the richer form; raises `UsageError` and `SourceError`."""
    draft = shared(item, ground, name, push=False)
    wish = draft.wish
    _one_recipe(item)
    context, found = _context(item, ground, wish.enabled)
    base = item.text("base")
    wish = replace(
        wish, context=context, file=_dockerfile(item, ground, context, found), bootstrap=_bootstrap(item),
        inline=item.text("dockerfile_inline") if item.has("dockerfile_inline") else None, tags=_names(item, ground, name),
        contexts={**wish.contexts, "base": f"target:{base}"} if base else wish.contexts,
        image_args={"BASE_IMAGE": base} if base else {},
    )  # fmt: skip
    return Draft(wish, ((base, item.place("base"), True), *draft.wanted) if base else draft.wanted)


def _names(item: Item, ground: Ground, name: str) -> tuple[Reference, ...]:
    """The names of the result: its id where none is written."""
    texts = item.texts("image")
    key = "image" if texts else "name" if item.has("name") else "id"
    return tuple(dict.fromkeys(ground.reference(item, key, text) for text in texts or (name,)))


def _one_recipe(item: Item) -> None:
    given = [key for key in RECIPES if item.has(key)]
    if len(given) > 1:
        raise item.wrong(given[1], f"an image has {given[0]} or {given[1]}, not both")
    if "bootstrap" in given and item.has("base"):
        raise item.wrong("base", "an image has bootstrap or base, not both")
    if item.has("base") and "base" in item.map("contexts").values:
        raise item.wrong("base", "base is also one of the contexts")


def _context(item: Item, ground: Ground, enabled: bool) -> tuple[str, Checkout | None]:
    """(the context, the repository that it is of)."""
    text = item.text("context", ".")
    if is_git(text):
        found = ground.url(item, "context", text) if enabled else None
        return (str(found.folder) if found else text), found
    if text.startswith(("http://", "https://")):
        return text, None
    folder = ground.place(text)
    if text != "." and enabled and not os.path.isdir(folder):
        raise item.wrong("context", f"the context {text!r} is no folder", hint="It counts from the catalog's folder.")
    return folder, None


def _dockerfile(item: Item, ground: Ground, context: str, found: Checkout | None) -> str:
    """Absolute; the context's own where the key is missing. In a repository it does not lead out of it."""
    text = item.text("dockerfile")
    if item.has("dockerfile_inline") or item.has("bootstrap"):
        return ""
    if found is not None:
        return _dockerfile_of(item, ground, text, found)
    if not text:
        return ""
    path = ground.place(text)
    if os.path.exists(path):
        return path
    return text if "://" in context else f"{context}/{text}"


def _dockerfile_of(item: Item, ground: Ground, text: str, found: Checkout) -> str:
    if text and os.path.exists(ground.place(text)):
        return ground.place(text)
    lower = not text and not (found.folder / "Dockerfile").exists() and (found.folder / "dockerfile").exists()
    name = text or ("dockerfile" if lower else "Dockerfile")
    path = found.folder.relative_to(os.path.realpath(found.tree)) / name if found.folder != found.tree else Path(name)
    return str(ground.inside(item, "dockerfile" if text else "context", found, str(path)))


def _bootstrap(item: Item) -> Bootstrap | None:
    if not item.has("bootstrap"):
        return None
    given = item.map("bootstrap").check(BOOTSTRAP, "bootstrap")
    return Bootstrap(
        given.text("suite"), given.texts("include"), given.text("mirror"), given.text("variant", "minbase"),
        given.text("components"),
    )  # fmt: skip


def _contexts(item: Item, ground: Ground, enabled: bool) -> tuple[dict[str, str], tuple[tuple[str, str, bool], ...]]:
    """(name -> text, the ids of images that some of them are)."""
    if not item.has("contexts"):
        return {}, ()
    given = item.map("contexts")
    found = {name: ground.named(given, name, given.text(name), enabled) for name in given.values}
    wanted = tuple(
        (text.removeprefix("target:"), given.place(name), True)
        for name, text in found.items() if text.startswith("target:")
    )  # fmt: skip
    return found, wanted


def _sources(item: Item, ground: Ground, enabled: bool) -> tuple[tuple[str, Context], ...]:
    if not item.has("sources"):
        return ()
    given = item.map("sources")
    mounts = []
    for path in given.values:
        parts = path.split("/")
        if path.startswith("/") or not path or any(part in ("", ".", "..") for part in parts):
            raise given.wrong(path, f"{path!r} is no path below the context")
        if enabled:
            found = ground.url(given, path, given.text(path))
            mounts.append((path, Context("folder", found.folder, name=found.name)))
    return tuple(mounts)


def _each(item: Item, key: str, read: Callable[[str], T]) -> tuple[T, ...]:
    """The texts at a key, read; errors are given their place."""
    if key not in item.values:
        return ()
    try:
        return tuple(map(read, item.texts(key)))
    except KilnError as bad:
        raise bad.at(item.place(key)) from None
    except csv.Error as bad:
        raise item.wrong(key, f"{key} is not understood: {bad}") from bad


def _platforms(item: Item) -> tuple[Platform, ...]:
    return tuple(dict.fromkeys(platform for some in _each(item, "platforms", _some_platforms) for platform in some))


@functools.lru_cache
def _some_platforms(text: str) -> tuple[Platform, ...]:
    return tuple(parse_platform(part) for part in text.split(",") if part.strip())


def _output(text: str, ground: Ground) -> Output:
    made = parse_output(text)
    return replace(made, dest=str(ground.path(made.dest))) if made.dest not in ("", "-") else made


def _cache(flag: str, text: str, ground: Ground) -> CachePlace:
    made = parse_cache(flag, text)
    return replace(made, folder=ground.path(str(made.folder))) if made.folder is not None else made


def _agents(item: Item, ground: Ground) -> dict[str, str]:
    found = {}
    for text in item.texts("ssh"):
        name, _, value = text.partition("=")
        found[name or "default"] = ",".join(str(ground.path(part)) for part in value.split(",") if part)
    return found


def _secrets(item: Item, ground: Ground, enabled: bool) -> dict[str, Secret]:
    found = _each(item, "secrets", lambda text: _secret(text, ground, enabled))
    return {secret.id: secret for secret in found}


def _secret(text: str, ground: Ground, enabled: bool) -> Secret:
    """id=ID with src=FILE, env=NAME, or neither: the variable of that name, else the file."""
    hint = "Write id=ID,src=FILE or id=ID,env=NAME."
    fields: dict[str, str] = {}
    for word in next(csv.reader([text]), []):
        name, equals, value = word.partition("=")
        if not equals or name not in ("id", "src", "source", "env"):
            raise UsageError(f"the secret {text!r} is not understood", hint=hint)
        fields[{"source": "src"}.get(name, name)] = value
    identity, source, env = fields.get("id", ""), fields.get("src", ""), fields.get("env", "")
    if not identity or (source and env):
        raise UsageError(f"the secret {text!r} is not understood", hint=hint)
    if not source and not env:
        env, source = (identity, "") if identity in ground.environment else ("", identity)
    path = ground.path(source) if source else None
    if enabled and path is not None and not path.is_file():
        raise UsageError(f"the secret {identity}: there is no file {source}", hint=hint)
    return Secret(identity, path, env)
