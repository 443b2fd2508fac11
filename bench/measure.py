"""What a command costs: wall seconds, CPU seconds and memory of all its processes, those of its daemon among them.

CPU is user and system time: of the command and of all that it waited for as the kernel adds it up (wait4), and the growth
of the daemons' process trees (their own time and that of the children they waited for, /proc/PID/stat). Memory is the
largest sum over all these processes of their proportional share (Pss, so that pages of forked helpers count once), looked
at every 20 ms. A daemon's memory counts even where it stems from earlier builds: it has to be there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_INTERVAL = 0.02
_SET_CHILD_SUBREAPER = 36


class Failed(Exception):
    """A measured command did not end well; the text has the command and the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall seconds, CPU seconds, and bytes of memory at the most."""

    seconds: float
    cpu: float
    memory: int


def adopt_orphans() -> None:
    """Makes this process the parent of what its descendants leave behind, so that nothing escapes being counted."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def measured(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str] | None = None, daemons: Sequence[int] = ()
) -> Cost:
    """What the commands cost, one after the other. Raises Failed, also where one of them does not exist."""
    before = tree_cpu(daemons)
    watch = _MemoryWatch(daemons)
    begin = time.perf_counter()
    try:
        cpu = sum(_run(command, environment, watch) for command in commands)
        seconds = time.perf_counter() - begin
    finally:
        watch.end()
    return Cost(seconds, cpu + tree_cpu(daemons) - before, watch.most)


def _run(command: Sequence[str], environment: Mapping[str, str] | None, watch: _MemoryWatch) -> float:
    """CPU seconds of a command and of everything below it."""
    with tempfile.TemporaryFile() as log:
        before = _children_cpu()
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
            )
        except OSError as fault:
            raise Failed(f"{shlex.join(command)}: {fault}") from None
        watch.client = process.pid
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        _bury()
        if code:
            log.seek(0)
            raise Failed(f"{shlex.join(command)} ended with {code}:\n{log.read().decode(errors='replace')[-3000:]}")
    return _children_cpu() - before


def _children_cpu() -> float:
    """CPU seconds of all that this process waited for, and of what that waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _bury() -> None:
    """Waits for orphans of the measured command that have ended. A daemon that this process started is not among them
    as long as it runs."""
    with contextlib.suppress(ChildProcessError):
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            os.waitpid(found.si_pid, 0)


class _MemoryWatch:
    """Looks at memory until `end`; `most` is the largest sum in bytes."""

    def __init__(self, daemons: Sequence[int]) -> None:
        self.most = 0
        self.client = 0
        self._daemons = daemons
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_INTERVAL):
            pids = list(tree([*self._daemons, *([self.client] if self.client else [])]))
            # The sum of resident sizes is an upper bound that is cheap to have.
            if sum(map(_resident, pids)) > self.most:
                self.most = max(self.most, sum(map(_share, pids)))


def tree(pids: Sequence[int]) -> Iterator[int]:
    """Processes and all that they started and that still runs."""
    for pid in pids:
        yield pid
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                yield from tree([int(child) for child in path.read_text().split()])


def tree_cpu(pids: Sequence[int]) -> float:
    """CPU seconds of process trees so far, with those of ended children."""
    return sum(map(_cpu, tree(pids)))


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICK


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _share(pid: int) -> int:
    """The proportional share of a process in bytes; 0 when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
