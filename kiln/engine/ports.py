"""The words of EXPOSE: `port[-port][/protocol]`, also with the host parts that `docker run -p` would have."""

from __future__ import annotations

import ipaddress

_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_ports(word: str) -> list[str]:
    """`port/protocol` for each port that a word names; raises `ValueError`."""
    host, _, inner = word.rpartition(":")
    address, _, host_port = host.rpartition(":")
    port, _, protocol = inner.partition("/")
    if not port:
        raise ValueError(f"no port specified: {word}<empty>")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    if address:
        _check_address(address)
    first, last = _range(port, f"invalid containerPort: {port}")
    if host_port:
        low, high = _range(host_port, f"invalid hostPort: {host_port}")
        if high - low != last - first and first != last:
            raise ValueError(f"invalid ranges specified for container and host Ports: {port} and {host_port}")
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def _check_address(address: str) -> None:
    try:
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        raise ValueError(f"invalid IP address: {address}") from None


def _range(text: str, message: str) -> tuple[int, int]:
    parts = text.split("-")
    if len(parts) > 2 or not all(part.isdigit() and int(part) < 65536 for part in parts):
        raise ValueError(message)
    first, last = int(parts[0]), int(parts[-1])
    if last < first:
        raise ValueError(message)
    return first, last
