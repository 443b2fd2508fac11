"""The environment, read once. Everything that Kiln takes from outside its arguments is a field here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from kiln.errors import UsageError

PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


class RegistryRules(Struct, frozen=True):
    """What is special about one registry host: plain http, an own CA file, mirrors to ask first."""

    http: bool = False
    ca: Path | None = None
    verify: bool = True
    mirrors: tuple[str, ...] = ()


class Settings(Struct, frozen=True):
    """Never changes after start. `home` is the folder of the store; `epoch` is SOURCE_DATE_EPOCH in seconds."""

    home: Path
    docker_config: Path
    epoch: int | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    registries: Mapping[str, RegistryRules] = field(default_factory=dict)
    runtime: str = ""
    ssh_auth_sock: str = ""
    color: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def store_path(self) -> Path:
        """The folder of the OCI layout."""
        return self.home / "store"

    @property
    def path(self) -> str:
        """The folders that programs are looked for in."""
        return self.environment.get("PATH", "")

    def rules(self, host: str) -> RegistryRules:
        """The rules for a registry host (`host[:port]`)."""
        return self.registries.get(host, RegistryRules())


def read(environment: Mapping[str, str] | None = None, *, home: str = "") -> Settings:
    """Settings from the environment and `config.toml` in the home folder; raises `UsageError`."""
    env = os.environ if environment is None else environment
    folder = Path(home or env.get("KILN_HOME") or _default_home(env)).absolute()
    return Settings(
        home=folder,
        docker_config=Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME") or "/root") / ".docker"),
        epoch=_epoch(env.get("SOURCE_DATE_EPOCH", "")),
        proxies=_proxies(env),
        registries=_registries(folder / "config.toml"),
        runtime=env.get("KILN_RUNTIME", ""),
        ssh_auth_sock=env.get("SSH_AUTH_SOCK", ""),
        color="NO_COLOR" not in env and env.get("TERM", "") != "dumb",
        environment=dict(env),
    )


def _default_home(env: Mapping[str, str]) -> Path:
    base = env.get("XDG_DATA_HOME") or Path(env.get("HOME") or "/root") / ".local" / "share"
    return Path(base) / "kiln"


def _epoch(text: str) -> int | None:
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0 or value > 253402300799:
        raise UsageError(
            f"SOURCE_DATE_EPOCH={text!r} is not a time",
            hint="Give whole seconds since 1970-01-01, for example 1700000000.",
        )
    return value


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name in PROXY_NAMES:
        value = env.get(name.lower()) or env.get(name)
        if value:
            found[name.lower()] = value
    return found


def _registries(path: Path) -> dict[str, RegistryRules]:
    """The `[registry."host"]` tables of config.toml; keys: http, ca, verify, mirrors."""
    if not path.exists():
        return {}
    import tomllib

    try:
        table = tomllib.loads(path.read_text()).get("registry", {})
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as bad:
        raise UsageError(f"cannot be read: {bad}", where=str(path)) from bad
    return {host: _rules(path, host, entry) for host, entry in table.items()}


def _rules(path: Path, host: str, entry: object) -> RegistryRules:
    place = f'{path}: registry."{host}"'
    if not isinstance(entry, dict):
        raise UsageError("must be a table", where=place)
    unknown = set(entry) - {"http", "ca", "verify", "mirrors"}
    if unknown:
        raise UsageError(f"unknown key {sorted(unknown)[0]!r}", where=place, hint="Keys are http, ca, verify, mirrors.")
    http, verify = entry.get("http", False), entry.get("verify", True)
    ca, mirrors = entry.get("ca"), entry.get("mirrors", [])
    if not isinstance(http, bool) or not isinstance(verify, bool):
        raise UsageError("http and verify are true or false", where=place)
    if not isinstance(mirrors, list) or not all(isinstance(mirror, str) for mirror in mirrors):
        raise UsageError("mirrors is a list of hosts", where=place)
    return RegistryRules(http=http, ca=Path(str(ca)) if ca else None, verify=verify, mirrors=tuple(mirrors))
