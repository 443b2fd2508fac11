"""The filter of system calls as a program, run here by an interpreter of our own against what the profile says."""

import base64
import ctypes
import errno
import os
import struct

import pytest

from kiln.engine import bpf, seccomp

AUDIT_ARCH_X86_64 = 0xC000003E
READ, SOCKET, CLONE, PERSONALITY, CLONE3, KEYCTL, UNKNOWN = 0, 41, 56, 135, 435, 250, 100_000
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NEW_USER, AF_VSOCK, AF_INET = 0x10000000, 40, 2

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64's system calls")


def run(program: bytes, number: int, *args: int, arch: int = AUDIT_ARCH_X86_64) -> int:
    """What a classic BPF program answers to a struct seccomp_data (linux/filter.h, linux/seccomp.h)."""
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *args, *[0] * (6 - len(args)))
    steps = list(struct.iter_unpack("<HBBI", program))
    at = value = 0
    while True:
        code, true, false, k = steps[at]
        at += 1
        if code == 0x20:  # ld [k]
            (value,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:  # and
            value &= k
        elif code == 0x05:  # ja
            at += k
        elif code == 0x06:  # ret
            return k
        else:
            hit = {0x15: value == k, 0x25: value > k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            at += true if hit else false


@pytest.fixture(scope="module")
def program():
    text = bpf.program(seccomp.profile())
    if not text:
        pytest.skip("libseccomp is not installed")
    return base64.b64decode(text)


def test_what_may_be_called(program):
    assert run(program, READ) == ALLOW
    assert run(program, SOCKET, AF_INET) == run(program, CLONE, 0) == run(program, PERSONALITY, 0x20008) == ALLOW


def test_what_may_not(program):
    refused = ERRNO | errno.EPERM
    assert run(program, KEYCTL) == run(program, UNKNOWN) == refused
    assert run(program, SOCKET, AF_VSOCK) == run(program, CLONE, NEW_USER) == run(program, PERSONALITY, 1) == refused
    assert run(program, CLONE3) == ERRNO | errno.ENOSYS


def test_another_architecture_does_not_get_around_it(program):
    i386, aarch64 = 0x40000003, 0xC00000B7
    assert run(program, 288, arch=i386) == ERRNO | errno.EPERM  # keyctl by its number there
    assert run(program, 3, arch=i386) == ALLOW
    assert run(program, READ, arch=aarch64) not in (ALLOW, ERRNO | errno.EPERM)  # killed


def test_without_the_library_the_runtime_translates(monkeypatch):
    def missing(name):
        raise OSError("not found")

    bpf._library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert bpf.program(seccomp.profile()) == ""
    monkeypatch.undo()
    bpf._library.cache_clear()


def test_a_profile_that_cannot_be_translated_is_left_to_the_runtime():
    bad = {**seccomp.profile(), "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}
    assert bpf.program(bad) == ""  # libseccomp refuses a rule that says what happens anyway
