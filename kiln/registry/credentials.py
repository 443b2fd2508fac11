"""Docker's `config.json`: whose credentials go to which registry, and how they are stored and erased.

The file is shared with Docker and others: keys that Kiln does not know stay as they are.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any

from msgspec import Struct

from kiln.errors import AuthError
from kiln.oci.reference import DEFAULT_HOST
from kiln.registry.helper import TOKEN_USER, Helper, Login
from kiln.settings import Settings

DOCKER_KEY = "https://index.docker.io/v1/"
_DOCKER_HOSTS = ("index.docker.io", "registry-1.docker.io", DEFAULT_HOST)


class Credential(Struct, frozen=True):
    """A user and a password, or an identity token (for the token service), or a token for the registry itself."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, ...)"


class Credentials:
    """The credentials of one Docker config folder (`settings.docker_config`)."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.docker_config / "config.json"
        self._environment = settings.environment

    def find(self, host: str) -> Credential | None:
        """What to show a registry, or None; raises `AuthError` where the file or a helper cannot be used."""
        document = self._read()
        helper = self._helper(document, host)
        login = helper.get(server_key(host)) if helper else None
        if login is not None and login.secret:
            return _from_login(login)
        key = _auths_key(document, host)
        return self._decode(key, document["auths"][key]) if key else None

    def store(self, host: str, credential: Credential) -> str:
        """Keeps a credential for a host; returns where: the helper's program or the file's path."""
        document = self._read()
        helper = self._helper(document, host)
        auths = document.setdefault("auths", {})
        auths.pop(_auths_key(document, host), None)
        if helper:
            helper.store(_to_login(server_key(host), credential))
            auths[server_key(host)] = {}
        else:
            auths[server_key(host)] = _encode(credential)
        self._write(document)
        return f"docker-credential-{helper.name}" if helper else str(self._path)

    def erase(self, host: str) -> bool:
        """Forgets the credential of a host; returns whether there was one."""
        document = self._read()
        helper = self._helper(document, host)
        known = helper is not None and helper.get(server_key(host)) is not None
        if helper and known:
            helper.erase(server_key(host))
        key = _auths_key(document, host)
        if key:
            del document["auths"][key]
            self._write(document)
        return known or bool(key)

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_bytes() or b"{}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as bad:
            raise self._bad(f"cannot be read: {bad}") from bad
        if not isinstance(document, dict) or not isinstance(document.get("auths", {}), dict):
            raise self._bad("is not a Docker config file")
        if document.get("auths", {}) is None:
            document["auths"] = {}
        return document

    def _helper(self, document: dict[str, Any], host: str) -> Helper | None:
        own = document.get("credHelpers") or {}
        name = next((own[key] for key in _keys(host) if key in own), "") or document.get("credsStore")
        return Helper(str(name), str(self._path), self._environment) if name else None

    def _decode(self, key: str, entry: object) -> Credential | None:
        """The credential in one entry of `auths`: `auth` is base64 of `user:password`."""
        if not isinstance(entry, dict):
            raise self._bad(f"auths.{key} is not an object")
        texts = {name: value for name, value in entry.items() if isinstance(value, str)}
        user, password = texts.get("username", ""), texts.get("password", "")
        if texts.get("auth"):
            try:
                plain = base64.b64decode(texts["auth"], validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as bad:
                raise self._bad(f"auths.{key}.auth is not base64 of user:password") from bad
            user, _, password = plain.partition(":")
        made = Credential(user, password.rstrip("\0"), texts.get("identitytoken", ""), texts.get("registrytoken", ""))
        return made if made != Credential() else None

    def _write(self, document: dict[str, Any]) -> None:
        """Replaces the file at once, readable by its owner only; a link to it stays a link."""
        target = Path(os.path.realpath(self._path))
        temporary = target.with_name(f".{target.name}-{os.urandom(6).hex()}")
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(json.dumps(document, indent="\t", ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as bad:
            raise self._bad(f"cannot be written: {bad.strerror}") from bad
        finally:
            temporary.unlink(missing_ok=True)

    def _bad(self, message: str) -> AuthError:
        return AuthError(message, where=str(self._path), hint="Repair the file, or log in again with `kiln login`.")


def server_key(host: str) -> str:
    """The name under which credentials of a host are kept: Docker Hub's is an old URL."""
    return DOCKER_KEY if host in _DOCKER_HOSTS else host


def _keys(host: str) -> list[str]:
    """Every way that tools write a host in `config.json`, the usual one first."""
    hosts = _DOCKER_HOSTS if host in _DOCKER_HOSTS else (host,)
    written = [form.format(name) for name in hosts for form in ("{}", "https://{}", "http://{}")]
    return [
        server_key(host),
        *written,
        *(f"{name}{tail}" for name in written for tail in ("/", "/v1/", "/v2/", "/v1", "/v2")),
    ]


def _auths_key(document: dict[str, Any], host: str) -> str:
    return next((key for key in _keys(host) if key in document.get("auths", {})), "")


def _encode(credential: Credential) -> dict[str, str]:
    pair = f"{credential.username}:{credential.password}".encode()
    entry = {"auth": base64.b64encode(pair).decode() if credential.username or credential.password else ""}
    entry |= {"identitytoken": credential.identity_token, "registrytoken": credential.registry_token}
    return {key: value for key, value in entry.items() if value}


def _from_login(login: Login) -> Credential:
    if login.username == TOKEN_USER:
        return Credential(identity_token=login.secret)
    return Credential(login.username, login.secret)


def _to_login(server: str, credential: Credential) -> Login:
    if credential.identity_token:
        return Login(TOKEN_USER, credential.identity_token, server)
    return Login(credential.username, credential.password, server)
