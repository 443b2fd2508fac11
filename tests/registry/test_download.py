"""Reading blobs over connections that break."""

import pytest

from kiln.errors import CorruptError, NotFoundError, RegistryError
from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.registry import verify
from tests.registry.samples import leftovers, noise

DATA = noise(5 << 20)
BLOB = Descriptor(media.OCI_LAYER, sha256(DATA), len(DATA))


@pytest.fixture
def app(fake):
    fake.blobs["app", BLOB.digest] = DATA
    return Reference(fake.host, "app", "1")


def cut_after(count):
    """Sends `count` bytes of what was asked for, then breaks the connection."""

    def act(handler):
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1]) if handler.server.ranges else 0
        status, extra = (206, {"Content_Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"}) if start else (200, {})
        handler.answer(status, DATA[start : start + count], Content_Length=str(len(DATA) - start), **extra)
        handler.wfile.flush()
        handler.connection.shutdown(2)
        handler.close_connection = True

    return act


def test_whole(fake, client, blobs, app):
    told = []
    verify.store(blobs, client.read_blob(app, BLOB, progress=lambda *line: told.append(line)), BLOB)
    assert blobs.get(BLOB.digest) == DATA
    assert told[-1] == (BLOB.digest, len(DATA), len(DATA))
    assert fake.count("GET") == 1


def test_chunks_are_small(client, app):
    assert max(map(len, client.read_blob(app, BLOB))) <= 1 << 20


def test_from_an_offset(client, app):
    assert b"".join(client.read_blob(app, BLOB, offset=12345)) == DATA[12345:]


def test_resumed_by_range(fake, client, blobs, app):
    fake.on("GET", "/blobs/", cut_after(1_500_000), times=2)
    verify.store(blobs, client.read_blob(app, BLOB), BLOB)
    assert blobs.get(BLOB.digest) == DATA
    ranges = [seen.headers.get("Range") for seen in fake.requests]
    assert ranges[0] is None
    starts = [int(text[6:-1]) for text in ranges[1:]]
    assert 1_000_000 <= starts[0] <= 1_500_000 < starts[1] <= 3_000_000


def test_resumed_without_ranges(fake, client, app):
    fake.ranges = False
    fake.on("GET", "/blobs/", cut_after(1_500_000), times=2)
    assert b"".join(client.read_blob(app, BLOB)) == DATA


def test_cut_in_the_middle_of_chunked_encoding(fake, client, app):
    def act(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(
            b"%x\r\n" % 100_000 + DATA[:100_000] + b"\r\n" + b"%x\r\n" % 100_000 + DATA[100_000:100_010]
        )
        handler.connection.shutdown(2)
        handler.close_connection = True

    fake.on("GET", "/blobs/", act)
    assert b"".join(client.read_blob(app, BLOB)) == DATA
    assert fake.count("GET") == 2


def test_many_breaks_with_gain_are_borne_without_gain_not(fake, client, app, monkeypatch):
    monkeypatch.setattr("kiln.registry.download._GAIN", 400_000)
    fake.on("GET", "/blobs/", cut_after(500_000), times=8)
    assert b"".join(client.read_blob(app, BLOB)) == DATA
    fake.on("GET", "/blobs/", cut_after(0), times=99)
    with pytest.raises(RegistryError, match="broke in the middle"):
        b"".join(client.read_blob(app, BLOB))
    assert fake.count("GET") == 9 + 5


def test_wrong_bytes(fake, client, blobs, app):
    fake.blobs["app", BLOB.digest] = noise(len(DATA), seed=2)
    with pytest.raises(CorruptError, match="have the digest"):
        verify.store(blobs, client.read_blob(app, BLOB), BLOB)
    assert not blobs.has(BLOB.digest)
    assert leftovers(blobs) == []


@pytest.mark.parametrize("size", [1, len(DATA) - 1, len(DATA) + 1])
def test_wrong_length_is_seen_at_once(fake, client, app, size):
    fake.blobs["app", BLOB.digest] = noise(size)
    with pytest.raises(CorruptError, match=f"should be {len(DATA)} bytes, the registry has {size}"):
        next(client.read_blob(app, BLOB))


def test_endless_answer_is_stopped(fake, client, app):
    def act(handler):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(noise(1 << 20))
        handler.close_connection = True

    fake.on("GET", "/blobs/", act)
    with pytest.raises(CorruptError, match="sends more"):
        b"".join(client.read_blob(app, BLOB))


def test_short_answer_without_a_length(fake, client, blobs, app):
    def act(handler):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(DATA[:1000])
        handler.close_connection = True

    fake.on("GET", "/blobs/", act, times=99)
    with pytest.raises(CorruptError, match="got 1000"):
        verify.store(blobs, client.read_blob(app, BLOB), BLOB)
    assert leftovers(blobs) == []


def test_a_range_that_was_not_asked_for(fake, client, app):
    fake.on("GET", "/blobs/", lambda h: h.answer(206, b"x", Content_Range="bytes 999-999/1000"))
    with pytest.raises(CorruptError, match="not the range"):
        list(client.read_blob(app, BLOB, offset=10))


def test_missing(client, app):
    with pytest.raises(NotFoundError, match="does not have the blob"):
        next(client.read_blob(app, Descriptor(media.OCI_LAYER, sha256(b"y"), 1)))


def test_storage_host_gets_no_credentials(fake, servers, clients, app, tmp_path):
    from kiln.registry.credentials import Credential, Credentials
    from tests.registry.samples import settings
    from tests.registry.test_transport import want_basic

    want_basic(fake)
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-pw"))
    storage = servers()
    storage.on("GET", "/bucket", cut_after(2_000_000))
    storage.on(
        "GET",
        "/bucket",
        lambda h: h.answer(
            206, DATA[int(h.headers["Range"][6:-1]) :], Content_Range=f"bytes {h.headers['Range'][6:-1]}-"
        ),
    )
    fake.on("GET", "/blobs/", lambda h: h.answer(307, Location=f"http://{storage.host}/bucket?signature=1"), times=3)
    assert b"".join(clients().read_blob(app, BLOB)) == DATA
    assert len(storage.requests) == 2
    assert all("Authorization" not in seen.headers for seen in storage.requests)


def test_content_encoding_is_not_undone(fake, client, app):
    """A gzipped layer served as "gzip encoded" by a storage host: the digest is the one of the gzipped bytes."""
    import gzip

    data = gzip.compress(b"layer")
    blob = Descriptor(media.OCI_LAYER_GZIP, sha256(data), len(data))
    fake.on("GET", "/blobs/", lambda h: h.answer(200, data, Content_Encoding="gzip"))
    assert b"".join(client.read_blob(app, blob)) == data


def test_sha512(fake, client, blobs):
    import hashlib

    digest = "sha512:" + hashlib.sha512(DATA).hexdigest()
    fake.blobs["app", digest] = DATA
    blob = Descriptor(media.OCI_LAYER, digest, len(DATA))
    verify.store(blobs, client.read_blob(Reference(fake.host, "app"), blob), blob)
    assert blobs.get(digest) == DATA
