"""What this machine can do: the checks behind `kiln doctor`, each made by trying."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from msgspec import Struct

from kiln.engine import sandbox
from kiln.engine.helper import subordinate_ids
from kiln.errors import KilnError
from kiln.settings import Settings

_LOW_DISK = 2 * 10**9


class Finding(Struct, frozen=True):
    """One answer: `state` is ok, note (works with less) or bad (RUN steps or builds fail); `hint` says what to do."""

    name: str
    state: str
    text: str
    hint: str = ""


def examine(settings: Settings, registries: tuple[str, ...] = ()) -> list[Finding]:
    """All findings, in the order in which a build needs the things."""
    return [
        _store(settings),
        _disk(settings),
        _runtime(settings),
        _user(),
        _namespaces(),
        _overlay(),
        _cgroups(),
        _emulation(),
        *(_tool(name, what) for name, what in _TOOLS.items()),
        *(_registry(settings, host) for host in registries),
    ]


_TOOLS = {
    "git": "contexts and ADD from git repositories",
    "mmdebstrap": "kiln bootstrap debian",
    "docker": "--load and --engine docker",
    "ssh-agent": "--ssh with key files",
}


def _store(settings: Settings) -> Finding:
    from kiln.store.store import Store

    try:
        with Store(settings.store_path):
            return Finding("store", "ok", f"{settings.store_path} can be written")
    except KilnError as bad:
        return Finding("store", "bad", str(bad), bad.hint)


def _disk(settings: Settings) -> Finding:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free in {folder}"
    if free < _LOW_DISK:
        return Finding("disk", "note", text, "Free some space, run `kiln prune`, or name another folder with --home.")
    return Finding("disk", "ok", text)


def _runtime(settings: Settings) -> Finding:
    path = sandbox.find_runtime(settings.runtime, settings.path)
    if not path:
        return Finding("runtime", "bad", "neither crun nor runc is installed: RUN cannot run", "apt install crun")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return Finding("runtime", "ok", f"{path} ({(done.stdout or done.stderr).splitlines()[0]})")


def _user() -> Finding:
    if os.geteuid() == 0:
        return Finding("user", "ok", "root")
    user = getpass.getuser()
    for tool, path in (("newuidmap", "/etc/subuid"), ("newgidmap", "/etc/subgid")):
        if not shutil.which(tool):
            return Finding("user", "bad", f"{user} is not root and {tool} is missing", "apt install uidmap")
        count = sum(size for _, size in subordinate_ids(Path(path), user, os.getuid()))
        if count < 65536:
            return Finding(
                "user",
                "bad",
                f"{user} has {count} ids in {path}, images use up to 65536",
                f"Add `{user}:100000:65536` to {path}.",
            )
    return Finding("user", "ok", f"{user}, with subordinate ids for a user namespace")


def _in_child(work: object) -> str:
    """Runs something in a forked process; returns why it failed, empty if it did not."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()  # type: ignore[operator]
            code = 0
        except BaseException as bad:  # noqa: BLE001 (a forked process has nobody above it)
            os.write(write, str(bad).encode())
        finally:
            os._exit(code)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return text if status else ""


def _flags() -> int:
    return sandbox.CLONE_NEWNS | sandbox.CLONE_NEWPID | (0 if os.geteuid() == 0 else sandbox.CLONE_NEWUSER)


def _namespaces() -> Finding:
    why = _in_child(lambda: sandbox.unshare(_flags()))
    if not why:
        return Finding("namespaces", "ok", "mount, PID and user namespaces can be made")
    return Finding(
        "namespaces", "bad", why, "Run as root, or set kernel.unprivileged_userns_clone=1 and user.max_user_namespaces."
    )


def _overlay() -> Finding:
    with tempfile.TemporaryDirectory(prefix="kiln-doctor-") as text:
        folders = [f"{text}/{name}" for name in ("lower", "lower2", "upper", "work", "merged")]
        for folder in folders:
            os.mkdir(folder)
        lower, lower2, upper, work, merged = folders

        def try_it() -> None:
            uid, gid = os.geteuid(), os.getegid()
            sandbox.unshare(_flags() & ~sandbox.CLONE_NEWPID)
            if uid:
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
                Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
            kind = "user" if uid else "trusted"
            sandbox.mount("none", "/", "", sandbox.MS_REC | sandbox.MS_PRIVATE)
            sandbox.mount_overlay([lower, lower2], merged, kind, upper=upper, work=work)

        why = _in_child(try_it)
    if not why:
        return Finding("overlay", "ok", "overlayfs works")
    return Finding("overlay", "bad", why, "Load the module overlay; without root the kernel must be 5.11 or newer.")


def _cgroups() -> Finding:
    text = Path("/proc/self/mountinfo").read_text()
    kinds = [name for name in ("cgroup", "cgroup2") if f" - {name} " in text]
    layout = {("cgroup", "cgroup2"): "v1 (hybrid)", ("cgroup2",): "v2", ("cgroup",): "v1"}.get(tuple(kinds), "none")
    return Finding("cgroups", "ok" if kinds else "note", layout)


def _emulation() -> Finding:
    folder = Path("/proc/sys/fs/binfmt_misc")
    names = sorted(path.name.removeprefix("qemu-") for path in folder.glob("qemu-*")) if folder.is_dir() else []
    if names:
        return Finding("emulation", "ok", f"RUN works for {', '.join(names)}")
    return Finding(
        "emulation",
        "note",
        "RUN works for this machine's own platform only",
        "apt install qemu-user-static binfmt-support",
    )


def _tool(name: str, what: str) -> Finding:
    path = shutil.which(name)
    if path:
        return Finding(name, "ok", path)
    return Finding(name, "note", f"not installed: needed for {what}")


def _registry(settings: Settings, host: str) -> Finding:
    from kiln.registry.client import Client

    try:
        with Client(settings) as client:
            client.ping(host)
    except (KilnError, OSError, socket.gaierror) as bad:
        return Finding(f"registry {host}", "bad", str(bad), getattr(bad, "hint", ""))
    return Finding(f"registry {host}", "ok", "answers")
