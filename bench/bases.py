"""What images stand on: a bootstrapped Debian, and an image of 1 GB; both are kept in the work folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench import content
from bench.registry import Blob, compressed

_PARTS = 4


def debian(folder: Path, suite: str) -> Blob:
    """The layer of a small Debian root, made by mmdebstrap once."""
    kept = _kept(folder, f"debian-{suite}")
    if kept:
        return kept
    tar = folder / "debian.tar"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", suite, str(tar)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    blob = _keep(folder, f"debian-{suite}", tar.read_bytes())
    tar.unlink()
    return blob


def gigabyte(folder: Path) -> list[Blob]:
    """Four layers with 1 GB of mixed files."""
    return [_kept(folder, f"big-{part}") or _big(folder, part) for part in range(_PARTS)]


def _big(folder: Path, part: int) -> Blob:
    source = folder / "big"
    sizes = content.mixed_sizes(1_000_000_000 // _PARTS)[part::2]
    paths = content.write_tree(source, [2 * size for size in sizes], part)
    blob = _keep(folder, f"big-{part}", content.write_layer(paths, source, f"data{part}"))
    subprocess.run(["rm", "-rf", str(source)], check=True)
    return blob


def _kept(folder: Path, name: str) -> Blob | None:
    record = folder / f"{name}.json"
    if not record.exists():
        return None
    known = json.loads(record.read_text())
    return Blob(folder / f"{name}.tar.gz", known["digest"], known["diff_id"], known["size"])


def _keep(folder: Path, name: str, tar: bytes) -> Blob:
    blob = compressed(tar, folder / f"{name}.tar.gz")
    record = {"digest": blob.digest, "diff_id": blob.diff_id, "size": blob.size}
    (folder / f"{name}.json").write_text(json.dumps(record))
    return blob
