"""Logging in to and out of a registry."""

from __future__ import annotations

from kiln.oci.reference import DEFAULT_HOST
from kiln.registry.backoff import Backoff
from kiln.registry.client import Client
from kiln.registry.credentials import DOCKER_KEY, Credential, Credentials, server_key
from kiln.registry.transport import Transport
from kiln.settings import Settings


def login(settings: Settings, host: str, credential: Credential, *, backoff: Backoff | None = None) -> str:
    """Keeps a credential once the registry has accepted it; returns where: a helper's program or a file's path.

    Raises `AuthError` where the registry refuses it, and keeps nothing then.
    """
    host = _canonical(host)
    transport = Transport(settings, find=lambda asked: credential if asked == host else None, backoff=backoff)
    with Client(settings, transport) as client:
        client.ping(host)
    return Credentials(settings).store(host, credential)


def logout(settings: Settings, host: str) -> bool:
    """Forgets the credential of a host; returns whether there was one."""
    return Credentials(settings).erase(_canonical(host))


def _canonical(host: str) -> str:
    """Docker Hub has several names."""
    return DEFAULT_HOST if server_key(host) == DOCKER_KEY else host
