"""Running a component's hooks: each in a process of its own with a private view of the tree, its output as events."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO

from msgspec import Struct

from kiln import events
from kiln.baking import hookcopy
from kiln.baking.session import Session
from kiln.errors import HookError

_BOX = "kiln.baking.hookbox"  # a program of its own: nothing of it is needed here
_TAIL = 20
_LINE = 1 << 16


class Run(Struct, frozen=True):
    """One hook to run: `layers` lie over the tree (the topmost first), what it writes goes into `upper`, a new folder.
    `after` says what a failure means."""

    component: str
    hook: Path
    layers: tuple[Path, ...]
    upper: Path
    after: str


class HookRunner:
    """Runs the hooks of one tree: in overlays where this machine has them, else in copies. Thread-safe."""

    def __init__(self, root: Path, session: Session) -> None:
        self.root, self.session = root, session
        self._lock = threading.Lock()
        self._overlays: bool | None = None

    def run(self, run: Run) -> None:
        """Runs a hook to its end, with events as a step has them; raises `HookError`."""
        shown = str(run.hook.relative_to(self.root))
        step, title, begin = f"{run.component} {run.hook.name}", f"[{run.component}] {shown}", events.now()
        say = self.session.report
        say(events.StepStarted(time=begin, step=step, name=title, where=shown))
        tail: deque[str] = deque(maxlen=_TAIL)
        error = "stopped"
        try:
            code = self._start(run, step, tail)
            error = f"it {_ended(code)}" if code else ""
        except OSError as bad:
            error = f"it could not be run: {bad.strerror}: {bad.filename}"
        finally:
            seconds = round(events.now() - begin, 3)
            say(events.StepFinished(time=events.now(), step=step, name=title, seconds=seconds, error=error))
        if error:
            detail = "\n".join(f"    | {line}" for line in tail)
            raise HookError(f"the hook of {run.component} failed: {error}", where=shown, detail=detail, hint=run.after)

    def hide_below(self, folder: Path) -> None:
        """Marks a folder of a layer so that nothing of what lies below it in lower ones is seen; raises `HookError`."""
        kind = "trusted" if os.geteuid() == 0 and self._can_overlay() else "user"
        try:
            os.setxattr(folder, f"{kind}.overlay.opaque", b"y")
        except OSError as bad:
            raise HookError(f"attributes cannot be set here: {bad.strerror}", where=str(self.session.store.root),
                            hint="Have Kiln's home on a file system with extended attributes.") from bad  # fmt: skip

    def _start(self, run: Run, step: str, tail: deque[str]) -> int:
        argv = hook_argv(run.hook, self.root)
        run.upper.mkdir(parents=True)
        if self._can_overlay():
            return self._process(self._order(argv, run, ""), step, tail)
        copy = self._new_folder("copy")
        try:
            before = hookcopy.make_copy(self.root, run.layers, copy, without=self.session.store.root)
            code = self._process(self._order(argv, run, str(copy)), step, tail)
            if not code:
                hookcopy.keep_changes(copy, before, run.upper)
            return code
        finally:
            _remove(copy)

    def _can_overlay(self) -> bool:
        """Whether hooks can have overlays, found out by making one."""
        with self._lock:
            if self._overlays is None:
                why = self._why_not()
                self._overlays = not why
                if why:
                    self._warn(why)
            return self._overlays

    def _why_not(self) -> str:
        """What stands against overlays here, empty for nothing."""
        if self.session.store.root.resolve().is_relative_to(self.root.resolve()):
            return "Kiln's store lies inside of the tree"
        tail: deque[str] = deque(maxlen=1)
        probe = Run("", self.root, (self._new_folder("probe"),), self._new_folder("probe"), "")
        for folder in (probe.upper, *probe.layers):
            folder.mkdir()
        code = self._process(self._order([], probe, ""), "", tail)
        return "".join(tail).removeprefix("hookbox: ") or f"exit code {code}" if code else ""

    def _warn(self, why: str) -> None:
        message = f"overlays are not possible here ({why}): each hook runs in a copy of the tree"
        self.session.report(events.Warned(time=events.now(), message=message))

    def _new_folder(self, kind: str) -> Path:
        """The name of a folder that nobody else has."""
        above = self.session.store.scratch / "hooks"
        above.mkdir(exist_ok=True)
        return above / f"{kind}-{os.urandom(6).hex()}"

    def _order(self, argv: list[str], run: Run, copy: str) -> dict[str, object]:
        """What hookbox is told. Every mount has a work folder of its own: the kernel refuses one that was used."""
        work = self._new_folder("work")
        work.mkdir()
        return {
            "tree": str(self.root), "layers": [*map(str, run.layers), str(self.root)], "upper": str(run.upper),
            "work": str(work), "root": os.geteuid() == 0, "argv": argv, "env": self._environment(), "copy": copy,
            "parent": os.getpid(),
        }  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {name: value for name, value in self.session.settings.environment.items() if name != "PWD"}

    def _process(self, order: dict[str, object], step: str, tail: deque[str]) -> int:
        """Runs hookbox; its output becomes events, the last lines of it are left in `tail`. It ends with the session."""
        path = os.pathsep.join(
            filter(None, [str(Path(__file__).parents[2]), self._environment().get("PYTHONPATH", "")])
        )
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _BOX], cwd="/", env={**self._environment(), "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            with self.session.cancel.ending(process.terminate), process.stdout:
                _write(process.stdin, json.dumps(order).encode())
                self._listen(process.stdout, step, tail)
                code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            _remove(Path(str(order["work"])))
        self.session.cancel.check()
        return code

    def _listen(self, stream: IO[bytes], step: str, tail: deque[str]) -> None:
        for line in iter(lambda: stream.readline(_LINE), b""):
            shown = line.decode(errors="replace").rstrip("\r\n")
            tail.append(shown)
            if step:
                self.session.report(events.StepOutput(time=events.now(), step=step, text=shown))


def _remove(top: Path) -> None:
    """A folder of ours with everything in it, also what is closed for its owner: the kernel makes such in work folders."""
    for above, folders, _ in os.walk(top):
        for name in folders:
            place = Path(above, name)
            if not place.is_symlink():
                place.chmod(0o700)
    shutil.rmtree(top, ignore_errors=True)


def _write(stream: IO[bytes], data: bytes) -> None:
    """What a process that ended at once did not read is of no matter: its exit code tells."""
    try:
        with stream:
            stream.write(data)
    except BrokenPipeError:
        return


def _ended(code: int) -> str:
    return f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"


def hook_argv(hook: Path, root: Path) -> list[str]:
    """The command line of a hook as seen from the tree's root: by the interpreter that its first line names (it need not be
    executable), else by bash. Raises `OSError` for one that cannot be read."""
    name = str(hook.relative_to(root))
    with hook.open("rb") as file:
        first = os.fsdecode(file.readline(1000)).strip()
    words = first.removeprefix("#!").strip().split(maxsplit=1) if first.startswith("#!") else []
    return [*words, name] if words else ["bash", name]
