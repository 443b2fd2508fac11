"""The WWW-Authenticate header (RFC 9110, 11.6.1): several challenges, quoted values that may hold commas."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|\s*,|\s*$)")
_TOKEN68 = re.compile(r"\s*[A-Za-z0-9._~+/-]+=*\s*(?:,|$)")
_SEPARATOR = re.compile(r"[\s,]*")


class Challenge(Struct, frozen=True):
    """One way to authenticate: the scheme in lower case and its parameters (names in lower case)."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        """A parameter, or the empty string."""
        return self.parameters.get(name, "")


def parse(header: str) -> list[Challenge]:
    """The challenges of a header in their order; what cannot be read ends the list."""
    found: list[Challenge] = []
    position = _skip(header, 0)
    while position < len(header) and (scheme := _SCHEME.match(header, position)):
        alone = scheme.group().endswith(",")
        parameters, position = ({}, scheme.end()) if alone else _parameters(header, scheme.end())
        found.append(Challenge(scheme.group(1).lower(), parameters))
        position = _skip(header, position)
    return found


def _skip(header: str, position: int) -> int:
    match = _SEPARATOR.match(header, position)
    return match.end() if match else position


def _parameters(header: str, position: int) -> tuple[dict[str, str], int]:
    """(parameters, where the next challenge begins); a token68 in their place (as Negotiate has) is passed over."""
    found: dict[str, str] = {}
    while parameter := _PARAMETER.match(header, position):
        name, quoted, plain = parameter.groups()
        found[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        position = parameter.end()
    if not found and (blob := _TOKEN68.match(header, position)) and not _is_scheme(header, position):
        position = blob.end()
    return found, position


def _is_scheme(header: str, position: int) -> bool:
    """Whether a new challenge begins here: a word, a space, and a parameter."""
    scheme = _SCHEME.match(header, position)
    return scheme is not None and _PARAMETER.match(header, scheme.end()) is not None
