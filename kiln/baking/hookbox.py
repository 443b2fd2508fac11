"""Runs one hook in a private view of a tree: `python -m kiln.baking.hookbox` with the order as JSON on standard input.

The view is an overlay, or a copy of ours, mounted over the tree's own path in a mount namespace of this process: the hook sees
the tree where it always is and may write into it, and everything it writes lands in a folder of ours. Its processes live in a
PID namespace that ends with this process, and this process ends with the one that started it. Where nothing can be mounted, a
hook runs in the copy's folder, and what it leaves running is killed. Exit code 125 and a line on standard error beginning with
`hookbox:` mean that the view could not be made.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

from kiln.engine import sandbox

NO_VIEW = 125
_POLL = 0.05


def main() -> None:
    """Makes the view, runs the hook, leaves with its exit code. Without a command only the view is made."""
    order = json.load(sys.stdin)
    try:
        _enter(order)
    except (sandbox.SetupError, OSError) as bad:
        if not order["copy"]:
            sys.stderr.write(f"hookbox: {bad}\n")
            sys.exit(NO_VIEW)
        sys.exit(_run_in_copy(order))
    sys.exit(_run(order) if order["argv"] else 0)


def _enter(order: dict[str, Any]) -> None:
    """New namespaces with the view in them."""
    if os.geteuid() != 0:
        _become_owner()
    sandbox.unshare(sandbox.CLONE_NEWNS)
    sandbox.mount("none", "/", "", sandbox.MS_REC | sandbox.MS_PRIVATE)
    if order["copy"]:
        sandbox.mount(order["copy"], order["tree"], "", sandbox.MS_BIND)
    else:
        _refuse_mounts_below(order["tree"])
        _mount_overlay(order)
    sandbox.unshare(sandbox.CLONE_NEWPID)


def _become_owner() -> None:
    """A user namespace in which this user may mount, and is nobody else than before."""
    uid, gid = os.geteuid(), os.getegid()
    sandbox.unshare(sandbox.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _refuse_mounts_below(tree: str) -> None:
    """An overlay shows the folder below a mount, not what is mounted there."""
    start = os.path.realpath(tree).rstrip("/") + "/"
    with open("/proc/self/mountinfo", "rb") as file:
        places = [line.split(b" ")[4].decode("unicode_escape").encode("latin-1") for line in file]
    found = [place for place in map(os.fsdecode, places) if place.startswith(start)]
    if found:
        raise sandbox.SetupError(f"something is mounted inside of the tree, at {found[0]}")


def _mount_overlay(order: dict[str, Any]) -> None:
    """Folders are named by descriptor: a path may hold the characters that separate a mount's options."""
    lowers = ":".join(map(_folder, order["layers"]))
    kind = "userxattr" if os.geteuid() != 0 or not order["root"] else "redirect_dir=off,metacopy=off"
    options = f"lowerdir={lowers},upperdir={_folder(order['upper'])},workdir={_folder(order['work'])},index=off,{kind}"
    try:
        sandbox.mount("overlay", order["tree"], "overlay", 0, f"{options},volatile")
    except sandbox.SetupError:
        sandbox.mount("overlay", order["tree"], "overlay", 0, options)


def _folder(path: str) -> str:
    return f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}"


def _run(order: dict[str, Any]) -> int:
    """In the namespaces; the first process there ends with this one, and everything with it."""
    sandbox.die_with_parent()
    _check_parent(order)
    pid = os.fork()
    if pid == 0:
        code = 127
        try:
            sandbox.die_with_parent()
            code = _first_process(order)
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return _code(status)


def _check_parent(order: dict[str, Any]) -> None:
    if os.getppid() != order["parent"]:
        sys.exit(NO_VIEW)


def _first_process(order: dict[str, Any]) -> int:
    """Starts the hook as a child, so that orphans are reaped."""
    os.setsid()
    with contextlib.suppress(sandbox.SetupError):
        sandbox.mount("proc", "/proc", "proc", 0)
    child = os.fork()
    if child == 0:
        _become_hook(order, order["tree"])
    while True:
        pid, status = os.wait()
        if pid == child:
            return _code(status)


def _become_hook(order: dict[str, Any], folder: str) -> NoReturn:
    try:
        os.chdir(folder)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.umask(0o022)
        os.execvpe(order["argv"][0], order["argv"], order["env"])
    except OSError as bad:
        sys.stderr.write(f"{order['argv'][0]}: {bad.strerror}\n")
        sys.stderr.flush()
    finally:
        os._exit(127)


def _code(status: int) -> int:
    """As shells have it: 128 and the signal for what was killed."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _run_in_copy(order: dict[str, Any]) -> int:
    """Without namespaces: the hook's process group is killed when the hook ended, and when Kiln did."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _become_hook(order, order["copy"])

    def end(*_: object) -> NoReturn:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if os.getppid() != order["parent"]:
            end()
        time.sleep(_POLL)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    return _code(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
