"""A seccomp profile as the program that the kernel takes, made once by libseccomp (its functions: seccomp_init(3) and others).

Translating the profile takes an OCI runtime longer (15 to 30 ms) than everything else that it does for a command. crun takes
a program that is ready, so a build of many steps translates once.
"""

from __future__ import annotations

import base64
import ctypes
import os
from functools import lru_cache
from typing import Any

_OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}  # seccomp.h, enum scmp_compare
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # linux/seccomp.h, SECCOMP_RET_ALLOW and SECCOMP_RET_ERRNO
_UNKNOWN_CALL = -1
_EXISTS = -17  # -EEXIST: the native architecture is part of every new filter


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp. Of MASKED_EQ, `first` is the mask and `second` what must be left of the argument."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("first", ctypes.c_uint64), ("second", ctypes.c_uint64))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """Raises `OSError` if it is not installed."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    ]  # fmt: skip
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def program(profile: dict[str, Any]) -> str:
    """The program of a `linux.seccomp` object (OCI runtime-spec) in base64; empty if it cannot be made here, and then the
    runtime has to translate the profile itself."""
    try:
        library = _library()
    except OSError:
        return ""
    made = library.seccomp_init(_action(profile["defaultAction"], profile["defaultErrnoRet"]))
    if not made:
        return ""
    try:
        return base64.b64encode(_filled(library, made, profile)).decode()
    except OSError:
        return ""
    finally:
        library.seccomp_release(made)


def _action(name: str, errno: int) -> int:
    return _ALLOW if name == "SCMP_ACT_ALLOW" else _ERRNO | errno


def _filled(library: ctypes.CDLL, made: int, profile: dict[str, Any]) -> bytes:
    """Raises `OSError`."""
    for name in profile["architectures"]:
        token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
        _check(library.seccomp_arch_add(made, token), _EXISTS)
    for rule in profile["syscalls"]:
        comparisons = [_comparison(arg) for arg in rule.get("args", ())]
        array = (_Comparison * len(comparisons))(*comparisons)
        action = _action(rule["action"], rule.get("errnoRet", 1))
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != _UNKNOWN_CALL:
                _check(library.seccomp_rule_add_array(made, action, number, len(comparisons), array))
    return _exported(library, made)


def _comparison(arg: dict[str, Any]) -> _Comparison:
    return _Comparison(arg["index"], _OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0))


def _exported(library: ctypes.CDLL, made: int) -> bytes:
    file = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with open(file, "r+b") as program_file:
        _check(library.seccomp_export_bpf(made, file))
        program_file.seek(0)
        return program_file.read()


def _check(result: int, *accepted: int) -> None:
    if result < 0 and result not in accepted:
        raise OSError(-result, os.strerror(-result))
