"""Writing layers: what a plain implementation gives, whether or not threads take part."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiln.errors import SourceError, StoreError
from kiln.oci import media
from kiln.store.compress import Inflater
from kiln.store.convert import convert
from kiln.store.entry import DIR, FILE, HARDLINK, SYMLINK, Entry
from kiln.store.layer import Compression, Layer, LayerWriter
from kiln.store.store import Store
from kiln.store.toc import Toc

Members = list[tuple[str, Entry, bytes]]


def file(path: str, content: bytes, **facts: int) -> tuple[str, Entry, bytes]:
    """A file."""
    return path, Entry(FILE, size=len(content), **{"mode": 0o644, **facts}), content


def write(
    store: Store, members: Members, compression: Compression = Compression(), piece: int = 70_000
) -> tuple[Layer, Toc]:
    """A layer; contents come in pieces."""
    with store.layers.writer(compression) as writer:
        for path, entry, content in members:
            writer.add(path, entry, (content[place : place + piece] for place in range(0, len(content), piece)))
        return writer.finish(), list(writer.toc)


def plain(members: Members) -> bytes:
    """The same layer by tarfile, which leaves the device numbers of other members empty where Kiln (and Go) write zeros."""
    out = b""
    for path, entry, content in members:
        info = tarfile.TarInfo(path)
        info.mode, info.uid, info.gid, info.mtime, info.size = (
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime,
            len(content),
        )
        kinds = {FILE: tarfile.REGTYPE, DIR: tarfile.DIRTYPE, SYMLINK: tarfile.SYMTYPE, HARDLINK: tarfile.LNKTYPE}
        info.type, info.linkname = kinds[entry.kind], entry.link
        block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        block[329:345] = b"0000000\0" * 2
        block[148:156] = b" " * 8
        block[148:155] = b"%06o\0" % sum(block)
        out += bytes(block) + content + bytes(-len(content) % 512)
    return out + bytes(1024)


SMALL = [
    ("d", Entry(DIR, mode=0o755, mtime=5), b""),
    file("d/a", b"hello", uid=1, gid=2, mtime=99),
    ("d/l", Entry(SYMLINK, mode=0o777, link="a"), b""),
    ("d/h", Entry(HARDLINK, mode=0o644, link="d/a"), b""),
    file("empty", b""),
]
LARGE = [*SMALL, *(file(f"big{number}", os.urandom(1_300_000 + number)) for number in range(4))]


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("members", [SMALL, LARGE, []], ids=["small", "large", "empty"])
def test_same_as_a_plain_implementation(store: Store, members: Members, kind: str) -> None:
    reference = plain(members)
    layer, toc = write(store, members, Compression(kind))
    assert layer.diff_id == "sha256:" + hashlib.sha256(reference).hexdigest()
    blob = store.blobs.get(layer.descriptor.digest)
    assert layer.descriptor.size == len(blob)
    assert layer.descriptor.media_type == media.layer_type(kind)
    unpackers = {"gzip": gzip.decompress, "none": bytes, "zstd": lambda data: _zstd(data)}
    assert unpackers[kind](blob) == reference
    assert layer.empty == (not members)
    for (path, entry), (written, _, content) in zip(toc, members, strict=True):
        assert path == written
        if entry.kind == FILE:
            assert entry.digest == hashlib.sha256(content).hexdigest()
            assert reference[entry.offset : entry.offset + entry.size] == content


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.one_of(st.integers(0, 3000), st.integers(1_000_000, 1_100_000)), max_size=4),
    piece=st.integers(5000, 2_000_000),
)
def test_pieces_do_not_matter(store: Store, sizes: list[int], piece: int) -> None:
    members = [file(f"f{number}", bytes([number % 256]) * size) for number, size in enumerate(sizes)]
    layer, _ = write(store, members, piece=piece)
    assert layer.diff_id == "sha256:" + hashlib.sha256(plain(members)).hexdigest()
    assert write(store, members)[0].diff_id == layer.diff_id


def test_same_entries_same_bytes(store: Store) -> None:
    for kind in ("gzip", "zstd", "none"):
        assert write(store, LARGE, Compression(kind)) == write(store, LARGE, Compression(kind))


def test_pieces_do_not_matter_for_the_blob(store: Store) -> None:
    members = [file("f", bytes(1050001))]
    assert write(store, members, piece=5001)[0] == write(store, members, piece=70_000)[0]


def test_threads_are_used_for_large_layers_only(store: Store) -> None:
    before = threading.active_count()
    with store.layers.writer(Compression()) as writer:
        writer.add(*SMALL[0][:2])
        assert threading.active_count() == before
        writer.add("big", Entry(FILE, size=3 << 20), iter([bytes(1 << 20)] * 3))
        assert threading.active_count() > before + 1
    assert threading.active_count() == before


@pytest.mark.parametrize("size", [4, 6, 3 << 20])
def test_size_mismatch(store: Store, size: int) -> None:
    with (
        pytest.raises(SourceError, match=f"/a changed while it was read: {size} bytes were expected, 5 came"),
        store.layers.writer(Compression()) as writer,
    ):
        writer.add("a", Entry(FILE, size=size), [b"hello"])
    assert not list((store.root / "blobs").rglob("*/*"))
    assert not list(store.scratch.iterdir())


def broken(writer: LayerWriter, failure: Exception) -> None:
    """Makes the writer's blob fail at its next byte, as a full disk would."""

    def write(data: bytes) -> None:
        raise failure

    writer._press._write = write


@pytest.mark.parametrize("chunks", [1, 2, 30])
def test_an_error_in_a_thread_comes_out(store: Store, chunks: int) -> None:
    """With fewer chunks than the queue holds it comes out at the end, else earlier; the caller never hangs."""
    with pytest.raises(StoreError, match="no space"), store.layers.writer(Compression("none")) as writer:
        broken(writer, StoreError("no space"))
        writer.add("a", Entry(FILE, size=chunks << 20), iter([bytes(1 << 20)] * chunks))
        writer.finish()
    assert not list((store.root / "blobs").rglob("*/*"))


def test_an_unexpected_error_in_a_thread_comes_out(store: Store) -> None:
    with pytest.raises(ZeroDivisionError, match="odd"), store.layers.writer(Compression()) as writer:
        broken(writer, ZeroDivisionError("odd"))
        writer.add("a", Entry(FILE, size=9 << 20), iter([os.urandom(1 << 20)] * 9))
        writer.finish()


def test_check_ends_the_writing(store: Store) -> None:
    def stop() -> None:
        raise SourceError("stopped")

    with pytest.raises(SourceError, match="stopped"), store.layers.writer(Compression()) as writer:
        writer.check = stop
        writer.add("a", Entry(FILE, size=3 << 20), iter([bytes(1 << 20)] * 3))
    assert not list(store.scratch.iterdir())


def test_a_known_digest_is_kept(store: Store) -> None:
    """The caller has hashed the file already: it is not hashed again."""
    with store.layers.writer(Compression()) as writer:
        assert writer.add("a", Entry(FILE, size=1, digest="ab" * 32), [b"x"]).digest == "ab" * 32


def test_opaque_folder(store: Store) -> None:
    with store.layers.writer(Compression("none")) as writer:
        writer.add("d", Entry(DIR, mode=-1, opaque=True))
        layer = writer.finish()
    tar = tarfile.open(fileobj=io.BytesIO(store.blobs.get(layer.descriptor.digest)))  # noqa: SIM115
    assert tar.getnames() == ["d/.wh..wh..opq"]


def test_level_matters(store: Store) -> None:
    members = [file("text", b"".join(b"some text %d\n" % number for number in range(20000)))]
    sizes = [write(store, members, Compression("gzip", level))[0].descriptor.size for level in (0, 1)]
    assert sizes[1] < sizes[0]
    stream = store.blobs.stream(write(store, members, Compression("gzip", 0))[0].descriptor.digest)
    assert len(Inflater(lambda _: next(stream, b""), "x").read(100)) == 100


@pytest.mark.parametrize("size", [10, (1 << 20) + 5, (4 << 20) - 3000, (4 << 20) - 9000, 9_000_000])
def test_a_large_layer_stays_plain_where_that_is_wished(store: Store, size: int) -> None:
    """What is compressed later has the bytes that it would have had at once."""
    members = [file("a", os.urandom(size)), file("b", b"text" * 1000)]
    with store.layers.writer(Compression(), plain_above=4 << 20) as writer:
        for path, entry, content in members:
            writer.add(path, entry, [content])
        layer = writer.finish()
    at_once, toc = write(store, members)
    assert layer.plain == (len(plain(members)) >= 4 << 20) and not at_once.plain
    assert (layer.diff_id, list(writer.toc)) == (at_once.diff_id, toc)
    if layer.plain:
        assert layer.descriptor.digest == layer.diff_id
        assert store.blobs.path(layer.diff_id).read_bytes() == plain(members)
        layer = convert(store.layers, layer.diff_id, layer.descriptor, Compression())
    assert layer == at_once
