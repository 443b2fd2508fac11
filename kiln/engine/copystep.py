"""COPY, ADD and WORKDIR as steps."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from kiln import events
from kiln.dockerfile.instructions import Copy, Stage
from kiln.engine.build import Build, key_of, safe
from kiln.engine.copying import Look, is_archive, put_bytes, put_selection, unpack
from kiln.engine.edit import Edit, Written
from kiln.engine.fileindex import FileIndex
from kiln.engine.files import Files, FolderFiles
from kiln.engine.modes import parse_mode
from kiln.engine.select import Item, Selection, digest_of, select
from kiln.engine.state import State
from kiln.engine.step import Result, Step, perform
from kiln.engine.users import Owner, owner_of
from kiln.errors import DockerfileError, KilnError
from kiln.oci.digest import is_digest
from kiln.store.before import Before, DamagedBeforeError
from kiln.store.entry import FILE, SYMLINK, Entry, copy_of
from kiln.store.files import read_whole, write_whole
from kiln.store.layer import Layer
from kiln.store.tree import Tree

# Changes when the same entries give other bytes in a tar: nothing of an older layer is taken then.
_FORM = 1
_GIT = re.compile(r"^(?:git://|ssh://|git@|https?://[^#?]+\.git(?:[#?].*)?$)")


class CopyStep:
    """One expanded COPY or ADD on a state, with files from `files`."""

    def __init__(self, build: Build, state: State, copy: Copy, files: Files, place: str) -> None:
        self.build, self.state, self.copy, self.files, self.place = build, state, copy, files, place
        self.mode = parse_mode(copy.chmod) if copy.chmod else None
        self.owner = self._owner()
        self.destination = self._destination()
        self.fresh = False

    def _owner(self) -> Owner | None:
        if not self.copy.chown:
            return None
        owner = owner_of(self.copy.chown, lambda path: self.build.read_small(self.state, path))
        if owner.unknown:
            message = f"--chown={self.copy.chown}: the image has no {owner.unknown}, the files get owner 0"
            self.build.say(events.Warned(time=events.now(), message=message, where=self.place))
        return owner.owner

    def _destination(self) -> str:
        """Absolute, without the leading slash; a slash at the end stays (it says: a folder)."""
        written = self.copy.destination
        joined = posixpath.join("/", self.state.run.working_dir or "/", written)
        folder = written.endswith(("/", "/.", "/..")) or written in (".", "..", "")
        path = posixpath.normpath(joined).lstrip("/")
        return f"{path}/" if folder and path else path

    def run(self, name: Callable[[dict[str, str]], Step], *, fresh: bool) -> Result:
        """The layer, from the cache or made; `fresh`: nothing of the last time is used."""
        self.fresh = fresh
        selections = self._selections()
        shape = key_of("shape", self._parent(), *self._instruction())
        if not fresh and self._first_time(shape) and any(selection.unknown() for selection in selections):
            return self._in_one_pass(selections, shape, name)
        content = digest_of(selections)
        key = self._key(content)
        step = name({"parent": self._parent(), "instruction": key_of(*self._instruction()), "content": content})
        result = perform(self.build, step, key, lambda: self._make(selections))
        self._mark(shape, result)
        return result

    def _in_one_pass(self, selections: list[Selection], shape: str, name: Callable[[dict[str, str]], Step]) -> Result:
        """A first build reads each file once: the layer is written and the key, which the files' digests are part of,
        is known only afterwards."""
        step = name({"parent": self._parent(), "instruction": key_of(*self._instruction()), "content": ""})
        result = perform(
            self.build, step, shape, lambda: self._make(selections), key_after=lambda: self._key(digest_of(selections))
        )
        self._mark(shape, result)
        return result

    def _first_time(self, shape: str) -> bool:
        return read_whole(self._shapes / shape) is None

    def _mark(self, shape: str, result: Result) -> None:
        """Keeps that there was a step of this shape, and which layer it gave with files from this place."""
        if self._first_time(shape):
            write_whole(self._shapes / shape, b"")
        last, made = self._shapes / self._last_name(), result.layer.diff_id.encode()
        if read_whole(last) != made:
            write_whole(last, made)

    @property
    def _shapes(self) -> Path:
        return self.build.store.root / "cache" / "shapes"

    def _last_name(self) -> str:
        context = safe(self.build.context.name) if self.build.context else ""
        sources = [safe(source) for source in self.copy.sources]
        return key_of("last", _FORM, context, self.copy.source_stage, sources, safe(self.destination), self.build.time)

    def _before(self) -> Before | None:
        """The layer that this step gave the last time, unless it is to be made from its files."""
        if self.fresh:
            return None
        diff_id = read_whole(self._shapes / self._last_name())
        if not diff_id or not is_digest(diff_id.decode(errors="replace")):
            return None
        return self.build.store.layers.before(diff_id.decode(), self.build.compression)

    def _parent(self) -> str:
        return "" if self.copy.link else self.state.chain

    def _instruction(self) -> tuple[object, ...]:
        copy = self.copy
        documents = [
            (item.name, hashlib.sha256(item.text.encode("utf-8", "surrogateescape")).hexdigest())
            for item in copy.heredocs
        ]
        return (
            "add" if copy.is_add else "copy", [safe(source) for source in copy.sources] if copy.parents else len(copy.sources),
            safe(self.destination), self.owner, copy.chmod, copy.link, copy.parents, copy.unpack, documents, self.build.time,
        )  # fmt: skip

    def _key(self, content: str) -> str:
        return key_of("files", self._parent(), *self._instruction(), content)

    def _selections(self) -> list[Selection]:
        found: list[Selection] = []
        for source in self.copy.sources:
            if is_git(source):
                found.append(self._from_git(source))
            elif source.startswith(("http://", "https://")):
                found.append(self._from_url(source))
            else:
                self._no_checksum(source)
                found += select(self.files, self.copy, (source,))
        return found

    def _no_checksum(self, source: str) -> None:
        if self.copy.checksum:
            raise DockerfileError("checksum requires HTTP(S) or Git sources", where=self.place)

    def _only_add(self, what: str) -> None:
        if not self.copy.is_add:
            raise DockerfileError(f"source can't be a {what} for COPY", where=self.place, hint="Use ADD.")
        if self.copy.checksum and len(self.copy.sources) != 1:
            raise DockerfileError("checksum can't be specified for multiple sources", where=self.place)

    def _from_url(self, source: str) -> Selection:
        self._only_add("URL")
        path, name = self.build.doors.url(source, self.copy.checksum)
        files = FolderFiles(path.parent, FileIndex(None, path.parent))
        entry = files.get(path.name)
        if entry is None:
            raise KilnError("the download vanished", where=source)
        item = Item("", path.name, _with_mode(entry, 0o600))
        return Selection(files, name, item, remote=True)

    def _from_git(self, source: str) -> Selection:
        self._only_add("git ref")
        folder = self.build.doors.git(source, self.copy.keep_git_dir, self.copy.checksum)
        files = FolderFiles(folder, FileIndex(None, folder))
        selection = select(files, self.copy, ("/",))[0]
        return Selection(files, selection.name, selection.first, selection.parts, remote=True)

    def _make(self, selections: list[Selection]) -> Result:
        try:
            return self._made(selections)
        except DamagedBeforeError as bad:
            message = f"the layer of the last time is damaged in the store, all files are read anew: {bad}"
            self.build.say(events.Warned(time=events.now(), message=message, where=self.place))
            self.fresh = True
            return self._made(selections)

    def _made(self, selections: list[Selection]) -> Result:
        tree = Tree() if self.copy.link else self.build.tree(self.state.stack)
        edit = Edit(tree, self.build.time)
        look = Look(self.owner, self.mode, symbolic=not self.copy.chmod.isdigit())
        spools: list[Path] = []
        try:
            for selection in selections:
                self._put(edit, selection, look, spools)
            for document in self.copy.heredocs:
                if "/" in document.name.strip("/"):
                    raise DockerfileError(f"the inline file cannot be called {document.name}: it names a folder")
                put_bytes(edit, document.name, document.text.encode("utf-8", "surrogateescape"), self.destination, look)
            return Result(self._write(edit))
        except KilnError as bad:
            raise bad.at(self.place) from None
        finally:
            for spool in spools:
                spool.unlink(missing_ok=True)

    def _write(self, edit: Edit) -> Layer:
        before = self._before()
        if before is None:
            return write_layer(self.build, edit)
        with contextlib.closing(before):
            return write_layer(self.build, edit, before)

    def _beneath(self, path: str) -> Written | None:
        """A file of the layers below, as something to be written again under another name."""
        node = self.build.tree(self.state.stack).node(path)
        if node is None or node.entry.kind not in (FILE, SYMLINK):
            return None
        chunks = self.build.store.layers.chunks
        return Written(node.entry, content=lambda: chunks(node.diff_id, node.entry))

    def _put(self, edit: Edit, selection: Selection, look: Look, spools: list[Path]) -> None:
        wanted = self.copy.unpack if self.copy.unpack is not None else self.copy.is_add and not selection.remote
        if wanted and is_archive(selection):
            spools.append(self.build.store.scratch / f"spool-{os.urandom(8).hex()}")
            unpack(edit, selection, self.destination, look, spools[-1], self._beneath)
        else:
            put_selection(edit, selection, self.destination, look)


def folder_base(build: Build, base: State, files: Files, stage: Stage) -> State:
    """A state whose one layer holds everything of some files."""
    place = stage.place
    copy = Copy(keyword="COPY", code=f"FROM {stage.base}", place=place, sources=("/",), destination="/")
    step = CopyStep(build, base, copy, files, str(place))
    identity = f"{build.prefix}{stage.index}.0"
    result = step.run(
        lambda facts: Step(identity, f"[{stage.title}] FROM {stage.base}", str(place), False, facts), fresh=False
    )
    return base.with_layer(result.layer, 0).with_history(f"COPY . / # {stage.base}", layer=True)


def _with_mode(entry: Entry, mode: int) -> Entry:
    return copy_of(entry, mode=mode, xattrs=None)


def is_git(source: str) -> bool:
    """Whether a source of ADD is a git repository and not a file by URL."""
    return _GIT.match(source) is not None


def write_layer(build: Build, edit: Edit, before: Before | None = None) -> Layer:
    """Writes the changes as a layer and keeps its table of contents; raises `DamagedBeforeError`."""
    with build.store.layers.writer(build.compression, build.early.follow if build.early else None) as writer:
        writer.check = build.cancel.check
        edit.write(writer, before)
        layer = writer.finish()
        build.store.layers.remember(layer, writer.toc)
        build.store.layers.keep_parts(layer, build.compression, writer.parts)
    return layer


def workdir_step(build: Build, state: State, path: str, step: Step, place: str) -> Result:
    """Makes the working directory where it is missing, owned by the user of the moment."""

    def work() -> Result:
        edit = Edit(build.tree(state.stack), build.time)
        try:
            edit.mkdirs(edit.resolve(path), _workdir_owner(build, state))
            return Result(write_layer(build, edit))
        except KilnError as bad:
            raise bad.at(place) from None

    return perform(build, step, key_of("workdir", state.chain, safe(path), state.run.user, build.time), work)


def _workdir_owner(build: Build, state: State) -> Owner | None:
    user = state.run.user
    return owner_of(user, lambda path: build.read_small(state, path)).owner if user else None
