"""The seccomp profile of RUN steps, with Docker's default rules (docs.docker.com, "Seccomp security profiles for Docker")."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from kiln.engine import bpf

_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
    "s390x": ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
    "ppc64le": ["SCMP_ARCH_PPC64LE"],
}
_AF_VSOCK = 40
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_NEW_NAMESPACES = 0x7E020000
_ENOSYS, _EPERM = 38, 1


@lru_cache(maxsize=1)
def profile() -> dict[str, Any]:
    """The `linux.seccomp` object of the OCI runtime-spec for this machine."""
    data = json.loads(Path(__file__).with_name("seccomp.json").read_text())
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": _ARCHITECTURES.get(os.uname().machine, []),
        "syscalls": [
            {"names": data["allow"], "action": "SCMP_ACT_ALLOW"},
            _allow("socket", _AF_VSOCK, "SCMP_CMP_NE"),
            *(_allow("personality", value, "SCMP_CMP_EQ") for value in _PERSONALITIES),
            _allow("clone", _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"),
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }


@lru_cache(maxsize=1)
def program() -> str:
    """The profile as BPF in base64; empty where that cannot be made."""
    return bpf.program(profile())


def _allow(name: str, value: int, operator: str) -> dict[str, Any]:
    """A call whose first argument must compare so. For MASKED_EQ the masked bits have to be zero."""
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": operator}]}
