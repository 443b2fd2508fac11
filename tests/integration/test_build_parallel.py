"""Several builds on one store at the same time, and prune among them."""

import os
import time

import pytest

from tests.services import Kiln

pytestmark = [pytest.mark.integration, pytest.mark.root]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root")
TEXT = """FROM base AS one
COPY data /blob
RUN sha256sum < /blob > /sum && echo one >> /log
FROM base AS two
COPY --from=one /sum /sum
RUN cat /sum /sum > /sums && sleep 0.2
FROM base
COPY --from=two /sums /sums
COPY --from=one /log /log
"""


def ends(processes):
    """Waits for all; fails with the output of those that failed."""
    bad = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        if process.returncode or b"Traceback" in err:
            bad.append((process.returncode, (out + err).decode(errors="replace")))
    assert not bad, "\n\n".join(f"exit code {code}:\n{text}" for code, text in bad)


def check(kiln, *names):
    assert kiln.damaged() == [] and kiln.scratch() == []
    for name in names:
        assert kiln.files(name)["log"].content == "=one\n"


@needs_root
@pytest.mark.parametrize("count", [2, 4])
def test_the_same_build_several_times_at_once(count, kiln, folder):
    """Each step runs once: the others wait for it and take its result."""
    place = folder(TEXT, {"data": os.urandom(2_000_000)})
    processes = [kiln.start("build", "--progress", "plain", "-t", f"same{number}", place) for number in range(count)]
    ends(processes)
    check(kiln, "same0", f"same{count - 1}")
    assert len({kiln.digest(f"same{number}:latest") for number in range(count)}) == 1


@needs_root
def test_different_builds_at_once(kiln, folder):
    places = [folder(TEXT, {"data": os.urandom(2_000_000)}, name=f"c{number}") for number in range(4)]
    ends(
        [kiln.start("build", "--progress", "plain", "-t", f"own{number}", place) for number, place in enumerate(places)]
    )
    check(kiln, *(f"own{number}" for number in range(4)))
    assert len(kiln.index()) == 5


def test_first_builds_of_a_new_home_at_once(tmp_path, folder):
    """Nobody overwrites what another made while the store was new."""
    place = folder("FROM scratch\nCOPY Dockerfile /\n")
    for turn in range(6):
        kiln = Kiln(tmp_path / f"home-{turn}")
        ends([kiln.start("build", "-t", f"n{number}", place) for number in range(4)])
        assert len(kiln.index()) == 4 and kiln.damaged() == []


@needs_root
def test_prune_while_builds_run(kiln, folder):
    """Prune never takes what a running build is about to use."""
    places = [folder(TEXT, {"data": os.urandom(500_000)}, name=f"c{number}") for number in range(3)]
    deadline = time.monotonic() + 15
    turn = pruned = 0
    while time.monotonic() < deadline:
        builds = [
            kiln.start(
                "build", "--progress", "plain", "-t", f"p{number}", *(["--no-cache"] if turn % 3 == 2 else []), place
            )
            for number, place in enumerate(places)
        ]
        while any(build.poll() is None for build in builds):
            ends([kiln.start("prune")])
            pruned += 1
        ends(builds)
        turn += 1
        (places[turn % 3] / "data").write_bytes(os.urandom(500_000))
    assert turn > 2 and pruned > 2 * turn
    check(kiln, "p0", "p1", "p2")
    kiln.run("prune")
    check(kiln, "p0", "p1", "p2")


@needs_root
def test_prune_beside_untagged_builds(kiln, folder, tmp_path):
    """Nothing names these images: only that a build runs keeps prune from them."""
    for turn in range(6):
        place = folder(TEXT, {"data": os.urandom(500_000)}, name=f"c{turn}")
        build = kiln.start("build", "--progress", "plain", "--output", f"type=tar,dest={tmp_path}/{turn}.tar", place)
        while build.poll() is None:
            ends([kiln.start("prune")])
        ends([build])
    assert kiln.damaged() == []


def test_prune_takes_what_nobody_needs(kiln, folder):
    """And only that: tagged images stay whole."""
    place = folder("FROM base\nCOPY data /\n", {"data": os.urandom(3_000_000)})
    kiln.build(place)
    before = kiln.blobs()
    assert any((kiln.store / "blobs" / "sha256" / name).stat().st_size > 2_900_000 for name in before)
    time.sleep(2.1)
    assert "removed" in kiln.run("prune").out
    assert not any((kiln.store / "blobs" / "sha256" / name).stat().st_size > 2_900_000 for name in kiln.blobs())
    assert kiln.damaged() == []
    kiln.build(place, "-t", "kept")
    assert "data" in kiln.files("kept")


def test_prune_takes_what_a_killed_process_was_writing(kiln):
    left = kiln.store / "cache" / ".record.123.abcdef"
    left.parent.mkdir(exist_ok=True)
    left.write_text("half")
    os.utime(left, (1, 1))
    kiln.run("prune")
    assert not left.exists()
