"""Image references: `[host[:port]/]repository[:tag][@digest]`, with Docker's defaults."""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from kiln.errors import UsageError
from kiln.oci.digest import is_digest

DEFAULT_HOST = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"^{_COMPONENT}(?:/{_COMPONENT})*$")
_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
_HOST = re.compile(r"^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$")


class Reference(Struct, frozen=True):
    """One reference, normalised: `debian` is host docker.io, repository library/debian. `tag` or `digest` may be empty."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """`host/repository`, without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def familiar(self) -> str:
        """As people write it: without `docker.io/` and `library/`."""
        name = self.name.removeprefix(DEFAULT_HOST + "/")
        if name.startswith("library/") and name.count("/") == 1:
            name = name.removeprefix("library/")
        return name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()

    def with_default_tag(self) -> Reference:
        """With the tag `latest` where there is neither tag nor digest."""
        return self if self.tag or self.digest else Reference(self.host, self.repository, "latest")

    def with_digest(self, digest: str) -> Reference:
        """The same repository by digest alone."""
        return replace(self, tag="", digest=digest)


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        return first, rest
    return DEFAULT_HOST, name


def parse(text: str) -> Reference:
    """The reference that `text` writes; raises `UsageError` naming what is wrong with it."""
    if is_digest("sha256:" + text):
        raise _bad(text, "64 hex digits alone are taken for an image id, not a name")
    name, _, digest = text.partition("@")
    if "@" in text and not is_digest(digest):
        raise _bad(text, f"{digest!r} is not a digest")
    tag = ""
    head, colon, last = name.rpartition(":")
    if colon and "/" not in last:
        name, tag = head, last
        if not _TAG.match(tag):
            raise _bad(text, f"{tag!r} is not a tag (letters, digits, '_', '.', '-'; at most 128)")
    host, repository = _split_host(name)
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DEFAULT_HOST
    if not _HOST.match(host):
        raise _bad(text, f"{host!r} is not a host")
    if host == DEFAULT_HOST and repository and "/" not in repository:
        repository = "library/" + repository
    if repository != repository.lower():
        raise _bad(text, "a repository name must be lower case")
    if not _REPOSITORY.match(repository) or len(repository) > 255:
        raise _bad(text, f"{repository!r} is not a repository name")
    return Reference(host=host, repository=repository, tag=tag, digest=digest)


def _bad(text: str, why: str) -> UsageError:
    return UsageError(
        f"{text!r} is not an image reference: {why}",
        hint="Write [host[:port]/]repository[:tag], for example 127.0.0.1:5000/team/app:1.",
    )
