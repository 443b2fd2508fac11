"""Proving to a registry who asks: Basic, and Bearer tokens from the registry's token service.

Follows distribution's "Token Authentication Specification" (GET) and "OAuth2 Token Authentication" (POST).
"""

from __future__ import annotations

import base64
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from kiln.errors import AuthError
from kiln.registry.credentials import Credential

if TYPE_CHECKING:
    from kiln.registry.challenge import Challenge

Scopes = frozenset[str]
Find = Callable[[str], Credential | None]
_MARGIN = 10.0
_LIFETIME = 60.0


class TokenQuestion(Struct, frozen=True):
    """A question to a token service, on behalf of the registry `host`. `form` makes it a POST, else it is a GET."""

    host: str
    url: str
    authorization: str = ""
    form: bytes | None = None

    def __repr__(self) -> str:
        return f"TokenQuestion({self.host!r}, {self.url!r}, ...)"


Ask = Callable[[TokenQuestion], bytes]


class _Token(Struct, frozen=True):
    header: str
    expires: float

    def __repr__(self) -> str:
        return f"_Token(..., {self.expires})"


class _Answer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


def pull(repository: str) -> str:
    """The scope to read a repository."""
    return f"repository:{repository}:pull"


def push(repository: str) -> str:
    """The scope to write to a repository."""
    return f"repository:{repository}:pull,push"


def delete(repository: str) -> str:
    """The scope to delete from a repository."""
    return f"repository:{repository}:delete"


class Authenticator:
    """Authorization headers for each host, tokens kept until shortly before they expire. Safe between threads."""

    def __init__(self, find: Find, ask: Ask) -> None:
        self._find = find
        self._found: dict[str, Credential | None] = {}
        self._ask = ask
        self._challenges: dict[str, Challenge] = {}
        self._tokens: dict[tuple[str, Scopes], _Token] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def header(self, host: str, scopes: Scopes) -> str:
        """The header for a request, from what the host said before; empty while it has not asked for any."""
        with self._locks[host]:
            known = self._challenges.get(host)
            return self._header(host, known, scopes) if known else ""

    def answer(self, host: str, offered: Sequence[Challenge], scopes: Scopes, refused: str) -> str:
        """The header that answers a 401; raises `AuthError` if all that could be said was `refused` already."""
        with self._locks[host]:
            challenge = _best(offered, host)
            self._challenges[host] = challenge
            if refused:
                self._found.pop(host, None)
            if refused and self._tokens.get((host, scopes), _Token("", 0)).header == refused:
                del self._tokens[host, scopes]
            header = self._header(host, challenge, scopes)
            if header == refused:
                raise self.refused(host)
            return header

    def refused(self, host: str) -> AuthError:
        """The error for a host that did not accept its credentials."""
        return _wrong_password(host, self._credential(host))

    def _header(self, host: str, challenge: Challenge, scopes: Scopes) -> str:
        if challenge.scheme == "basic":
            return self._basic(host)
        token = self._tokens.get((host, scopes))
        if token is None or token.expires < time.monotonic():
            token = self._fetch(host, challenge, scopes)
            self._tokens[host, scopes] = token
        return token.header

    def _basic(self, host: str) -> str:
        credential = self._credential(host)
        if credential is None or not credential.username:
            raise AuthError(
                f"{host} wants a user name and a password", hint=f"Log in with `kiln login {host}`.", where=host
            )
        return basic(credential)

    def _credential(self, host: str) -> Credential | None:
        """Looked up once (a helper may be slow), and again after a refusal."""
        if host not in self._found:
            self._found[host] = self._find(host)
        return self._found[host]

    def _fetch(self, host: str, challenge: Challenge, scopes: Scopes) -> _Token:
        credential = self._credential(host) or Credential()
        if credential.registry_token:
            return _Token(f"Bearer {credential.registry_token}", time.monotonic() + _LIFETIME)
        wanted = _merged(scopes | set(challenge.get("scope").split()))
        asked = time.monotonic()
        try:
            body = self._ask(_question(host, challenge, wanted, credential))
        except AuthError as bad:
            raise _wrong_password(host, credential, bad.message) from bad
        return _token(body, host, asked)


def basic(credential: Credential) -> str:
    """The header of Basic authentication (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()


def _best(offered: Sequence[Challenge], host: str) -> Challenge:
    """Bearer if it names its service, else Basic; raises `AuthError` where neither is offered."""
    for challenge in offered:
        if challenge.scheme == "bearer" and challenge.get("realm"):
            return challenge
    for challenge in offered:
        if challenge.scheme == "basic":
            return challenge
    named = ", ".join(challenge.scheme for challenge in offered) or "none"
    raise AuthError(f"{host} wants a kind of authentication that Kiln does not know (it offers: {named})", where=host)


def _merged(scopes: Scopes) -> list[str]:
    """The scopes, each resource once with all its actions."""
    actions: defaultdict[str, set[str]] = defaultdict(set)
    for scope in scopes:
        resource, _, wanted = scope.rpartition(":")
        actions[resource].update(wanted.split(","))
    return [f"{resource}:{','.join(sorted(wanted))}".lstrip(":") for resource, wanted in sorted(actions.items())]


def _question(host: str, challenge: Challenge, scopes: list[str], credential: Credential) -> TokenQuestion:
    realm, service = challenge.get("realm"), challenge.get("service")
    if credential.identity_token:
        form = {"grant_type": "refresh_token", "service": service, "client_id": "kiln", "scope": " ".join(scopes)}
        body = urlencode({**form, "refresh_token": credential.identity_token}).encode()
        return TokenQuestion(host, realm, form=body)
    query = [("service", service)] if service else []
    query += [("scope", scope) for scope in scopes] + [("client_id", "kiln")]
    if credential.username:
        query.append(("account", credential.username))
    url = realm + ("&" if "?" in realm else "?") + urlencode(query)
    return TokenQuestion(host, url, authorization=basic(credential) if credential.username else "")


def _token(body: bytes, host: str, asked: float) -> _Token:
    """The token in an answer; where it names no lifetime the specification says 60 seconds."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError as bad:
        raise AuthError("the token service did not answer with a token", where=host) from bad
    token = answer.token or answer.access_token
    if not token or not token.isprintable():
        raise AuthError("the token service answered without a token", where=host)
    lifetime = max(answer.expires_in or _LIFETIME, _LIFETIME)
    return _Token(f"Bearer {token}", asked + lifetime - _MARGIN)


def _wrong_password(host: str, credential: Credential | None, said: str = "") -> AuthError:
    if credential is None or credential == Credential():
        message, hint = f"{host} gives nothing without a login", f"Log in with `kiln login {host}`."
    else:
        who = f"of {credential.username!r}" if credential.username else "(a token)"
        message = f"{host} refused the user name or password {who}"
        hint = f"Log in again with `kiln login {host}`."
    return AuthError(message, hint=hint, where=host, detail=said, status=401)
