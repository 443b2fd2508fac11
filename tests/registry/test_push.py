import hashlib

import pytest

from kiln.errors import CorruptError, RegistryError, StoreError, UsageError
from kiln.oci import media
from kiln.oci.image import Descriptor, parse_manifest
from kiln.oci.reference import Reference
from kiln.registry.copy import copy
from kiln.registry.push import push
from tests.registry.samples import AMD, ARM, image, index, noise


@pytest.fixture
def app(fake):
    return Reference(fake.host, "team/app", "1")


def two(blobs):
    return index(blobs, image(blobs, b"base", b"amd"), image(blobs, b"base", b"arm", platform=ARM))


def test_image(fake, client, blobs, app):
    root = image(blobs, b"one", b"two")
    assert push(client, blobs, app, root) == root.digest
    assert fake.manifests["team/app", "1"] == (media.OCI_MANIFEST, blobs.get(root.digest))
    assert len(fake.blobs) == 3
    assert fake.requests[-1].method == "PUT"
    assert fake.requests[-1].path.endswith("/manifests/1")


def test_index_goes_last(fake, client, blobs, app):
    root = two(blobs)
    push(client, blobs, app, root)
    puts = [
        seen.path.rpartition("/")[2] for seen in fake.requests if seen.method == "PUT" and "/manifests/" in seen.path
    ]
    children = [child.digest for child in parse_manifest(blobs.get(root.digest), "").manifests]
    assert puts == [*children, "1"]
    assert fake.count("POST") == 5  # the layer that both share goes once


def test_by_digest_alone(fake, client, blobs):
    root = image(blobs, b"x")
    push(client, blobs, Reference(fake.host, "app"), root)
    assert [name for _, name in fake.manifests] == [root.digest]


def test_again_asks_once(fake, client, blobs, app):
    root = two(blobs)
    push(client, blobs, app, root)
    before = len(fake.requests)
    push(client, blobs, app, root)
    assert [seen.method for seen in fake.requests[before:]] == ["HEAD"]


def test_tag_and_digest(fake, client, blobs):
    root = image(blobs, b"x")
    push(client, blobs, Reference(fake.host, "app", "1", root.digest), root)
    assert ("app", "1") in fake.manifests
    with pytest.raises(UsageError, match="cannot be what is pushed"):
        push(client, blobs, Reference(fake.host, "app", "1", root.digest), image(blobs, b"y"))


def test_sources_are_mounted(fake, client, blobs, app):
    root = image(blobs, b"base", b"mine")
    layer = parse_manifest(blobs.get(root.digest), "").layers[0]
    fake.blobs["os/base", layer.digest] = b"base"
    push(client, blobs, app, root, sources={layer.digest: ["os/base"]})
    assert ("team/app", layer.digest) in fake.blobs
    assert fake.count("PUT", "/uploads/") == 2


def test_nothing_is_tagged_when_a_blob_fails(fake, client, blobs, app):
    root = image(blobs, *(noise(1 << 20, seed) for seed in range(6)))
    fake.on("PUT", "/uploads/", lambda h: (h.body(), h.error(403, "DENIED", "quota")))
    with pytest.raises(RegistryError, match="quota"):
        push(client, blobs, app, root)
    assert fake.manifests == {}
    assert push(client, blobs, app, root) == root.digest


def test_damaged_blob_is_not_pushed(fake, client, blobs, app):
    root = image(blobs, b"good")
    layer = parse_manifest(blobs.get(root.digest), "").layers[0]
    blobs.path(layer.digest).write_bytes(b"evil")
    with pytest.raises(CorruptError, match="is damaged"):
        push(client, blobs, app, root)
    assert fake.manifests == {}
    assert ("team/app", layer.digest) not in fake.blobs


def test_missing_blob(fake, client, blobs, app):
    root = image(blobs, b"base", b"mine")
    layer = parse_manifest(blobs.get(root.digest), "").layers[0]
    blobs.delete(layer.digest)
    with pytest.raises(StoreError, match=f"{layer.digest} is not in the store"):
        push(client, blobs, app, root)
    push(client, blobs, app, root, elsewhere=lambda descriptor, offset: iter([b"base"[offset:]]))
    assert fake.blobs["team/app", layer.digest] == b"base"


def test_blobs_that_the_registry_lost_are_brought_again(fake, client, blobs, app):
    root = image(blobs, b"x")
    push(client, blobs, app, root)
    fake.blobs.clear()
    fake.manifests.clear()
    fake.on("PUT", "/manifests/", lambda h: (h.body(), h.error(400, "MANIFEST_BLOB_UNKNOWN")))
    push(client, blobs, app, root)
    assert len(fake.blobs) == 2
    fake.manifests.clear()
    fake.on("PUT", "/manifests/", lambda h: (h.body(), h.error(400, "MANIFEST_BLOB_UNKNOWN")), times=9)
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
        push(client, blobs, app, root)
    assert fake.count("PUT", "/manifests/") == 1 + 2 + 2


def test_a_missing_blob_among_several_errors(fake, client, blobs, app):
    """As docker-registry says it, of a blob that somebody else is just bringing."""
    body = b'{"errors":[{"code":"DIGEST_INVALID"},{"code":"MANIFEST_BLOB_UNKNOWN"}]}'
    fake.on("PUT", "/manifests/", lambda h: (h.body(), h.answer(400, body)))
    push(client, blobs, app, image(blobs, b"x"))
    assert fake.count("PUT", "/manifests/") == 2


def test_sha512_blob(fake, client, blobs, app):
    data = noise(1000)
    digest = "sha512:" + hashlib.sha512(data).hexdigest()
    with blobs.writer() as writer:
        writer.write(data)
        writer.commit(digest=digest)
    fake.blobs["base", digest] = data
    assert (
        client.upload_blob(
            app, Descriptor(media.OCI_LAYER, digest, 1000), lambda offset: blobs.stream(digest), ["base"]
        )
        == "mounted"
    )


def test_copy_between_hosts(fake, servers, client, blobs, app):
    target = servers()
    root = two(blobs)
    push(client, blobs, app, root)
    dst = Reference(target.host, "mirror/app", "v1")
    assert copy(client, app, dst) == root.digest
    assert target.manifests["mirror/app", "v1"] == fake.manifests["team/app", "1"]
    assert {data for (_, _), data in target.blobs.items()} == set(fake.blobs.values())


def test_copy_on_one_host_mounts(fake, client, clients, blobs, app):
    push(client, blobs, app, two(blobs))
    before = fake.count("GET", "/blobs/"), fake.count("PUT", "/uploads/")
    copy(clients(), app, Reference(fake.host, "second", "1"))
    assert (fake.count("GET", "/blobs/"), fake.count("PUT", "/uploads/")) == before
    assert fake.manifests["second", "1"] == fake.manifests["team/app", "1"]


def test_copy_of_one_platform(fake, client, blobs, app):
    push(client, blobs, app, two(blobs))
    digest = copy(client, app, Reference(fake.host, "second", "1"), AMD)
    assert fake.manifests["second", "1"][0] == media.OCI_MANIFEST
    assert digest == parse_manifest(blobs.get(two(blobs).digest), "").manifests[0].digest


def test_copy_over_broken_connections(fake, servers, client, blobs, app):
    target, data = servers(), noise(3 << 20)
    root = image(blobs, data)
    push(client, blobs, app, root)

    def cut(handler):
        session = handler.path.rpartition("/")[2].partition("?")[0]
        handler.server.uploads[session].data += handler.rfile.read(2_000_000)
        handler.cut()

    layer = parse_manifest(blobs.get(root.digest), "").layers[0]
    target.on("PUT", f"/uploads/.*{layer.digest.partition(':')[2]}", cut)
    copy(client, app, Reference(target.host, "app", "1"))
    assert target.blobs["app", layer.digest] == data
    assert fake.requests[-1].headers["Range"] == "bytes=2000000-"


def test_copy_of_wrong_bytes(fake, servers, client, blobs, app):
    target = servers()
    root = image(blobs, b"good")
    push(client, blobs, app, root)
    for key in fake.blobs:
        fake.blobs[key] = bytes(len(fake.blobs[key]))
    with pytest.raises(CorruptError):
        copy(client, app, Reference(target.host, "app", "1"))
    assert target.manifests == {}
