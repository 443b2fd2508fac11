"""Digests: `algorithm:hex`, as in OCI image-spec descriptor.md."""

from __future__ import annotations

import hashlib
import re

from kiln.errors import KilnError

_PATTERN = re.compile(r"^sha256:[0-9a-f]{64}$|^sha512:[0-9a-f]{128}$")


def sha256(data: bytes) -> str:
    """The sha256 digest of `data`, `sha256:` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` is a digest of an algorithm that Kiln checks."""
    return _PATTERN.fullmatch(text) is not None


def parse(text: str) -> tuple[str, str]:
    """(algorithm, hex) of a digest; raises `KilnError` where it is none."""
    if not is_digest(text):
        raise KilnError(f"{text!r} is not a digest", hint="A digest is written sha256: and 64 hex digits.")
    algorithm, _, value = text.partition(":")
    return algorithm, value


def chain_id(diff_ids: tuple[str, ...]) -> str:
    """The chainID of a stack of layers (OCI image-spec config.md, "Layer ChainID"); empty for no layers."""
    chain = ""
    for diff_id in diff_ids:
        chain = diff_id if not chain else sha256(f"{chain} {diff_id}".encode())
    return chain
