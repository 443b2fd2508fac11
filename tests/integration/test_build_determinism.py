"""Same inputs, same bytes: wherever, whenever and by whom they are built."""

import gzip
import os
import subprocess
import sys

import pytest

from tests.services import Kiln, members

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps, and giving files to other users, need root")
FILES = {"a.txt": "a\n", "dir/b.txt": "b\n", "dir/deep/c": "c" * 70_000, "run.sh": "#!/bin/sh\n"}
COPIES = """FROM base
COPY . /all/
COPY --chown=app:app dir/ /chowned/
COPY --chmod=0640 a.txt /moded
ADD part.tar.gz /unpacked/
WORKDIR /made/here
ENV X=1
COPY --link run.sh /bin/run
"""


def archive(folder):
    """A tar.gz of two files whose bytes are always the same."""
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        for name in ("x", "y/z"):
            info = tarfile.TarInfo(name)
            info.size = 1
            packed.addfile(info, io.BytesIO(b"1"))
    (folder / "part.tar.gz").write_bytes(gzip.compress(out.getvalue(), mtime=0))


def context(folder, name, dockerfile, time, uid=0, order=1):
    """A context: always the same content and modes, its times, owner and order of creation as told."""
    place = folder(dockerfile, dict(list(FILES.items())[::order]), name=name)
    archive(place)
    (place / "link").symlink_to("a.txt")
    for top, folders, files in os.walk(place):
        for entry in [*folders, *files]:
            path = os.path.join(top, entry)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.path.isdir(path) or entry == "run.sh" else 0o644)
            os.utime(path, (time, time), follow_symlinks=False)
            if uid and os.geteuid() == 0:
                os.chown(path, uid, uid, follow_symlinks=False)
    return place


def with_umask(kiln, umask):
    """The same command under another umask, locale, time zone and host environment."""
    code = f"import os, sys; os.umask({umask}); os.execv(sys.executable, sys.argv[1:])"
    env = {**kiln.env, "LC_ALL": "C", "TZ": "Asia/Tokyo", "USER": "somebody"}
    return Kiln(kiln.home, env, prefix=(sys.executable, "-c", code))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_copies_are_the_same_everywhere(compression, new_kiln, folder):
    first, second = new_kiln("one"), with_umask(new_kiln("two"), 0o77)
    flags = ["-t", "image", "--compression", compression]
    first.build(context(folder, "here", COPIES, 1_500_000_000), *flags)
    second.build(context(folder, "there/below", COPIES, 1_700_000_000.5, uid=1234, order=-1), *flags)
    assert first.manifest("image:latest")["layers"] == second.manifest("image:latest")["layers"]
    assert first.digest("image:latest") == second.digest("image:latest")


@needs_root
@pytest.mark.root
def test_the_umask_of_the_host_is_not_in_a_layer(new_kiln, folder):
    text = "FROM base\nRUN umask > /umask; mkdir /d; touch /d/f\nWORKDIR /w/x\n"
    kiln = with_umask(new_kiln("one"), 0o77)
    kiln.build(folder(text), "-t", "image")
    files = kiln.files("image")
    assert files["umask"].content == "=0022\n"
    assert [oct(files[path].mode) for path in ("d", "d/f", "w", "w/x")] == ["0o755", "0o644", "0o755", "0o755"]


@needs_root
@pytest.mark.root
def test_runs_with_a_fixed_time_are_the_same_bytes(new_kiln, folder, tmp_path):
    """SOURCE_DATE_EPOCH and rewrite-timestamp: the archive is equal byte for byte, no time is later."""
    epoch = 1_600_000_000
    text = COPIES + (
        "RUN mkdir -p /r/s && echo hi > /r/s/f && ln -s f /r/s/l && ln /r/s/f /r/s/h && rm /all/a.txt && chown 5:6 /r\n"
        "RUN cat /etc/hosts > /dev/null; echo $SOURCE_DATE_EPOCH > /epoch; rm -r /all/dir; mkdir /all/dir\n"
    )
    out = []
    for number in (1, 2):
        kiln = with_umask(new_kiln(f"home{number}", SOURCE_DATE_EPOCH=str(epoch)), 0o22 if number == 1 else 0o77)
        place = tmp_path / f"{number}.tar"
        made = context(folder, f"c{number}", text, 1_700_000_000 + number * 1000)
        kiln.build(made, "-t", "image", "--output", f"type=oci,rewrite-timestamp=true,dest={place}")
        out.append(place.read_bytes())
    assert out[0] == out[1]
    check_times(tmp_path / "1.tar", epoch)


def check_times(place, epoch):
    import json

    files = {name: member.data for name, member in members(place.read_bytes()).items()}
    index = json.loads(files["index.json"])
    manifest = json.loads(files["blobs/sha256/" + index["manifests"][0]["digest"][7:]])
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"][7:]])
    assert config["created"] == "2020-09-13T12:26:40Z"
    assert all(line["created"] <= "2020-09-13T12:26:40Z" for line in config["history"] if "created" in line)
    for layer in manifest["layers"][1:]:
        times = {name: member.mtime for name, member in members(files["blobs/sha256/" + layer["digest"][7:]]).items()}
        assert times and max(times.values()) <= epoch, times


def test_the_order_of_a_folder_is_not_in_a_layer(new_kiln, folder):
    files = {f"f{number}": str(number) for number in range(40)}
    text = "FROM base\nCOPY . /x/\n"
    first, second = new_kiln("one"), new_kiln("two")
    first.build(folder(text, files, name="a"), "-t", "image")
    second.build(folder(text, dict(reversed(files.items())), name="b"), "-t", "image")
    assert first.digest("image:latest") == second.digest("image:latest")


def test_the_number_of_processors_is_not_in_a_layer(new_kiln, folder):
    """Many chunks, compressed beside one another, come out as on one processor."""
    place = folder("FROM base\nCOPY big /\n")
    (place / "big").write_bytes(os.urandom(1 << 20) * 24)
    first, second = new_kiln("one"), new_kiln("two")
    first.build(place, "-t", "image")
    one = Kiln(second.home, second.env, prefix=("taskset", "-c", "0"))
    if subprocess.run(["taskset", "-c", "0", "true"], check=False, capture_output=True).returncode:
        pytest.skip("taskset is not installed")
    one.build(place, "-t", "image", "-j", "1")
    assert first.digest("image:latest") == second.digest("image:latest")
