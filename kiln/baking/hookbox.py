"""Runs one hook in a private view of a tree: `python -m kiln.baking.hookbox` with the order as JSON on standard input.

The view is an overlay mounted over the tree's own path in a mount namespace of this process: the hook sees the tree where it
always is and may write into it, and everything it writes lands in a folder of ours. Its processes live in a PID namespace that
ends with this process, and this process ends with the one that started it. Exit code 125 and a line on standard error
beginning with `hookbox:` mean that the view could not be made.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from kiln.engine import sandbox

NO_VIEW = 125


def main() -> None:
    """Makes the view, runs the hook, leaves with its exit code."""
    order = json.load(sys.stdin)
    sandbox.die_with_parent()
    try:
        own_processes = _enter(order)
    except (sandbox.SetupError, OSError) as bad:
        sys.stderr.write(f"hookbox: {bad}\n")
        sys.exit(NO_VIEW)
    sys.exit(_run(order, own_processes))


def _enter(order: dict[str, Any]) -> bool:
    """New namespaces with the overlay in them; returns whether processes have a namespace of their own."""
    if os.geteuid() != 0:
        _become_owner()
    sandbox.unshare(sandbox.CLONE_NEWNS)
    sandbox.mount("none", "/", "", sandbox.MS_REC | sandbox.MS_PRIVATE)
    overlay = "trusted" if order["root"] else "user"
    sandbox.mount_overlay(
        [*reversed(order["layers"])], order["tree"], overlay, upper=order["upper"], work=order["work"]
    )
    try:
        sandbox.unshare(sandbox.CLONE_NEWPID)
    except sandbox.SetupError:
        return False
    return True


def _become_owner() -> None:
    """A user namespace in which this user may mount, and is nobody else than before."""
    uid, gid = os.geteuid(), os.getegid()
    sandbox.unshare(sandbox.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _run(order: dict[str, Any], own_processes: bool) -> int:
    pid = os.fork()
    if pid == 0:
        code = 127
        try:
            code = _hook(order, own_processes)
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) % 256


def _hook(order: dict[str, Any], own_processes: bool) -> int:
    """In the first process of the namespace: starts the hook as a child, so that orphans are reaped."""
    sandbox.die_with_parent()
    os.setsid()
    if own_processes:
        with contextlib.suppress(sandbox.SetupError):
            sandbox.mount("proc", "/proc", "proc", 0)
    os.chdir(order["tree"])
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.umask(0o022)
        try:
            os.execvpe(order["argv"][0], order["argv"], order["env"])
        except OSError as bad:
            sys.stderr.write(f"{order['argv'][0]}: {bad.strerror}\n")
            sys.stderr.flush()
        os._exit(127)
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) % 256


if __name__ == "__main__":
    main()
