"""Records of results: in the store, and from registries that may say anything."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import msgspec
import pytest

from kiln.baking import results
from kiln.baking.results import Result, Results
from kiln.errors import NotFoundError
from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference, parse
from kiln.plan.decide import Facts
from kiln.store.store import Store

NAME = parse("127.0.0.1:5000/team/app:1")
KEY = "k" * 64
IMAGE = Descriptor(media.OCI_MANIFEST, "sha256:" + "a" * 64, 500)
RESULT = Result(KEY, IMAGE, ["team/app:1"], Facts(args={"X": "1"}))


class Registry:
    """The two questions that results ask a client."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get_manifest(self, name: Reference) -> tuple[bytes, Descriptor]:
        if name.tag not in self.kept:
            raise NotFoundError("none")
        data = self.kept[name.tag]
        return data, Descriptor(media.OCI_INDEX, sha256(data), len(data))

    def put_manifest(self, name: Reference, data: bytes, media_type: str) -> str:
        self.kept[name.tag] = data
        return sha256(data)


def find(registry: Registry, tag: str = "") -> Result | None:
    return results.find(registry, NAME, tag or results.key_tag(KEY))  # type: ignore[arg-type]


def published(*, auto: bool = False) -> Registry:
    registry = Registry()
    results.publish(registry, NAME, RESULT, auto=auto)  # type: ignore[arg-type]
    return registry


def test_published_and_found() -> None:
    """Under its key, and under the tag that it is the image of; without names, which are another machine's."""
    registry = published()
    assert set(registry.kept) == {f"kiln-{'k' * 40}", "kiln-of-1"}
    assert find(registry) == find(registry, "kiln-of-1") == msgspec.structs.replace(RESULT, names=[])
    assert find(registry, "kiln-other") is None and find(Registry()) is None
    document = json.loads(registry.kept["kiln-of-1"])
    assert [entry["digest"] for entry in document["manifests"]] == [IMAGE.digest], "the image stays as long as the tag"


def test_names_that_change_with_time_are_told() -> None:
    registry = published(auto=True)
    assert set(registry.kept) == {f"kiln-{'k' * 40}", "kiln-last"} and find(registry) == RESULT


def test_a_tag_that_is_too_long_for_a_second() -> None:
    assert (
        results.last_tag("x" * 111) == "" and results.last_tag("x") == "kiln-of-x" and find(published(), "") is not None
    )


def hostile(text: str, digest: str = IMAGE.digest, count: int = 1) -> bytes:
    entry = {"mediaType": media.OCI_MANIFEST, "digest": digest, "size": 500}
    return json.dumps({
        "schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [entry] * count,
        "annotations": {"vnd.kiln.record.v1": text},
    }).encode()  # fmt: skip


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(msgspec.json.encode(value))).decode()


BOMB = base64.b64encode(zlib.compress(b" " * (64 << 20), 9)).decode()
HOSTILE = {
    "a bomb": hostile(BOMB),
    "no base64": hostile("%%%"),
    "no zlib": hostile(base64.b64encode(b"x").decode()),
    "cut off": hostile(base64.b64encode(zlib.compress(msgspec.json.encode(RESULT))[:-20]).decode()),
    "no record": hostile(packed([])),
    "a key that is no text": hostile(packed({"key": 1, "descriptor": IMAGE})),
    "facts of the wrong kind": hostile(packed({"key": KEY, "descriptor": IMAGE, "facts": {"files": 3}})),
    "another image": hostile(packed(RESULT), digest="sha256:" + "b" * 64),
    "two images": hostile(packed(RESULT), count=2),
    "no image": hostile(packed(RESULT), count=0),
    "a path for a digest": hostile(packed(RESULT), digest="sha256:../../etc/passwd"),
    "no annotation": b'{"schemaVersion":2,"mediaType":"' + media.OCI_INDEX.encode() + b'","manifests":[]}',
    "no JSON": b"<html>",
    "a list": b"[]",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_record(data: bytes) -> None:
    registry = Registry()
    registry.kept[results.key_tag(KEY)] = data
    assert find(registry) is None


@pytest.fixture
def kept(store: Store) -> tuple[Results, Result]:
    """Results of a store with one image."""
    config, layer = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}', b"layer"
    document = {
        "schemaVersion": 2, "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": store.blobs.put(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": store.blobs.put(layer), "size": 5}],
    }  # fmt: skip
    data = json.dumps(document).encode()
    found = Results(store)
    result = msgspec.structs.replace(
        RESULT, descriptor=Descriptor(media.OCI_MANIFEST, store.blobs.put(data), len(data))
    )
    found.put("root\0app", result)
    return found, result


def test_kept_in_the_store(kept: tuple[Results, Result]) -> None:
    found, result = kept
    assert found.get(KEY) == result == found.last("root\0app")
    assert found.get("x" * 64) is None and found.last("root\0other") is None


def test_the_last_result_of_a_target(kept: tuple[Results, Result]) -> None:
    found, result = kept
    other = msgspec.structs.replace(result, names=["other:1"])
    found.remember("root\0app", other)
    assert found.last("root\0app") == other and found.get(KEY) == result


def test_an_image_that_lost_a_blob_is_none(kept: tuple[Results, Result], store: Store) -> None:
    (store.root / "blobs" / "sha256" / sha256(b"layer").partition(":")[2]).unlink()
    assert kept[0].get(KEY) is None


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"key":"k"}', b"\xff" * 100])
def test_damaged_records_are_none(kept: tuple[Results, Result], store: Store, data: bytes) -> None:
    for path in files_below(store.root / "cache" / "results"):
        path.write_bytes(data)
    assert kept[0].get(KEY) is None and kept[0].last("root\0app") is None
