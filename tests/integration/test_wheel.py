"""The wheel installs into an empty environment, and `kiln build` works from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.slow]


def run(*argv: str, **more) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(argv), capture_output=True, text=True, timeout=300, check=False, env=environment, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The folder of an environment with nothing but the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source))
    (wheel,) = folder.glob("imagekiln-*.whl")
    run(sys.executable, "-m", "venv", str(folder / "env"))
    run(str(folder / "env/bin/pip"), "install", "-q", "--require-hashes", "-r", str(ROOT / "requirements.txt"))
    run(str(folder / "env/bin/pip"), "install", "-q", "--no-deps", str(wheel))
    run(str(folder / "env/bin/pip"), "check")
    return folder / "env"


def test_build_from_the_wheel(environment, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    (tmp_path / "a").write_text("a")
    command = [str(environment / "bin/kiln"), "--home", str(tmp_path / "home")]
    run(*command, "build", "-t", "app", "--progress", "plain", str(tmp_path), cwd="/")
    assert "app:latest" in run(*command, "images", cwd="/").stdout


@pytest.mark.root
def test_run_step_from_the_wheel(environment, busybox_home, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a RUN step needs root here")
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN echo from the wheel > /x\n")
    command = [str(environment / "bin/kiln"), "--home", str(busybox_home)]
    run(
        *command,
        "build",
        "--no-cache",
        "-o",
        f"type=local,dest={tmp_path / 'out'}",
        "--progress",
        "plain",
        str(tmp_path),
        cwd="/",
    )
    assert (tmp_path / "out/x").read_text() == "from the wheel\n"
