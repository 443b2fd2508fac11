"""Bakes that end badly: killed, stopped, without a registry or a disk. What is finished stays, the next run goes on from it."""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from tests.integration.bakes import bake, tags, tree, uploads
from tests.integration.test_build_ending import finish, nothing_left, sleeping, unique
from tests.services import DockerRegistry, Kiln, cgroups_of, processes_with, wait_for

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root")
COUNT = 12


@pytest.fixture
def own_registry(registry_program, tmp_path):
    """A registry that may be killed."""
    registry = DockerRegistry(tmp_path / "registry").start()
    yield registry
    registry.stop()


def chain(place, count=COUNT, push="true"):
    """A catalog of images of which half stand on one another; the others stand on the first."""
    items = [f"  - {{id: t{number}, dockerfile: D{number}, push: {push}}}\n" for number in range(count)]
    files: dict[str, str | bytes] = {"kiln.yml": "images:\n" + "".join(items)}
    for number in range(count):
        base = "base" if not number else f"t{number - 1}" if number % 2 else "t0"
        files[f"D{number}"] = f"FROM {base}\nCOPY data{number} /\n"
        files[f"data{number}"] = random.Random(number).randbytes(200_000)
    return tree(place, files)


@needs_root
@pytest.mark.root
def test_kill_9_at_random_moments(kiln, new_kiln, own_registry, tmp_path):
    """No kill damages anything; the run that completes finds what the others finished; the last has nothing to do."""
    place, words = chain(tmp_path / "chain"), ("--registry", f"{own_registry.host}/kill")
    for _ in range(8):
        process = kiln.start("bake", "--progress", "quiet", place, *words)
        time.sleep(random.uniform(0.15, 0.9))
        process.kill()
        process.communicate()
    done = bake(kiln, place, *words)
    assert set(done.results.values()) <= {"built", "pushed", "skipped"} and kiln.damaged() == []
    assert kiln.scratch() == [] and kiln.mounts() == []
    before = uploads(own_registry)
    again = bake(kiln, place, *words)
    assert set(again.results.values()) == {"skipped"} and uploads(own_registry) == before
    other = bake(new_kiln("clean"), place, "--registry", f"{own_registry.host}/clean")
    assert again.digests == done.digests == other.digests


@needs_root
@pytest.mark.root
def test_ctrl_c(kiln, own_registry, tmp_path):
    """130, in time, with a report: what was made before is there, kept and in the files that hold results."""
    word = unique()
    place = tree(tmp_path / "stop", {
        "kiln.yml": "result: names\nimages:\n  - {id: quick, dockerfile: Q, push: true}\n  - {id: slow, dockerfile: S, needs: [quick]}\n"
        "  - {id: above, dockerfile: A}\n",
        "Q": "FROM base\nCOPY Q /\n", "S": f"FROM quick\nRUN sleep {word}\n", "A": "FROM slow\n",
    })  # fmt: skip
    file = tmp_path / "metadata"
    process = kiln.start(
        "bake", "--progress", "plain", "--registry", f"{own_registry.host}/stop", "--metadata-file", file, place
    )
    cgroups = cgroups_of(sleeping(word))
    wait_for(lambda: "kiln-of-latest" in tags(own_registry, "stop/quick"))  # pushed while others are built
    os.killpg(process.pid, signal.SIGINT)
    code, err, _ = finish(process)
    assert code == 130 and "Traceback" not in err, err
    assert "built       quick" in err and "not reached above" in err and "failed      slow" in err
    assert "3 targets: 1 not reached, 1 failed, 1 built" in err and "stopped by the user" in err
    assert (place / "names").read_text() == f"{own_registry.host}/stop/quick:latest\n"
    assert list(json.loads(file.read_text())) == ["quick"] and "latest" in tags(own_registry, "stop/quick")
    nothing_left(kiln, word, cgroups)
    (place / "S").write_text("FROM quick\nCOPY S /\n")
    assert bake(kiln, place, "--registry", f"{own_registry.host}/stop").results == {
        "quick": "skipped", "slow": "built", "above": "built"
    }  # fmt: skip


@needs_root
@pytest.mark.root
def test_a_time_limit(kiln, tmp_path):
    word = unique()
    place = tree(
        tmp_path / "late", {"kiln.yml": "images: [{id: slow}]\n", "Dockerfile": f"FROM base\nRUN sleep {word}\n"}
    )
    begin = time.monotonic()
    done = bake(kiln, place, "--timeout", "2", code=1)
    assert "took longer than its limit of 2 s" in done.ended.err and time.monotonic() - begin < 10
    assert done.results == {"slow": "failed"} and not processes_with(word)


BROKEN = {
    "kiln.yml": "result: names\nimages:\n" + "".join(f"  - {{id: {name}, dockerfile: {name}}}\n" for name in ("good", "bad", "on", "other")),
    "good": "FROM base\nCOPY good /\n", "bad": "FROM good\nCOPY none /\n", "on": "FROM bad\n", "other": "FROM good\nCOPY other /\n",
}  # fmt: skip


def test_keep_going(kiln, tmp_path):
    """What does not stand on the failure is made; the report says of each what became of it."""
    place = tree(tmp_path / "broken", BROKEN)
    done = bake(kiln, place, "--keep-going", code=1)
    assert done.results == {"good": "built", "bad": "failed", "on": "not reached", "other": "built"}
    assert done.reason("on") == "bad failed" and "bad:2" in done.reason("bad") and "none" in done.reason("bad")
    assert (place / "names").read_text() == "good:latest\nother:latest\n"
    again = kiln.run("bake", "--progress", "plain", "--keep-going", place, code=1).err
    assert "4 targets: 1 not reached, 1 failed, 2 skipped" in again and again.count("kiln: error: ") == 1


def test_the_first_failure_stops(kiln, tmp_path):
    """Without --keep-going nothing more is begun."""
    files = {**BROKEN, "kiln.yml": BROKEN["kiln.yml"].replace("other}", "other, needs: [bad]}")}
    done = bake(kiln, tree(tmp_path / "broken", files), "-j", "1", code=1)
    assert done.results == {"good": "built", "bad": "failed", "on": "not reached", "other": "not reached"}


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("jobs", [1, 3])
def test_jobs(kiln, tmp_path, jobs):
    """Never more at once than -j says, and as many."""
    files = {
        "kiln.yml": "images:\n" + "".join(f"  - {{id: t{number}, dockerfile: D{number}}}\n" for number in range(3))
    }
    files |= {f"D{number}": f"FROM base\nRUN sleep 0.3; echo {number}\n" for number in range(3)}
    place = tree(tmp_path / "jobs", files)
    ended = kiln.run("bake", "--progress", "json", "-j", jobs, place)
    running = most = 0
    for event in map(json.loads, filter(lambda line: line.startswith("{"), ended.err.splitlines())):
        running += (event["event"] == "buildstarted") - (event["event"] == "targetfinished")
        most = max(most, running)
    assert most == jobs


@needs_root
@pytest.mark.root
def test_the_registry_goes_away(kiln, own_registry, tmp_path):
    """The pushes fail and say so; the images are kept; the next run pushes them and builds nothing."""
    place, words = chain(tmp_path / "chain", 4), ("--registry", f"{own_registry.host}/away")
    word = f"2.{random.randrange(10**8, 10**9)}"
    (place / "D0").write_text(f"FROM base\nRUN sleep {word}\nCOPY data0 /\n")
    process = kiln.start("bake", "--progress", "plain", place, *words)
    sleeping(word)
    own_registry.stop()
    code, err, _ = finish(process, 60)
    own_registry.start()
    assert code == 1 and "4 targets: 4 failed" in err and "Traceback" not in err, err
    assert err.count("(made, but not pushed: ") == 4 and "cannot be reached" in err
    again = bake(kiln, place, *words)
    assert set(again.results.values()) == {"pushed"} and again.ran == 0
    assert set(bake(kiln, place, *words).results.values()) == {"skipped"}


def test_two_bakes_at_once(kiln, own_registry, tmp_path):
    """One store, one registry: both succeed, with the same digests."""
    place, words = chain(tmp_path / "chain"), ("--registry", f"{own_registry.host}/both")
    done = []
    threads = [threading.Thread(target=lambda: done.append(bake(kiln, place, *words))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, two = done
    assert one.digests == two.digests and len(one.digests) == COUNT and kiln.damaged() == []
    assert set(bake(kiln, place, *words).results.values()) == {"skipped"}


@needs_root
@pytest.mark.root
def test_a_full_disk(kiln, tmp_path):
    """A clean error; the store is whole; with room the same home goes on."""
    place, home = chain(tmp_path / "chain", 6, "false"), tmp_path / "full"
    home.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", home], capture_output=True, check=False
    ).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        shutil.copytree(kiln.home, home, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("snapshots"))
        full = Kiln(home, kiln.env)
        fill(home, 500_000)
        done = bake(full, place, "--keep-going", code=1)
        assert "failed" in done.results.values() and ("No space left" in done.ended.err or "full" in done.ended.err), (
            done.ended.err
        )
        (home / "filler").unlink()
        assert full.damaged() == [] and full.scratch() == []
        assert set(bake(full, place).results.values()) <= {"built", "skipped"} and full.damaged() == []
    finally:
        subprocess.run(["umount", home], check=True)


def fill(home, left):
    """Leaves this many bytes free."""
    with (home / "filler").open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(home).free - left)))
