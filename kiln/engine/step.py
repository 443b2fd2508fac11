"""Running one step: key -> cache hit or work, with events and the reason for either."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct, field

from kiln import events
from kiln.engine.build import Build
from kiln.errors import KilnError
from kiln.store.files import read_whole, try_lock, write_whole
from kiln.store.layer import Layer
from kiln.store.records import Record


class Step(Struct, frozen=True):
    """What a person sees of a step: its id, its line, where it stands; `facts` are digests of what it depends on, by
    name, so that a change can be told in words. `fresh`: the cache is not to be asked."""

    id: str
    name: str
    where: str
    fresh: bool = False
    facts: dict[str, str] = field(default_factory=dict)


class Result(Struct, frozen=True):
    """A step's layer; `created` is when its command ran (seconds since the epoch), 0 for a step without one."""

    layer: Layer
    created: int = 0


_WORDS = {
    "parent": "a step before it or its base changed",
    "instruction": "the instruction changed",
    "content": "the content of its files changed",
    "environment": "a variable that it sees changed",
    "mounts": "something that it mounts changed",
}


def perform(
    build: Build, step: Step, key: str, work: Callable[[], Result], *, key_after: Callable[[], str] | None = None
) -> Result:
    """The result of a step, from the cache or made by `work`; raises what `work` raises. Where `key_after` is given, the
    key is known only when the work is done: it always runs, and `key` only keeps others from doing the same meanwhile."""
    build.cancel.check()
    begin = time.monotonic()
    build.say(events.StepStarted(time=events.now(), step=step.id, name=step.name, where=step.where))
    try:
        with _turn(build, key):
            record = None if step.fresh or key_after else _lookup(build, key)
            if record is not None:
                result, reason = _result(record), "same inputs as an earlier build"
            else:
                reason = _reason(build, step)
                with build.slots:
                    build.cancel.check()
                    result = work()
                key = key_after() if key_after else key
                keep(build, key, result, time.monotonic() - begin, step.name)
    except KilnError as bad:
        _finished(build, step, begin, error=str(bad))
        raise
    _remember_facts(build, step)
    build.keys.append(key)
    _finished(build, step, begin, cached=record is not None, reason=reason, size=result.layer.descriptor.size)
    return result


def keep(build: Build, key: str, result: Result, seconds: float, name: str) -> None:
    """Puts a result into the cache."""
    record = Record(result.layer.diff_id, result.layer.descriptor, result.created, round(seconds, 3), name[:200])
    build.store.records.put(key, record)


def keep_form(build: Build, key: str, layer: Layer) -> None:
    """Has a result in the cache name another form of its layer."""
    record = build.store.records.get(key)
    if record is not None and record.diff_id == layer.diff_id:
        build.store.records.put(key, msgspec.structs.replace(record, descriptor=layer.descriptor))


def _finished(
    build: Build, step: Step, begin: float, *, cached: bool = False, reason: str = "", error: str = "", size: int = 0
) -> None:
    build.say(
        events.StepFinished(
            time=events.now(), step=step.id, name=step.name, seconds=round(time.monotonic() - begin, 3), cached=cached,
            reason=reason, error=error, size=size,
        )
    )  # fmt: skip


def _result(record: Record) -> Result:
    return Result(Layer(record.diff_id, record.descriptor), record.created)


def _lookup(build: Build, key: str) -> Record | None:
    """A record whose layer is here, counted as used; else one from a shared cache."""
    with build.store.in_use():
        record = build.store.records.get(key)
        if record is not None and build.store.blobs.has(record.descriptor.digest):
            return record
    found = build.doors.cached(key)
    if found is not None:
        build.store.layers.add_blob(found.diff_id, found.descriptor)
        build.store.records.put(key, found)
    return found


@contextlib.contextmanager
def _turn(build: Build, key: str) -> Iterator[None]:
    """One process at a time works on a key; waiting ends when the build is cancelled."""
    folder = build.store.root / "locks"
    folder.mkdir(exist_ok=True)
    while (fd := try_lock(folder / f"step-{key[:24]}")) is None:
        build.cancel.check()
        time.sleep(0.02)
    try:
        yield
    finally:
        (folder / f"step-{key[:24]}").unlink(missing_ok=True)
        os.close(fd)


def _facts_path(build: Build, step: Step) -> str:
    place = f"{build.context.name if build.context else ''}\0{build.source_name}\0{build.platform}\0{step.id}"
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()


def _reason(build: Build, step: Step) -> str:
    """Why a step runs, by comparison with its last time in the same place."""
    if step.fresh:
        return "the cache was not to be used"
    data = read_whole(build.store.root / "cache" / "facts" / _facts_path(build, step))
    if data is None:
        return "it was not built before"
    try:
        last = msgspec.json.decode(data, type=dict[str, str])
    except msgspec.MsgspecError:
        return "it was not built before"
    changed = [words for name, words in _WORDS.items() if last.get(name) != step.facts.get(name)]
    return changed[0] if changed else "its result is no longer in the cache"


def _remember_facts(build: Build, step: Step) -> None:
    path = build.store.root / "cache" / "facts" / _facts_path(build, step)
    data = msgspec.json.encode(step.facts)
    if read_whole(path) != data:
        write_whole(path, data)
