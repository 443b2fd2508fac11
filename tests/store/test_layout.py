"""Names in the layout: many at once and nothing lost, readable by other tools."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from kiln.errors import KilnError, StoreError
from kiln.oci import media
from kiln.oci.image import Descriptor, Image, ImageConfig, Index, RootFS
from kiln.oci.platform import Platform
from kiln.store.entry import FILE, Entry
from kiln.store.layer import Compression
from kiln.store.layout import pick_platform
from kiln.store.store import Store


def image(store: Store, content: bytes = b"x", architecture: str = "amd64") -> Descriptor:
    """A stored image of one layer; its manifest's descriptor."""
    with store.layers.writer(Compression()) as writer:
        writer.add("file", Entry(FILE, mode=0o644, size=len(content)), [content])
        layer = writer.finish()
    store.layers.remember(layer, writer.toc)
    config = ImageConfig(architecture, "linux", rootfs=RootFS(diff_ids=[layer.diff_id]))
    return store.layout.put_image(Image(config, (layer.descriptor,)))


def test_tag_and_untag(store: Store) -> None:
    one, two = image(store), image(store, b"y")
    store.layout.tag(["b", "a"], one)
    store.layout.tag(["b", "c"], two)
    assert store.layout.names() == {"a": one.plain(), "b": two.plain(), "c": two.plain()}
    assert store.layout.find("b") == two.plain() and store.layout.find("z") is None
    assert store.layout.untag("b") == two.plain()
    assert store.layout.untag("b") is None
    assert list(store.layout.names()) == ["a", "c"]


def test_entries_without_a_name_are_kept(store: Store) -> None:
    one = image(store)
    (store.root / "index.json").write_bytes(
        msgspec.json.encode({"schemaVersion": 2, "manifests": [msgspec.to_builtins(one.plain())]})
    )
    store.layout.tag(["a"], one)
    assert len(store.layout.entries()) == 2 and list(store.layout.names()) == ["a"]


def test_threads(store: Store) -> None:
    one = image(store)
    store.layout.tag([f"old{number}" for number in range(40)], one)

    def work(turn: int) -> None:
        for number in range(10):
            store.layout.tag([f"new{turn}-{number}", "shared"], one)
            store.layout.untag(f"old{turn * 10 + number}")

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(store.layout.names()) == {f"new{turn}-{number}" for turn in range(4) for number in range(10)} | {
        "shared"
    }


_TAGGER = """
import sys
from pathlib import Path
from kiln.oci.image import Descriptor
from kiln.store.store import Store
with Store(Path(sys.argv[1])) as store:
    for number in range(15):
        store.layout.tag([f"{sys.argv[2]}-{number}"], Descriptor(sys.argv[3], sys.argv[4], int(sys.argv[5])))
        assert f"{sys.argv[2]}-{number}" in store.layout.names()
"""


def test_processes(store: Store) -> None:
    one = image(store)
    argv = [one.media_type, one.digest, str(one.size)]
    running = [subprocess.Popen([sys.executable, "-c", _TAGGER, store.root, str(turn), *argv]) for turn in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    assert set(store.layout.names()) == {f"{turn}-{number}" for turn in range(4) for number in range(15)}


_OPENER = "import sys\nfrom pathlib import Path\nfrom kiln.store.store import Store\nStore(Path(sys.argv[1])).close()"


def test_processes_that_make_the_store_at_once(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", _OPENER, tmp_path / "store"]) for _ in range(5)]
    assert [process.wait() for process in running] == [0] * 5
    assert json.loads((tmp_path / "store" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_it(store: Store, tmp_path: Path) -> None:
    store.layout.tag(["docker.io/library/app:1"], image(store))
    place = f"oci:{store.root}:docker.io/library/app:1"
    found = json.loads(subprocess.run(["skopeo", "inspect", place], capture_output=True, check=True).stdout)
    assert found["Architecture"] == "amd64" and len(found["Layers"]) == 1
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", place, f"dir:{tmp_path / 'out'}"], check=True)


def test_indexes(store: Store) -> None:
    amd, arm = image(store), image(store, architecture="arm64")
    listed = store.layout.put_index([amd, arm], annotations={"k": "v"})
    document = store.layout.load(listed).document
    assert isinstance(document, Index) and document.annotations == {"k": "v"}
    found = store.layout.image(listed, Platform("arm64", "linux"))
    assert found is not None and found[0] == arm.plain() and found[1].config.architecture == "arm64"
    assert store.layout.image(listed, Platform("s390x", "linux")) is None
    assert store.layout.image(amd, Platform("arm64", "linux")) is None


def test_pick_platform() -> None:
    def entry(digest: str, *platform: str) -> Descriptor:
        return Descriptor(media.OCI_MANIFEST, digest, 1, platform=Platform(*platform) if platform else None)

    v6, v7, unknown = (
        entry("v6", "arm", "linux", "v6"),
        entry("v7", "arm", "linux", "v7"),
        entry("att", "unknown", "unknown"),
    )
    assert pick_platform([unknown, v6, v7], Platform("arm", "linux", "v7")) == v7
    assert pick_platform([unknown, v6], Platform("arm", "linux", "v7")) == v6
    assert pick_platform([unknown], None) is None
    assert pick_platform([unknown, v7, v6], None) == v7
    assert pick_platform([], Platform("arm", "linux")) is None


def test_damaged_index(store: Store) -> None:
    (store.root / "index.json").write_text('{"manifests": [')
    with pytest.raises(StoreError, match="index of the store is damaged"):
        store.layout.names()


def test_damaged_manifest(store: Store) -> None:
    data = b'{"schemaVersion": 2, "layers": 5}'
    with pytest.raises(KilnError, match="not an image manifest"):
        store.layout.load(Descriptor(media.OCI_MANIFEST, store.blobs.put(data), len(data)))
