"""What sources read out of files and command lines, before anything is opened: wishes, and collections of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from kiln.oci.platform import Platform
from kiln.oci.reference import Reference
from kiln.plan.outputs import CachePlace, Output
from kiln.plan.target import Bootstrap, Context, Secret


class Wish(Struct, frozen=True):
    """One image as it was asked for: `context` a place or text as given, `file` the Dockerfile (empty: the context's).

    The fields from `name` on are of targets that come many at once. `contexts` values are texts as `--build-context`
    takes them, or `target:NAME` for the image of another target. `mounts` are further contexts that appear below the
    main one. `image_args` are build arguments whose value is the full name of another target's image. `made_up` tags are the
    target's own name, for want of others: they are pushed only below a prefix.
    """

    context: str
    file: str = ""
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[Platform, ...] = ()
    contexts: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    hosts: tuple[str, ...] = ()
    name: str = ""
    place: str = ""
    inline: str | None = None
    tags: tuple[Reference, ...] = ()
    auto_tag: bool = False
    made_up: bool = False
    push: bool = False
    enabled: bool = True
    needs: tuple[str, ...] = ()
    image_args: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[tuple[str, Context], ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    cache_from: tuple[CachePlace, ...] = ()
    cache_to: tuple[CachePlace, ...] = ()
    bootstrap: Bootstrap | None = None
    component: str = ""


class Hooks(Struct, frozen=True):
    """The scripts of a component: `folder` is the component's, `needs` the components that appear in its `dependency/`, those of
    `bases` only since its Dockerfiles stand on their images."""

    component: str
    folder: Path
    pre: Path | None = None
    post: Path | None = None
    needs: tuple[str, ...] = ()
    bases: frozenset[str] = frozenset()


class Destination(Struct, frozen=True):
    """Where images are pushed: `prefix` stands before each image's own name (`host/namespace`), `tag` replaces its tag.
    `username` and `password` are for the prefix's host, empty for those that are kept on the machine."""

    prefix: str = ""
    tag: str = ""
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Destination({self.prefix!r}, {self.tag!r}, {self.username!r}, ...)"


class Collection(Struct, frozen=True):
    """Everything that one source holds. `groups` are names for several targets; what is made where nothing is named is
    the group `default` or, without one, every enabled target. `aliases` are further words that name targets (components,
    images). `result` is the file that takes the names of what was made. `warnings` are (place, text)."""

    kind: str
    root: Path
    wishes: tuple[Wish, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hooks: Mapping[str, Hooks] = field(default_factory=dict)
    result: Path | None = None
    destination: Destination = Destination()
    warnings: tuple[tuple[str, str], ...] = ()
