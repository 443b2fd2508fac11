"""User and group names -> ids, by the passwd and group files of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kiln.errors import DockerfileError

ReadFile = Callable[[str], bytes | None]
_MAX_ID = 2**32 - 2


class Owner(NamedTuple):
    """Numeric user and group."""

    uid: int
    gid: int


def owner_of(spec: str, read: ReadFile) -> Owner:
    """The owner that `--chown=user[:group]` names; a lone user's group is its own id or, by name, its primary group.

    `read` gives the content of a file of the image, None if it is not there. Raises `DockerfileError`.
    """
    user, colon, group = spec.partition(":")
    uid, gid = 0, 0
    if user:
        uid, gid = _user(user, read)
    if colon and group:
        gid = _group(group, read)
    return Owner(uid, gid)


def _user(name: str, read: ReadFile) -> tuple[int, int]:
    if name.isdigit():
        return _checked(name), _checked(name)
    for fields in _rows(read("etc/passwd"), 4):
        if fields[0] == name and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3])
    raise DockerfileError(
        f'unable to find user "{name}": no matching entries in passwd file',
        hint="Use a number, or add the user to the image before this step.",
    )


def _group(name: str, read: ReadFile) -> int:
    if name.isdigit():
        return _checked(name)
    for fields in _rows(read("etc/group"), 3):
        if fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    raise DockerfileError(
        f'unable to find group "{name}": no matching entries in group file',
        hint="Use a number, or add the group to the image before this step.",
    )


def _checked(text: str) -> int:
    if int(text) > _MAX_ID:
        raise DockerfileError(f"the id {text} is too large")
    return int(text)


def _rows(data: bytes | None, fields: int) -> list[list[str]]:
    lines = (data or b"").decode("utf-8", "surrogateescape").splitlines()
    return [parts for parts in (line.strip().split(":") for line in lines) if len(parts) >= fields]


class Identity(NamedTuple):
    """Whom a command runs as: ids, further groups, and the home folder."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def identity_of(spec: str, read: ReadFile) -> Identity:
    """What `USER spec` means for a command; a lone number without a passwd row runs with group 0 (as runc's libcontainer
    and Docker do). Raises `DockerfileError`."""
    user, colon, group = spec.partition(":")
    user = user or "0"
    rows = _rows(read("etc/passwd"), 4)
    row = next((fields for fields in rows if fields[0] == user), None)
    if row is None and user.isdigit():
        row = next((fields for fields in rows if fields[2] == user), None)
    if row is None and not user.isdigit():
        raise DockerfileError(
            f"unable to find user {user}: no matching entries in passwd file",
            hint="Add the user in an earlier step, or use a number.",
        )
    uid = int(row[2]) if row else _checked(user)
    gid = int(row[3]) if row else 0
    home = (row[5] if row and len(row) > 5 else "") or "/"
    if colon and group:
        return Identity(uid, _group(group, read), (), home)
    name = row[0] if row else ""
    groups = tuple(
        int(fields[2]) for fields in _rows(read("etc/group"), 4) if fields[2].isdigit() and name in fields[3].split(",") and name
    )
    return Identity(uid, gid, groups, home)
