"""Stopping a build, and the messages between engine and worker."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.engine.cancel import Cancel
from kiln.engine.wire import MountWish, RemoveRequest, Reply, Request, RunRequest, ShellRequest, Stack, receive, send
from kiln.errors import CancelledBuild
from kiln.oci.image import Descriptor
from kiln.store.layer import Compression, Layer


def test_cancel() -> None:
    cancel = Cancel()
    cancel.check()
    ended: list[str] = []
    with cancel.ending(lambda: ended.append("a")):
        pass
    with pytest.raises(CancelledBuild, match="first"), cancel.ending(lambda: ended.append("b")):
        cancel.cancel("first")
        cancel.cancel("second")
        assert ended == ["b"]
        cancel.check()
    assert cancel.reason == "first" and ended == ["b"]
    with pytest.raises(CancelledBuild) as error, cancel.ending(lambda: None):
        pytest.fail("a step began after the end")
    assert error.value.exit_code == 130


def test_one_ender_that_fails_does_not_keep_the_others() -> None:
    cancel = Cancel()
    ended: list[int] = []

    def gone() -> None:
        raise ProcessLookupError

    with cancel.ending(gone), cancel.ending(lambda: ended.append(1)):
        cancel.cancel("stop")
    assert ended == [1]


def test_abandon_frees_the_last_first() -> None:
    cancel = Cancel()
    freed: list[int] = []
    for number in range(3):
        cancel.holds(lambda number=number: freed.append(number))  # type: ignore[misc]
    cancel.abandon()
    assert freed == [2, 1, 0]


STACK = Stack(("sha256:" + "a" * 64,), (Descriptor("m", "sha256:" + "b" * 64, 5),))
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
MOUNTS = st.builds(
    MountWish,
    kind=TEXT,
    target=TEXT,
    data=st.binary(max_size=50),
    stack=st.sampled_from([None, STACK]),
    mode=st.integers(-1, 511),
)
RUNS = st.builds(
    RunRequest, id=TEXT, store=TEXT, scratch=TEXT, stack=st.just(STACK), args=st.lists(TEXT, max_size=3).map(tuple), env=st.just(()), cwd=TEXT,
    uid=st.integers(0, 2**31), gid=st.integers(0, 2**31), groups=st.just((1, 2)), network=TEXT, runtime=TEXT,
    mounts=st.lists(MOUNTS, max_size=2).map(tuple), compression=st.just(Compression("zstd", 3)), resolv_conf=TEXT, hosts=TEXT, debug=st.booleans(),
)  # fmt: skip
REQUESTS = st.one_of(
    RUNS, st.builds(ShellRequest, run=RUNS), st.builds(RemoveRequest, paths=st.lists(TEXT, max_size=3).map(tuple))
)


@settings(deadline=None, max_examples=60)
@given(st.lists(REQUESTS, max_size=3))
def test_round_trip(requests: list[Request]) -> None:
    one, two = socket.socketpair()
    with one, two:
        for request in requests:
            send(one, request)
        one.shutdown(socket.SHUT_WR)
        assert [msgspec.json.decode(receive(two), type=Request) for _ in requests] == requests
        assert receive(two) == b""


def test_large_and_cut_off_messages() -> None:
    one, two = socket.socketpair()
    reply = Reply(code=3, layer=Layer("d", STACK.descriptors[0]), error="x" * 3_000_000)
    with one, two:
        thread = threading.Thread(target=send, args=(one, reply))
        thread.start()
        assert msgspec.json.decode(receive(two), type=Reply) == reply
        thread.join()
        one.sendall(b"\0\0\0\x10only so much")
        one.close()
        assert receive(two) == b""
