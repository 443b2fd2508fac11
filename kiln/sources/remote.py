"""What a URL or git reference of ADD stands for now, without fetching it: a commit, or what the server says of the file."""

from __future__ import annotations

import re

from kiln.engine.cancel import Cancel
from kiln.errors import SourceError
from kiln.settings import Settings
from kiln.sources import fetch
from kiln.sources.git import parse_git
from kiln.sources.mirror import Mirrors

_GIT = re.compile(r"^(?:git://|ssh://|git@|https?://[^#?]+\.git(?:[#?].*)?$)")


def version(address: str, checksum: str, settings: Settings, cancel: Cancel) -> str:
    """A text that changes when the content does; empty where nothing but fetching it would tell."""
    if checksum:
        return checksum
    try:
        if _GIT.match(address):
            source = parse_git(address)
            return Mirrors(settings.store_path / "git", settings, cancel).commit(source.remote, source.ref)
        return _file_version(address, settings)
    except SourceError:
        return ""


def _file_version(url: str, settings: Settings) -> str:
    """The entity tag of a file, else its time and length (RFC 9110, section 8.8)."""
    headers = fetch.headers(url, settings)
    tag = headers.get("ETag", "")
    if tag:
        return f"{tag} {headers.get('Content-Length', '')}"
    changed, length = headers.get("Last-Modified", ""), headers.get("Content-Length", "")
    return f"{changed} {length}" if changed and length else ""
