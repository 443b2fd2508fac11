"""Fixtures of the registry client's tests."""

from __future__ import annotations

import socket

import pytest

from tests.registry.fakes import FakeRegistry
from tests.registry.samples import new_blobs, new_client


@pytest.fixture
def servers():
    """Makes fake registries that end with the test (they close only after every client has, see `clients`)."""
    made = []

    def make(**options):
        made.append(FakeRegistry(**options))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def fake(servers):
    return servers()


@pytest.fixture
def clients(servers, tmp_path):
    """Makes clients that are closed at the end."""
    made = []

    def make(*args, **options):
        made.append(new_client(tmp_path, *args, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(clients):
    return clients()


@pytest.fixture
def blobs(tmp_path):
    return new_blobs(tmp_path / "store")


@pytest.fixture
def other_blobs(tmp_path):
    return new_blobs(tmp_path / "other")


@pytest.fixture
def names(monkeypatch):
    """Lets host names mean 127.0.0.1, so that hosts that are not loopback by name can be played."""
    known = set()
    real = socket.getaddrinfo

    def resolve(host, *args, **options):
        return real("127.0.0.1" if host in known else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known.add
