"""The sandbox: one command in an overlay mount, run by an OCI runtime, with nothing left behind.

This file imports nothing of Kiln, so that it can be read, run and audited alone. How it keeps its promise: the mounts
live in a mount namespace and the processes in a PID namespace that both die with their first process, which the kernel
kills when the process that asked for it dies. So neither a cancelled step nor `kill -9` leaves a mount or a process.

    caller ── fork ── keeper (new mount and PID namespace) ── fork ── init (PID 1 there: mounts, runtime, reaper)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from typing import Any, NamedTuple, NoReturn

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

# Docker's default: the capabilities that a container starts with.
CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    )
)  # fmt: skip
_MASKED = (
    "acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi",
)  # fmt: skip
_READONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
SETUP_FAILED = 125
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SetupError(Exception):
    """The sandbox could not be made; the text says what and why."""


class Mount(NamedTuple):
    """One mount of the command: `kind` is bind (of the host path `source`), overlay (of `lowers`, base first, with a
    throw-away upper folder if `writable`, and `source` a path inside it), tmpfs (`size` bytes), secret (`data`) or
    ssh (`source` is the agent's socket)."""

    kind: str
    target: str
    source: str = ""
    writable: bool = False
    lowers: tuple[str, ...] = ()
    size: int = 0
    data: bytes = b""
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


class Command(NamedTuple):
    """What to run. `lowers` are the unpacked layers, base first; `upper`, `work` and `bundle` are empty folders of ours
    (on one file system). `network` is host or none. `overlay` is trusted or user. `seccomp_program` is `seccomp` as BPF in
    base64, for runtimes that take it."""

    id: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    lowers: tuple[str, ...]
    upper: str
    work: str
    bundle: str
    runtime: str
    overlay: str = "trusted"
    hostname: str = "buildkitsandbox"
    network: str = "host"
    mounts: tuple[Mount, ...] = ()
    resolv_conf: str = ""
    hosts: str = ""
    terminal: bool = False
    seccomp: dict[str, Any] | None = None
    seccomp_program: str = ""


def start(command: Command, stdin: int, stdout: int, stderr: int, failure: int) -> int:
    """Forks the keeper; returns its pid. Its exit code is the command's; SETUP_FAILED with a text written to the
    descriptor `failure` means that the sandbox could not be made."""
    pid = os.fork()
    if pid:
        return pid
    _guarded(lambda: _keeper(command, stdin, stdout, stderr, failure), failure)
    return None


def _guarded(work: Any, failure: int) -> NoReturn:
    """Runs the body of a forked process; nothing but an exit code leaves it."""
    code = SETUP_FAILED
    try:
        code = work()
    except SetupError as bad:
        os.write(failure, str(bad).encode())
    except BaseException as bad:  # noqa: BLE001 (a forked process has nobody above it)
        os.write(failure, f"{type(bad).__name__}: {bad}".encode())
    finally:
        os._exit(code)


def _keeper(command: Command, stdin: int, stdout: int, stderr: int, failure: int) -> int:
    die_with_parent()
    unshare(CLONE_NEWNS | CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        _guarded(lambda: _init(command, stdin, stdout, stderr), failure)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) % 256


def _init(command: Command, stdin: int, stdout: int, stderr: int) -> int:
    die_with_parent()
    os.setsid()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    hide_second_cgroups()
    rootfs = prepare(command)
    _write_bundle(command, rootfs)
    return _run(command, stdin, stdout, stderr)


def hide_second_cgroups() -> None:
    """Where both versions of cgroups are mounted, takes the second out of this mount namespace, or covers it where a user
    namespace does not let go of it: it has no controllers there, and crun refuses a machine that has both."""
    with open("/proc/self/mountinfo") as file:
        lines = file.read().splitlines()
    if any(" - cgroup " in line for line in lines):
        for line in lines:
            if " - cgroup2 " in line and _libc.umount2(os.fsencode(line.split()[4]), MNT_DETACH):
                mount("tmpfs", line.split()[4], "tmpfs", MS_RDONLY)


def prepare(command: Command) -> str:
    """Mounts scratch space and the overlay inside this mount namespace; returns the folder of the root file system."""
    mount("tmpfs", command.bundle, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700")
    rootfs = f"{command.bundle}/rootfs"
    os.mkdir(rootfs)
    mount_overlay(list(command.lowers), rootfs, command.overlay, upper=command.upper, work=command.work)
    return rootfs


def mount_overlay(lowers: list[str], target: str, overlay: str, *, upper: str = "", work: str = "") -> None:
    """An overlay mount; `lowers` base first. Lower folders are named relative to their common parent, since the options
    of a mount have to fit into one page."""
    if not lowers:
        lowers = [f"{target}.empty"]
        os.makedirs(lowers[0], exist_ok=True)
    if len(lowers) == 1 and not upper:
        mount(lowers[0], target, "", MS_BIND | MS_REC)
        return
    base = os.path.commonpath([os.path.dirname(lower) for lower in lowers])
    here = os.getcwd()
    os.chdir(base)
    try:
        names = ":".join(os.path.relpath(lower, base) for lower in reversed(lowers))
        options = f"lowerdir={names}"
        if upper:
            options += f",upperdir={upper},workdir={work},redirect_dir=off,metacopy=off,index=off"
        if overlay == "user":
            options += ",userxattr"
            options = options.replace(",redirect_dir=off,metacopy=off", "")
        try:
            mount("overlay", target, "overlay", 0, options + (",volatile" if upper else ""))
        except SetupError:
            mount("overlay", target, "overlay", 0, options)
    finally:
        os.chdir(here)


def _write_bundle(command: Command, rootfs: str) -> None:
    mounts, secrets = [], {}
    for number, item in enumerate(command.mounts):
        made, env = _realise(command, item, f"{command.bundle}/mount-{number}")
        mounts += made
        secrets.update(env)
    config = runtime_config(command, rootfs, mounts)
    if os.path.basename(command.runtime) == "crun":
        _keep_modes(rootfs, config["mounts"])
        _make_mount_points(rootfs, config["mounts"])
    config["process"]["env"] += [f"{name}={value}" for name, value in secrets.items()]
    with open(f"{command.bundle}/config.json", "w") as file:
        json.dump(config, file)


def _keep_modes(rootfs: str, mounts: list[dict[str, Any]]) -> None:
    """A tmpfs on a folder takes over its mode, as with runc: crun would give it 1777."""
    for item in mounts:
        if item["type"] == "tmpfs" and not any(option.startswith("mode=") for option in item["options"]):
            mode = _folder_mode(rootfs, item["destination"])
            item["options"] += [f"mode={mode:o}"] if mode is not None else []


def _folder_mode(root: str, path: str) -> int | None:
    """The mode of a folder of the root, None if there is none or a link is on the way."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(root, flags)
    try:
        for name in filter(None, path.split("/")):
            inner = os.open(name, flags, dir_fd=fd)
            os.close(fd)
            fd = inner
        return stat.S_IMODE(os.fstat(fd).st_mode)
    except OSError:
        return None
    finally:
        os.close(fd)


def _make_mount_points(rootfs: str, mounts: list[dict[str, Any]]) -> None:
    """Folders that something will be mounted on, and those above files: runc makes missing ones with mode 0755, crun with the
    sticky bit, which would show. What lies inside another mount is left to the runtime. Links are followed inside the root."""
    targets = [item["destination"] for item in mounts]
    wanted = []
    for item in mounts:
        target = item["destination"]
        is_file = item["type"] == "bind" and not os.path.isdir(item["source"])
        if not any(target.startswith(f"{other}/") for other in targets):
            wanted.append(os.path.dirname(target) if is_file else target)
    missing = [folder for folder in wanted if not os.path.isdir(rootfs + folder)]
    if not missing:
        return
    pid = os.fork()
    if pid == 0:
        _guarded(lambda: _make_folders(rootfs, missing), os.open(os.devnull, os.O_WRONLY))
    os.waitpid(pid, 0)  # where it fails, the runtime says why


def _make_folders(root: str, folders: list[str]) -> int:
    os.chroot(root)
    os.umask(0o022)
    for folder in folders:
        os.makedirs(folder, exist_ok=True)
    return 0


def _realise(command: Command, item: Mount, place: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(OCI mounts, environment) that one mount comes down to; what it needs is made at `place`."""
    if item.kind == "env":
        return [], {item.target: item.data.decode("utf-8", "surrogateescape")}
    if item.kind == "tmpfs":
        options = ["nosuid"]
        size = [f"size={item.size}"] if item.size else []
        return [{"destination": item.target, "type": "tmpfs", "source": "tmpfs", "options": options + size}], {}
    if item.kind == "secret":
        _write_secret(item, place)
        return [_bind(place, item.target, writable=False)], {}
    if item.kind == "ssh":
        _forward_agent(item, place)
        return [_bind(place, item.target, writable=True)], {}
    source = item.source
    if item.kind == "overlay":
        source = _overlay_source(command, item, place)
    return [_bind(source, item.target, writable=item.writable)], {}


def _bind(source: str, target: str, *, writable: bool) -> dict[str, Any]:
    options = ["rbind", "rprivate", "rw" if writable else "ro"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _write_secret(item: Mount, place: str) -> None:
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(item.data)
        os.fchown(fd, item.uid, item.gid)
        os.fchmod(fd, item.mode)


def _overlay_source(command: Command, item: Mount, place: str) -> str:
    os.mkdir(place)
    upper = work = ""
    if item.writable:
        upper, work = f"{command.upper}-{os.path.basename(place)}", f"{command.work}-{os.path.basename(place)}"
        os.mkdir(upper)
        os.mkdir(work)
    mount_overlay(list(item.lowers), place, command.overlay, upper=upper, work=work)
    return place + "/" + item.source if item.source else place


def _forward_agent(item: Mount, place: str) -> None:
    """A socket with the wanted owner and mode whose connections go on to the agent's socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(place)
    os.chown(place, item.uid, item.gid)
    os.chmod(place, item.mode)
    server.listen(16)
    if os.fork():
        server.close()
        return
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _relay(client, item.source)
                os._exit(0)
            client.close()
    os._exit(0)


def _relay(client: socket.socket, path: str) -> None:
    import select

    agent = socket.socket(socket.AF_UNIX)
    agent.connect(path)
    ends = {client: agent, agent: client}
    while True:
        for ready in select.select(list(ends), [], [])[0]:
            data = ready.recv(1 << 16)
            if not data:
                return
            ends[ready].sendall(data)


def runtime_config(command: Command, rootfs: str, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """The config.json of the OCI runtime-spec for one command."""
    capabilities = list(CAPABILITIES)
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if command.network == "none":
        namespaces.append({"type": "network"})
    linux: dict[str, Any] = {
        "namespaces": namespaces,
        "maskedPaths": [f"/proc/{name}" for name in _MASKED] + ["/sys/firmware", "/sys/devices/virtual/powercap"],
        "readonlyPaths": [f"/proc/{name}" for name in _READONLY],
        "resources": {"devices": [{"allow": False, "access": "rwm"}, *_ALLOWED_DEVICES]},
    }
    if command.overlay == "trusted":
        linux["cgroupsPath"] = f"/kiln/{command.id}"
    if command.seccomp:
        linux["seccomp"] = command.seccomp
    # crun's own: the profile stands beside it for runtimes (and later versions) that do not know it.
    annotations = {"run.oci.seccomp_bpf_data": command.seccomp_program} if command.seccomp_program else {}
    return {
        "ociVersion": "1.0.2",
        "annotations": annotations,
        "hostname": command.hostname,
        "root": {"path": rootfs, "readonly": False},
        "process": {
            "terminal": command.terminal,
            "user": {"uid": command.uid, "gid": command.gid, "additionalGids": list(command.groups), "umask": 0o022},
            "args": list(command.args),
            "env": list(command.env),
            "cwd": command.cwd,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": False,
        },
        "mounts": _standard_mounts(command) + mounts,
        "linux": linux,
    }


def _device(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


# Docker's default device rules: any node may be made, only harmless ones be opened.
_ALLOWED_DEVICES = [
    _device("c", None, None, "m"),
    _device("b", None, None, "m"),
    *(_device("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
    *(_device("c", 5, minor, "rwm") for minor in (0, 1, 2)),
    _device("c", 136, None, "rwm"),
]


def _standard_mounts(command: Command) -> list[dict[str, Any]]:
    files = [
        _bind(path, target, writable=False)
        for path, target in ((command.resolv_conf, "/etc/resolv.conf"), (command.hosts, "/etc/hosts"))
        if path
    ]
    quiet = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *_tty_group()]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*quiet, "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        _sys_mount(command),
        *files,
    ]  # fmt: skip


def _tty_group() -> list[str]:
    """Group 5 (tty) owns terminals, where it is mapped."""
    return ["gid=5"] if _id_is_mapped("/proc/self/gid_map", 5) else []


def _id_is_mapped(path: str, number: int) -> bool:
    with open(path) as file:
        rows = [tuple(map(int, line.split())) for line in file]
    return any(inside <= number < inside + count for inside, _, count in rows)


def _sys_mount(command: Command) -> dict[str, Any]:
    """sysfs; a user namespace without a network namespace of its own may not mount one and gets the host's, read-only."""
    if command.overlay == "user" and command.network != "none":
        return {
            "destination": "/sys",
            "type": "bind",
            "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
        }
    return {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}


def _run(command: Command, stdin: int, stdout: int, stderr: int) -> int:
    """Runs the runtime and reaps whatever is left to this process; returns the command's exit code."""
    log = f"{command.bundle}/runtime.log"
    argv = [command.runtime, "--root", f"{command.bundle}/state", "--log", log, "--log-format", "json"]
    if os.path.basename(command.runtime) == "crun" and command.overlay == "user":
        argv += ["--cgroup-manager", "disabled"]
    argv += ["run", "--bundle", command.bundle, command.id]
    environment = {"PATH": SYSTEM_PATH, "XDG_RUNTIME_DIR": command.bundle}
    child = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, close_fds=True)
    code = SETUP_FAILED
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            break
        if pid == child.pid:
            code = os.waitstatus_to_exitcode(status) % 256
            break
    _raise_runtime_failure(log, code)
    return code


def _raise_runtime_failure(log: str, code: int) -> None:
    """A runtime that failed before the command ran wrote why into its log."""
    if code == 0:
        return
    with contextlib.suppress(OSError, ValueError), open(log) as file:
        records = [json.loads(line) for line in file if line.strip()]
        errors = [record.get("msg", "") for record in records if record.get("level") in ("error", "fatal")]
        if errors and not any("signal" in error for error in errors):
            raise SetupError(errors[-1])


def remove_cgroup(name: str, seconds: float = 3.0) -> None:
    """Removes the cgroups of a command that was killed; the runtime removes those of one that ended. Processes that are
    still dying keep a cgroup busy, so that this may take a moment (at most `seconds`). The group above stays: another
    runtime may be making its own in it."""
    with open("/proc/self/mountinfo") as file:
        points = [line.split()[4] for line in file if " - cgroup" in line]
    deadline = time.monotonic() + seconds
    while points := [point for point in points if not _cgroup_removed(f"{point}/kiln/{name}")]:
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _cgroup_removed(top: str) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not os.path.exists(top)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2); raises `SetupError` with what was tried."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options) or None
    )
    if result != 0:
        code = ctypes.get_errno()
        raise SetupError(f"cannot mount {kind or source} at {target}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """unshare(2); raises `SetupError`."""
    if _libc.unshare(flags) != 0:
        raise SetupError(f"cannot make namespaces: {os.strerror(ctypes.get_errno())}")


def die_with_parent() -> None:
    """The kernel kills this process when the one that forked it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def find_runtime(wanted: str = "", path: str = "") -> str:
    """The file of the OCI runtime in the folders of `path` or the system's: the one wanted, else crun, else runc; empty
    if there is none."""
    for name in (wanted,) if wanted else ("crun", "runc"):
        found = shutil.which(name, path=f"{path}:{SYSTEM_PATH}")
        if found:
            return found
    return ""
