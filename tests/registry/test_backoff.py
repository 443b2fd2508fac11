import time
from email.utils import formatdate

import pytest

from kiln.registry.backoff import Backoff, retry_after
from kiln.registry.faults import TransientError, printable
from kiln.registry.progress import Meter


def test_retry_after_forms():
    assert retry_after("7") == 7
    assert retry_after("3600") == 60
    assert 3 < retry_after(formatdate(time.time() + 5, usegmt=True)) <= 5
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [retry_after(text) for text in ("", "soon", "-3")] == [0, 0, 0]


def failing(times, **options):
    calls = []

    def action():
        calls.append(1)
        if len(calls) <= times:
            raise TransientError("no", **options)
        return "done"

    return action, calls


def test_waits_grow_and_end():
    waits = []
    action, calls = failing(9)
    with pytest.raises(TransientError):
        Backoff(first=1, sleep=waits.append).run(action)
    assert len(calls) == 5
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, [(0.5, 1), (1, 2), (2, 4), (4, 8)], strict=True))


def test_the_registrys_wish_is_kept():
    waits = []
    action, _ = failing(2, wait=11)
    assert Backoff(sleep=waits.append).run(action) == "done"
    assert waits == [11, 11]


def test_nested_runs_do_not_multiply():
    action, calls = failing(99)
    quick = Backoff(sleep=lambda _: None)
    with pytest.raises(TransientError):
        quick.run(lambda: quick.run(action))
    assert len(calls) == 5


def test_patience():
    action, calls = failing(99, patience=2)
    with pytest.raises(TransientError):
        Backoff(sleep=lambda _: None).run(action)
    assert len(calls) == 2


def test_printable():
    assert printable("a\x1b[31mb\r\nc") == "a [31mb c"
    assert len(printable("x" * 9999)) == 503


def test_meter_tells_ten_times_a_second(monkeypatch):
    now, told = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter(lambda *line: told.append(line), "d", 1000)
    for done in range(1, 1001):
        now[0] += 0.001
        meter.at(done)
    meter.at(1000)
    assert 9 <= len(told) <= 12
    assert told[-1] == ("d", 1000, 1000)
    assert told.count(("d", 1000, 1000)) == 1
