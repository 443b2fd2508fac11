"""What runs again and what does not, and the reason that is given."""

import json
import os
import shutil

import pytest

from tests.services import Kiln

pytestmark = [pytest.mark.integration, pytest.mark.root]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root")
pytestmark.append(needs_root)
TEXT = """FROM base
COPY first /first
RUN echo early > /early
ARG LATE=none
COPY second /second
RUN echo $LATE > /late
"""
FILES = {"first": "1", "second": "2"}


def steps(kiln, place, *flags):
    """Whether each step was cached, with its reason, in order; from the stream of events."""
    ended = kiln.run("build", "--progress", "json", *flags, place)
    found = []
    for line in ended.err.splitlines():
        event = json.loads(line)
        if event["event"] == "stepfinished" and event["step"].replace(".", "").isdigit():
            found.append((bool(event.get("cached")), event.get("reason", "")))
    return found


def which(kiln, place, *flags):
    return [cached for cached, _ in steps(kiln, place, *flags)]


def test_nothing_changed(kiln, folder):
    place = folder(TEXT, FILES)
    assert which(kiln, place, "-t", "x") == [False] * 4
    before, digest = kiln.blobs(), kiln.digest("x:latest")
    assert which(kiln, place, "-t", "x") == [True] * 4
    assert (kiln.blobs(), kiln.digest("x:latest")) == (before, digest)


def test_touched_files_and_another_folder(kiln, folder, tmp_path):
    place = folder(TEXT, FILES)
    kiln.build(place, "-t", "x")
    os.utime(place / "first", (5, 5))
    assert which(kiln, place, "-t", "x") == [True] * 4
    shutil.copytree(place, tmp_path / "moved")
    assert which(kiln, tmp_path / "moved", "-t", "x") == [True] * 4


def test_a_changed_file(kiln, folder):
    place = folder(TEXT, FILES)
    kiln.build(place)
    (place / "second").write_text("3")
    found = steps(kiln, place)
    assert [cached for cached, _ in found] == [True, True, False, False]
    assert found[2][1] == "the content of its files changed"
    assert found[3][1] == "a step before it or its base changed"


@pytest.mark.parametrize("state", ["good", "damaged", "gone"])
def test_a_changed_file_among_many(kiln, new_kiln, folder, state):
    """The others come from the layer of the last time, if that is as it should be; the image is the same either way."""
    place = folder("FROM base\nCOPY . /app/\n", {f"d/f{number}": os.urandom(20000) for number in range(100)})
    kiln.build(place, "-t", "x")
    (place / "d/f50").write_bytes(b"changed")
    layer = max(
        (kiln.store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size * (path.stat().st_size < 1 << 22)
    )
    if state == "gone":
        layer.unlink()
    elif state == "damaged":
        data = layer.read_bytes()
        layer.write_bytes(data[:-9] + b"x" + data[-8:])
    ended = kiln.build(place, "-t", "y")
    assert ("damaged" in ended.err) == (state == "damaged")
    other = new_kiln("other")
    other.build(place, "-t", "y")
    assert kiln.digest("y:latest") == other.digest("y:latest")
    kiln.build(place, "-t", "z", "--no-cache")
    assert kiln.digest("z:latest") == other.digest("y:latest")


def test_a_changed_file_of_the_same_size_and_time(kiln, folder):
    """mtime and size can be kept; the inode's change time cannot."""
    place = folder(TEXT, FILES)
    os.utime(place / "second", (1_600_000_000, 1_600_000_000))
    kiln.build(place)
    kiln.build(place)
    (place / "second").write_text("X")
    os.utime(place / "second", (1_600_000_000, 1_600_000_000))
    kiln.build(place, "-t", "x")
    assert kiln.files("x")["second"].content == "=X"


def test_a_changed_mode_and_a_changed_line(kiln, folder):
    place = folder(TEXT, FILES)
    kiln.build(place)
    (place / "second").chmod(0o600)
    assert which(kiln, place) == [True, True, False, False]
    (place / "Dockerfile").write_text(TEXT.replace("echo early", "echo sooner"))
    found = steps(kiln, place)
    assert [cached for cached, _ in found] == [True, False, False, False]
    assert found[1][1] == "the instruction changed"


def test_an_argument_that_is_used_later(kiln, folder):
    place = folder(TEXT, FILES)
    kiln.build(place)
    found = steps(kiln, place, "--build-arg", "LATE=now")
    assert [cached for cached, _ in found] == [True, True, True, False]
    assert found[3][1] == "a variable that it sees changed"


def test_no_cache(kiln, folder):
    place = folder(TEXT, FILES)
    kiln.build(place)
    found = steps(kiln, place, "--no-cache")
    assert found == [(False, "the cache was not to be used")] * 4


def test_no_cache_for_one_stage(kiln, folder):
    place = folder("FROM base AS one\nRUN echo 1 > /1\nFROM base AS two\nRUN echo 2 > /2\nCOPY --from=one /1 /1\n")
    kiln.build(place)
    assert sorted(which(kiln, place, "--no-cache-filter", "one")) == [False, True, True]


def test_secrets_are_not_in_the_key_nor_anywhere(kiln, folder, tmp_path):
    place = folder("FROM base\nRUN --mount=type=secret,id=s cat /run/secrets/s | wc -c > /length\n")
    (tmp_path / "s").write_text("SECRET-first")
    kiln.build(place, "-t", "x", "--secret", f"id=s,src={tmp_path}/s")
    (tmp_path / "s").write_text("SECRET-second-one")
    assert which(kiln, place, "--secret", f"id=s,src={tmp_path}/s") == [True]
    assert kiln.files("x")["length"].content == "=12\n"
    assert "run/secrets" not in kiln.files("x")
    for path in kiln.store.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"SECRET-" not in path.read_bytes(), path


@pytest.mark.parametrize("where", ["local", "registry"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_shared_cache_in_a_fresh_home(where, mode, new_kiln, folder, registry, tmp_path):
    """min has what the image is made of, max the results of every stage."""
    text = (
        "FROM base AS tools\nRUN echo tool > /tool\nFROM base\nCOPY --from=tools /tool /tool\nRUN echo last > /last\n"
    )
    place = folder(text)
    ref = f"{registry.host}/shared/cache:{mode}"
    to = f"type=local,dest={tmp_path}/cache" if where == "local" else f"type=registry,ref={ref}"
    source = f"type=local,src={tmp_path}/cache" if where == "local" else f"type=registry,ref={ref}"
    first, second = new_kiln("one"), new_kiln("two")
    first.build(place, "-t", "x", "--cache-to", f"{to},mode={mode}")
    found = which(second, place, "-t", "x", "--cache-from", source)
    assert found == ([False, True, True] if mode == "min" else [True, True, True])
    assert second.digest("x:latest") == first.digest("x:latest")
    assert second.damaged() == []


def test_a_shared_cache_that_is_not_there(kiln, folder, registry, tmp_path):
    """A build does not fail for want of a cache."""
    place = folder("FROM base\nRUN true\n")
    flags = ["--cache-from", f"{registry.host}/no/cache:1", "--cache-from", f"type=local,src={tmp_path}/none"]
    assert which(kiln, place, *flags) == [False]


def test_a_damaged_shared_cache(new_kiln, folder, tmp_path):
    """Its damaged layer is not used: the step runs."""
    place = folder("FROM base\nRUN echo right > /answer\n")
    first, second = new_kiln("one"), new_kiln("two")
    first.build(place, "-t", "x", "--cache-to", f"type=local,dest={tmp_path}/cache")
    layer = first.manifest("x:latest")["layers"][-1]["digest"].partition(":")[2]
    path = tmp_path / "cache" / "blobs" / "sha256" / layer
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    ended = second.build(place, "-t", "x", "--cache-from", f"type=local,src={tmp_path}/cache")
    assert "warning" in ended.err
    assert second.files("x")["answer"].content == "=right\n" and second.damaged() == []


def test_a_cache_mount_is_kept(kiln, folder):
    text = "FROM base\nRUN --mount=type=cache,target=/c echo x >> /c/lines && wc -l < /c/lines > /count\n"
    place = folder(text)
    kiln.build(place, "-t", "x")
    kiln.build(place, "-t", "x", "--no-cache")
    assert kiln.files("x")["count"].content == "=2\n" and "c/lines" not in kiln.files("x")


def test_a_blob_that_is_gone_is_made_again(kiln, folder):
    place = folder(TEXT, FILES)
    kiln.build(place, "-t", "x")
    digest = kiln.manifest("x:latest")["layers"][2]["digest"].partition(":")[2]
    (kiln.store / "blobs" / "sha256" / digest).unlink()
    found = steps(Kiln(kiln.home, kiln.env), place, "-t", "x")
    assert found[1] == (False, "its result is no longer in the cache")
    assert kiln.damaged() == []


def test_the_worker_is_started_ahead_only_for_new_instructions(kiln, folder):
    """What was built once from the same instructions is expected to be there still; nobody looks whether it really is."""
    loud = Kiln(kiln.home, {**kiln.env, "PYTHONPROFILEIMPORTTIME": "1"})

    def starts(text, *flags, code=0):
        return (
            "kiln.engine.upper" in loud.build(folder(text), "-t", "x", *flags, code=code).err
        )  # only the worker has it

    text = "FROM base\nARG A=1\nRUN echo 1\n"
    assert [starts(text) for _ in range(2)] == [True, False]
    # The step comes from the cache, but what stands around it is new.
    assert [starts(text + "ENV B=2\n") for _ in range(2)] == [True, False]
    assert not starts("FROM base\nCOPY Dockerfile /\n")
    assert [starts("FROM base\nRUN false\n", code=1) for _ in range(2)] == [True, True]
