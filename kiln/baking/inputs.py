"""The facts of a target: everything that its image depends on, from content hashes and resolved bases."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct, field

from kiln.baking.contexts import Contexts
from kiln.dockerfile.instructions import Copy
from kiln.dockerfile.parser import Place
from kiln.engine.files import Files
from kiln.engine.select import Selection, select
from kiln.oci.platform import Platform
from kiln.plan.decide import Facts, bounded, digest_of, lines_of, readable, short
from kiln.plan.graph import Graph
from kiln.plan.outline import Outline, Take, outline
from kiln.plan.target import Context, Target
from kiln.store.entry import DIR
from kiln.store.layer import Compression

# Changes when the same inputs give other images.
_ENGINE = "1"


class Shape(Struct, frozen=True):
    """A target as it is planned: what it takes, before anything is known about what those are."""

    target: Target
    outline: Outline
    platforms: tuple[Platform, ...]


def shape_of(target: Target, graph: Graph, platforms: tuple[Platform, ...]) -> Shape:
    """The shape of a target; raises `DockerfileError`."""
    folders = frozenset(name for name, context in target.contexts.items() if context.kind in ("folder", "dockerfile"))
    return Shape(target, outline(target.program, graph, target.args, folders), platforms)


class Look(Struct, frozen=True):
    """How facts are gathered: `root` is the folder that file names are shown from. What was seen of a context once is not
    looked at again."""

    contexts: Contexts
    root: Path
    compression: Compression = Compression()
    epoch: int | None = None
    seen: dict[tuple[str, Context, bool], tuple[dict[str, str], str]] = field(default_factory=dict)

    def remember(self, shape: Shape) -> None:
        """Reads what a target takes, for later."""
        self.content(shape, whole=False)

    def content(self, shape: Shape, *, whole: bool) -> tuple[dict[str, str], str]:
        """(short digest by path, digest of everything that is taken)."""
        key = (shape.target.name, shape.target.context, whole)
        found = self.seen.get(key)
        if found is None:
            found = self.seen[key] = _content(shape, self, whole)
        return found


def facts_of(shape: Shape, look: Look, bases: Mapping[str, str], *, whole: bool) -> Facts:
    """The facts of a target whose bases (name -> digest) are known; `whole`: a base brings instructions that may take
    anything from the context. Raises `KilnError` where files cannot be read."""
    target = shape.target
    files, content = look.content(shape, whole=whole)
    source = target.program.source
    return Facts(
        source=_source(source.name, look.root),
        text=hashlib.sha256(source.text.encode("utf-8", "surrogateescape")).hexdigest(),
        lines=lines_of(source.text),
        args=_arguments(target, shape.outline, whole),
        bases=dict(bases),
        content=content,
        files=bounded(files),
        options=_options(shape, look),
    )


def _source(name: str, root: Path) -> str:
    """A Dockerfile as people see it: its path from the root. A name without a folder stays what it is."""
    return readable(os.path.abspath(name).removeprefix(f"{root}/") if "/" in name else name)


def _arguments(target: Target, found: Outline, whole: bool) -> dict[str, str]:
    """Digests of the values of declared arguments; one that names another target's image counts by that image. Triggers of a
    base (`whole`) may declare any."""
    return {
        name: digest_of(name, value)
        for name, value in sorted(target.args.items())
        if (whole or name in found.arguments) and name not in target.image_args
    }


def _options(shape: Shape, look: Look) -> dict[str, str]:
    target = shape.target
    values: dict[str, object] = {
        "engine": _ENGINE,
        "target": target.stage,
        "platform": [str(platform) for platform in shape.platforms],
        "labels": sorted(target.labels.items()),
        "annotations": sorted(target.annotations.items()),
        "network": target.network,
        "add-host": target.hosts,
        "compression": [look.compression.kind, look.compression.level],
        "bootstrap": repr(target.bootstrap) if target.bootstrap else "",
        "SOURCE_DATE_EPOCH": target.args.get("SOURCE_DATE_EPOCH", "" if look.epoch is None else str(look.epoch)),
    }
    return {name: short(repr(value)) for name, value in values.items() if value}


def _content(shape: Shape, look: Look, whole: bool) -> tuple[dict[str, str], str]:
    """(short digest by `path` or `context:path`, digest of everything that is taken)."""
    hasher = hashlib.sha256()
    files: dict[str, str] = {}
    takes = [*shape.outline.takes, *([Take("")] if whole else [])]
    for take in takes:
        context = _context_of(shape.target, take.context)
        source, place = look.contexts.files(context), _shown(context, look.root)
        hasher.update(repr((take.context, take.path, take.copy is None)).encode())
        for selection in _selections(source, take):
            for item, fact in zip(selection.items, _facts(selection), strict=True):
                hasher.update(fact)
                if item.entry.kind != DIR:
                    files[readable(f"{place}{item.path or selection.name}")] = short(fact)
    return files, hasher.hexdigest()


def _shown(context: Context, root: Path) -> str:
    """What stands before a file's path when people see it: the context's folder as seen from the root."""
    folder, start = str(context.folder or ""), f"{root}/"
    if folder == str(root):
        return ""
    if folder.startswith(start):
        return f"{folder[len(start) :]}/"
    return f"{context.name}:" if context.name and context.name != folder else ""


def _facts(selection: Selection) -> Iterable[bytes]:
    """One fact an item; the first that a selection gives is about its name."""
    facts = iter(selection.facts())
    head = next(facts)
    for number, fact in enumerate(facts):
        yield head + b"\0" + fact if number == 0 else fact


def _context_of(target: Target, name: str) -> Context:
    return target.contexts[name] if name else target.context


def _selections(files: Files, take: Take) -> list[Selection]:
    if take.copy is not None:
        return select(files, take.copy, take.copy.sources)
    everything = Copy(keyword="COPY", code="", place=Place("", 0, 0), sources=(), destination="/")
    return select(files, everything, (take.path or "/",))
