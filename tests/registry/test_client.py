import json

import pytest

from kiln.errors import CorruptError, KilnError, NotFoundError, RegistryError
from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.registry.client import MANIFEST_LIMIT
from tests.registry.samples import image

SUBJECT = Descriptor(media.OCI_MANIFEST, sha256(b"subject"), 7)


@pytest.fixture
def app(fake):
    return Reference(fake.host, "team/app", "1")


def serve(fake, ref, blobs, *layers, **more):
    """Puts an image into a fake registry under the reference's tag."""
    root = image(blobs, *layers, **more)
    data = blobs.get(root.digest)
    for name in (ref.tag, root.digest):
        fake.manifests[ref.repository, name] = (root.media_type, data)
    return root


def test_head_and_get(fake, client, blobs, app):
    root = serve(fake, app, blobs, b"layer").plain()
    assert client.head_manifest(app) == root
    assert client.get_manifest(app) == (blobs.get(root.digest), root)
    assert client.head_manifest(app.with_digest(root.digest)) == root
    assert media.OCI_INDEX in fake.requests[0].headers["Accept"]


def test_no_tag_means_latest(fake, client, app):
    assert client.head_manifest(Reference(fake.host, "app")) is None
    assert fake.requests[0].path == "/v2/app/manifests/latest"


def test_missing_manifest(client, app):
    assert client.head_manifest(app) is None
    with pytest.raises(NotFoundError, match=r"does not have the manifest.*manifest unknown") as caught:
        client.get_manifest(app)
    assert caught.value.where == str(app)
    assert caught.value.status == 404
    with pytest.raises(NotFoundError):
        client.delete_manifest(app)


def test_head_that_says_little_is_asked_again(fake, client, blobs, app):
    root = serve(fake, app, blobs, b"layer")
    fake.on("HEAD", "/manifests/", lambda h: h.answer(200, Content_Type="application/json"))
    assert client.head_manifest(app) == root.plain()


def test_generic_content_type(fake, client, blobs, app):
    root = serve(fake, app, blobs, b"layer")
    fake.manifests[app.repository, app.tag] = ("application/json; charset=utf-8", blobs.get(root.digest))
    assert client.get_manifest(app)[1].media_type == media.OCI_MANIFEST


@pytest.mark.parametrize("by_digest", [True, False])
def test_manifest_with_another_digest(fake, client, blobs, app, by_digest):
    root = serve(fake, app, blobs, b"layer")
    wrong = Reference(fake.host, app.repository, digest=root.digest) if by_digest else app
    answer = {"Content_Type": media.OCI_MANIFEST, "Docker_Content_Digest": root.digest}
    fake.on("GET", "/manifests/", lambda h: h.answer(200, b'{"schemaVersion":2}', **answer))
    with pytest.raises(CorruptError, match=root.digest):
        client.get_manifest(wrong)


def test_head_with_another_digest(fake, client, app):
    answer = {"Content_Type": media.OCI_MANIFEST, "Docker_Content_Digest": sha256(b"x"), "Content_Length": "1"}
    fake.on("HEAD", "/manifests/", lambda h: h.answer(200, **answer))
    with pytest.raises(CorruptError):
        client.head_manifest(app.with_digest(sha256(b"y")))


def test_huge_manifest_is_refused(fake, client, app):
    sent = []

    def huge(handler):
        handler.answer(200, Content_Length=str(1 << 34), Content_Type=media.OCI_MANIFEST)
        try:
            for _ in range(64):
                handler.wfile.write(b" " * (1 << 20))
                sent.append(1)
        except OSError:
            handler.close_connection = True

    fake.on("GET", "/manifests/", huge)
    with pytest.raises(RegistryError, match=f"larger than {MANIFEST_LIMIT >> 20} MiB"):
        client.get_manifest(app)
    assert len(sent) < 64


def test_not_a_manifest(fake, client, app):
    fake.manifests["team/app", "1"] = ("text/html", b"<html>")
    with pytest.raises(KilnError, match="not an image manifest"):
        client.get_manifest(app)


def test_put_by_tag_digest_and_neither(fake, client, app):
    data = b'{"schemaVersion":2}'
    assert client.put_manifest(app, data, media.OCI_MANIFEST) == sha256(data)
    client.put_manifest(app.with_digest(sha256(data)), data, media.OCI_MANIFEST)
    client.put_manifest(Reference(fake.host, "team/app"), data, media.OCI_MANIFEST)
    assert [seen.path.rpartition("/")[2] for seen in fake.requests] == ["1", sha256(data), sha256(data)]
    with pytest.raises(CorruptError):
        client.put_manifest(app.with_digest(sha256(b"")), data, media.OCI_MANIFEST)


def test_tags_over_pages(fake, client, app):
    fake.page = 2
    for tag in "abcde":
        fake.manifests["team/app", tag] = ("x", b"")
    assert client.tags(app) == list("abcde")
    assert fake.count("GET") == 3


def test_next_page_on_another_host_is_not_asked(fake, servers, client, app):
    other = servers()
    link = f'<http://{other.host}/v2/team/app/tags/list?last=a>; rel="next"'
    fake.on("GET", "/tags/", lambda h: h.answer(200, b'{"tags":["a"]}', Link=link))
    assert client.tags(app) == ["a"]
    assert other.requests == []
    assert len(fake.requests) == 1


def test_pages_that_go_round_end(fake, client, app):
    link = '</v2/team/app/tags/list?n=1000>; rel="next"'
    fake.on("GET", "/tags/", lambda h: h.answer(200, b'{"tags":["a"]}', Link=link), times=9)
    assert client.tags(app) == ["a"]


def test_tags_null_and_nonsense(fake, client, app):
    fake.on("GET", "/tags/", lambda h: h.answer(200, b'{"name":"x","tags":null}'))
    assert client.tags(app) == []
    fake.on("GET", "/tags/", lambda h: h.answer(200, b"[]"))
    with pytest.raises(RegistryError, match="list of tags"):
        client.tags(app)


def test_referrers_by_api(fake, client, app):
    entry = {"mediaType": media.OCI_MANIFEST, "digest": sha256(b"r"), "size": 1, "artifactType": "sig"}
    body = json.dumps(
        {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [entry, {**entry, "artifactType": "x"}]}
    )
    fake.on("GET", "/referrers/", lambda h: h.answer(200, body.encode(), Content_Type=media.OCI_INDEX), times=2)
    assert len(client.referrers(app, SUBJECT.digest)) == 2
    (found,) = client.referrers(app, SUBJECT.digest, "sig")
    assert found.digest == sha256(b"r")
    assert fake.requests[-1].path.endswith("?artifactType=sig")


def test_referrers_by_tag(fake, client, blobs, app):
    assert client.referrers(app, SUBJECT.digest) == ()
    for number in range(2):
        root = image(
            blobs, b"%d" % number, subject=SUBJECT, artifact_type=f"kind/{number}", annotations={"n": str(number)}
        )
        for _ in range(2):
            client.put_manifest(app.with_digest(root.digest), blobs.get(root.digest), root.media_type)
    found = client.referrers(app, SUBJECT.digest)
    assert [(entry.artifact_type, entry.annotations) for entry in found] == [
        ("kind/0", {"n": "0"}),
        ("kind/1", {"n": "1"}),
    ]
    assert [entry.artifact_type for entry in client.referrers(app, SUBJECT.digest, "kind/1")] == ["kind/1"]
    assert ("team/app", SUBJECT.digest.replace(":", "-")) in fake.manifests


def test_registries_with_referrers_keep_their_own(fake, client, blobs, app):
    root = image(blobs, b"x", subject=SUBJECT)
    fake.on("PUT", "/manifests/", lambda h: (h.body(), h.answer(201, OCI_Subject=SUBJECT.digest)))
    client.put_manifest(app, blobs.get(root.digest), root.media_type)
    assert len(fake.requests) == 1


def test_has_blob(fake, client, app):
    fake.blobs["team/app", sha256(b"x")] = b"x"
    assert client.has_blob(app, sha256(b"x"))
    assert not client.has_blob(app, sha256(b"y"))
