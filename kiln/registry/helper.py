"""Docker's credential helpers: programs `docker-credential-NAME` (docker/docker-credential-helpers, README).

A helper reads the server's name (or, to store, JSON) from stdin and writes JSON to stdout; no secret is ever in argv.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from kiln.errors import AuthError

if TYPE_CHECKING:
    from subprocess import CompletedProcess

SECONDS = 30.0
TOKEN_USER = "<token>"
_NAME = re.compile(r"^[A-Za-z0-9._-]+$")
_MISSING = ("credentials not found", "no usernames for", "not be found in the keychain")


class Login(msgspec.Struct, frozen=True, rename={"server": "ServerURL", "username": "Username", "secret": "Secret"}):
    """What a helper stores; the user `<token>` marks an identity token."""

    username: str = ""
    secret: str = ""
    server: str = ""

    def __repr__(self) -> str:
        return f"Login(server={self.server!r}, username={self.username!r})"


class Helper(Struct, frozen=True):
    """One helper program. `place` is the file that names it, for errors; `environment` is what the program gets."""

    name: str
    place: str
    environment: Mapping[str, str]

    def get(self, server: str) -> Login | None:
        """What the helper has for a server, or None; raises `AuthError` where the helper fails."""
        done = self._run("get", server.encode())
        if done.returncode:
            if any(mark in (done.stdout + done.stderr).decode("utf-8", "replace").lower() for mark in _MISSING):
                return None
            raise self._failed("get", done)
        try:
            return msgspec.json.decode(done.stdout, type=Login)
        except msgspec.MsgspecError as bad:
            raise AuthError(f"{self._program} get did not answer with credentials", where=self.place) from bad

    def store(self, login: Login) -> None:
        """Hands credentials over; raises `AuthError`."""
        done = self._run("store", msgspec.json.encode(login))
        if done.returncode:
            raise self._failed("store", done)

    def erase(self, server: str) -> None:
        """Forgets a server; raises `AuthError`. Nothing to forget is no failure."""
        done = self._run("erase", server.encode())
        if done.returncode and not any(mark in done.stdout.decode("utf-8", "replace").lower() for mark in _MISSING):
            raise self._failed("erase", done)

    @property
    def _program(self) -> str:
        return f"docker-credential-{self.name}"

    def _run(self, verb: str, data: bytes) -> CompletedProcess[bytes]:
        import shutil
        import subprocess

        path = (
            shutil.which(self._program, path=self.environment.get("PATH", os.defpath))
            if _NAME.match(self.name)
            else None
        )
        if path is None:
            raise AuthError(
                f"the credential helper {self._program!r} is not installed",
                hint="Install it, or remove credsStore or credHelpers from the file and log in again.",
                where=self.place,
            )
        try:
            return subprocess.run(
                [path, verb], input=data, capture_output=True, timeout=SECONDS, env=dict(self.environment), check=False
            )
        except (OSError, subprocess.TimeoutExpired) as bad:
            why = (
                f"did not end within {SECONDS:.0f} s"
                if isinstance(bad, subprocess.TimeoutExpired)
                else str(bad.strerror)
            )
            raise AuthError(f"{self._program} {verb} {why}", where=self.place) from bad

    def _failed(self, verb: str, done: CompletedProcess[bytes]) -> AuthError:
        """Only stderr's and, for `get`, stdout's first line are shown: a failing `store` might repeat its input."""
        from kiln.registry.faults import printable

        said = (done.stderr or done.stdout).decode("utf-8", "replace") if verb == "get" else ""
        message = f"{self._program} {verb} failed with code {done.returncode}"
        return AuthError(f"{message}: {printable(said)}" if said.strip() else message, where=self.place)
