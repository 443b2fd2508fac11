"""Images of the store, as verbs name them: by name, or by the beginning of a digest."""

from __future__ import annotations

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import KilnError, UsageError
from kiln.oci.image import Descriptor
from kiln.oci.reference import parse
from kiln.store.store import Store


def find(store: Store, text: str) -> tuple[str, Descriptor]:
    """(name in the store, descriptor); raises `KilnError` for what is not there."""
    names = store.layout.names()
    try:
        wanted = str(parse(text).with_default_tag())
    except UsageError:
        wanted = text
    if wanted in names:
        return wanted, names[wanted]
    value = text.removeprefix("sha256:")
    if len(value) >= 6 and all(char in "0123456789abcdef" for char in value):
        for name, descriptor in names.items():
            if descriptor.digest.removeprefix("sha256:").startswith(value):
                return name, descriptor
    hint = did_you_mean(text, [parse(name).familiar for name in names]) or "See `kiln images`."
    raise KilnError(f"there is no image {text} in the store", hint=hint)
