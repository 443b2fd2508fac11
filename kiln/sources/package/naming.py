"""What the image of a package is called; each part of the name is checked by itself, so that none becomes another."""

from __future__ import annotations

import re

from kiln.errors import UsageError
from kiln.oci.reference import Reference
from kiln.oci.reference import parse as parse_reference

_APP = re.compile(r"[a-zA-Z_]+[a-zA-Z0-9\-_]*")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])")
_RULE = "lower-case letters and digits, with one '.', one or two '_', or '-' between them"


def image_name(app: str, version: str, namespace: str = "", registry: str = "") -> Reference:
    """`REGISTRY/NAMESPACE/APP:VERSION`; raises `UsageError` naming the part that cannot be, and why."""
    _check_app(app)
    _check_version(version)
    registry = registry_of(registry)
    spaces = [part for part in namespace.strip("/").split("/") if namespace.strip("/")]
    _check_namespace(namespace, spaces, registry)
    return parse_reference(f"{'/'.join([*([registry] if registry else []), *spaces, app])}:{version}")


def registry_of(text: str) -> str:
    """A registry as it stands in a name: `host[:port][/path]`, without scheme; raises `UsageError`."""
    plain = text.removeprefix("http://").removeprefix("https://").strip("/")
    if not plain:
        return ""
    place, _, path = plain.partition("/")
    host, port = _split_port(place)
    if not _HOST.fullmatch(host):
        raise UsageError(f"--registry {text}: {host!r} is not a host", hint="For example --registry 127.0.0.1:5000.")
    if port and not (port.isdigit() and 1 <= int(port) <= 65535):
        raise UsageError(f"--registry {text}: {port!r} is not a port (1 to 65535)")
    if not port and "." not in host and host != "localhost" and not host.startswith("["):
        raise UsageError(
            f"--registry {text}: a word alone is taken for a part of a name, not for a host",
            hint=f"Write its port ({host}:5000) or its whole name ({host}.example).",
        )
    for part in path.split("/") if path else ():
        _check_component("--registry", text, part)
    return plain


def _split_port(place: str) -> tuple[str, str]:
    """(host, port); the port is empty where there is none, and '?' for a colon with nothing after it."""
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        return place, ""
    return host, port or "?"


def _check_app(app: str) -> None:
    if not _APP.fullmatch(app):
        raise UsageError(
            f"--app {app!r}: an application's name begins with a letter or '_' and goes on with letters, digits,"
            " '-' and '_'", hint="For example --app shop.",
        )  # fmt: skip
    _check_component("--app", app, app)


def _check_version(version: str) -> None:
    if not _TAG.fullmatch(version):
        raise UsageError(
            f"--version {version!r} is not a tag: letters, digits, '_', '.' and '-', at most 128, not beginning with"
            " '.' or '-'", hint="For example --version 1.4.2.",
        )  # fmt: skip


def _check_namespace(text: str, parts: list[str], registry: str) -> None:
    for part in parts:
        _check_component("--namespace", text, part)
    if parts and not registry and ("." in parts[0] or parts[0] == "localhost"):
        raise UsageError(
            f"--namespace {text}: {parts[0]!r} would be taken for the host of a registry",
            hint=f"If it is one, give --registry {parts[0]}; else name the registry as well.",
        )


def _check_component(flag: str, text: str, part: str) -> None:
    """Source: OCI distribution-spec, "Pulling manifests": what a repository's name may be."""
    if part != part.lower() and _COMPONENT.fullmatch(part.lower()):
        raise UsageError(f"{flag} {text!r}: a registry takes names in lower case only", hint=f"Write {part.lower()}.")
    if not _COMPONENT.fullmatch(part):
        raise UsageError(f"{flag} {text!r}: {part!r} is not a repository name: {_RULE}")
