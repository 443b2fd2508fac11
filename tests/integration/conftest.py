"""Peers that the integration tests share; each is started once for the session, on first use."""

from __future__ import annotations

import pytest

from tests.services import REGISTRY, DockerRegistry, TokenService, authority, htpasswd


@pytest.fixture(scope="session")
def registry_program():
    if REGISTRY is None:
        pytest.skip("docker-registry is not installed")


def _running(registry):
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def registry(registry_program, tmp_path_factory):
    """A registry that is open to everybody."""
    yield from _running(DockerRegistry(tmp_path_factory.mktemp("registry")))


@pytest.fixture(scope="session")
def second_registry(registry_program, tmp_path_factory):
    """Another open registry, for copies and mirrors."""
    yield from _running(DockerRegistry(tmp_path_factory.mktemp("registry2")))


@pytest.fixture(scope="session")
def login_registry(registry_program, tmp_path_factory):
    """A registry that wants USER and PASSWORD (`tests.services`) by Basic."""
    folder = tmp_path_factory.mktemp("registry-login")
    yield from _running(DockerRegistry(folder, auth=htpasswd(folder)))


@pytest.fixture(scope="session")
def test_authority(tmp_path_factory):
    """A certificate authority and a certificate for 127.0.0.1."""
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tls_registry(registry_program, tmp_path_factory, test_authority):
    """A registry with a certificate of `test_authority`."""
    tls = {"certificate": str(test_authority.certificate), "key": str(test_authority.key)}
    yield from _running(DockerRegistry(tmp_path_factory.mktemp("registry-tls"), tls=tls))


@pytest.fixture(scope="session")
def token_service(tmp_path_factory):
    """The token service of `token_registry`."""
    service = TokenService(tmp_path_factory.mktemp("token"))
    yield service
    service.stop()


@pytest.fixture(scope="session")
def token_registry(registry_program, tmp_path_factory, token_service):
    """A registry that wants tokens of `token_service`."""
    yield from _running(DockerRegistry(tmp_path_factory.mktemp("registry-token"), auth=token_service.auth()))
