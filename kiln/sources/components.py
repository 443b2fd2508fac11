"""A component tree: `src/<component>/` folders with Dockerfiles, hooks and dependency files below `build/`.

The layout is that of pai-build: `build/*.dockerfile` are images, `build/component.dep` (or `components.dep`) names the
components that come first and appear as `dependency/<name>/`, `build/build-pre.sh` and `build/build-post.sh` are hooks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import PlanError, UsageError
from kiln.oci.reference import parse as parse_reference
from kiln.sources.wish import Collection, Destination, Hooks, Wish

SUFFIX = ".dockerfile"
_DEPENDENCY_FILES = ("component.dep", "components.dep")
_COMMON = "common"


class _Component(Struct, frozen=True):
    """One folder of `src`; `needs` are (component, place of the line that names it)."""

    name: str
    folder: Path
    dockerfiles: tuple[tuple[str, Path], ...]
    needs: tuple[tuple[str, str], ...]
    pre: Path | None
    post: Path | None


def is_tree(folder: Path) -> bool:
    """Whether a folder is a component tree."""
    return next(folder.glob(f"src/*/build/*{SUFFIX}"), None) is not None


def load(root: Path, *, variant: str = "", config: Path | None = None) -> Collection:
    """The images of a tree, in the order of their components. `variant` takes the Dockerfiles of that name, of `common`
    and of none; `config` is the folder of the cluster configuration. Raises `UsageError`, and `PlanError` for images that
    are there twice."""
    found = {folder.name: _read(folder, variant) for folder in _folders(root / "src")}
    _check_needs(found, root)
    images = _images(found.values(), root)
    wishes = tuple(wish for component in found.values() for wish in _wishes(component, found, root))
    return Collection(
        kind="components",
        root=root,
        wishes=wishes,
        aliases=_aliases(found.values(), images),
        hooks={name: _hooks(component) for name, component in found.items()},
        destination=_destination(config),
    )


def _destination(config: Path | None) -> Destination:
    if config is None:
        return Destination()
    from kiln.sources.componentconfig import read_destination

    return read_destination(config)


def _folders(source: Path) -> list[Path]:
    try:
        with os.scandir(source) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError as bad:
        raise UsageError(f"cannot be read: {bad.strerror}", where=str(source)) from bad


def _read(folder: Path, variant: str) -> _Component:
    build = folder / "build"
    names = _names(build)
    dockerfiles = sorted(name for name in names if name.endswith(SUFFIX))
    chosen = [(image_name(name), build / name) for name in dockerfiles if _belongs(name, variant)]
    needs = [need for name in _DEPENDENCY_FILES if name in names for need in read_dependencies(build / name)]
    if dockerfiles and not _is_text(folder.name):
        raise UsageError("a component's name has to be UTF-8", where=repr(os.fsencode(folder))[2:-1])
    hooks = [build / name if name in names else None for name in ("build-pre.sh", "build-post.sh")]
    return _Component(folder.name, folder, tuple(chosen), tuple(dict(needs).items()), *hooks)


def _is_text(name: str) -> bool:
    return name.encode("utf-8", "replace") == os.fsencode(name)


def _names(build: Path) -> set[str]:
    """The names of the files in a folder; none where there is no such folder."""
    try:
        with os.scandir(build) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as bad:
        raise UsageError(f"cannot be read: {bad.strerror}", where=str(build)) from bad


def image_name(file: str) -> str:
    """The image that a Dockerfile is for: its name without `.dockerfile` and without a variant's suffix."""
    return file.removesuffix(SUFFIX).partition(".")[0]


def _belongs(file: str, variant: str) -> bool:
    suffix = file.removesuffix(SUFFIX).partition(".")[2]
    return not variant or variant == "all" or suffix in ("", _COMMON, variant)


def read_dependencies(path: Path) -> list[tuple[str, str]]:
    """(component, place) of each line of a dependency file; blank lines and comments are passed over."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as bad:
        raise UsageError(f"cannot be read: {bad.strerror}", where=str(path)) from bad
    except UnicodeDecodeError as bad:
        raise UsageError("is not UTF-8", where=str(path)) from bad
    words = ((line.partition("#")[0].strip(), number) for number, line in enumerate(lines, 1))
    return [(word, f"{path}:{number}") for word, number in words if word]


def _check_needs(found: Mapping[str, _Component], root: Path) -> None:
    for component in found.values():
        for need, place in component.needs:
            if need not in found:
                hint = did_you_mean(need, list(found)) or "A line names a folder below src/."
                raise PlanError(f"the component {component.name!r} needs {need!r}, which is no folder of src/",
                                where=_shown(place, root), hint=hint)  # fmt: skip
    _check_cycles(found, root)


def _check_cycles(found: Mapping[str, _Component], root: Path) -> None:
    """Components whose dependency files need one another could never be staged."""
    needs = {name: dict(component.needs) for name, component in found.items()}
    done: set[str] = set()
    for start in found:
        path: list[str] = []
        waiting = [(start, iter(needs[start]))] if start not in done else []
        while waiting:
            name, rest = waiting[-1]
            path = [step for step, _ in waiting]
            need = next((other for other in rest if other not in done), None)
            if need is None:
                done.add(name)
                waiting.pop()
            elif need in path:
                circle = [*path[path.index(need) :], need]
                place = needs[circle[-2]][need]
                raise PlanError(f"components need one another in a circle: {' -> '.join(circle)}",
                                where=_shown(place, root), hint="Take one of these lines away.")  # fmt: skip
            else:
                waiting.append((need, iter(needs[need])))


def _shown(place: str, root: Path) -> str:
    return place.removeprefix(f"{root}/")


def _images(components: Iterable[_Component], root: Path) -> dict[str, Path]:
    """Image name -> its Dockerfile; raises `PlanError` where two Dockerfiles make one image."""
    places: dict[str, Path] = {}
    for component in components:
        for image, path in component.dockerfiles:
            first = places.setdefault(image, path)
            if first is not path:
                raise PlanError(
                    f"the image {image!r} is made twice: by {_shown(str(first), root)} and by {_shown(str(path), root)}",
                    where=_shown(str(path), root),
                    hint="Rename one, or choose one of several variants with --variant.",
                )
    return places


def _aliases(components: Iterable[_Component], images: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """What a name on the command line stands for: an image, all images of a component, or both where they share a name."""
    found: dict[str, tuple[str, ...]] = {image: (image,) for image in images}
    for component in components:
        own = tuple(image for image, _ in component.dockerfiles)
        if own:
            found[component.name] = tuple(dict.fromkeys([*found.get(component.name, ()), *own]))
    return found


def _wishes(component: _Component, found: Mapping[str, _Component], root: Path) -> list[Wish]:
    needs = [image for name, _ in component.needs for image in _images_of(name, found)]
    return [_wish(component, image, path, tuple(dict.fromkeys(needs)), root) for image, path in component.dockerfiles]


def _images_of(name: str, found: Mapping[str, _Component]) -> list[str]:
    """The images of a component; of one that has none, those of what it needs itself."""
    waiting, seen, images = [name], {name}, list[str]()
    while waiting:
        component = found[waiting.pop()]
        images += [image for image, _ in component.dockerfiles]
        if not component.dockerfiles:
            fresh = [need for need, _ in component.needs if need not in seen]
            seen.update(fresh)
            waiting += fresh
    return images


def _wish(component: _Component, image: str, path: Path, needs: tuple[str, ...], root: Path) -> Wish:
    place = _shown(str(path), root)
    try:
        tag = parse_reference(image).with_default_tag()
    except UsageError as bad:
        raise UsageError(bad.message, where=place, hint="The image has the name of its file.") from None
    return Wish(
        context=str(component.folder), file=str(path), name=image, place=place, tags=(tag,), needs=needs,
        component=component.name,
    )  # fmt: skip


def _hooks(component: _Component) -> Hooks:
    needs = tuple(name for name, _ in component.needs)
    return Hooks(component.name, component.folder, component.pre, component.post, needs)


def with_images(collection: Collection, links: Mapping[str, Iterable[str]]) -> Collection:
    """The collection with, for each component, also those components to see whose images its Dockerfiles use, as long as no
    component would have to see itself. `links` are image -> images."""
    owner = {wish.name: wish.component for wish in collection.wishes}
    hooks = dict(collection.hooks)
    for image, others in links.items():
        for other in others:
            own, need = owner[image], owner.get(other, "")
            if need and need != own and need not in hooks[own].needs and not _reaches(hooks, need, own):
                known = hooks[own]
                hooks[own] = replace(known, needs=(*known.needs, need), bases=known.bases | {need})
    return replace(collection, hooks=hooks)


def _reaches(hooks: Mapping[str, Hooks], start: str, goal: str) -> bool:
    waiting, seen = [start], {start}
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        fresh = [need for need in hooks[name].needs if need not in seen]
        seen.update(fresh)
        waiting += fresh
    return False
