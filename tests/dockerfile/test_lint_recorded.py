"""Whether the recorded findings are still those of a real BuildKit: needs docker with the buildx plugin (DOCKER_HOST).

`KILN_ORACLE_ROOT` names a root file system that docker is in, as `tests.conformance.record --root` does.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.conformance.record import Oracle
from tests.dockerfile.test_lint import cases

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BASES = {
    "env": "FROM scratch\nCOPY f /f\nENV GOPATH=/go PATH=/go/bin:/bin\nWORKDIR /base\n",
    "plain": "FROM scratch\nCOPY f /f\n",
}


@pytest.fixture(scope="module")
def oracle():
    """A docker that answers, with the two base images of the cases."""
    root = Path(os.environ.get("KILN_ORACLE_ROOT", "/")).resolve()
    if "DOCKER_HOST" not in os.environ or shutil.which("docker", path=f"{root}/usr/bin") is None:
        pytest.skip("no docker at hand: set DOCKER_HOST")
    scratch = root / "tmp" / "kiln-lint-cases"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    oracle = Oracle(root, scratch, os.environ["DOCKER_HOST"], b"")
    (scratch / "f").touch()
    for name, text in BASES.items():
        (scratch / "Dockerfile").write_text(text)
        done = oracle.run(["docker", "buildx", "build", "--load", "-t", f"lint.test/{name}:1", oracle.seen(scratch)])
        assert done.returncode == 0, done.stderr
    yield oracle
    shutil.rmtree(scratch)


def ask(oracle: Oracle, case: dict) -> dict:
    """BuildKit's answer to `--call=check,format=json`."""
    folder = oracle.scratch / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "Dockerfile").write_bytes(case["dockerfile"].encode())
    if "ignore" in case:
        (folder / ".dockerignore").write_text(case["ignore"])
    flags = [f"--build-arg={name}={value}" for name, value in case.get("args", {}).items()]
    flags += [f"--target={case['target']}"] if "target" in case else []
    argv = ["docker", "buildx", "build", "--call=check,format=json", "--progress=quiet", *flags, oracle.seen(folder)]
    return json.loads(oracle.run(argv).stdout)


def row(warning: dict) -> list:
    ranges = warning["location"]["ranges"]
    start, end = ranges[0]["start"]["line"], ranges[-1]["end"]["line"]
    return [warning["ruleName"], start if start == end else f"{start}-{end}", warning["detail"]]


@pytest.mark.parametrize("name", cases())
def test_recorded_findings_are_buildkits(oracle, name):
    answer = ask(oracle, cases()[name])
    found = [row(warning) for warning in answer.get("warnings") or []]
    assert sorted(found, key=str) == sorted(cases()[name]["findings"], key=str)
    assert answer.get("buildError", {}).get("message", "") == cases()[name].get("error", "")
