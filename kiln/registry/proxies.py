"""Which proxy, if any, a host is reached through (the convention of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from kiln.registry.places import host_name, is_loopback


def proxy_for(proxies: Mapping[str, str], scheme: str, host: str) -> str:
    """The proxy's URL for `scheme://host[:port]`, or the empty string; never one for loopback."""
    if is_loopback(host) or _excluded(proxies.get("no_proxy", ""), host):
        return ""
    found = proxies.get(f"{scheme}_proxy") or proxies.get("all_proxy") or ""
    return found if not found or "://" in found else f"http://{found}"


def _excluded(no_proxy: str, host: str) -> bool:
    return any(_covers(entry.strip().lower(), host.lower()) for entry in no_proxy.split(",") if entry.strip())


def _covers(entry: str, host: str) -> bool:
    """Whether one entry covers a host: `*`, a domain, an address (these two perhaps with a port), or a network."""
    if entry in ("*", host):
        return True
    name = host_name(host)
    if (network := _network(entry)) is not None:
        return _within(name, network)
    domain = entry.removeprefix("*").lstrip(".")
    if ":" in domain:
        return host == domain or host.endswith("." + domain)
    return bool(domain) and (name == domain or name.endswith("." + domain))


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _within(name: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(name) in network
    except ValueError:
        return False
