"""Writing blobs over connections that break."""

import threading

import pytest

from kiln.errors import AuthError, CancelledBuild, CorruptError, RegistryError
from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.registry.credentials import Credential, Credentials
from tests.registry.fakes import Upload
from tests.registry.samples import noise, settings
from tests.registry.test_transport import want_basic

DATA = noise(5 << 20)
BLOB = Descriptor(media.OCI_LAYER, sha256(DATA), len(DATA))


@pytest.fixture
def app(fake):
    return Reference(fake.host, "app", "1")


def opened(offset, data=DATA):
    for start in range(offset, len(data), 1 << 18):
        yield data[start : start + (1 << 18)]


def cut_after(count):
    """Takes `count` bytes of an upload, then breaks the connection."""

    def act(handler):
        session = handler.path.rpartition("/")[2].partition("?")[0]
        handler.server.uploads[session].data += handler.rfile.read(count)
        handler.cut()

    return act


def test_post_and_one_put(fake, client, app):
    told = []
    assert client.upload_blob(app, BLOB, opened, progress=lambda *line: told.append(line)) == "uploaded"
    assert fake.blobs["app", BLOB.digest] == DATA
    assert [seen.method for seen in fake.requests] == ["HEAD", "POST", "PUT"]
    assert fake.requests[2].headers["Content-Length"] == str(len(DATA))
    assert "state=a%2Fb&digest=sha256%3A" in fake.requests[2].path
    assert told[-1] == (BLOB.digest, len(DATA), len(DATA))


def test_empty_blob(fake, client, app):
    assert client.upload_blob(app, Descriptor(media.OCI_LAYER, sha256(b""), 0), lambda _: iter(())) == "uploaded"
    assert fake.blobs["app", sha256(b"")] == b""


def test_exists(fake, client, app):
    fake.blobs["app", BLOB.digest] = DATA
    assert client.upload_blob(app, BLOB, opened) == "exists"
    assert client.upload_blob(app, BLOB, opened) == "exists"
    assert len(fake.requests) == 1


def test_mounted(fake, client, app):
    fake.blobs["base/os", BLOB.digest] = DATA
    assert client.upload_blob(app, BLOB, opened, ["base/os"]) == "mounted"
    assert fake.count("PUT") == 0


def test_mount_that_is_refused_becomes_an_upload(fake, client, app):
    assert client.upload_blob(app, BLOB, opened, ["nowhere"]) == "uploaded"
    assert [seen.method for seen in fake.requests] == ["POST", "HEAD", "PUT"]


def test_mount_from_where_one_may_not_read(fake, client, app):
    fake.on("POST", "mount=", lambda h: h.error(403, "DENIED"))
    assert client.upload_blob(app, BLOB, opened, ["secret"]) == "uploaded"
    assert fake.blobs["app", BLOB.digest] == DATA


def test_second_source_is_tried_and_the_first_session_closed(fake, client, app):
    fake.blobs["b", BLOB.digest] = DATA
    assert client.upload_blob(app, BLOB, opened, ["a", "b"]) == "mounted"
    assert fake.uploads == {}


def test_what_was_uploaded_is_mounted_into_the_next_repository(fake, client, app):
    client.upload_blob(app, BLOB, opened)
    assert client.upload_blob(Reference(fake.host, "second"), BLOB, opened) == "mounted"


def test_threads_do_not_upload_the_same_twice(fake, client):
    hows = []

    def bring(name):
        hows.append(client.upload_blob(Reference(fake.host, name), BLOB, opened))

    threads = [threading.Thread(target=bring, args=(f"app{number % 2}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hows.count("uploaded") == 1
    assert fake.count("PUT") == 1


def test_cut_and_resumed(fake, client, app):
    fake.on("PUT", "/uploads/", cut_after(2_000_000))
    told = []
    assert client.upload_blob(app, BLOB, opened, progress=lambda *line: told.append(line[1])) == "uploaded"
    assert fake.blobs["app", BLOB.digest] == DATA
    last = fake.requests[-1]
    assert last.headers["Content-Range"] == f"2000000-{len(DATA) - 1}"
    assert last.headers["Content-Length"] == str(len(DATA) - 2_000_000)
    assert fake.count("POST") == 1
    assert told[-1] == len(DATA)


def test_cut_and_the_registry_lost_it(fake, client, app):
    def forget(handler):
        cut_after(1000)(handler)
        handler.server.uploads.clear()

    fake.on("PUT", "/uploads/", forget, times=2)
    assert client.upload_blob(app, BLOB, opened) == "uploaded"
    assert fake.count("POST") == 3


def test_the_lost_answer_of_a_complete_upload(fake, client, app):
    def complete(handler):
        handler.server.blobs["app", BLOB.digest] = handler.body()
        handler.cut()

    fake.on("PUT", "/uploads/", complete)
    assert client.upload_blob(app, BLOB, opened) == "uploaded"
    assert fake.count("PUT") == 1


def test_broken_for_ever(fake, client, app):
    fake.on("PUT", "/uploads/", lambda h: h.cut(), times=99)
    with pytest.raises(RegistryError, match="broke"):
        client.upload_blob(app, BLOB, opened)
    assert fake.count("PUT") == 5
    assert fake.blobs == {}


def test_500_in_the_middle(fake, client, app):
    fake.on("PUT", "/uploads/", lambda h: (h.body(), h.error(500, "UNKNOWN")))
    assert client.upload_blob(app, BLOB, opened) == "uploaded"


def test_token_that_expires_before_the_upload(fake, client, app):
    """The 401 comes when the body is on its way: it is sent again, from the start, with the new answer."""
    fake.on("PUT", "/uploads/", lambda h: (h.body(), h.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="x"')))
    with pytest.raises(AuthError, match="wants a user name"):
        client.upload_blob(app, BLOB, opened)


def test_refused_for_its_digest(fake, client, app):
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        client.upload_blob(app, BLOB, lambda offset: opened(offset, noise(len(DATA), 2)))
    assert fake.count("PUT") == 1
    assert fake.blobs == {}


def test_stored_under_another_digest(fake, client, app):
    fake.on("PUT", "/uploads/", lambda h: (h.body(), h.answer(201, Docker_Content_Digest=sha256(b"other"))))
    with pytest.raises(CorruptError, match="stored"):
        client.upload_blob(app, BLOB, opened)


def test_quota(fake, client, app):
    fake.on("PUT", "/uploads/", lambda h: (h.body(), h.error(413, "SIZE_INVALID", "too large")), times=9)
    with pytest.raises(RegistryError, match="too large") as caught:
        client.upload_blob(app, BLOB, opened)
    assert "client_max_body_size" in caught.value.hint
    assert fake.count("PUT") == 1


def test_absolute_location_of_the_same_host(fake, client, app):
    """Registries behind a proxy often name themselves by the wrong scheme."""
    fake.uploads["s"] = Upload()
    fake.on("POST", "/uploads/", lambda h: h.answer(202, Location=f"https://{fake.host}/v2/app/blobs/uploads/s"))
    assert client.upload_blob(app, BLOB, opened) == "uploaded"


def test_a_location_on_another_host_gets_no_credentials(fake, servers, clients, app, tmp_path):
    want_basic(fake)
    storage = servers()
    storage.uploads["s"] = Upload()
    fake.on(
        "POST", "/uploads/", lambda h: h.answer(202, Location=f"http://{storage.host}/v2/app/blobs/uploads/s"), times=2
    )
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-pw"))
    assert clients().upload_blob(app, BLOB, opened) == "uploaded"
    assert storage.blobs["app", BLOB.digest] == DATA
    assert all("Authorization" not in seen.headers for seen in storage.requests)


def test_a_location_over_plain_http_is_refused(fake, client, app):
    fake.on("POST", "/uploads/", lambda h: h.answer(202, Location="http://elsewhere.test/v2/app/blobs/uploads/s"))
    with pytest.raises(RegistryError, match="which is not https"):
        client.upload_blob(app, BLOB, opened)


def test_cancelled_by_progress(fake, client, app):
    def cancel(*_):
        raise CancelledBuild("stop")

    with pytest.raises(CancelledBuild):
        client.upload_blob(app, BLOB, opened, progress=cancel)
    assert fake.blobs == {}
