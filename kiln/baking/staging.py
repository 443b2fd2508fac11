"""What components see of their tree: hooks run in private overlays, dependencies appear without being copied.

The user's tree is never written into. Each component with hooks has a folder in overlayfs's form with what they changed; its
images, and the components that need it, see the tree with those changes on top. Where overlays cannot be mounted, hooks run in
one copy of the tree instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from kiln import events
from kiln.baking.session import Session
from kiln.dockerfile import parser, reading
from kiln.engine.files import Files
from kiln.errors import HookError, KilnError
from kiln.plan.target import Context, Target
from kiln.sources.wish import Collection, Hooks
from kiln.store.entry import DIR, FILE
from kiln.store.unpack import Unpacker

_TAIL = 20


@dataclass(slots=True)
class _Stage:
    """A component's view: `layers` over the tree, the topmost first, and whether its hooks have run."""

    hooks: Hooks
    lock: threading.Lock = field(default_factory=threading.Lock)
    layers: tuple[Path, ...] = ()
    ready: bool = False
    finished: bool = False
    failure: KilnError | None = None


class Staging:
    """The views of all components of a collection."""

    def __init__(self, collection: Collection, session: Session) -> None:
        self.root, self.session = collection.root, session
        self.stages = {name: _Stage(hooks) for name, hooks in collection.hooks.items()}
        self.images = Counter(wish.component for wish in collection.wishes)
        self._prepared: dict[str, Target] = {}
        self._copy: Path | None = None
        self._copy_lock = threading.RLock()

    def prepare(self, target: Target) -> Target:
        """The target with the context that its component sees; its first hook has run. Raises `HookError`."""
        if target.component not in self.stages:
            return target
        known = self._prepared.get(target.name)
        if known is None:
            known = self._prepared[target.name] = self._prepare(target)
        return known

    def _prepare(self, target: Target) -> Target:
        stage = self._staged(target.component)
        view = self._context(stage)
        if not view.layers and not view.mounts and view.folder == target.context.folder:
            return target
        context = replace(target.context, folder=view.folder, layers=view.layers, mounts=view.mounts)
        return replace(self._current(target, stage), context=context)

    def has_post(self, component: str) -> bool:
        """Whether a component has a hook that runs after its images."""
        stage = self.stages.get(component)
        return stage is not None and stage.hooks.post is not None

    def finish(self, component: str) -> None:
        """Runs a component's last hook, once its images are made. Raises `HookError`."""
        stage = self.stages.get(component)
        if stage is None or stage.hooks.post is None:
            return
        with stage.lock:
            if not stage.finished:
                stage.finished = True
                self._run(stage, stage.hooks.post)
                self.session.contexts.forget(self._context(stage))

    def _staged(self, component: str) -> _Stage:
        """A component's stage, its needs staged before; the failure of a hook is that of everything that asks."""
        stage = self.stages[component]
        for need in stage.hooks.needs:
            self._staged(need)
        with stage.lock:
            if not stage.ready:
                stage.ready = True
                try:
                    self._set_up(stage)
                except KilnError as bad:
                    stage.failure = bad
        if stage.failure is not None:
            raise stage.failure
        return stage

    def _set_up(self, stage: _Stage) -> None:
        inherited = [layer for need in stage.hooks.needs for layer in self.stages[need].layers]
        stage.layers = tuple(dict.fromkeys(inherited))
        if stage.hooks.pre is None and stage.hooks.post is None:
            return
        place = self._place(stage)
        for name in ("upper", "work", "needs"):
            (place / name).mkdir(parents=True)
        if self._copy is None:
            self._present(stage, place / "needs" / stage.hooks.folder.relative_to(self.root))
            stage.layers = (place / "upper", place / "needs", *stage.layers)
        if stage.hooks.pre is not None:
            self._run(stage, stage.hooks.pre)
        if stage.hooks.post is not None and not self.images[stage.hooks.component]:
            stage.finished = True
            self._run(stage, stage.hooks.post)

    def _place(self, stage: _Stage) -> Path:
        return self.session.store.scratch / "hooks" / stage.hooks.component

    def _context(self, stage: _Stage) -> Context:
        """What a component sees: its folder, what hooks changed in it, and the components that it needs."""
        inside = stage.hooks.folder.relative_to(self.root)
        folder, layers = stage.hooks.folder, tuple[Path, ...]()
        if self._copy is not None:
            folder = self._copy / inside
        else:
            layers = tuple(layer / inside for layer in stage.layers if (layer / inside).is_dir())
        hooked = stage.hooks.pre is not None or stage.hooks.post is not None
        mounts = () if hooked else tuple(
            (f"dependency/{need}", self._context(self.stages[need])) for need in stage.hooks.needs
        )  # fmt: skip
        return Context("folder", folder, name=str(stage.hooks.folder), layers=layers, mounts=mounts)

    def _present(self, stage: _Stage, folder: Path) -> None:
        """For hooks, which are programs, the needs are there as files: written below `dependency/`."""
        for need in stage.hooks.needs:
            target = folder / "dependency" / need
            target.mkdir(parents=True)
            if os.geteuid() == 0 and (stage.hooks.folder / "dependency" / need).exists():
                os.setxattr(target, "trusted.overlay.opaque", b"y")
            _write_out(self.session.contexts.files(self._context(self.stages[need])), target)

    def _current(self, target: Target, stage: _Stage) -> Target:
        """With the Dockerfile that a hook has written over, if one has."""
        path = Path(target.place)
        for layer in [self._copy] if self._copy is not None else stage.layers:
            changed = layer / path
            if not path.is_absolute() and changed.is_file():
                data = changed.read_bytes()
                if data != target.program.source.text.encode("utf-8", "surrogateescape"):
                    return replace(target, program=reading.read(parser.parse(data, target.program.source.name)))
                break
        return target

    def _run(self, stage: _Stage, hook: Path) -> None:
        """One hook, with events as a step has them."""
        shown = str(hook.relative_to(self.root))
        step, title, begin = f"{stage.hooks.component} {hook.name}", f"[{stage.hooks.component}] {shown}", events.now()
        say = self.session.report
        say(events.StepStarted(time=begin, step=step, name=title, where=shown))
        tail: list[str] = []
        error = "stopped"
        try:
            code = self._start(stage, hook, step, tail)
            error = f"it ended with exit code {code}" if code else ""
        finally:
            seconds = round(events.now() - begin, 3)
            say(events.StepFinished(time=events.now(), step=step, name=title, seconds=seconds, error=error))
        if code:
            detail = "\n".join(f"    | {line}" for line in tail)
            raise HookError(f"the hook of {stage.hooks.component} {error}", where=shown, detail=detail,
                            hint="Nothing of this component was built.")  # fmt: skip

    def _start(self, stage: _Stage, hook: Path, step: str, tail: list[str]) -> int:
        if self._copy is None:
            from kiln.baking import hookbox

            code = self._process(self._in_overlay(stage, hook), step, tail)
            if code != hookbox.NO_VIEW or not (tail and tail[-1].startswith("hookbox:")):
                return code
            self._warn_copy(tail[-1])
            tail.clear()
        with self._copy_lock:
            self._make_copy(stage)
            return self._process(self._in_copy(hook), step, tail)

    def _warn_copy(self, why: str) -> None:
        reason = why.removeprefix("hookbox: ")
        message = f"overlays are not possible here ({reason}): hooks run in a copy of the tree"
        self.session.report(events.Warned(time=events.now(), message=message))

    def _in_overlay(self, stage: _Stage, hook: Path) -> tuple[list[str], str, Path]:
        place = self._place(stage)
        order = {
            "tree": str(self.root), "layers": [*map(str, stage.layers[1:]), str(self.root)], "upper": str(place / "upper"),
            "work": str(place / "work"), "root": os.geteuid() == 0, "argv": hook_argv(hook, self.root),
            "env": self._environment(),
        }  # fmt: skip
        return [sys.executable, "-m", "kiln.baking.hookbox"], json.dumps(order), self.root

    def _in_copy(self, hook: Path) -> tuple[list[str], str, Path]:
        assert self._copy is not None
        return hook_argv(hook, self.root), "", self._copy

    def _environment(self) -> dict[str, str]:
        return {name: value for name, value in self.session.settings.environment.items() if name != "PWD"}

    def _process(self, order: tuple[list[str], str, Path], step: str, tail: list[str]) -> int:
        """Runs a command, its output as events and its last lines in `tail`; ends with the session."""
        argv, text, folder = order
        environment = self._environment()
        if text:
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")])
            )
        process = subprocess.Popen(
            argv, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        with self.session.cancel.ending(process.kill), process.stdout:
            with process.stdin:
                process.stdin.write(text.encode())
            for line in process.stdout:
                shown = line.decode(errors="replace").rstrip("\n")
                tail[:] = [*tail, shown][-_TAIL:]
                self.session.report(events.StepOutput(time=events.now(), step=step, text=shown))
            code = process.wait()
        self.session.cancel.check()
        return code

    def _make_copy(self, stage: _Stage) -> None:
        """One copy of the tree for all hooks of the session, with the needs of this component in it."""
        if self._copy is None:
            copy = self.session.store.scratch / "hooks" / "tree"
            _copy_tree(self.root, copy, self.session.store.root)
            self._copy = copy
        inside = self._copy / stage.hooks.folder.relative_to(self.root)
        for need in stage.hooks.needs:
            target = inside / "dependency" / need
            shutil.rmtree(target, ignore_errors=True)
            _copy_tree(
                self._copy / self.stages[need].hooks.folder.relative_to(self.root), target, self.session.store.root
            )


def hook_argv(hook: Path, root: Path) -> list[str]:
    """The command line of a hook as seen from the tree's root: by the interpreter that its first line names (it need not be
    executable), else by bash."""
    name = str(hook.relative_to(root))
    with hook.open("rb") as file:
        first = file.readline(1000).decode("utf-8", "replace").strip()
    words = first.removeprefix("#!").strip().split(maxsplit=1) if first.startswith("#!") else []
    return [*words, name] if words else ["bash", name]


def _write_out(files: Files, target: Path) -> None:
    """Copies files of a view into a folder of ours."""
    with Unpacker(target, owners=False) as unpacker:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for name in files.children(folder):
                path = f"{folder}/{name}" if folder else name
                entry = files.get(path)
                if entry is None or entry.kind not in (DIR, FILE, "symlink"):
                    continue
                unpacker.add(path, entry, files.chunks(path, entry) if entry.kind == FILE else iter(()))
                if entry.kind == DIR:
                    waiting.append(path)
        unpacker.finish()


def _copy_tree(source: Path, target: Path, store: Path) -> None:
    def ignored(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if Path(folder, name) in (store, target) or not _copyable(Path(folder, name))}

    shutil.copytree(source, target, symlinks=True, ignore=ignored)


def _copyable(path: Path) -> bool:
    return path.is_symlink() or path.is_dir() or path.is_file()
