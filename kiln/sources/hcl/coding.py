"""Functions of HCL for encodings, digests, identifiers and networks."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import ipaddress
import json
import re
import urllib.parse
import uuid
from decimal import Decimal
from typing import Any, NoReturn

from kiln.errors import UsageError
from kiln.sources.hcl.texts import json_text
from kiln.sources.hcl.value import Function, Value, text, tidy, whole

_NAMESPACES = {
    "dns": uuid.NAMESPACE_DNS, "url": uuid.NAMESPACE_URL, "oid": uuid.NAMESPACE_OID, "x500": uuid.NAMESPACE_X500,
}  # fmt: skip
_MAX_DEPTH = 100


def _base64_decode(value: Value) -> Value:
    try:
        return base64.b64decode(text(value), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise UsageError(f"{text(value)!r} is not the base64 of a text") from None


def _csv_decode(value: Value) -> Value:
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text(value)), strict=True) if row]
    except (csv.Error, ValueError) as bad:
        raise UsageError(f"the text is not CSV with a header: {bad}") from None
    if any(len(row) != len(header) for row in rows):
        raise UsageError("a row of the CSV has another length than the header")
    return tuple(dict(zip(header, row, strict=True)) for row in rows)


def from_json(value: Any, depth: int = 0) -> Value:
    """A value from what `json.loads` gave; raises `UsageError`."""
    if depth > _MAX_DEPTH:
        raise UsageError("the JSON is nested too deeply")
    if isinstance(value, list):
        return tuple(from_json(item, depth + 1) for item in value)
    if isinstance(value, dict):
        return {name: from_json(item, depth + 1) for name, item in value.items()}
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return tidy(value)
    return value if isinstance(value, str | bool) else None


def json_value(word: str) -> Value:
    """The value of a JSON text; raises `UsageError`."""
    try:
        return from_json(json.loads(word, parse_float=Decimal, parse_constant=_no_constant))
    except (ValueError, RecursionError) as bad:
        raise UsageError(f"the text is not JSON: {bad}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _digest(name: str) -> Function:
    return lambda value: hashlib.new(name, text(value).encode(), usedforsecurity=False).hexdigest()


def _uuid5(namespace: Value, name: Value) -> Value:
    known = _NAMESPACES.get(text(namespace))
    return str(uuid.uuid5(known or uuid.UUID(text(namespace)), text(name)))


def _network(prefix: Value) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if "/" not in text(prefix):
        raise UsageError(f"{text(prefix)!r} is not a network", hint="Write ADDRESS/BITS.")
    return ipaddress.ip_network(text(prefix), strict=False)


def _cidr_host(prefix: Value, index: Value) -> Value:
    network, at = _network(prefix), whole(index)
    if not -network.num_addresses <= at < network.num_addresses:
        raise UsageError(f"{network} has no host {at}")
    return str(network[at])


def _subnet(network: ipaddress.IPv4Network | ipaddress.IPv6Network, bits: int, index: int) -> str:
    size = network.prefixlen + bits
    if bits < 0 or size > network.max_prefixlen or not 0 <= index < 1 << bits:
        raise UsageError(f"{network} has no subnet {index} of {bits} more bits")
    address = int(network.network_address) + (index << (network.max_prefixlen - size))
    return f"{type(network.network_address)(address)}/{size}"


def _cidr_subnets(prefix: Value, *bits: Value) -> Value:
    network, found = _network(prefix), []
    at = int(network.network_address)
    for each in map(whole, bits):
        size = network.prefixlen + each
        if each < 1 or size > network.max_prefixlen:
            raise UsageError(f"{network} has no subnet of {each} more bits")
        step = 1 << (network.max_prefixlen - size)
        at = -(-at // step) * step
        if at + step > int(network.broadcast_address) + 1:
            raise UsageError(f"{network} has no room for another subnet of {each} more bits")
        found.append(f"{type(network.network_address)(at)}/{size}")
        at += step
    return tuple(found)


def _refused(name: str, why: str) -> Function:
    def function(*given: Value) -> Value:
        raise UsageError(why)

    return function


def _compare(constraint: str, version: tuple[int, ...]) -> bool:
    """One constraint of a version: `>=1.2`, `~1.2`, `^1`, `1.x`."""
    found = re.fullmatch(r"(=|!=|>=|<=|=>|=<|>|<|~>?|\^)?v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?", constraint)
    if not found:
        raise UsageError(f"{constraint!r} is not a version constraint")
    given = tuple(int(part) for part in found.groups()[1:] if part and part.isdigit())
    low, sign = (*given, 0, 0, 0)[:3], found[1] or "="
    cut = version[: len(given)]
    if sign in ("=", "!="):
        return (cut == given) == (sign == "=")
    if sign in ("~", "~>"):
        return version >= low and version[: min(len(given), 2)] == given[:2]
    if sign == "^":
        first = next((at for at, part in enumerate(given) if part), max(len(given) - 1, 0))
        return version >= low and version[: first + 1] == given[: first + 1]
    return {
        ">": cut > given, "<": version < low, ">=": version >= low, "=>": version >= low,
        "<=": cut <= given, "=<": cut <= given,
    }[sign]  # fmt: skip


def _semver(version: Value, constraints: Value) -> Value:
    """Whether a version meets constraints: those with commas or spaces all, those with `||` one."""
    found = re.match(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:[-+].*)?$", text(version))
    if not found:
        raise UsageError(f"{text(version)!r} is not a version")
    parts = tuple(int(part or 0) for part in found.groups())
    either = re.sub(r"([<>=~^!])\s+", r"\1", text(constraints)).split("||")
    return any(all(_compare(one, parts) for one in re.split(r"[\s,]+", each.strip())) for each in either)


FUNCTIONS: dict[str, Function] = {
    "base64encode": lambda value: base64.b64encode(text(value).encode()).decode(), "base64decode": _base64_decode,
    "csvdecode": _csv_decode, "jsonencode": json_text, "jsondecode": lambda value: json_value(text(value)),
    "urlencode": lambda value: urllib.parse.quote_plus(text(value), safe="-_.~"),
    "md5": _digest("md5"), "sha1": _digest("sha1"), "sha256": _digest("sha256"), "sha512": _digest("sha512"),
    "uuidv4": lambda: str(uuid.uuid4()), "uuidv5": _uuid5,
    "cidrhost": _cidr_host, "cidrnetmask": lambda prefix: str(_network(prefix).netmask),
    "cidrsubnet": lambda prefix, bits, index: _subnet(_network(prefix), whole(bits), whole(index)),
    "cidrsubnets": _cidr_subnets, "semvercmp": _semver,
    "bcrypt": _refused("bcrypt", "gives another result each time and is not supported; make the hash outside"),
    "rsadecrypt": _refused("rsadecrypt", "private keys do not belong in a bake file; use a secret"),
}  # fmt: skip
