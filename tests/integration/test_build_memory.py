"""Memory stays bounded whatever the size of a file."""

import pytest

from tests.services import Http

pytestmark = [pytest.mark.integration, pytest.mark.slow]
LIMIT = 200 << 20
SIZE = 2 << 30


def sparse(path, size):
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"middle")


@pytest.mark.parametrize("flags", [[], ["--compression", "zstd"], ["--push"]], ids=["gzip", "zstd", "push"])
def test_a_large_file(flags, kiln, folder, registry):
    place = folder("FROM base\nCOPY big /\n")
    sparse(place / "big", SIZE if not flags else 600 << 20)
    ended = kiln.build(place, "-t", f"{registry.host}/memory/big:1", *flags, seconds=120)
    assert ended.memory and ended.memory < LIMIT, f"{ended.memory >> 20} MB"


def test_a_large_file_from_a_stage_and_as_a_tar(kiln, folder, tmp_path):
    place = folder("FROM base AS one\nCOPY big /\nFROM base\nCOPY --from=one /big /\n")
    sparse(place / "big", 600 << 20)
    ended = kiln.build(place, "-t", "x", "--output", f"type=tar,dest={tmp_path}/out.tar", seconds=120)
    assert ended.memory < LIMIT, f"{ended.memory >> 20} MB"


def test_a_large_download(kiln, folder):
    def body(out):
        for _ in range(600):
            out.write(bytes(1 << 20))

    with Http({"/big": (200, {"Content-Length": str(600 << 20)}, body)}) as server:
        ended = kiln.build(folder(f"FROM base\nADD http://{server.host}/big /\n"), seconds=120)
    assert ended.memory < LIMIT, f"{ended.memory >> 20} MB"


def test_many_files(kiln, folder):
    """40,000 entries: what is kept of each is small."""
    place = folder("FROM base\nCOPY many /many/\n")
    for number in range(40):
        top = place / "many" / str(number)
        top.mkdir(parents=True)
        for name in range(1000):
            (top / f"a-file-with-a-name-{name}").write_bytes(b"x")
    assert kiln.build(place, "-t", "x").memory < LIMIT
    assert kiln.build(place, "-t", "x").memory < LIMIT
