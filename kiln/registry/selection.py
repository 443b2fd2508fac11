"""Which manifest of an index serves a platform."""

from __future__ import annotations

from kiln.errors import NotFoundError
from kiln.oci.image import Descriptor, Index
from kiln.oci.platform import Platform, matches, parse


def pick(index: Index, wanted: Platform, where: str) -> Descriptor:
    """The index's manifest for a platform, the exact variant first; raises `NotFoundError` naming what is offered."""
    images = [entry for entry in index.manifests if not is_attestation(entry)]
    if len(images) == 1 and images[0].platform is None:
        return images[0]
    fitting = [entry for entry in images if entry.platform and matches(wanted, entry.platform)]
    if not fitting:
        offered = ", ".join(str(entry.platform) for entry in images if entry.platform) or "no platform"
        raise NotFoundError(
            f"there is no image for {wanted}",
            hint=f"It is offered for {offered}: name one with --platform.",
            where=where,
        )
    return max(fitting, key=lambda entry: _nearness(wanted, entry.platform or wanted))


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry is BuildKit's provenance or SBOM rather than an image: its platform is unknown/unknown."""
    return entry.platform is not None and entry.platform.os == "unknown"


def _nearness(wanted: Platform, offered: Platform) -> tuple[bool, str]:
    """Exact first, then the highest variant (arm: v7 runs v6 and v5); `max` keeps the first of equals."""
    variant = parse(str(offered)).variant
    return variant == parse(str(wanted)).variant, variant
