"""What the engine and its worker process say to each other: JSON, each message with its length in front."""

from __future__ import annotations

import json
import socket
import struct
from typing import TypeVar

import msgspec

from kiln.oci.image import Descriptor
from kiln.store.layer import Compression, Layer


class Stack(msgspec.Struct, frozen=True):
    """Layers, base first."""

    diff_ids: tuple[str, ...] = ()
    descriptors: tuple[Descriptor, ...] = ()


class MountWish(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mount of a RUN step, before its content lies in a folder. `stack` or `folder` is where it comes from; of a cache,
    -1 for `mode`, `uid` or `gid` means what its source has (or 0755 and root)."""

    kind: str
    target: str
    source: str = ""
    folder: str = ""
    stack: Stack | None = None
    writable: bool = False
    size: int = 0
    data: bytes = b""
    mode: int = 0o400
    uid: int = 0
    gid: int = 0
    sharing: str = ""


class RunRequest(msgspec.Struct, frozen=True, tag="run"):
    """Run a command on a stack and make a layer of what it changed. `store` is the store's folder, `scratch` ours."""

    id: str
    store: str
    scratch: str
    stack: Stack
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    network: str
    runtime: str
    mounts: tuple[MountWish, ...]
    compression: Compression
    resolv_conf: str
    hosts: str
    debug: bool = False


class RemoveRequest(msgspec.Struct, frozen=True, tag="remove"):
    """Remove folders that this user's own rights do not suffice for."""

    paths: tuple[str, ...]


class UnpackRequest(msgspec.Struct, frozen=True, tag="unpack"):
    """Unpack a stack whose tables of contents are not all known: they are made on the way."""

    store: str
    scratch: str
    stack: Stack


class ShellRequest(msgspec.Struct, frozen=True, tag="shell"):
    """Open a shell on the file system that a failed RUN left (its `run.debug` was set)."""

    run: RunRequest


Request = RunRequest | RemoveRequest | ShellRequest | UnpackRequest


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a request ended: `layer` of a RUN (None where nothing ran), the exit code, or why it could not be done."""

    code: int = 0
    layer: Layer | None = None
    error: str = ""
    hint: str = ""
    seconds: float = 0.0


_HEAD = struct.Struct("!I")
Message = TypeVar("Message")


def send(connection: socket.socket, message: msgspec.Struct) -> None:
    """Sends one message."""
    data = json.dumps(msgspec.to_builtins(message)).encode()
    connection.sendall(_HEAD.pack(len(data)) + data)


def decode(data: bytes, kind: type[Message]) -> Message:
    """A message from its bytes. Not by msgspec's own JSON, here and in `send`: words of a Dockerfile and names of files
    may hold bytes that are no text (as surrogates), which that refuses."""
    return msgspec.convert(json.loads(data), kind)


def receive(connection: socket.socket) -> bytes:
    """The bytes of one message; empty at the end of the connection."""
    head = _exactly(connection, _HEAD.size)
    return _exactly(connection, _HEAD.unpack(head)[0]) if head else b""


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return data
