"""The client against Debian's docker-registry, open to everybody."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading

import pytest

from kiln.errors import CorruptError, NotFoundError, RegistryError
from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor, parse_manifest
from kiln.oci.platform import Platform
from kiln.oci.reference import Reference
from kiln.registry.copy import copy
from kiln.registry.pull import pull, resolve
from kiln.registry.push import push
from kiln.settings import RegistryRules
from tests.registry.samples import AMD, ARM, image, index, leftovers, new_blobs, new_client, noise
from tests.services import ask

pytestmark = pytest.mark.integration


@pytest.fixture
def client(tmp_path):
    with new_client(tmp_path) as made:
        yield made


@pytest.fixture
def blobs(tmp_path):
    return new_blobs(tmp_path / "store")


@pytest.fixture
def other(tmp_path):
    return new_blobs(tmp_path / "other")


@pytest.fixture
def app(registry, request):
    """A repository of the test's own."""
    return Reference(registry.host, f"t/{request.node.name.partition('[')[0].replace('_', '-')}", "1")


def files(blobs):
    return {path.name: path.read_bytes() for path in (blobs.root / "blobs").rglob("*") if path.is_file()}


def two(blobs):
    one = image(blobs, noise(300_000), b"amd")
    return index(blobs, one, image(blobs, noise(300_000), b"arm", platform=ARM))


def test_index_there_and_back(client, blobs, other, app):
    root = two(blobs)
    assert push(client, blobs, app, root) == root.digest
    assert client.head_manifest(app) == root
    assert pull(client, other, app, None) == root
    assert files(other) == files(blobs)
    assert leftovers(other) == []


def test_one_platform(client, blobs, other, app):
    push(client, blobs, app, two(blobs))
    found = pull(client, other, app, ARM)
    assert found.platform == ARM
    assert parse_manifest(other.get(found.digest), "").layers[1].digest == sha256(b"arm")
    assert not other.has(sha256(b"amd"))
    with pytest.raises(NotFoundError, match="no image for"):
        resolve(client, app, Platform("s390x", "linux"))


def test_second_push_sends_nothing(client, blobs, app, registry, tmp_path):
    root = image(blobs, noise(1000))
    push(client, blobs, app, root)
    with new_client(tmp_path) as fresh:
        logged = len(registry.log())
        push(fresh, blobs, app, root)
        assert "POST" not in registry.log()[logged:]


def test_cross_repository_mount(client, blobs, app, tmp_path):
    data = noise(200_000)
    root = image(blobs, data)
    push(client, blobs, app, root)
    layer = parse_manifest(blobs.get(root.digest), "").layers[0]
    second = Reference(app.host, app.repository + "/second", "1")

    def never(offset):
        raise AssertionError("was uploaded")

    with new_client(tmp_path) as fresh:
        assert fresh.upload_blob(second, layer, never, [app.repository]) == "mounted"
        assert fresh.has_blob(second, layer.digest)
    with new_client(tmp_path) as fresh:
        third = Reference(app.host, "t/third")
        assert fresh.upload_blob(third, layer, lambda offset: iter([data[offset:]]), ["t/nowhere"]) == "uploaded"


def test_push_by_digest(client, blobs, app):
    root = image(blobs, b"no tag")
    bare = Reference(app.host, app.repository)
    push(client, blobs, bare, root)
    assert client.head_manifest(bare.with_digest(root.digest)) == root.plain()
    with pytest.raises(NotFoundError):
        client.get_manifest(app)


def test_tags(client, blobs, app):
    root = image(blobs, b"x")
    for tag in ("a", "b", "c"):
        push(client, blobs, Reference(app.host, app.repository, tag), root)
    assert sorted(client.tags(app)) == ["a", "b", "c"]  # docker-registry 2.8 has no order
    with pytest.raises(NotFoundError, match="NAME_UNKNOWN"):
        client.tags(Reference(app.host, "t/never-pushed"))


def test_delete(client, blobs, app):
    push(client, blobs, app, image(blobs, b"x"))
    client.delete_manifest(app)
    assert client.head_manifest(app) is None
    with pytest.raises(NotFoundError):
        client.delete_manifest(app)


def test_referrers_by_fallback_tag(client, blobs, app):
    root = image(blobs, b"signed")
    push(client, blobs, app, root)
    assert client.referrers(app, root.digest) == ()
    signature = image(blobs, b"signature", subject=root.plain(), artifact_type="application/x-signature")
    push(client, blobs, Reference(app.host, app.repository), signature)
    (found,) = client.referrers(app, root.digest, "application/x-signature")
    assert found.digest == signature.digest
    assert client.referrers(app, root.digest, "application/x-other") == ()


def test_manifest_with_missing_blobs_is_refused(client, blobs, app):
    root = image(blobs, b"x")
    with pytest.raises(RegistryError, match=r"MANIFEST_BLOB_UNKNOWN|BLOB_UNKNOWN"):
        client.put_manifest(app, blobs.get(root.digest), root.media_type)


def test_damaged_blob_in_the_registry(client, blobs, other, app, registry):
    data = noise(100_000, seed=77)
    push(client, blobs, app, image(blobs, data))
    value = hashlib.sha256(data).hexdigest()
    place = registry.folder / "data/docker/registry/v2/blobs/sha256" / value[:2] / value / "data"
    place.write_bytes(bytes(len(data)))
    with pytest.raises(CorruptError, match=value):
        pull(client, other, app, AMD)
    assert not other.has(sha256(data))
    assert leftovers(other) == []


def test_upload_cut_in_the_middle_is_started_again(client, app, registry):
    """docker-registry 2.8 cannot resume inside one request: the client notices and starts the upload again."""
    data, failures = noise(3 << 20, seed=5), [1]

    def stream(offset):
        yield data[offset : offset + (1 << 20)]
        if failures:
            failures.pop()
            raise ConnectionResetError("cut by the test")
        yield data[offset + (1 << 20) :]

    blob = Descriptor(media.OCI_LAYER, sha256(data), len(data))
    assert client.upload_blob(app, blob, stream) == "uploaded"
    assert ask(registry.host, "GET", f"/v2/{app.repository}/blobs/{blob.digest}")[1] == data


def test_two_pulls_of_the_same_image_at_once(client, blobs, other, app, tmp_path):
    root = image(blobs, *(noise(500_000, seed) for seed in range(4)))
    push(client, blobs, app, root)
    found = []
    threads = [threading.Thread(target=lambda: found.append(pull(client, other, app, AMD))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert files(other) == files(blobs)
    assert leftovers(other) == []


def test_copy_between_registries(client, blobs, other, app, second_registry):
    root = two(blobs)
    push(client, blobs, app, root)
    dst = Reference(second_registry.host, "mirror/" + app.repository, "1")
    assert copy(client, app, dst) == root.digest
    pull(client, other, dst, None)
    assert files(other) == files(blobs)


def test_copy_within_a_registry_mounts(client, blobs, app, registry):
    push(client, blobs, app, two(blobs))
    logged = len(registry.log())
    copy(client, app, Reference(app.host, app.repository + "/copy", "1"))
    since = registry.log()[logged:]
    assert f'"PUT /v2/{app.repository}/copy/manifests/1 ' in since
    assert since.count("?mount=") > 0
    assert '"PUT /v2/' + app.repository + "/copy/blobs/uploads/" not in since


def test_mirror(blobs, other, app, second_registry, tmp_path):
    root = image(blobs, b"mirrored")
    gone = Reference("127.0.0.1:1", app.repository, "1")
    with new_client(tmp_path, {gone.host: RegistryRules(mirrors=(second_registry.host,))}) as client:
        push(client, blobs, Reference(second_registry.host, app.repository, "1"), root)
        assert pull(client, other, gone, AMD).digest == root.digest


MEMORY = """
import sys
from pathlib import Path
from kiln.oci.reference import parse
from kiln.oci.image import Descriptor
from kiln.registry.client import Client
from kiln.registry import verify
from kiln.settings import Settings
from kiln.store.blobs import Blobs
home, ref, digest, size = Path(sys.argv[1]), parse(sys.argv[2]), sys.argv[3], int(sys.argv[4])
blobs, blob = Blobs(home), Descriptor("x", digest, size)
with Client(Settings(home=home, docker_config=home)) as client:
    if sys.argv[5] == "up":
        client.upload_blob(ref, blob, lambda offset: blobs.stream(digest))
    else:
        verify.store(blobs, client.read_blob(ref, blob), blob)
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024)
"""


def test_memory_stays_small(blobs, other, app):
    size = 192 << 20
    with blobs.writer() as writer:
        for number in range(size >> 20):
            writer.write(bytes([number]) * (1 << 20))
        digest = writer.commit()
    for way, store in (("up", blobs), ("down", other)):
        words = [sys.executable, "-c", MEMORY, str(store.root), str(app), digest, str(size), way]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 100, f"{way}: {done.stdout} MiB"
    assert other.has(digest)


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_reads_what_we_push_and_we_what_it_copies(client, blobs, other, app, tmp_path):
    root = image(blobs, b"for skopeo")
    push(client, blobs, app, root)
    environment = {**os.environ, "HOME": str(tmp_path)}
    raw = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{app}"],
        capture_output=True,
        check=True,
        env=environment,
    )
    assert raw.stdout == blobs.get(root.digest)
    words = [
        "skopeo",
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        f"docker://{app}",
        f"docker://{app.name}:2",
    ]
    subprocess.run(words, capture_output=True, check=True, env=environment)
    assert pull(client, other, Reference(app.host, app.repository, "2"), AMD).digest == root.digest
