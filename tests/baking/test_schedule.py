"""Working through a graph: needs first, never more at once than allowed, and what a failure leaves undone."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.baking import schedule
from kiln.baking.schedule import Run, Schedule, failure_text
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError
from kiln.plan.order import Node, Order, make_order


def ordered(needs: dict[str, tuple[str, ...]]) -> Order:
    return make_order({name: Node(name, "", below) for name, below in needs.items()}, list(needs))


class Watch:
    """Work that notes what it sees; `bad` are targets that fail, `seconds` is how long each takes."""

    def __init__(self, order: Order, bad: frozenset[str] = frozenset(), seconds: float = 0.0) -> None:
        self.order, self.bad, self.seconds = order, bad, seconds
        self.done: list[str] = []
        self.begun: list[str] = []
        self.running = self.most = 0
        self.early: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            self.begun.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
            if not set(self.order.needs[name]) <= set(self.done):
                self.early.append(name)
        time.sleep(self.seconds)
        with self._lock:
            self.running -= 1
            if name not in self.bad:
                self.done.append(name)
        if name in self.bad:
            raise KilnError(f"{name} broke")


def worked(watch: Watch, jobs: int = 4, *, keep_going: bool = False, cancel: Cancel | None = None) -> Run:
    return Schedule(watch.order, watch, cancel or Cancel(), jobs=jobs, keep_going=keep_going).run()


@st.composite
def graphs(draw: st.DrawFn) -> Order:
    count = draw(st.integers(0, 15))
    return ordered({
        f"n{number}": tuple(
            f"n{below}" for below in draw(st.lists(st.integers(0, number - 1), max_size=3) if number else st.just([]))
        )
        for number in range(count)
    })  # fmt: skip


@settings(deadline=None)
@given(graphs(), st.integers(1, 5), st.sets(st.integers(0, 14), max_size=3), st.booleans())
def test_any_graph(order: Order, jobs: int, numbers: set[int], keep_going: bool) -> None:
    """Every target ends in one of three ways, after its needs; with --keep-going all that can be made is made."""
    bad = frozenset(f"n{number}" for number in numbers) & frozenset(order.names)
    watch = Watch(order, bad)
    run = worked(watch, jobs, keep_going=keep_going)
    assert watch.early == [] and watch.most <= jobs
    assert sorted([*run.done, *run.failed, *run.unreached]) == sorted(order.names)
    assert sorted(run.done) == sorted(watch.done) and set(run.failed) <= bad
    if keep_going:
        assert set(run.unreached) == above(order, bad) and set(run.failed) == bad - above(order, bad)
        assert all(need in run.failed for need in run.unreached.values())


def above(order: Order, bad: frozenset[str]) -> set[str]:
    """What stands on the failed targets, found from the bottom up."""
    found: set[str] = set()
    for name in order.names:
        if any(need in bad or need in found for need in order.needs[name]):
            found.add(name)
    return found


@pytest.mark.parametrize("jobs", [1, 3])
def test_as_many_at_once_as_allowed(jobs: int) -> None:
    watch = Watch(ordered({f"n{number}": () for number in range(9)}), seconds=0.02)
    worked(watch, jobs)
    assert watch.most == jobs


def test_targets_that_end_within_moments_share_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_MOMENT", 5.0)
    found: set[int] = set()
    order = ordered({f"n{number}": (f"n{number - 1}",) if number % 3 else () for number in range(30)})
    begin = time.monotonic()
    run = Schedule(order, lambda _: found.add(threading.get_ident()), Cancel(), jobs=4, keep_going=False).run()
    assert len(found) == 1 and len(run.done) == 30
    assert time.monotonic() - begin < 4


def test_the_longest_way_comes_first() -> None:
    order = ordered({"lone": (), "low": (), "middle": ("low",), "high": ("middle",)})
    watch = Watch(order)
    worked(watch, 1)
    assert watch.begun == ["low", "middle", "high", "lone"] or watch.begun[0] == "low"


def test_without_keep_going_nothing_more_is_begun() -> None:
    order = ordered({"bad": (), "on": ("bad",), "good": ()})
    watch = Watch(order, frozenset({"bad"}))
    run = worked(watch, 1)
    assert watch.begun == ["bad"] and run.unreached == {"on": "bad", "good": ""} and list(run.failed) == ["bad"]


def test_what_runs_beside_a_failure_ends_in_peace() -> None:
    order = ordered({"bad": (), "slow": ()})

    def work(name: str) -> None:
        time.sleep(0.1 if name == "slow" else 0.02)
        if name == "bad":
            raise KilnError("broke")

    run = Schedule(order, work, Cancel(), jobs=2, keep_going=False).run()
    assert run.done == ["slow"] and list(run.failed) == ["bad"]


def test_a_cancelled_run() -> None:
    cancel = Cancel()
    order = ordered({"one": (), "two": ("one",)})
    watch = Watch(order)
    run = Schedule(
        order, lambda name: (watch(name), cancel.cancel("stopped"))[0], cancel, jobs=2, keep_going=True
    ).run()
    assert run.done == ["one"] and run.unreached == {"two": ""}


def test_nothing_to_do() -> None:
    assert worked(Watch(ordered({}))).done == []


def test_a_fault_of_our_own_is_a_failure_with_words() -> None:
    def work(name: str) -> None:
        raise ValueError("oops")

    run = Schedule(ordered({"a": ()}), work, Cancel(), jobs=1, keep_going=False).run()
    assert failure_text(run.failed["a"]) == "a fault in Kiln: ValueError: oops" and failure_text(KilnError("x")) == "x"
