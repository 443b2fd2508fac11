"""User and group names -> ids, by the passwd and group files of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kiln.errors import DockerfileError

ReadFile = Callable[[str], bytes | None]
_MAX_ID = 2**31 - 1


class Owner(NamedTuple):
    """Numeric user and group."""

    uid: int
    gid: int


class Found(NamedTuple):
    """An owner, and the name in it that the image does not know (which then counts as 0), empty for none."""

    owner: Owner
    unknown: str = ""


def owner_of(spec: str, read: ReadFile) -> Found:
    """The owner that `--chown=user[:group]` names; a lone user's group is its own id or, by name, its primary group.

    `read` gives the content of a file of the image, None if it is not there. Raises `DockerfileError` where a name is
    used and the image has no passwd or group file at all.
    """
    user, colon, group = spec.partition(":")
    uid, gid, unknown = _user(user, read) if user else (0, 0, "")
    if colon:
        gid, no_group = _group(group, read) if group else (0, "")
        unknown = unknown or no_group
        if no_group and user:
            gid = _user(user, read)[1] if not user.isdigit() else gid
    return Found(Owner(uid, gid), unknown)


def _user(name: str, read: ReadFile) -> tuple[int, int, str]:
    if _is_id(name):
        return int(name), int(name), ""
    data = read("etc/passwd")
    if data is None and name != "root":
        raise _no_file("user", name, "/etc/passwd")
    for fields in _rows(data, 4):
        if fields[0] == name and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3]), ""
    return 0, 0, "" if name == "root" else f"user {name}"


def _group(name: str, read: ReadFile) -> tuple[int, str]:
    if _is_id(name):
        return int(name), ""
    data = read("etc/group")
    if data is None and name != "root":
        raise _no_file("group", name, "/etc/group")
    for fields in _rows(data, 3):
        if fields[0] == name and fields[2].isdigit():
            return int(fields[2]), ""
    return 0, "" if name == "root" else f"group {name}"


def _is_id(text: str) -> bool:
    return text.isdigit() and int(text) <= _MAX_ID


def _no_file(what: str, name: str, path: str) -> DockerfileError:
    return DockerfileError(
        f'unable to find {what} "{name}": the image has no {path}',
        hint=f"Use a number, or add the {what} to the image before this step.",
    )


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
    column = 2 if user.isdigit() else 0
    row = next((fields for fields in _rows(read("etc/passwd"), 4) if fields[column] == user), None)
    if row is None and not user.isdigit():
        raise DockerfileError(
            f"unable to find user {user}: no matching entries in passwd file",
            hint="Add the user in an earlier step, or use a number.",
        )
    uid = int(row[2]) if row else int(user)
    gid = int(row[3]) if row else 0
    if uid > _MAX_ID:
        raise DockerfileError(f"the id {user} is too large")
    home = (row[5] if row and len(row) > 5 else "") or "/"
    if colon and group:
        gid, unknown = _group(group, read)
        if unknown:
            raise DockerfileError(f"unable to find {unknown}: no matching entries in group file")
        return Identity(uid, gid, (gid,), home)
    return Identity(uid, gid, (*_groups_of(row[0] if row else "", read), gid), home)


def _groups_of(name: str, read: ReadFile) -> list[int]:
    """The groups whose rows list a user."""
    rows = _rows(read("etc/group"), 4)
    return [int(fields[2]) for fields in rows if name and fields[2].isdigit() and name in fields[3].split(",")]
