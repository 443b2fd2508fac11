"""What goes wrong is said: exit code, place, hint, no traceback; nothing is pushed and the store stays good."""

import os
import shutil
import subprocess
import threading

import pytest

from tests.integration.test_build_hostile import member, tar
from tests.services import USER, Http, Kiln, ask, foreign_image, free_port, sha256_of

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for RUN steps, mounts or other users")

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
# name: (Dockerfile, flags, exit code, what the message says: all of these)
DOCKERFILES = {
    "unknown-instruction": ("FROM base\nCOPPY a /\n", [], 1, ["Dockerfile:2", "COPPY", "COPY"]),
    "unknown-flag": ("FROM base\nCOPY --chwon=1 file /\n", [], 1, ["Dockerfile:2", "--chwon", "--chown"]),
    "missing-source": ("FROM base\nCOPY flie /\n", [], 1, ["Dockerfile:2", '"/flie": not found', "Did you mean file?"]),
    "outside": ("FROM base\nCOPY ../../etc/passwd /\n", [], 1, ["Dockerfile:2", "cannot leave the context"]),
    "unknown-stage": ("FROM base AS one\nFROM base\nCOPY --from=onee /a /\n", [], 1, ["Dockerfile:3", "onee"]),
    "unknown-target": ("FROM base AS one\n", ["--target", "two"], 2, ["two", "Stages are one"]),
    "cycle": ("FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\nCOPY --from=a /x /\n", [], 1, ["Dockerfile:"]),
    "own-stage": ("FROM base AS a\nCOPY --from=a /x /\n", [], 1, ["Dockerfile:1", "a -> a"]),
    "undefined-arg": ("FROM $NOWHERE\n", [], 1, ["Dockerfile:1", "NOWHERE"]),
    "bad-substitution": ("FROM base\nENV A=${B:?is needed}\n", [], 1, ["Dockerfile:2", "is needed"]),
    "heredoc": ("FROM base\nRUN <<END\necho\n", [], 1, ["Dockerfile:2", "END"]),
    "no-from": ("RUN true\n", [], 1, ["Dockerfile:1"]),
    "empty": ("\n# nothing\n", [], 1, ["Dockerfile"]),
    "bad-base": ("FROM UPPER/Case\n", [], 1, ["Dockerfile:1"]),
    "bad-quotes": ('FROM base\nCMD ["a", b]\nLABEL "x\n', [], 1, ["Dockerfile:3"]),
    "bad-chown": ("FROM base\nCOPY --chown=nobodyknows:0 file /\nUSER nobodyknows\nRUN id\n", [], 1, ["Dockerfile:4", "nobodyknows"]),
    "file-over-folder": ("FROM base\nCOPY file /etc\nCOPY sub /etc/file\n", [], 1, ["Dockerfile:3"]),
    "bad-tag": ("FROM base\n", ["-t", "a:b:c"], 2, ["a:b:c"]),
    "push-without-name": ("FROM base\n", ["--push"], 2, ["--push needs a name"]),
    "bad-output": ("FROM base\n", ["--output", "type=ociii"], 2, ["ociii", "Types are"]),
    "unknown-option": ("FROM base\n", ["--tagg", "x"], 2, ["--tag"]),
    "bad-platform": ("FROM base\n", ["--platform", "linux/one/two/three"], 2, ["linux/one/two/three"]),
    "bad-epoch": ("FROM base\n", ["--build-arg", "SOURCE_DATE_EPOCH=now"], 2, ["SOURCE_DATE_EPOCH"]),
    "missing-secret": ("FROM base\n", ["--secret", "id=a,src=/nowhere/x"], 2, ["/nowhere/x"]),
    "missing-file": ("FROM base\n", ["-f", "/nowhere/Dockerfile"], 1, ["/nowhere/Dockerfile"]),
    "bad-timeout": ("FROM base\n", ["--timeout", "soon"], 2, ["soon"]),
}  # fmt: skip


@pytest.mark.parametrize(
    "line", [b"ENV A=caf\xe9", b"RUN echo \xe9", b"RUN <<E\necho \xe9\nE", b"COPY caf\xe9 /", b"LABEL a=\xe9"]
)
def test_bytes_that_are_no_text(line, kiln, folder):
    ended = kiln.build(folder(""), "-f", "-", data=b"FROM base\n" + line + b"\n", code=1)
    assert ":2" in ended.err and "bytes that are not UTF-8" in ended.err and "hint" in ended.err


def test_bytes_in_files_are_fine(kiln, folder):
    """Names and contents of files are bytes; so is what an inline file holds."""
    place = folder("FROM base\n")
    with open(os.fsencode(place) + b"/caf\xe9", "wb") as file:
        file.write(b"\xff")
    kiln.build(place, "-t", "x", "-f", "-", data=b"FROM base\nCOPY . /in/\nCOPY <<E /inline\n\xe9\nE\n")
    files = kiln.files("x")
    assert any(path.startswith("in/caf") for path in files) and "inline" in files


@pytest.mark.parametrize("name", sorted(DOCKERFILES))
def test_a_build_that_cannot_be(name, kiln, folder, registry):
    dockerfile, flags, code, says = DOCKERFILES[name]
    if name == "bad-chown" and os.geteuid() != 0:
        pytest.skip("RUN runs as root in these tests")
    place = folder(dockerfile, {"file": "x", "sub/y": "y"})
    target = f"{registry.host}/errors/{name}:1"
    push = [] if name == "push-without-name" else ["-t", target, "--push"]
    ended = kiln.build(place, *push, *flags, code=code)
    for text in says:
        assert text in ended.err, ended.err
    assert "error" in ended.err.lower()
    assert ask(registry.host, "GET", f"/v2/errors/{name}/tags/list")[0] == 404
    still_good(kiln, folder)


def still_good(kiln, folder):
    """The store is whole, nothing is left, and the next build works."""
    assert kiln.damaged() == [] and kiln.scratch() == []
    kiln.build(folder("FROM base\nCOPY file /\n", {"file": "x"}, name="good"), "-t", "good")
    assert kiln.files("good")["file"].content == "=x"


def test_a_registry_that_does_not_listen(kiln, folder):
    host = f"127.0.0.1:{free_port()}"
    pulled = kiln.build(folder(f"FROM {host}/team/app:1\n"), code=1)
    assert host in pulled.err and "hint" in pulled.err
    pushed = kiln.build(folder("FROM base\n", name="b"), "-t", f"{host}/team/app:1", "--push", code=1)
    assert host in pushed.err and "cannot be reached" in pushed.err and "hint" in pushed.err
    still_good(kiln, folder)


def test_a_wrong_password(kiln, folder, login_registry):
    ended = kiln.run("login", login_registry.host, "-u", USER, "--password-stdin", data=b"SECRET-wrong\n", code=1)
    assert "refused the user name or password" in ended.err and "SECRET" not in ended.text
    ended = kiln.build(folder("FROM base\n"), "-t", f"{login_registry.host}/x/y:1", "--push", code=1)
    assert "wants a user name and a password" in ended.err


def test_an_image_that_the_registry_does_not_have(kiln, folder, registry):
    ended = kiln.build(folder(f"FROM base\nFROM {registry.host}/errors/none:1\n"), code=1)
    assert "Dockerfile:2" in ended.err or f"{registry.host}/errors/none:1" in ended.err
    assert "hint" in ended.err
    still_good(kiln, folder)


@pytest.mark.parametrize("text", ["FROM app\nCOPY Dockerfile /\n", "FROM base\nCOPY --from=app /hello /\n"])
def test_a_damaged_blob_in_the_store(text, kiln, folder, registry):
    """Said with the file's name and what to do; not pushed; and mended as the hint says."""
    good = folder("FROM base\nCOPY hello /\n", {"hello": "hello" * 9999}, name="app")
    kiln.build(good, "-t", "app")
    layer = kiln.manifest("app:latest")["layers"][-1]["digest"].partition(":")[2]
    path = kiln.store / "blobs" / "sha256" / layer
    data = path.read_bytes()
    path.write_bytes(data[:-9] + b"x" + data[-8:])
    target = f"{registry.host}/errors/damaged:{len(text)}"
    ended = kiln.build(folder(text), "-t", target, "--push", code=1)
    assert layer in ended.err and "hint" in ended.err
    assert ask(registry.host, "GET", "/v2/errors/damaged/tags/list")[0] == 404
    path.unlink()
    kiln.build(good, "-t", "app")
    kiln.build(folder(text), "-t", "mended")
    assert kiln.damaged() == []


def test_a_damaged_index_of_the_store(kiln, folder):
    path = kiln.store / "index.json"
    good = path.read_bytes()
    path.write_bytes(good[:40])
    ended = kiln.build(folder("FROM base\nCOPY Dockerfile /\n"), "-t", "x", code=1)
    assert str(path) in ended.err and "damaged" in ended.err
    path.write_bytes(good)
    still_good(kiln, folder)


@pytest.mark.parametrize("what", ["toc", "layers", "cache", "index"])
def test_a_damaged_fact_of_the_store(what, kiln, folder):
    """Small facts can be made again; one that is garbage does not stop a build for ever with a fault of Kiln's own."""
    place = folder("FROM base\nCOPY file /\n", {"file": "x"})
    kiln.build(place, "-t", "x")
    for path in [path for path in (kiln.store / what).rglob("*") if path.is_file()]:
        path.write_bytes(b"\xffgarbage")
    (place / "file").write_text("changed")
    ended = kiln.build(place, "-t", "x", code=None)
    if ended.code:
        assert ended.code == 1 and str(kiln.store / what) in ended.err, ended.err
    else:
        assert kiln.files("x")["file"].content == "=changed"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


FULL = {
    "copy": "FROM base\nCOPY big /\n",
    "run": "FROM base\nRUN dd if=/dev/urandom of=/x bs=1M count=40\n",
    "add": "FROM base\nADD big.tar /in/\n",
    "url": "FROM base\nADD http://{host}/big /\n",
    "pull": "FROM {host}/hostile:1\nCOPY Dockerfile /\n",
    "from": "FROM base AS a\nCOPY half /\nFROM base\nCOPY --from=a /half /other\n",
}


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("name", sorted(FULL))
def test_a_full_disk(name, small_disk, kiln, folder):
    shutil.copytree(kiln.home, small_disk / "home", symlinks=True)
    small = Kiln(small_disk / "home", kiln.env)
    big = os.urandom(1 << 20) * 40
    layer = tar(member("big", data=big))
    with Http({**foreign_image(layer), "/big": (200, {}, big)}) as server:
        text = FULL[name].format(host=server.host)
        place = folder(text, {"big": big, "big.tar": layer, "half": os.urandom(1 << 20) * 11})
        ended = small.build(place, "-t", "x", code=1)
    assert "No space left on device" in ended.err or "disk is full" in ended.err, ended.err
    if name != "run":
        assert "hint: The disk is full" in ended.err, ended.err
    still_good(small, folder)


def test_no_runtime(kiln, folder):
    lonely = Kiln(kiln.home, {**kiln.env, "KILN_RUNTIME": "/nonexistent/runc"})
    ended = lonely.build(folder("FROM base\nRUN true\n"), "-t", "x", code=1)
    assert "Dockerfile:2" in ended.err and "no OCI runtime" in ended.err and "hint" in ended.err
    lonely.build(folder("FROM base\nCOPY Dockerfile /\n", name="copy"), "-t", "x")


def test_a_runtime_that_fails(kiln, folder, tmp_path):
    program = tmp_path / "runc"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    bad = Kiln(kiln.home, {**kiln.env, "KILN_RUNTIME": str(program)})
    ended = bad.build(folder("FROM base\nRUN true\n"), "-t", "x", code=1)
    assert "Dockerfile:2" in ended.err
    still_good(kiln, folder)


def test_a_program_that_is_not_there(kiln_on_each_runtime, folder):
    if os.geteuid() != 0:
        pytest.skip("RUN runs as root in these tests")
    kiln = kiln_on_each_runtime
    ended = kiln.build(folder('FROM base\nRUN ["/no/such/program"]\n'), code=1)
    assert "Dockerfile:2" in ended.err and "/no/such/program" in ended.err
    ended = kiln.build(folder("FROM scratch\nCOPY Dockerfile /\nRUN true\n", name="s"), code=1)
    assert "Dockerfile:3" in ended.err and "/bin/sh" in ended.err


@needs_root
@pytest.mark.root
def test_a_home_that_may_not_be_written(open_folder):
    (open_folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    closed = open_folder / "closed"
    closed.mkdir(mode=0o755)
    ended = Kiln(closed / "home", prefix=NOBODY).build(open_folder, code=1)
    assert str(closed) in ended.err and "Permission denied" in ended.err and "--home" in ended.err


@needs_root
@pytest.mark.root
def test_a_file_that_may_not_be_read(open_folder):
    place, home = open_folder / "context", open_folder / "own"
    place.mkdir()
    (place / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (place / "closed").write_text("x")
    (place / "closed").chmod(0)
    home.mkdir()
    os.chown(home, 65534, 65534)
    ended = Kiln(home / "home", prefix=NOBODY).build(place, code=1)
    assert "closed" in ended.err and "Permission denied" in ended.err and "hint" in ended.err


def test_another_platform_without_emulation(kiln, folder):
    if os.path.exists("/proc/sys/fs/binfmt_misc/qemu-s390x"):
        pytest.skip("this machine has an emulator for s390x")
    place = folder("FROM scratch\nCOPY Dockerfile /\nRUN true\n")
    ended = kiln.build(place, "--platform", "linux/s390x", code=1)
    assert "Dockerfile:3" in ended.err and "linux/s390x" in ended.err and "qemu-user-static" in ended.err


@needs_root
@pytest.mark.root
def test_a_command_that_fails(kiln, folder, registry):
    place = folder("FROM base\nRUN echo one && \\\n    echo two >&2 && false\n")
    ended = kiln.build(place, "-t", f"{registry.host}/errors/failed:1", "--push", code=1)
    for text in ("Dockerfile:2", "ended with exit code 1", "| one", "| two", "the whole log: "):
        assert text in ended.err
    log = ended.err.split("the whole log: ")[1].splitlines()[0]
    with open(log) as file:
        assert sorted(file.read().splitlines()) == ["one", "two"]
    assert ask(registry.host, "GET", "/v2/errors/failed/tags/list")[0] == 404


def test_a_registry_that_fails_in_the_middle_of_a_push(kiln, folder):
    """It takes the layers and refuses the manifest."""
    ended = None
    with Http({"/v2/": (200, {}, b"{}")}) as server:
        ended = kiln.build(folder("FROM base\n"), "-t", f"{server.host}/x/y:1", "--push", code=1, seconds=30)
    assert "x/y" in ended.err and "Traceback" not in ended.err
    still_good(kiln, folder)


def test_a_file_that_changes_while_it_is_read(kiln, folder):
    """Either the old or the new content, or an error that says so: never a mixture under the wrong key."""
    place = folder("FROM base\nCOPY file /\n", {"file": b"a" * 30_000_000})
    stop = threading.Event()

    def change():
        while not stop.is_set():
            with (place / "file").open("r+b") as file:
                for letter in b"ab":
                    file.seek(0)
                    file.write(bytes([letter]) * 30_000_000)

    thread = threading.Thread(target=change)
    thread.start()
    ended = kiln.build(place, "-t", "x", code=None)
    stop.set()
    thread.join()
    assert ended.code == 0 or "changed" in ended.err
    (place / "file").write_bytes(b"c" * 30_000_000)
    kiln.build(place, "-t", "x")
    digest = sha256_of(b"c" * 30_000_000).partition(":")[2]
    assert digest in kiln.files("x")["file"].content
