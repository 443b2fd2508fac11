"""The `--flag` words of an instruction, and the CSV fields of `RUN --mount`."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.dockerfile.parser import Statement
from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import DockerfileError

TRUE, FALSE = frozenset({"1", "t", "T", "true", "TRUE", "True"}), frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Flags(Struct):
    """The flags of one instruction by name."""

    strings: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    bools: dict[str, bool] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The value of a string flag, empty if it is not given."""
        return self.strings.get(name, "")


_NONE = Flags()


def read_flags(
    statement: Statement, *, strings: tuple[str, ...] = (), lists: tuple[str, ...] = (), bools: tuple[str, ...] = ()
) -> Flags:
    """The statement's flags; raises `DockerfileError` for one that the instruction does not have."""
    if not statement.flags:
        return _NONE
    flags = Flags()
    for word in statement.flags:
        name, equals, value = word.removeprefix("--").partition("=")
        if name in lists:
            flags.lists.setdefault(name, []).append(_value(statement, name, equals, value))
            continue
        if name not in strings + bools:
            known = [f"--{flag}" for flag in sorted(strings + lists + bools)]
            hint = did_you_mean(f"--{name}", known) or (f"Flags here: {', '.join(known)}." if known else "")
            raise DockerfileError(f"unknown flag: --{name}", where=str(statement.place), hint=hint)
        if name in flags.strings or name in flags.bools:
            raise DockerfileError(f"duplicate flag specified: --{name}", where=str(statement.place))
        if name in bools:
            flags.bools[name] = _boolean(statement, name, value)
        else:
            flags.strings[name] = _value(statement, name, equals, value)
    return flags


def _value(statement: Statement, name: str, equals: str, value: str) -> str:
    if not equals:
        raise DockerfileError(
            f"missing a value on flag: --{name}", where=str(statement.place), hint=f"Write --{name}=VALUE."
        )
    return value


def _boolean(statement: Statement, name: str, value: str) -> bool:
    if value.lower() in ("", "true"):
        return True
    if value.lower() == "false":
        return False
    raise DockerfileError(f"expecting boolean value for flag --{name}, not: {value}", where=str(statement.place))


class Mount(Struct, frozen=True):
    """One `RUN --mount`. `size` is bytes; `mode`, `uid`, `gid` are None where not given."""

    type: str = "bind"
    source_stage: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = True
    required: bool = False
    size: int = 0
    id: str = ""
    sharing: str = ""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str = ""


_TYPES = ("bind", "cache", "secret", "ssh", "tmpfs")
_SHARING = ("locked", "private", "shared")
_KEYS = (
    "type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid", "src",
    "dst", "destination", "ro", "rw", "readwrite", "env",
)  # fmt: skip
_ALIAS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?$", re.IGNORECASE)


def parse_mount(text: str, expander: Callable[[str], str]) -> Mount:
    """A mount from its CSV fields; raises `ValueError` with the reason."""
    mount = Mount()
    explicit_access = False
    for entry in next(csv.reader([text]), []):
        key, equals, value = entry.partition("=")
        key = _ALIAS.get(key.lower(), key.lower())
        if equals:
            value = expander(value)
        elif key not in ("readonly", "readwrite", "required"):
            raise ValueError(f"invalid field '{entry}' must be a key=value pair")
        explicit_access = explicit_access or key in ("readonly", "readwrite")
        mount = _with_field(mount, key, value if equals else "true", entry)
    if not explicit_access:
        mount = replace(mount, read_only=mount.type not in ("cache", "tmpfs"))
    _check_mount(mount)
    return mount


_TEXTS: dict[str, Callable[[Mount, str], Mount]] = {
    "source": lambda mount, value: replace(mount, source=value),
    "target": lambda mount, value: replace(mount, target=value),
    "id": lambda mount, value: replace(mount, id=value),
    "env": lambda mount, value: replace(mount, env=value),
}


def _with_field(mount: Mount, key: str, value: str, entry: str) -> Mount:
    if key == "type":
        return replace(mount, type=_one_of("mount type", value.lower(), _TYPES))
    if key == "sharing":
        return replace(mount, sharing=_one_of("sharing value", value.lower(), _SHARING))
    if key in _TEXTS:
        return _TEXTS[key](mount, value)
    if key == "from":
        return replace(mount, source_stage=value)
    if key in ("readonly", "readwrite"):
        return replace(mount, read_only=_parse_bool(key, value) == (key == "readonly"))
    if key == "required" and mount.type in ("secret", "ssh"):
        return replace(mount, required=_parse_bool(key, value))
    if key == "size" and mount.type == "tmpfs":
        return replace(mount, size=parse_size(value))
    if key == "mode":
        return replace(mount, mode=_number(key, value, 8))
    if key in ("uid", "gid"):
        number = _number(key, value, 10)
        return replace(mount, uid=number) if key == "uid" else replace(mount, gid=number)
    if key in ("required", "size"):
        raise ValueError(f"unexpected key '{key}' for mount type '{mount.type}'")
    raise ValueError(f"unexpected key '{key}' in '{entry}'. {did_you_mean(key, list(_KEYS))}".strip())


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f'unsupported {what} "{value}" (one of {", ".join(allowed)})')
    return value


def _parse_bool(key: str, value: str) -> bool:
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def _number(key: str, value: str, base: int) -> int:
    try:
        if not value.isalnum():
            raise ValueError
        number = int(value, base)
    except ValueError:
        raise ValueError(f"invalid value {value} for {key}") from None
    return number


def parse_size(value: str) -> int:
    """Bytes from `512`, `10m`, `1.5GB` (1024 a step, as Docker reads sizes); raises `ValueError`."""
    match = _SIZE.match(value.strip())
    if match is None:
        raise ValueError(f"invalid value for size: {value}")
    return int(float(match.group(1)) * 1024 ** " kmgtp".index(match.group(2).lower() or " "))


def _check_mount(mount: Mount) -> None:
    if mount.type in ("bind", "tmpfs"):
        for name in ("mode", "uid", "gid"):
            if getattr(mount, name) is not None:
                raise ValueError(f'{name} not allowed for "{mount.type}" type mounts')
    if mount.env and mount.type != "secret":
        raise ValueError(f"unexpected key 'env' for mount type '{mount.type}'")
    if mount.type == "secret":
        _check_secret(mount)
    if mount.sharing and mount.type != "cache":
        raise ValueError(f"invalid cache sharing set for {mount.type} mount")


def _check_secret(mount: Mount) -> None:
    if mount.source_stage:
        raise ValueError("secret mount should not have a from")
    if not (mount.source or mount.target or mount.id):
        raise ValueError("invalid secret mount. one of source, target required")
    if mount.source and mount.id:
        raise ValueError("both source and id can't be set")
