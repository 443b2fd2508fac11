"""What a build gives out: folders, tars, ids, metadata, indexes; and where it takes its context from."""

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile

import pytest

from tests.integration.test_build_hostile import git, git_server
from tests.services import Http, ask, members

pytestmark = pytest.mark.integration
TEXT = """FROM scratch
COPY --chmod=0640 a.txt /d/a.txt
COPY --chmod=4755 b.sh /d/b.sh
COPY link /l/
COPY both/ /both/
"""
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def place(folder):
    made = folder(TEXT, {"a.txt": "a\n", "b.sh": "#!/bin/sh\n", "both/one": "same", "link/target": "t"})
    (made / "link" / "to").symlink_to("../d/a.txt")
    os.link(made / "both" / "one", made / "both" / "two")
    return made


def test_a_folder(kiln, place, tmp_path):
    kiln.build(place, "--output", f"type=local,dest={tmp_path}/out")
    out = tmp_path / "out"
    assert (out / "d" / "a.txt").read_text() == "a\n" and stat.S_IMODE((out / "d" / "a.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((out / "d" / "b.sh").stat().st_mode) == 0o4755
    assert os.readlink(out / "l" / "to") == "../d/a.txt"
    assert (out / "both" / "one").stat().st_ino == (out / "both" / "two").stat().st_ino
    kiln.build(place, "-o", tmp_path / "short")
    assert sorted(os.listdir(tmp_path / "short")) == sorted(os.listdir(out))


def test_a_folder_with_a_link_in_the_way(kiln, place, tmp_path):
    """A link that stands in the destination is replaced, not written through."""
    (tmp_path / "out").mkdir()
    (tmp_path / "away").mkdir()
    (tmp_path / "out" / "d").symlink_to(tmp_path / "away")
    kiln.build(place, "--output", f"type=local,dest={tmp_path}/out", code=None)
    assert list((tmp_path / "away").iterdir()) == []


def test_a_tar(kiln, place, tmp_path):
    kiln.build(place, "--output", f"type=tar,dest={tmp_path}/out.tar")
    found = members((tmp_path / "out.tar").read_bytes())
    assert found["d/a.txt"].data == b"a\n" and found["d/a.txt"].mode == 0o640
    assert found["l/to"].linkname == "../d/a.txt" and found["both/two"].islnk()
    process = kiln.start("build", "-o", "-", place)
    out, _ = process.communicate(timeout=30)
    assert out == (tmp_path / "out.tar").read_bytes()


def test_a_failed_build_leaves_no_half_file(kiln, folder, tmp_path):
    (tmp_path / "out.tar").write_text("old")
    kiln.build(folder("FROM base\nCOPY none /\n"), "--output", f"type=oci,dest={tmp_path}/out.tar", code=1)
    assert (tmp_path / "out.tar").read_text() == "old"
    assert [name for name in os.listdir(tmp_path) if "part" in name] == []


def test_ids_and_metadata(kiln, place, tmp_path):
    ended = kiln.run(
        "build", "-q", "-t", "x", "--iidfile", tmp_path / "iid", "--metadata-file", tmp_path / "meta", place
    )
    manifest = kiln.manifest("x:latest")
    assert (tmp_path / "iid").read_text() == manifest["config"]["digest"] == ended.out.strip()
    facts = json.loads((tmp_path / "meta").read_text())
    assert facts["containerimage.digest"] == kiln.digest("x:latest")
    assert facts["containerimage.config.digest"] == manifest["config"]["digest"]
    assert facts["containerimage.descriptor"]["size"] == len(kiln.blob(kiln.digest("x:latest")))
    assert facts["image.name"].endswith("/x:latest")


def test_labels_and_annotations(kiln, place):
    kiln.build(place, "-t", "x", "--label", "a=1", "--label", "b=x y", "--annotation", "org.test=yes")
    assert kiln.config("x:latest")["config"]["Labels"] == {"a": "1", "b": "x y"}
    assert kiln.manifest("x:latest")["annotations"]["org.test"] == "yes"


def test_several_platforms_as_an_index(kiln, folder, registry, tmp_path):
    place = folder("FROM scratch\nARG TARGETARCH\nCOPY ${TARGETARCH} /here\n", {"amd64": "x86", "arm64": "arm"})
    name = f"{registry.host}/outputs/both"
    kiln.build(
        place,
        "-t",
        f"{name}:1",
        "--push",
        "--platform",
        "linux/amd64,linux/arm64",
        "--metadata-file",
        tmp_path / "meta",
    )
    status, body = ask(registry.host, "GET", "/v2/outputs/both/manifests/1", {"Accept": INDEX})
    assert status == 200
    index = json.loads(body)
    assert index["mediaType"] == INDEX
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    for entry, text in zip(index["manifests"], (b"x86", b"arm"), strict=True):
        manifest = json.loads(
            ask(registry.host, "GET", f"/v2/outputs/both/manifests/{entry['digest']}", {"Accept": MANIFEST})[1]
        )
        config = json.loads(kiln.blob(manifest["config"]["digest"]))
        assert config["architecture"] == entry["platform"]["architecture"]
        assert members(kiln.blob(manifest["layers"][-1]["digest"]))["here"].data == text
    assert (
        json.loads((tmp_path / "meta").read_text())["containerimage.digest"]
        == f"sha256:{hashlib.sha256(body).hexdigest()}"
    )
    out = tmp_path / "split"
    kiln.build(place, "--platform", "linux/amd64,linux/arm64", "--output", f"type=local,dest={out}")
    assert (out / "linux_arm64" / "here").read_text() == "arm"


def test_the_dockerfile_from_standard_input(kiln, place):
    kiln.build(place, "-t", "x", "-f", "-", data=b"FROM scratch\nCOPY a.txt /from-stdin\n")
    assert "from-stdin" in kiln.files("x")


def tar_of(place):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(place, ".")
    return out.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_a_context_from_standard_input(packed, kiln, place):
    data = tar_of(place)
    kiln.build("-", "-t", "x", data=gzip.compress(data) if packed else data)
    kiln.build(place, "-t", "y")
    assert kiln.digest("x:latest") == kiln.digest("y:latest")


def test_a_lone_dockerfile_from_standard_input(kiln):
    kiln.build("-", "-t", "x", data=b"FROM base\nENV A=b\n")
    assert "A=b" in kiln.config("x:latest")["config"]["Env"]
    ended = kiln.build("-", code=1, data=b"FROM base\nCOPY a /\n")
    assert '"/a": not found' in ended.err


def test_a_context_from_a_url(kiln, place):
    with Http(
        {"/context.tar.gz": (200, {}, gzip.compress(tar_of(place))), "/Dockerfile": (200, {}, b"FROM base\n")}
    ) as server:
        kiln.build(f"http://{server.host}/context.tar.gz", "-t", "x")
        kiln.build(f"http://{server.host}/Dockerfile", "-t", "lone")
        ended = kiln.build(f"http://{server.host}/none.tar", code=1)
    kiln.build(place, "-t", "y")
    assert kiln.digest("x:latest") == kiln.digest("y:latest")
    assert "404" in ended.err and "/none.tar" in ended.err


def test_a_context_from_git(kiln, folder, tmp_path):
    place = folder("FROM base\nCOPY . /in/\n", {"file": "first", "sub/Dockerfile": "FROM base\nCOPY . /sub/\n"})
    git(place, "init", "-q", "-b", "trunk")
    git(place, "add", ".")
    git(place, "commit", "-qm", "one")
    git(place, "tag", "v1")
    (place / "file").write_text("second")
    git(place, "commit", "-qam", "two")
    with git_server(place) as url:
        kiln.build(url, "-t", "head")
        kiln.build(f"{url}#v1", "-t", "tag")
        kiln.build(f"{url}#trunk:sub", "-t", "sub")
        ended = kiln.build(f"{url}#nowhere", code=1)
    assert kiln.files("head")["in/file"].content == "=second" and "in/.git/HEAD" not in kiln.files("head")
    assert kiln.files("tag")["in/file"].content == "=first"
    assert "sub/Dockerfile" in kiln.files("sub") and "in/file" not in kiln.files("sub")
    assert "git" in ended.err and "hint" in ended.err


def test_a_named_context(kiln, folder, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "file").write_text("more")
    place = folder("FROM base\nCOPY --from=more file /\n")
    kiln.build(place, "-t", "x", "--build-context", f"more={tmp_path}/more")
    assert kiln.files("x")["file"].content == "=more"


def test_the_users_files_are_not_touched(kiln, place):
    def look():
        return {
            str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.lstat().st_uid)
            for path in [place, *place.rglob("*")]
        }

    before = look()
    kiln.build(place, "-t", "x")
    kiln.build(place, "-t", "x", "--no-cache")
    assert look() == before
