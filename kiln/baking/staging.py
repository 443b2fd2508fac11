"""What components see of their tree: hooks run in private overlays, dependencies appear without being copied.

The user's tree is never written into. What each hook changed is a folder in overlayfs's form, written once; a component's
images, and the components that need it, see the tree with such folders on top.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.baking.hooks import HookRunner, Run
from kiln.baking.session import Session
from kiln.dockerfile import parser, reading
from kiln.engine.files import Files
from kiln.errors import HookError, KilnError
from kiln.plan.target import Context, Target
from kiln.sources.wish import Collection, Hooks
from kiln.store.entry import DIR, FILE, SYMLINK
from kiln.store.unpack import Unpacker


class _Stage(Struct):
    """A component: `layers` over the tree (the topmost first) for its own images, and `after` for those that need it, with what
    its last hook made. `done` is set once its first hook ran, `finished` once the last one did."""

    hooks: Hooks
    lock: threading.Lock = field(default_factory=threading.Lock)
    layers: tuple[Path, ...] = ()
    after: tuple[Path, ...] = ()
    done: bool = False
    finished: bool = False
    failure: KilnError | None = None


class Staging:
    """The views of all components of a collection. Thread-safe."""

    def __init__(self, collection: Collection, session: Session) -> None:
        self.root, self.session = collection.root, session
        self.stages = {name: _Stage(hooks) for name, hooks in collection.hooks.items()}
        self.images = Counter(wish.component for wish in collection.wishes)
        self.runner = HookRunner(self.root, session)
        self._prepared: dict[str, Target] = {}
        self._views: dict[tuple[str, bool], Context] = {}

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
        view = self._view(stage)
        if not view.layers and not view.mounts:
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
        if stage is not None and stage.hooks.post is not None:
            with stage.lock:
                self._finish(stage)

    def _finish(self, stage: _Stage) -> None:
        if stage.hooks.post is None or stage.finished:
            return
        stage.finished = True
        means = "Its images are made; what the hook is for may be missing."
        layer = self._run(stage, stage.hooks.post, means)
        stage.after = (layer, *stage.layers)

    def _staged(self, component: str) -> _Stage:
        """A component's stage, its needs staged before; the failure of a hook is that of everything that asks."""
        stage = self.stages[component]
        with stage.lock:
            if not stage.done:
                try:
                    for need in stage.hooks.needs:
                        self._staged(need)
                    self._set_up(stage)
                except KilnError as bad:
                    stage.failure = bad
                stage.done = True
        if stage.failure is not None:
            raise stage.failure
        return stage

    def _set_up(self, stage: _Stage) -> None:
        hooks = stage.hooks
        inherited = [layer for need in hooks.needs for layer in self._layers(hooks, need)]
        stage.layers = tuple(dict.fromkeys(inherited))
        if hooks.pre is not None or hooks.post is not None:
            place = self._place(stage) / "needs"
            self._present(stage, place / self._inside(hooks))
            stage.layers = (place, *stage.layers)
        if hooks.pre is not None:
            stage.layers = (self._run(stage, hooks.pre, "Nothing of this component was built."), *stage.layers)
        stage.after = stage.layers
        if not self.images[hooks.component]:
            self._finish(stage)

    def _layers(self, hooks: Hooks, need: str) -> tuple[Path, ...]:
        """A component that only stands on another's images sees it as it was before its last hook: that may still run."""
        return self.stages[need].layers if need in hooks.bases else self.stages[need].after

    def _run(self, stage: _Stage, hook: Path, means: str) -> Path:
        upper = self._place(stage) / hook.name
        self.runner.run(Run(stage.hooks.component, hook, stage.layers, upper, means))
        return upper

    def _place(self, stage: _Stage) -> Path:
        return self.session.store.scratch / "hooks" / "of" / stage.hooks.component

    def _inside(self, hooks: Hooks) -> Path:
        """A component's folder as seen from the root. It may be a link to another folder of the tree."""
        folder, root = hooks.folder.resolve(), self.root.resolve()
        if folder.is_relative_to(root):
            return folder.relative_to(root)
        if hooks.pre is not None or hooks.post is not None:
            hint = "Have the folder itself there, or take its hooks away."
            raise HookError(f"the component {hooks.component} is a link to {folder}, outside of the tree: its hooks would write there",
                            where=str(hooks.folder.relative_to(self.root)), hint=hint)  # fmt: skip
        return hooks.folder.relative_to(self.root)

    def _view(self, stage: _Stage, *, after: bool = False) -> Context:
        """What a component's images see: its folder, what hooks changed in it, and the components that it needs. `after`: what
        those see that need it."""
        key = (stage.hooks.component, after)
        found = self._views.get(key)
        if found is None:
            found = self._views[key] = self._new_view(stage, stage.after if after else stage.layers)
        return found

    def _new_view(self, stage: _Stage, layers: tuple[Path, ...]) -> Context:
        hooks = stage.hooks
        inside = self._inside(hooks)
        seen = tuple(layer / inside for layer in layers if (layer / inside).is_dir())
        hooked = hooks.pre is not None or hooks.post is not None
        mounts = () if hooked else tuple((f"dependency/{need}", self._needed(hooks, need)) for need in hooks.needs)
        return Context("folder", hooks.folder, name=str(hooks.folder), layers=seen, mounts=mounts)

    def _needed(self, hooks: Hooks, need: str) -> Context:
        return self._view(self.stages[need], after=need not in hooks.bases)

    def _present(self, stage: _Stage, folder: Path) -> None:
        """For hooks, which are programs, the needs are there as files: written below `dependency/`."""
        folder.mkdir(parents=True)
        for need in stage.hooks.needs:
            target = folder / "dependency" / need
            target.mkdir(parents=True)
            if os.path.lexists(stage.hooks.folder / "dependency" / need):
                self.runner.hide_below(target)
            _write_out(self.session.contexts.files(self._needed(stage.hooks, need)), target)

    def _current(self, target: Target, stage: _Stage) -> Target:
        """With the Dockerfile that a hook has written over, if one has."""
        path = Path(target.place)
        found = next((layer / path for layer in stage.layers if (layer / path).is_file()), None)
        if path.is_absolute() or found is None:
            return target
        data = found.read_bytes()
        if data == target.program.source.text.encode("utf-8", "surrogateescape"):
            return target
        return replace(target, program=reading.read(parser.parse(data, target.program.source.name)))


def _write_out(files: Files, target: Path) -> None:
    """Copies files of a view into a folder of ours."""
    with Unpacker(target, owners=False) as unpacker:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for name in files.children(folder):
                path = f"{folder}/{name}" if folder else name
                entry = files.get(path)
                if entry is None or entry.kind not in (DIR, FILE, SYMLINK):
                    continue
                unpacker.add(path, entry, files.chunks(path, entry) if entry.kind == FILE else iter(()))
                if entry.kind == DIR:
                    waiting.append(path)
        unpacker.finish()
