"""Archives, contexts and images that mean harm: nothing outside is read or written, and memory stays bounded."""

import gzip
import hashlib
import io
import os
import tarfile
import zlib

import pytest

from tests.services import Http, foreign_image, sha256_of

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root")
LIMIT = 200 << 20
SECRET = "what-only-the-host-has"


@pytest.fixture
def canary(tmp_path):
    """A folder beside everything else that nobody may write to; yields it with a file in it, checks it at the end."""
    place = tmp_path / "canary"
    place.mkdir()
    (place / "file").write_text(SECRET)
    before = state(tmp_path, place)
    yield place
    assert state(tmp_path, place) == before


def state(root, place):
    """What a write outside would change: the canary, and the names above the home."""
    names = sorted(os.listdir(place)), (place / "file").read_text(), (place / "file").lstat().st_nlink
    return names, sorted(set(os.listdir("/")) | set(os.listdir("/tmp/..")) | set(os.listdir("/etc")))


def member(name, kind=tarfile.REGTYPE, data=b"", link="", mode=0o644, **more):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(data), link, mode
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def escapes(canary):
    """Archives that try to leave, by name."""
    away = str(canary)
    up = "../" * 30 + away.lstrip("/")
    return {
        "absolute": tar(member(f"{away}/absolute", data=b"x")),
        "dots": tar(member(f"{up}/dots", data=b"x")),
        "dots-inside": tar(member(f"a/b/{'../' * 30}{away.lstrip('/')}/dots", data=b"x")),
        "link-then-member": tar(member("out", tarfile.SYMTYPE, link=away), member("out/member", data=b"x")),
        "link-up-then-member": tar(member("out", tarfile.SYMTYPE, link=up), member("out/member", data=b"x")),
        "link-over-file": tar(member("f", tarfile.SYMTYPE, link=f"{away}/file"), member("f", data=b"overwritten")),
        "links-in-a-chain": tar(
            member("a", tarfile.SYMTYPE, link="b"),
            member("b", tarfile.SYMTYPE, link=away),
            member("a/member", data=b"x"),
        ),
        "folder-through-link": tar(member("out", tarfile.SYMTYPE, link=away), member("out/made", tarfile.DIRTYPE)),
        "chmod-through-link": tar(
            member("out", tarfile.SYMTYPE, link=away), member("out", tarfile.DIRTYPE, mode=0o777)
        ),
        "hard-link-out": tar(member("h", tarfile.LNKTYPE, link=f"{away}/file"), member("h", data=b"overwritten")),
        "hard-link-up": tar(member("h", tarfile.LNKTYPE, link=f"{up}/file")),
        "hard-link-through-link": tar(
            member("out", tarfile.SYMTYPE, link=away), member("h", tarfile.LNKTYPE, link="out/file")
        ),
        "device": tar(member("disk", tarfile.BLKTYPE, devmajor=254, devminor=0), member("disk", data=b"x")),
    }


ESCAPES = sorted(escapes("/x"))


@pytest.mark.parametrize("name", ESCAPES)
def test_adding_an_archive_that_leaves(name, kiln, folder, canary, tmp_path):
    context = folder("FROM base\nADD evil.tar /in/\n", {"evil.tar": escapes(canary)[name]})
    ended = kiln.build(context, "-t", "evil", "--output", f"type=local,dest={tmp_path}/out", code=None)
    assert ended.code in (0, 1)
    if ended.code == 1:
        assert "Dockerfile:2" in ended.err
    kiln.build(folder("FROM base\n", name="good"), "-t", "good")
    assert SECRET not in everything(tmp_path / "out")


@pytest.mark.parametrize("name", ESCAPES)
def test_a_context_that_leaves(name, kiln, folder, canary, tmp_path):
    data = escapes(canary)[name]
    head = tar(member("Dockerfile", data=b"FROM base\nCOPY . /in/\n"))
    whole = head.rstrip(b"\0")
    whole += bytes(-len(whole) % 512) + data
    ended = kiln.build("-", "--output", f"type=local,dest={tmp_path}/out", data=whole, code=None)
    assert ended.code in (0, 1)
    assert SECRET not in everything(tmp_path / "out")
    assert kiln.scratch() == []


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("name", ESCAPES)
def test_a_base_image_that_leaves(name, kiln, folder, canary, tmp_path):
    """Unpacked for RUN, read for COPY --from, written out as a folder: three ways on which a layer is laid out."""
    with Http(foreign_image(kiln.blob_of_base(), escapes(canary)[name])) as server:
        image = f"{server.host}/hostile:1"
        for number, text in enumerate(
            [
                f"FROM {image}\nRUN true\n",
                f"FROM base\nCOPY --from={image} / /in/\n",
                f"FROM {image}\nCOPY Dockerfile /\n",
            ]
        ):
            ended = kiln.build(
                folder(text, name=f"c{number}"), "--output", f"type=local,dest={tmp_path}/out{number}", code=None
            )
            assert ended.code in (0, 1)
            assert SECRET not in everything(tmp_path / f"out{number}")
    assert kiln.damaged() == [] and kiln.scratch() == []


def everything(place):
    """The content of all files below a folder, links not followed."""
    found = []
    for top, _, names in os.walk(place):
        for name in names:
            path = os.path.join(top, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 1 << 16:
                with open(path, "rb") as file:
                    found.append(file.read().decode(errors="replace"))
    return "\n".join(found)


LEAKS = {
    "link": "COPY link /got",
    "folder-link": "COPY out/file /got",
    "folder": "COPY out /got/",
    "dots": "COPY ../canary/file /got",
    "parents": "COPY --parents out/file /got/",
    "add": "ADD link /got",
    "mount": "RUN --mount=type=bind,source=out,target=/m cat /m/file > /got",
    "mount-file": "RUN --mount=type=bind,source=link,target=/m cat /m > /got",
}


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("name", sorted(LEAKS))
def test_links_out_of_the_context_are_not_followed(name, kiln, folder, canary, tmp_path):
    context = folder(f"FROM base\n{LEAKS[name]}\n", {"file": "inside"})
    (context / "link").symlink_to(canary / "file")
    (context / "out").symlink_to(canary)
    ended = kiln.build(context, "--output", f"type=local,dest={tmp_path}/out", code=None)
    assert ended.code == 1 and "Dockerfile:2" in ended.err and "not found" in ended.err
    assert SECRET not in everything(tmp_path / "out") and SECRET not in ended.text


def test_a_pattern_does_not_go_through_a_link(kiln, folder, canary, tmp_path):
    """A pattern that matches nothing copies nothing, as BuildKit has it."""
    context = folder("FROM base\nCOPY ou*/file /got/\n")
    (context / "out").symlink_to(canary)
    kiln.build(context, "--output", f"type=local,dest={tmp_path}/out")
    assert SECRET not in everything(tmp_path / "out")


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore"])
@pytest.mark.parametrize("how", ["link", "link-up", "fifo"])
def test_a_dockerfile_that_is_no_file_of_the_context(name, how, kiln, canary):
    """A context from elsewhere must not show what the host's files say, not in an error either, nor hang."""
    target = {"link": f"{canary}/file", "link-up": "../" * 30 + f"{canary}/file"[1:], "fifo": ""}[how]
    odd = member(name, tarfile.FIFOTYPE if how == "fifo" else tarfile.SYMTYPE, link=target)
    rest = [] if name == "Dockerfile" else [member("Dockerfile", data=b"FROM base\nCOPY . /in/\n")]
    ended = kiln.build("-", data=tar(odd, *rest), code=None, seconds=10)
    assert ended.code == 1 and f"{name} is not a file of the context" in ended.err
    assert SECRET not in ended.text


def test_a_git_repository_with_a_submodule_of_the_host(kiln, folder, canary, tmp_path):
    """A repository from elsewhere names one on this machine as its submodule (CVE-2022-39253)."""
    private, public = tmp_path / "private", tmp_path / "public"
    for place in (private, public):
        git(place.parent, "init", "-q", place)
        (place / "secret").write_text(SECRET)
        git(place, "add", ".")
        git(place, "commit", "-qm", "x")
    (public / "Dockerfile").write_text("FROM base\nCOPY . /in/\n")
    git(public, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{private}", "sub")
    (public / "secret").write_text("nothing")
    git(public, "add", ".")
    git(public, "commit", "-qm", "y")
    with git_server(public) as url:
        ended = kiln.build(url, "--output", f"type=local,dest={tmp_path}/out", code=None)
    assert SECRET not in everything(tmp_path / "out")
    assert ended.code == 1 and "submodule" in ended.err


def git(place, *words):
    import subprocess

    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *who, *map(str, words)], cwd=place, check=True, capture_output=True)


def git_server(repository):
    """The repository by http, the way that needs no program on the server."""
    bare = repository.with_name("served.git")
    git(repository.parent, "clone", "-q", "--bare", repository, bare)
    git(bare, "update-server-info")
    answers = {
        f"/served.git/{path.relative_to(bare)}": (200, {}, path.read_bytes())
        for path in bare.rglob("*")
        if path.is_file()
    }
    return _Served(answers)


class _Served(Http):
    def __enter__(self):
        return f"http://{self.host}/served.git"


def zeros(size):
    """A gzip file of `size` zero bytes, one member of a tar."""
    packer = zlib.compressobj(9, wbits=31)
    info = tarfile.TarInfo("zeros")
    info.size = size
    out = packer.compress(info.tobuf())
    for _ in range(size >> 20):
        out += packer.compress(bytes(1 << 20))
    return out + packer.compress(bytes(1024)) + packer.flush()


@pytest.mark.slow
def test_a_gigabyte_of_zeros_in_a_megabyte(kiln, folder):
    context = folder("FROM base\nADD bomb.tar.gz /in/\n", {"bomb.tar.gz": zeros(1 << 30)})
    ended = kiln.build(context, "-t", "bomb")
    assert ended.memory < LIMIT, f"{ended.memory >> 20} MB"
    assert kiln.scratch() == []


def sparse(size):
    """A tar whose one member says that it is `size` bytes of holes (GNU sparse 1.0)."""
    table = b"0\n".ljust(512, b"\0")
    info = tarfile.TarInfo("sparse")
    info.size = len(table)
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse", "GNU.sparse.realsize": str(size),
    }  # fmt: skip
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(table))
    return out.getvalue()


def test_a_member_that_says_it_is_an_exabyte(kiln, folder):
    """It may be refused, taken for a plain file, or take for ever: but not the memory, and the time limit ends it."""
    context = folder("FROM base\nADD big.tar /in/\n", {"big.tar": sparse(1 << 60)})
    ended = kiln.build(context, "--timeout", "2", code=None, seconds=10)
    assert ended.code in (0, 1, 130) and ended.memory < LIMIT
    assert kiln.scratch() == []


def damaged():
    good = tar(member("a", data=os.urandom(70000)), member("b", data=b"b" * 1000))
    packed = gzip.compress(good)
    return {
        "cut": good[:40000],
        "cut-gzip": packed[: len(packed) // 2],
        "corrupt-gzip": packed[:50000] + bytes(64) + packed[50064:],
        "wrong-checksum": packed[:-8] + b"\1\2\3\4" + packed[-4:],
        "cut-header": good[: 512 * 140],
        "bad-header": good[: 512 + 70144] + b"garbage" * 100,
    }


@pytest.mark.parametrize("name", sorted(damaged()))
def test_a_damaged_archive(name, kiln, folder):
    context = folder("FROM base\nADD bad.tar /in/\n", {"bad.tar": damaged()[name]})
    ended = kiln.build(context, "-t", "bad", code=None)
    if name != "cut-header":
        assert ended.code == 1 and "/bad.tar: " in ended.err
    assert kiln.scratch() == [] and kiln.damaged() == []


def image_with(server_answers, path, change):
    """The answers with one of them changed."""
    status, headers, body = server_answers[path]
    return {**server_answers, path: (status, headers, change(body))}


@needs_root
@pytest.mark.root
@pytest.mark.parametrize(
    "text", ["FROM {}\nRUN true\n", "FROM {}\nCOPY Dockerfile /\n", "FROM base\nCOPY --from={} /x /\n"]
)
def test_a_layer_that_is_not_what_its_config_says(text, kiln, folder):
    layer = tar(member("x", data=b"x"))
    with Http(foreign_image(layer, diff_ids=[sha256_of(b"other")])) as server:
        ended = kiln.build(folder(text.format(f"{server.host}/hostile:1")), "-t", "bad", code=1)
    assert "unpacks to" in ended.err or "does not unpack" in ended.err
    assert "Dockerfile:" in ended.err


def test_a_layer_with_other_bytes_than_its_digest(kiln, folder):
    layer = tar(member("x", data=b"x" * 3000))
    answers = foreign_image(layer)
    answers = image_with(answers, f"/v2/hostile/blobs/{sha256_of(layer)}", lambda body: b"y" + body[1:])
    with Http(answers) as server:
        ended = kiln.build(folder(f"FROM {server.host}/hostile:1\nCOPY Dockerfile /\n"), "-t", "bad", code=1)
    assert sha256_of(layer) in ended.err
    assert kiln.damaged() == [] and hashlib.sha256(layer).hexdigest() not in kiln.blobs()


def test_a_manifest_with_other_bytes_than_its_digest(kiln, folder):
    answers = foreign_image(tar(member("x", data=b"x")))
    path = next(name for name in answers if "/manifests/sha256:" in name)
    answers = image_with(answers, path, lambda body: body + b" ")
    with Http(answers) as server:
        ended = kiln.build(folder(f"FROM {server.host}/hostile:1\n"), "-t", "bad", code=1)
    assert path.rpartition("/")[2] in ended.err and kiln.damaged() == []


def test_a_layer_that_never_ends(kiln, folder):
    """A registry that sends more than the manifest says is cut off."""
    layer = tar(member("x", data=b"x"))

    def endless(out):
        while True:
            out.write(bytes(1 << 16))

    answers = foreign_image(layer)
    answers[f"/v2/hostile/blobs/{sha256_of(layer)}"] = (200, {}, endless)
    with Http(answers) as server:
        ended = kiln.build(folder(f"FROM {server.host}/hostile:1\nCOPY Dockerfile /\n"), code=1, seconds=30)
    assert "the registry sends more" in ended.err and kiln.scratch() == []
