"""Base images from distribution packages: mmdebstrap makes a tar, which becomes the one layer of an image.

The same packages give the same bytes: what the installation itself writes with the current time (logs, caches, machine
ids) is left out by mmdebstrap or here, and times later than SOURCE_DATE_EPOCH, by default 2020-01-01, become that time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kiln.engine.cancel import Cancel
from kiln.errors import KilnError, UsageError
from kiln.oci.image import History, Image, ImageConfig, RootFS, RunConfig
from kiln.oci.platform import Platform
from kiln.plan.target import Bootstrap
from kiln.settings import Settings
from kiln.store import tarread
from kiln.store.entry import FILE, copy_of
from kiln.store.layer import Compression
from kiln.store.store import Store

_EPOCH = 1577836800  # 2020-01-01
_DEBIAN = {
    "amd64": "amd64",
    "arm64": "arm64",
    "386": "i386",
    "ppc64le": "ppc64el",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
_DROPPED = ("dev/", "proc/", "sys/", "var/lib/apt/lists/", "var/cache/apt/", "var/log/", "tmp/", "run/")
_EMPTIED = ("etc/machine-id", "etc/hostname", "etc/resolv.conf")
_KEPT = frozenset(
    {"var/log/apt", "var/cache/apt/archives", "var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "run/lock"}
)
_UNWANTED = ("var/cache/ldconfig/aux-cache", "var/lib/dbus/machine-id")


def make(
    wish: Bootstrap, store: Store, platform: Platform, settings: Settings, cancel: Cancel, log: Callable[[str], None]
) -> Image:
    """The image; its layer is in the store. Raises `KilnError`."""
    target = store.scratch / f"bootstrap-{os.urandom(8).hex()}.tar"
    time_limit = _EPOCH if settings.epoch is None else settings.epoch
    _run(_argv(wish, platform, target), _environment(settings, time_limit), cancel, log)
    try:
        return _image(wish, store, platform, target, time_limit)
    finally:
        target.unlink(missing_ok=True)


def _argv(wish: Bootstrap, platform: Platform, target: Path) -> list[str]:
    program = shutil.which("mmdebstrap")
    if program is None:
        raise KilnError("mmdebstrap is not installed", hint="apt install mmdebstrap")
    if wish.suite.startswith("-"):
        raise UsageError(f"--suite {wish.suite}: is no suite")
    architecture = _DEBIAN.get(platform.architecture)
    if architecture is None:
        raise UsageError(f"Debian has no packages for {platform}")
    argv = [program, f"--variant={wish.variant}", f"--architectures={architecture}", "--format=tar"]
    argv += [f"--include={','.join(wish.include)}"] if wish.include else []
    argv += [f"--components={wish.components}"] if wish.components else []
    return [*argv, "--", wish.suite, str(target), *([wish.mirror] if wish.mirror else [])]


def _run(argv: list[str], environment: dict[str, str], cancel: Cancel, log: Callable[[str], None]) -> None:
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        text=True, errors="replace", umask=0o022,
    )  # fmt: skip
    assert process.stdout is not None
    last: list[str] = []
    with cancel.ending(process.terminate), process.stdout:
        for line in process.stdout:
            last = [*last, line.rstrip()][-10:]
            log(line)
        code = process.wait()
    cancel.check()
    if code:
        raise KilnError(
            f"mmdebstrap ended with exit code {code}: {last[-1] if last else ''}", detail="\n".join(last),
            hint="Check the name of the suite and of the packages, and that the mirror can be reached.",
        )  # fmt: skip


def _environment(settings: Settings, epoch: int) -> dict[str, str]:
    """The environment of mmdebstrap: a fixed one, and what package downloads may need of the user's."""
    names = (
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "HOME",
        "TMPDIR",
        "SSL_CERT_FILE",
    )
    passed = {name: settings.environment[name] for name in names if name in settings.environment}
    return passed | {"PATH": _PATH, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(epoch)}


def _image(wish: Bootstrap, store: Store, platform: Platform, target: Path, epoch: int) -> Image:
    latest = 0
    with target.open("rb", buffering=0) as file, store.layers.writer(Compression()) as writer:
        for member in tarread.members(file.read, str(target)):
            path, entry = tarread.layer_entry(member)
            if not path or _unwanted(path):
                continue
            size = 0 if path in _EMPTIED else entry.size
            entry = copy_of(entry, mtime=min(entry.mtime, epoch), size=size, offset=-1, sparse=None)
            latest = max(latest, entry.mtime)
            writer.add(path, entry, member.chunks() if entry.kind == FILE and size else ())
        layer = writer.finish()
        store.layers.remember(layer, writer.toc)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(latest))
    words = " ".join([wish.suite, *wish.include])
    config = ImageConfig(
        platform.architecture, platform.os, RunConfig(env=[f"PATH={_PATH}"], cmd=["bash"], working_dir="/"),
        RootFS(diff_ids=[layer.diff_id]), [History(created=created, created_by=f"kiln bootstrap debian --suite {words}")],
        created, variant=platform.variant,
    )  # fmt: skip
    return Image(config, (layer.descriptor,))


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _unwanted(path: str) -> bool:
    """Whether a path is a log, a cache or the like; the folders themselves stay."""
    return path in _UNWANTED or (path.startswith(_DROPPED) and path not in _KEPT and f"{path}/" not in _DROPPED)
