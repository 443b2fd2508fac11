import pytest

from kiln.errors import NotFoundError
from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor, Index
from kiln.oci.platform import Platform, parse
from kiln.registry.selection import pick


def index(*platforms):
    return Index(
        manifests=[
            Descriptor(media.OCI_MANIFEST, sha256(f"{number}".encode()), 1, platform=platform and Platform(*platform))
            for number, platform in enumerate(platforms)
        ]
    )


@pytest.mark.parametrize(
    ("wanted", "offered", "picked"),
    [
        ("linux/arm64", [("amd64", "linux"), ("arm64", "linux", "v8")], 1),
        ("linux/arm/v7", [("arm", "linux", "v5"), ("arm", "linux", "v6"), ("arm", "linux", "v7")], 2),
        ("linux/arm/v7", [("arm", "linux", "v5"), ("arm", "linux", "v6")], 1),
        ("linux/arm/v6", [("arm", "linux", "v7"), ("arm", "linux", "v5")], 1),
        ("linux/amd64", [("unknown", "unknown"), ("amd64", "linux")], 1),
        ("linux/amd64", [("amd64", "linux"), ("amd64", "linux")], 0),
        ("linux/amd64", [("amd64", "linux", "v3"), ("amd64", "linux")], 1),
        ("linux/amd64", [None], 0),
        ("linux/amd64", [None, ("unknown", "unknown")], 0),
    ],
)
def test_pick(wanted, offered, picked):
    found = index(*offered)
    assert pick(found, parse(wanted), "x") is found.manifests[picked]


def test_none_for_the_platform():
    with pytest.raises(NotFoundError, match="no image for linux/s390x") as caught:
        pick(index(("amd64", "linux"), ("unknown", "unknown"), ("arm", "linux", "v7")), parse("linux/s390x"), "reg/app")
    assert "linux/amd64, linux/arm/v7:" in caught.value.hint
    assert caught.value.where == "reg/app"
