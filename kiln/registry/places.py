"""Where a registry is: which URL a host means, and when plain http is allowed."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from kiln.errors import RegistryError
from kiln.oci.reference import DEFAULT_HOST
from kiln.registry.certificates import ca_files
from kiln.settings import Settings

DOCKER_API = "registry-1.docker.io"


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine: 127.0.0.0/8, ::1 or localhost."""
    name = host_name(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """`host[:port]` without the port and without an IPv6 address's brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def registry_host(netloc: str) -> str:
    """The host that references and settings name for a URL's host: Docker Hub's API host is docker.io."""
    return DEFAULT_HOST if netloc == DOCKER_API else netloc


class Places:
    """The base URL of each registry host: https, but http on loopback and where the settings allow it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plain: dict[str, bool] = {}

    def base(self, host: str) -> str:
        """`scheme://host[:port]` of a registry's API."""
        if host not in self._plain:
            self._plain[host] = self._is_plain(host)
        scheme = "http" if self._plain[host] else "https"
        return f"{scheme}://{DOCKER_API if host == DEFAULT_HOST else host}"

    def _is_plain(self, host: str) -> bool:
        rules = self._settings.rules(host)
        return rules.http or (is_loopback(host) and rules.verify and not ca_files(self._settings, host))

    def use_https(self, host: str) -> None:
        """From now on https: the host said that it does not speak http."""
        self._plain[host] = False

    def check(self, url: str, came_from: str) -> None:
        """Raises `RegistryError` unless a URL that the registry `came_from` named is https, or http that is allowed."""
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.netloc:
            return
        if parts.scheme == "http" and self._may_be_plain(parts.netloc, came_from):
            return
        raise RegistryError(
            f"{came_from} points to {parts.scheme}://{parts.netloc}, which is not https",
            hint=f'If that is right, allow it in config.toml: [registry."{parts.netloc}"] http = true',
            where=came_from,
        )

    def _may_be_plain(self, netloc: str, came_from: str) -> bool:
        """Loopback is trusted only where a registry on this machine names it: what listens there may be anybody's."""
        if self._settings.rules(registry_host(netloc)).http:
            return True
        return is_loopback(netloc) and is_loopback(came_from)
