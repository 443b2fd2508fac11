"""A build that is stopped leaves nothing: no process, no mount, no cgroup, no scratch space. Also after kill -9."""

import os
import random
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services import Http, cgroups_of, processes_with, wait_for

pytestmark = [pytest.mark.integration]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root")
LIMIT = 5.0


def unique():
    """A number of seconds to sleep that no other process sleeps, as a word to find the process by."""
    return f"9{random.randrange(10**8, 10**9)}"


def finish(process, seconds=LIMIT):
    """(exit code, errors, seconds) of a process that was told to end; killed after `seconds`."""
    begin = time.monotonic()
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail(f"it did not end within {seconds:g} s")
    return process.returncode, err.decode(), time.monotonic() - begin


def sleeping(word):
    """The process of the step that sleeps `word` seconds."""

    def look():
        for pid in processes_with(word):
            try:
                if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2:-1] == [word.encode()]:
                    return pid
            except OSError:
                continue
        return 0

    return wait_for(look, 20)


def nothing_left(kiln, word, cgroups):
    """Waits for what may take a moment after the end of the command, then demands that nothing stayed."""
    wait_for(lambda: not processes_with(word), LIMIT)
    assert kiln.mounts() == []
    assert [str(path) for path in cgroups if path.exists()] == []
    assert kiln.scratch() == []
    assert kiln.damaged() == []


ENDINGS = [
    pytest.param(signal.SIGINT, [], 130, "stopped by the user", id="ctrl-c"),
    pytest.param(signal.SIGTERM, [], 130, "stopped by the user", id="term"),
    pytest.param(None, ["--timeout", "2"], 1, "took longer than its limit of 2 s", id="timeout"),
]


@needs_root
@pytest.mark.root
@pytest.mark.parametrize(("number", "flags", "code", "message"), ENDINGS)
def test_stopping_a_step(number, flags, code, message, kiln, folder):
    word = unique()
    context = folder(f"FROM base\nRUN sleep {word} & setsid sleep {word} & sleep {word}\n")
    process = kiln.start("build", "--progress", "plain", *flags, context)
    cgroups = cgroups_of(sleeping(word))
    assert cgroups, "the step has no cgroup of Kiln's, so that this test cannot see one that is left"
    if number:
        process.send_signal(number)
    ended, err, seconds = finish(process)
    assert (ended, seconds < LIMIT) == (code, True), err
    assert message in err and "Traceback" not in err
    nothing_left(kiln, word, cgroups)


@needs_root
@pytest.mark.root
def test_stopping_steps_that_run_side_by_side(kiln, folder):
    word, other = unique(), unique()
    context = folder(
        f"FROM base AS a\nRUN sleep {word}\nFROM base AS b\nRUN trap '' TERM INT; sleep {other}\n"
        "FROM base\nCOPY --from=a /etc/motd /a\nCOPY --from=b /etc/motd /b\n"
    )
    process = kiln.start("build", "--progress", "plain", context)
    cgroups = [*cgroups_of(sleeping(word)), *cgroups_of(sleeping(other))]
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    nothing_left(kiln, word, cgroups)
    assert processes_with(other) == []


@needs_root
@pytest.mark.root
def test_ctrl_c_on_the_whole_group(kiln, folder):
    """A terminal sends Ctrl-C to every process of the foreground group, the worker too."""
    word = unique()
    process = kiln.start("build", "--progress", "plain", folder(f"FROM base\nRUN sleep {word}\n"))
    cgroups = cgroups_of(sleeping(word))
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process)[0] == 130
    nothing_left(kiln, word, cgroups)


@needs_root
@pytest.mark.root
def test_a_failing_stage_stops_the_others(kiln, folder):
    word = unique()
    context = folder(
        f"FROM base AS slow\nRUN sleep {word}\nFROM base AS bad\nRUN sleep 1; echo it broke; exit 7\n"
        "FROM base\nCOPY --from=slow /etc/motd /a\nCOPY --from=bad /etc/motd /b\n"
    )
    process = kiln.start("build", "--progress", "plain", context)
    cgroups = cgroups_of(sleeping(word))
    code, err, _ = finish(process, 10)
    assert code == 1 and "ended with exit code 7" in err and "it broke" in err and "Dockerfile:4" in err
    nothing_left(kiln, word, cgroups)


def test_stopping_a_long_copy(kiln, folder):
    """64 GB of nothing take a minute to read: the end does not wait for it."""
    context = folder("FROM base\nCOPY big /\n")
    with (context / "big").open("wb") as file:
        file.truncate(64 << 30)
    process = kiln.start("build", "--progress", "plain", context)
    wait_for(lambda: "big" in "".join(os.listdir(context)) and kiln.scratch(), 10)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    code, err, _ = finish(process)
    assert code == 130 and "stopped by the user" in err
    assert kiln.scratch() == []


@contextmanager
def silent_server():
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield f"127.0.0.1:{server.getsockname()[1]}"


SILENT = [
    pytest.param("FROM {host}/team/app:1\n", ".", id="pull"),
    pytest.param("FROM base\nADD http://{host}/file /\n", ".", id="add"),
    pytest.param("FROM base\nADD http://{host}/repo.git /\n", ".", id="add-git"),
    pytest.param("FROM base\n", "http://{host}/context.tar", id="context"),
    pytest.param("FROM base\n", "http://{host}/context.git", id="context-git"),
    pytest.param("FROM base\n", "push", id="push"),
]


@pytest.mark.parametrize(("dockerfile", "place"), SILENT)
def test_stopping_while_a_server_is_silent(dockerfile, place, kiln, folder):
    with silent_server() as host:
        context = folder(dockerfile.format(host=host))
        flags = ["--push", "-t", f"{host}/team/app:1"] if place == "push" else []
        where = context if place in (".", "push") else place.format(host=host)
        process = kiln.start("build", "--progress", "plain", *flags, where)
        wait_for(lambda: connected(host), 10)
        process.send_signal(signal.SIGINT)
        code, err, _ = finish(process)
    assert code == 130 and "stopped by the user" in err and "Traceback" not in err
    wait_for(lambda: not processes_with(f"{host}/repo.git") and not processes_with(f"{host}/context.git"), 5)
    assert kiln.scratch() == []


def connected(host):
    """Whether somebody has a connection to a port of this machine."""
    port = f":{int(host.partition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(port) and row[3] == "01" for row in rows)


@needs_root
@pytest.mark.root
def test_a_failing_step_beside_a_silent_server(kiln, folder):
    """The step's error is shown, though the other stage still waits."""
    with silent_server() as host:
        context = folder(
            f"FROM {host}/team/app:1 AS slow\nFROM base AS bad\nRUN sleep 0.5; echo it broke; exit 7\n"
            "FROM base\nCOPY --from=slow /a /\nCOPY --from=bad /etc/motd /\n"
        )
        process = kiln.start("build", "--progress", "plain", context)
        code, err, _ = finish(process, 10)
    assert code == 1 and "Dockerfile:3" in err and "| it broke" in err and "ended with exit code 7" in err
    assert kiln.scratch() == []


def test_a_slow_download_ends_with_the_time_limit(kiln, folder):
    def trickle(out):
        while True:
            out.write(b"x" * 10)
            time.sleep(0.05)

    with Http({"/slow": (200, {"Content-Length": "100000000"}, trickle)}) as server:
        begin = time.monotonic()
        context = folder(f"FROM base\nADD http://{server.host}/slow /\n")
        ended = kiln.build(context, "--timeout", "1", code=1)
    assert "took longer than its limit of 1 s" in ended.err and time.monotonic() - begin < LIMIT + 1
    assert kiln.scratch() == []


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("victim", ["worker", "handler", "keeper", "init"])
def test_kill_9_of_what_runs_a_step(victim, kiln, folder):
    """An error that says so, not a build that waits for ever."""
    word = unique()
    process = kiln.start("build", "--progress", "plain", folder(f"FROM base\nRUN sleep {word}\n"))
    pid = sleeping(word)
    cgroups = cgroups_of(pid)
    chain = [pid]
    while chain[0] != process.pid:
        chain.insert(0, int(Path(f"/proc/{chain[0]}/stat").read_text().rpartition(")")[2].split()[1]))
    os.kill(chain[{"worker": 1, "handler": 2, "keeper": 3, "init": 4}[victim]], signal.SIGKILL)
    code, err, _ = finish(process)
    assert code == 1 and "Dockerfile:2" in err and "Traceback" not in err, err
    nothing_left(kiln, word, cgroups)


@needs_root
@pytest.mark.root
def test_kill_9_of_kiln_ends_the_step(kiln, folder):
    word = unique()
    process = kiln.start("build", "--progress", "plain", folder(f"FROM base\nRUN sleep {word}\n"))
    cgroups = cgroups_of(sleeping(word))
    process.kill()
    process.communicate()
    wait_for(lambda: not processes_with(word), LIMIT)
    wait_for(lambda: not processes_with(str(kiln.home)), LIMIT)
    assert kiln.mounts() == []
    kiln.build(folder("FROM base\nRUN true\n", name="next"))
    assert kiln.scratch() == []
    assert [str(path) for path in cgroups if path.exists()] == []


@needs_root
@pytest.mark.root
def test_kill_9_at_any_moment(kiln, folder, registry):
    """Twenty times, at a random instant between the start and the end of a build with COPY, RUN and push."""
    rand = random.Random(7)
    name = f"{registry.host}/killed/app"
    for turn in range(20):
        context = folder(
            f"FROM base\nCOPY data /data{turn}\nRUN echo {turn} > /turn && cat /data{turn} | sha256sum > /sum\n",
            {"data": rand.randbytes(3_000_000)}, name=f"context-{turn}",
        )  # fmt: skip
        process = kiln.start("build", "--progress", "plain", "-t", f"{name}:{turn}", "--push", context)
        time.sleep(rand.uniform(0, 1.5))
        process.kill()
        process.communicate()
        wait_for(lambda: not processes_with(str(kiln.home)), LIMIT)
        assert kiln.mounts() == []
        assert kiln.damaged() == [], turn
    kiln.build(context, "-t", f"{name}:last", "--push")
    kiln.run("tag", f"{name}:last", "last")
    assert kiln.files("last")["turn"].content == "=19\n"
    kiln.run("prune")
    kiln.build(context, "-t", "again")
    assert kiln.damaged() == [] and kiln.scratch() == []
    assert without_times(kiln, "again") == without_times(kiln, "last")
    assert unfinished(kiln) == []


def without_times(kiln, name):
    return dict(kiln.files(name))


def unfinished(kiln):
    """Temporary files that a killed process left beside what it was writing."""
    return [str(path) for path in kiln.store.rglob(".*") if "snapshots" not in path.parts]


def test_kill_9_of_the_first_start(tmp_path, busybox_home, folder):
    """A home that was being made when the power went is made again."""
    from tests.services import Kiln

    context = folder("FROM scratch\nCOPY Dockerfile /\n")
    for turn in range(12):
        home = tmp_path / f"home-{turn}"
        process = Kiln(home).start("build", context)
        while not (home / "store").exists() and process.poll() is None:
            pass
        time.sleep(turn * 0.0003)
        process.kill()
        process.communicate()
        Kiln(home).build(context, "-t", "first")
        assert Kiln(home).damaged() == []


def test_a_store_without_its_marker_is_finished(tmp_path, folder):
    """What a kill between the first two files of a new store leaves."""
    from tests.services import Kiln

    kiln = Kiln(tmp_path / "home")
    (kiln.store / "blobs" / "sha256").mkdir(parents=True)
    (kiln.store / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    kiln.build(folder("FROM scratch\nCOPY Dockerfile /\n"), "-t", "first")
    assert kiln.damaged() == []


@needs_root
@pytest.mark.root
def test_output_that_nobody_reads_any_more(kiln, folder):
    """`kiln build | head -1`: the build ends when it cannot write, and the step with it."""
    word = unique()
    context = folder(f"FROM base\nRUN while true; do echo {word}; sleep 0.1; done\n")
    process = kiln.start("build", "--progress", "plain", context)
    wait_for(lambda: processes_with(word), 10)
    assert process.stderr.readline()
    process.stderr.close()
    process.stdout.close()
    done = threading.Event()
    threading.Thread(target=lambda: (process.wait(), done.set()), daemon=True).start()
    if not done.wait(LIMIT):
        process.kill()
        process.wait()
        pytest.fail("the build went on")
    wait_for(lambda: not processes_with(word), LIMIT)
