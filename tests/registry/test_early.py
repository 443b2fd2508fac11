"""Layers that go to a registry while they are being written."""

import os
import threading
import time

import pytest

from kiln.errors import RegistryError
from kiln.oci.image import parse_manifest
from kiln.oci.reference import Reference
from kiln.registry.early import EarlyPush
from kiln.registry.push import push
from kiln.store.layer import Compression
from tests.registry.samples import image, noise

DATA = noise(5 << 20)
SIZE = len(DATA)


@pytest.fixture
def app(fake):
    return Reference(fake.host, "app", "1")


@pytest.fixture
def early(client, app, blobs):
    return EarlyPush(lambda: client, app, blobs)


def written(blobs, early, data=DATA, wait=lambda: None):
    """The digest of a blob that is written in pieces; `wait` is called in the middle."""
    with blobs.writer(early.follow) as writer:
        for start in range(0, len(data), 1 << 18):
            writer.write(data[start : start + (1 << 18)])
            if start == SIZE // 2:
                wait()
        return writer.commit()


def until(found):
    end = time.monotonic() + 10
    while not found():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_begins_before_the_layer_is_finished(fake, early, blobs, client, app):
    sent = threading.Event()

    def take(handler):
        sent.set()
        handler._honest()

    fake.on("PATCH", "uploads", take)
    digest = written(blobs, early, wait=lambda: sent.wait(10))
    assert sent.is_set()
    early.wait()
    assert fake.blobs["app", digest] == DATA and not fake.uploads
    assert [seen.method for seen in fake.requests] == ["POST", "PATCH", "PUT"]
    assert client.presence.has(fake.host, "app", digest)


def test_small_layers_go_when_they_are_finished(fake, early, blobs):
    digest = written(blobs, early, b"small")
    early.wait()
    assert fake.blobs["app", digest] == b"small"
    assert fake.count("PATCH") == 0


def test_the_push_that_follows_sends_nothing_again(fake, early, blobs, client, app):
    layer = b"".join((DATA, b"layer"))
    root = image(blobs, layer)
    written(blobs, early, layer)
    early.wait()
    before = len(fake.requests)
    push(client, blobs, app, root)
    assert [seen.body for seen in fake.requests[before:] if len(seen.body) > 10_000] == []
    assert ("app", "1") in fake.manifests


def test_what_is_not_finished_is_given_up(fake, early, blobs):
    """The layer's writer failed: the registry is told, nothing is stored."""

    class Failed(Exception):
        pass

    def fail():
        until(lambda: fake.count("PATCH"))
        raise Failed

    with pytest.raises(Failed):
        written(blobs, early, wait=fail)
    early.stop()
    assert fake.blobs == {} and fake.uploads == {}
    assert fake.count("DELETE", "uploads") == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_failure_is_left_to_the_push(fake, early, blobs, client, app, method):
    fake.on(method, "uploads", lambda handler: (handler.body(), handler.error(403, "DENIED")))
    root = image(blobs, DATA)
    written(blobs, early)
    early.wait()
    early.take(root)
    early.wait()
    assert fake.blobs == {}  # after one failure nothing more is tried
    push(client, blobs, app, root)
    assert DATA in fake.blobs.values()


def test_a_digest_that_the_registry_finds_wrong(fake, early, blobs, client, app):
    fake.on("PATCH", "uploads", lambda handler: (handler.body(), handler.answer(202, Location=handler.path)))
    root = image(blobs, DATA)
    written(blobs, early)
    early.wait()
    assert fake.blobs == {} and fake.uploads == {}
    push(client, blobs, app, root)
    assert DATA in fake.blobs.values()


def test_stop_leaves_a_silent_registry(fake, early, blobs):
    silent = threading.Event()
    fake.on("PATCH", "uploads", lambda handler: (handler.body(), silent.wait(20)))
    written(blobs, early)
    until(lambda: fake.count("PATCH"))
    begin = time.monotonic()
    early.stop()
    assert time.monotonic() - begin < 5
    silent.set()


def test_nothing_more_is_tried_after_stop(fake, early, blobs):
    before = len(os.listdir("/proc/self/fd"))
    early.stop()
    written(blobs, early)
    written(blobs, early, b"small")
    early.wait()
    assert fake.requests == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_challenge_in_the_middle_begins_anew(fake, early, blobs):
    """The registry asks for credentials only once the body came: it is sent whole again."""
    fake.on("PATCH", "uploads", lambda handler: (handler.body(), handler.error(401, "UNAUTHORIZED")))
    digest = written(blobs, early)
    early.wait()
    assert fake.blobs.get(("app", digest), DATA) == DATA


def test_no_descriptor_is_left_open(fake, early, blobs):
    before = len(os.listdir("/proc/self/fd"))
    written(blobs, early)
    early.stop()
    early.wait()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the client's connections


def test_a_layer_writer_is_followed(fake, early, tmp_path):
    from kiln.store.entry import FILE, Entry
    from kiln.store.store import Store

    with Store(tmp_path / "s") as store:
        own = EarlyPush(early._client, early._ref, store.blobs)
        with store.layers.writer(Compression("none"), own.follow) as writer:
            writer.add("a", Entry(FILE, 0o644, size=SIZE), [DATA])
            layer = writer.finish()
        own.wait()
        assert len(fake.blobs["app", layer.descriptor.digest]) == layer.descriptor.size


def test_layers_of_a_base_are_asked_for_once(fake, early, blobs, client, app):
    root = image(blobs, b"base", b"own")
    push(client, blobs, app, root)
    layers = parse_manifest(blobs.get(root.digest), "").layers
    client.presence.forget(fake.host, "app")
    before = len(fake.requests)
    early.ask(layers)
    early.wait()
    assert [seen.method for seen in fake.requests[before:]] == ["HEAD", "HEAD"]
    assert all(client.presence.has(fake.host, "app", layer.digest) for layer in layers)
    client.upload_blob(app, layers[0], lambda offset: iter(()))
    assert len(fake.requests) == before + 2


def test_a_refusal_shows_in_the_push(fake, early, blobs, client, app):
    fake.on("POST", "uploads", lambda handler: handler.error(403, "DENIED"), times=9)
    root = image(blobs, DATA)
    written(blobs, early)
    early.wait()
    with pytest.raises(RegistryError):
        push(client, blobs, app, root)
