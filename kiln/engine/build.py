"""What all stages of one build share, and the functions that higher rooms hand down."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct, field

from kiln import events
from kiln.engine.cancel import Cancel
from kiln.engine.files import Files, LayerFiles
from kiln.engine.helper import Helper
from kiln.engine.packing import Packing
from kiln.engine.state import TIMELESS, State
from kiln.engine.wire import Stack
from kiln.oci.image import Descriptor, Image
from kiln.oci.platform import Platform
from kiln.plan.target import Context, Secret
from kiln.store.blobs import Follower
from kiln.store.entry import FILE
from kiln.store.layer import Compression
from kiln.store.records import Record
from kiln.store.store import Store
from kiln.store.tree import Tree, resolve

ResolveImage = Callable[[str, Platform, str], Image]
OpenContext = Callable[[Context], Files]
Fetched = tuple[Path, str]


class Early(Protocol):
    """Where layers of the final image go before the image is finished: while they are written, or when they are."""

    def follow(self, path: Path) -> Follower: ...

    def take(self, layer: Descriptor) -> None: ...

    def ask(self, layers: Iterable[Descriptor]) -> None: ...


class Doors(Struct, frozen=True):
    """The engine's ways out, each a function given by its caller: images by name (`name, platform, place`), contexts,
    files by URL (`url, checksum` -> path and file name), git repositories (`url, keep .git, checksum` -> folder),
    results of steps from a shared cache, the bytes of a secret, the socket of an ssh agent, images of other targets,
    layers that the store does not have; and the program that runs commands (an OCI runtime, empty for none)."""

    image: ResolveImage
    context: OpenContext
    url: Callable[[str, str], Fetched]
    git: Callable[[str, bool | None, str], Path]
    cached: Callable[[str], Record | None]
    secret: Callable[[Secret], bytes]
    agent: Callable[[str], str]
    target: Callable[[str, Platform], Image]
    layers: Callable[[tuple[Descriptor, ...]], None]
    runtime: Callable[[], str]


class Build(Struct):
    """One run of the engine for one target and platform."""

    store: Store
    doors: Doors
    report: events.Report
    cancel: Cancel
    helper: Helper
    slots: threading.Semaphore
    escape: str = "\\"
    source_name: str = "Dockerfile"
    platform: Platform = field(default_factory=lambda: Platform("amd64", "linux"))
    args: Mapping[str, str] = field(default_factory=dict)
    global_args: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, Context] = field(default_factory=dict)
    context: Context | None = None
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"
    hosts: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    epoch: int | None = None
    compression: Compression = Compression()
    debug: bool = False
    prefix: str = ""
    early: Early | None = None
    packing: Packing | None = None
    used_args: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)

    @property
    def time(self) -> int:
        """The modification time of what COPY and WORKDIR make (seconds since the epoch)."""
        return TIMELESS if self.epoch is None else self.epoch

    def tree(self, stack: Stack) -> Tree:
        """The merged file system of a stack."""
        self.bring_contents(stack)
        return self.store.layers.tree(stack.diff_ids, stack.descriptors)

    def files(self, stack: Stack) -> Files:
        """The files of a stack."""
        self.bring_contents(stack)
        return LayerFiles(self.store.layers, stack.diff_ids, stack.descriptors)

    def bring_contents(self, stack: Stack) -> None:
        """Brings those layers whose table of contents is not known, all at once."""
        unknown = [layer for diff_id, layer in zip(stack.diff_ids, stack.descriptors, strict=True)
                   if not self.store.layers.has_toc(diff_id)]  # fmt: skip
        if unknown:
            self.doors.layers(tuple(unknown))

    def read_small(self, state: State, path: str) -> bytes | None:
        """The content of a small file of a state, None if there is no such file."""
        tree = self.tree(state.stack)
        node = tree.node(resolve(tree.get, path))
        if node is None or node.entry.kind != FILE or node.entry.size > 1 << 22:
            return None
        return self.store.layers.small_file(node.diff_id, node.entry)

    def say(self, event: events.Event) -> None:
        """Reports an event."""
        self.report(event)


def key_of(*facts: object) -> str:
    """The key of a step: the digest of everything that its result depends on, 64 hex digits."""
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


def safe(text: str) -> str:
    """Text that can be put into JSON: bytes of file names that are no text become escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
