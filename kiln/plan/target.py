"""A target: one image to make. Frozen; every source produces targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kiln.dockerfile.instructions import Program
from kiln.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Context:
    """Where files come from: a `folder` on disk, an `archive` (a tar file), an OCI `layout` (folder:tag), or an `image`."""

    kind: str
    folder: Path | None = None
    reference: str = ""
    ignore: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Secret:
    """A build secret: its bytes are read when a step mounts it, and go nowhere else."""

    id: str
    path: Path | None = None
    env: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """One image: the parsed Dockerfile, its contexts and arguments. `platforms` empty means that of this machine."""

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
