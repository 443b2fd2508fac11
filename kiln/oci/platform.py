"""Platforms: `os/architecture[/variant]`, normalised as containerd does it."""

from __future__ import annotations

import os as _os

import msgspec

from kiln.errors import UsageError

_MACHINE = {
    "x86_64": "amd64", "x86-64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv8l": "arm64",
    "armhf": "arm", "armel": "arm", "armv7l": "arm", "armv6l": "arm", "arm": "arm", "i386": "386", "i486": "386",
    "i586": "386", "i686": "386", "x86": "386", "386": "386", "ppc64le": "ppc64le", "ppc64el": "ppc64le",
    "s390x": "s390x", "riscv64": "riscv64", "mips64le": "mips64le", "mips64el": "mips64le", "loongarch64": "loong64",
    "loong64": "loong64", "mips": "mips", "mipsle": "mipsle", "ppc64": "ppc64", "wasm": "wasm",
}  # fmt: skip
_SYSTEMS = {"linux", "windows", "darwin", "freebsd", "wasi", "js"}


class Platform(msgspec.Struct, frozen=True, omit_defaults=True, rename={"os_version": "os.version"}):
    """One platform. The variant is empty where the architecture has none (arm64's v8 is implied)."""

    architecture: str
    os: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def _normal(system: str, architecture: str, variant: str) -> Platform:
    raw = architecture.lower()
    arch = _MACHINE.get(raw, raw)
    if raw in ("armhf", "armv7l") and not variant:
        variant = "v7"
    if raw in ("armel", "armv6l") and not variant:
        variant = "v6"
    if arch == "arm" and not variant:
        variant = "v7"
    if (arch, variant) in (("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")):
        variant = ""
    return Platform(architecture=arch, os=system, variant=variant)


def local() -> Platform:
    """The platform of this machine."""
    return _normal("linux", _os.uname().machine, "")


def parse(text: str) -> Platform:
    """A platform from `os/arch[/variant]`, or an OS or an architecture alone; raises `UsageError`."""
    parts = [part.strip().lower() for part in text.strip().split("/")]
    if (
        not text.strip()
        or len(parts) > 3
        or not all(part and part.replace("-", "").replace(".", "").replace("_", "").isalnum() for part in parts)
    ):
        raise UsageError(
            f"{text!r} is not a platform", hint="Write os/architecture[/variant], for example linux/arm64."
        )
    if len(parts) == 1:
        if parts[0] in _SYSTEMS:
            here = local()
            return _normal(parts[0], here.architecture, here.variant)
        if parts[0] not in _MACHINE:
            raise UsageError(
                f"{text!r} is neither a known operating system nor a known architecture",
                hint="Write os/architecture[/variant], for example linux/arm64.",
            )
        return _normal("linux", parts[0], "")
    return _normal(parts[0], parts[1], parts[2] if len(parts) == 3 else "")


def matches(wanted: Platform, offered: Platform) -> bool:
    """Whether an image offered for one platform serves a build that wants another (variants: arm v7 runs v6, v5)."""
    if (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
        return False
    want = _normal(wanted.os, wanted.architecture, wanted.variant).variant
    have = _normal(offered.os, offered.architecture, offered.variant).variant
    return want == have or not want or not have or (wanted.architecture == "arm" and have <= want)
