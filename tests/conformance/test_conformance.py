"""Kiln builds every case as BuildKit did: the same config, history, number of layers and files, or a failure as well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import base
from .cases import HERE, Case, Laid, lay_out, load_cases, served
from .expected import Files, Result, decode, differences, failure, read_group, result_of
from .flatten import read_image

TIMEOUT_SECONDS = 120
CACHE = Path(os.environ.get("KILN_CONFORMANCE_CACHE", "/tmp/kiln-conformance-cache"))


@dataclass(frozen=True, slots=True)
class Allowed:
    """A difference that is meant: lines of this pattern, in these cases (a regular expression over group/name), for this reason."""

    cases: str
    line: str
    reason: str


# Every entry is a decision. A line that no entry matches fails its case; an entry has to name a case that exists.
ALLOWED: tuple[Allowed, ...] = (
    Allowed(
        "copy/link-chown-name",
        r"build: expected 'failure",
        "Kiln finds names for COPY --link in the image below; BuildKit fails",
    ),
    Allowed(
        "stage/named-context-.*", r"history", "a folder as a base gets a line of history of its own, as its layer does"
    ),
    Allowed(
        ".*",
        r"xattrs: expected \(\), got \(\('user\.",
        "the recording's exporter drops user.* attributes; Kiln keeps them",
    ),
)


def _parameters() -> list[Any]:
    return [
        pytest.param(case, id=case.id, marks=[pytest.mark.root] if case.needs_root else []) for case in load_cases()
    ]


@pytest.fixture(scope="session")
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kiln's home with the base images built."""
    kept = request.config.getoption("--conformance-home")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("conformance") / "home"
    _build_bases(folder, tmp_path_factory.mktemp("bases"))
    return folder


@pytest.fixture(scope="session")
def base_files() -> Files:
    """The recorded files of the image `base`."""
    return decode(_recorded_bases()["base"], {}).files


@pytest.mark.parametrize("case", _parameters())
def test_case(case: Case, home: Path, base_files: Files, tmp_path: Path) -> None:
    """What Kiln makes of the case differs from what was recorded only where that is allowed."""
    if case.needs_root and os.geteuid() != 0:
        pytest.skip("runs a command, which needs root here")
    expected = decode(read_group(HERE / "expected" / f"{case.group}.json")[case.name], base_files)
    laid = _laid(case, tmp_path)
    with served(case):
        actual = _build(home, laid, tmp_path / "out.tar")
    found = [line for line in differences(expected, actual) if not _allowed(case, line)]
    assert not found, _report(case, found, actual)
    if case.error_contains:
        assert case.error_contains in actual.message


# The triggers of base3 run as soon as an image is built from it, so that it has no case here.
@pytest.mark.parametrize("name", [name for name in base.DOCKERFILES if name != "base3"])
def test_base(name: str, home: Path, base_files: Files, tmp_path: Path) -> None:
    """The base images are as recorded, without which no other comparison says anything."""
    (tmp_path / "context").mkdir()
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\n")
    actual = _build(home, Laid(tmp_path / "context", tmp_path / "Dockerfile", (), {}), tmp_path / "out.tar")
    expected = decode(_recorded_bases()[name], {} if name == "base" else base_files)
    found = [
        line for line in differences(expected, actual) if not any(re.search(entry.line, line) for entry in ALLOWED)
    ]
    assert not found, "\n".join(found)


def test_every_case_is_recorded() -> None:
    """Each case has an expectation, each expectation a case, and both agree whether the build fails."""
    recorded = {
        f"{path.stem}/{name}": raw
        for path in sorted((HERE / "expected").glob("[!_]*.json"))
        for name, raw in read_group(path).items()
    }
    assert {case.id: case.fails for case in load_cases()} == {
        name: bool(raw.get("fails")) for name, raw in recorded.items()
    }


def test_no_allowed_difference_is_stale() -> None:
    """Every entry of the table names at least one case."""
    names = [case.id for case in load_cases()]
    assert [entry for entry in ALLOWED if not any(re.fullmatch(entry.cases, name) for name in names)] == []


def _recorded_bases() -> Mapping[str, Any]:
    return read_group(HERE / "expected" / "_base.json")


def _busybox() -> bytes:
    try:
        return base.busybox_of_debian(CACHE)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"Debian's busybox-static cannot be had: {error}")


def _build_bases(home: Path, folder: Path) -> None:
    base.write_context(folder, _busybox())
    for name in base.DOCKERFILES:
        done = _kiln(home, ["-t", name, "-f", str(folder / f"{name}.Dockerfile"), str(folder)])
        assert done.returncode == 0, f"{name}: {done.stderr}"


def _laid(case: Case, folder: Path) -> Laid:
    try:
        return lay_out(case, folder)
    except OSError as error:
        pytest.skip(f"this file system cannot hold the case's files: {error}")


def _build(home: Path, laid: Laid, out: Path) -> Result:
    flags = [
        "-f",
        str(laid.dockerfile),
        "--output",
        f"type=oci,dest={out}",
        *laid.flags,
        "--progress",
        "plain",
        str(laid.context),
    ]
    done = _kiln(home, flags, laid.environment)
    assert "Traceback (most recent call last)" not in done.stderr, done.stderr
    if done.returncode:
        return failure(done.stderr.strip())
    return result_of(read_image(out), base.digest(_busybox()))


def _kiln(
    home: Path, flags: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "kiln", "--home", str(home), "build", *flags]
    env = {**os.environ, **(environment or {})}
    return subprocess.run(
        argv, env=env, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=False
    )


def _allowed(case: Case, line: str) -> bool:
    return any(re.fullmatch(entry.cases, case.id) and re.search(entry.line, line) for entry in ALLOWED)


def _report(case: Case, found: list[str], actual: Result) -> str:
    shown = [f"{case.id} differs from BuildKit in {len(found)} places:", *found[:40]]
    message = ["Kiln said:", actual.message] if actual.fails else []
    return "\n".join([*shown, "", "Dockerfile:", case.source.decode("utf-8", "replace"), *message])
