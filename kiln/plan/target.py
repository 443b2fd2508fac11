"""A target: one image to make. Frozen; every source produces targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from kiln.dockerfile.instructions import Program
from kiln.oci.platform import Platform
from kiln.oci.reference import Reference
from kiln.plan.outputs import CachePlace, Output


class Context(Struct, frozen=True):
    """Where files come from: a `folder` on disk, a lone `dockerfile`, an OCI `layout` (folder:tag), an `image`, the image
    of another `target` (its name is `reference`), or an `archive` (a zip, war, jar, tar or program at `folder`), of which
    the folder `reference` is meant.

    A folder may carry `layers`, folders in overlayfs's form of which the first lies on top, and `mounts`, other contexts
    that appear below it at a path.
    """

    kind: str
    folder: Path | None = None
    reference: str = ""
    ignore: tuple[str, ...] = ()
    name: str = ""
    layers: tuple[Path, ...] = ()
    mounts: tuple[tuple[str, Context], ...] = ()


class Bootstrap(Struct, frozen=True):
    """A base image of distribution packages: the suite, further packages, components; `mirror` empty for mmdebstrap's
    own."""

    suite: str
    include: tuple[str, ...] = ()
    mirror: str = ""
    variant: str = "minbase"
    components: str = ""


class Secret(Struct, frozen=True):
    """A build secret: its bytes are read when a step mounts it, and go nowhere else."""

    id: str
    path: Path | None = None
    env: str = ""


class Target(Struct, frozen=True):
    """One image: the parsed Dockerfile, its contexts and arguments. `platforms` empty means that of this machine.

    `name` is unique in a plan, `place` says where the target is written. `tags` are its names in the store, `pushes` its
    names in registries (empty: it is not pushed). An `auto_tag` stands for a name that changes with time: an unchanged
    image keeps the one it has. `needs` are targets that come first. `image_args` are build arguments whose value is the
    full name of another target's image. A target with `bootstrap` is made of packages, its program says nothing.
    """

    name: str
    program: Program
    context: Context
    stage: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[Platform, ...] = ()
    contexts: Mapping[str, Context] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    hosts: tuple[str, ...] = ()
    place: str = ""
    tags: tuple[Reference, ...] = ()
    pushes: tuple[Reference, ...] = ()
    auto_tag: bool = False
    needs: tuple[str, ...] = ()
    image_args: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    cache_from: tuple[CachePlace, ...] = ()
    cache_to: tuple[CachePlace, ...] = ()
    bootstrap: Bootstrap | None = None
    component: str = ""
