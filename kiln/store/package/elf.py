"""ELF headers. Source: System V ABI, "ELF Header"; machine numbers from its registry."""

from __future__ import annotations

import struct

MAGIC = b"\x7fELF"
HEAD = 20
_EXECUTABLE = (2, 3)
_MACHINES = {
    (62, 2, 1): "x86-64", (183, 2, 1): "aarch64", (3, 1, 1): "i386", (40, 1, 1): "arm", (243, 2, 1): "riscv64",
    (21, 2, 1): "ppc64le", (22, 2, 2): "s390x",
}  # fmt: skip


def architecture(head: bytes) -> str:
    """The machine of an ELF program or library by its first 20 bytes: `x86-64`, `aarch64`, ...; `unknown (NUMBER)` for
    another; empty if it is not an ELF that can be run."""
    if len(head) < HEAD or head[:4] != MAGIC or head[4] not in (1, 2) or head[5] not in (1, 2):
        return ""
    kind, machine = struct.unpack_from("<HH" if head[5] == 1 else ">HH", head, 16)
    if kind not in _EXECUTABLE:
        return ""
    return _MACHINES.get((machine, head[4], head[5]), f"unknown ({machine})")
