"""Each example: built on a base that Kiln makes itself, pushed, pulled by skopeo, unpacked by umoci, run by runc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.services import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
TOOLS = ("mmdebstrap", "skopeo", "umoci", "runc")
pytestmark = [pytest.mark.root, pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("examples")]


def kiln(home: Path, *args: str) -> str:
    argv = [sys.executable, "-m", "kiln", "--home", str(home), *args]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with `debian:bookworm`, made from packages."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and {', '.join(missing or TOOLS)}")
    folder = tmp_path_factory.mktemp("examples")
    kiln(folder, "bootstrap", "debian", "--suite", "bookworm", "-t", "debian:bookworm", "--progress", "plain")
    return folder


def bundle(home: Path, registry, tmp_path: Path, example: str, change) -> Path:
    """Builds and pushes an example; returns a bundle for runc made by the other tools from what the registry has."""
    name = f"{registry.host}/examples/{example}:1"
    kiln(home, "build", "-t", name, "--push", "--progress", "plain", str(EXAMPLES / example))
    return unpacked(name, tmp_path, change)


def unpacked(name: str, tmp_path: Path, change) -> Path:
    """A bundle for runc of an image in the registry."""
    layout = tmp_path / "oci"
    pull = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "-q",
        "--src-tls-verify=false",
        f"docker://{name}",
        f"oci:{layout}:1",
    ]
    subprocess.run(pull, check=True, timeout=120)
    folder = tmp_path / "bundle"
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:1", str(folder)], check=True, timeout=120, capture_output=True
    )
    config = json.loads((folder / "config.json").read_text())
    config["process"]["terminal"] = False
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def runc(folder: Path, tmp_path: Path) -> list[str]:
    return ["runc", "--root", str(tmp_path / "state"), "run", "--bundle", str(folder), f"kiln-example-{os.getpid()}"]


def test_c_program(home, registry, tmp_path):
    folder = bundle(home, registry, tmp_path, "c-program", lambda config: None)
    done = subprocess.run(runc(folder, tmp_path), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "Hello from Kiln, user 65534\n"
    assert [path.name for path in (folder / "rootfs").iterdir() if path.is_file()] == ["hello"]


def test_python_app(home, registry, tmp_path):
    folder = bundle(home, registry, tmp_path, "python-app", lambda config: None)
    done = subprocess.run(runc(folder, tmp_path), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "Hello from a Python app made by Kiln (8 words, user 65534, port 8000)\n"


def test_catalog(home, registry, tmp_path, monkeypatch):
    """Six images made together; a changed text builds what stands on it; what comes out the same is not pushed again."""
    monkeypatch.setenv("REGISTRY", registry.host)
    place = shutil.copytree(EXAMPLES / "catalog", tmp_path / "catalog")
    assert decisions(home, place) == dict.fromkeys(GREETERS, "build")
    kiln(home, "bake", "--progress", "plain", str(place))
    names = [f"{registry.host}/examples/{name}:1" for name in ("greeter-en", "greeter-de", "greeter-zh", "choir")]
    assert (place / "names.txt").read_text().split() == ["ground:1", "texts:1", *names]
    folder = unpacked(names[-1], tmp_path, lambda config: None)
    done = subprocess.run(runc(folder, tmp_path), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "de: Guten Morgen\nen: Good morning\nzh: 早上好\n"
    assert decisions(home, place) == dict.fromkeys(GREETERS, "skip")
    (place / "texts" / "de.txt").write_text("Moin\n")
    report = json.loads(kiln(home, "plan", "--format", "json", str(place)))["targets"]
    assert {target["name"]: target["reason"] for target in report}["texts"] == "`texts/de.txt` changed"
    kiln(home, "bake", "--progress", "plain", "--metadata-file", str(tmp_path / "made"), str(place))
    made = {name: facts["kiln.result"] for name, facts in json.loads((tmp_path / "made").read_text()).items()}
    assert made == {**dict.fromkeys(GREETERS, "built"), "ground": "skipped"}


GREETERS = ("ground", "texts", "greeter-en", "greeter-de", "greeter-zh", "choir")


def decisions(home: Path, place: Path) -> dict[str, str]:
    targets = json.loads(kiln(home, "plan", "--format", "json", str(place)))["targets"]
    return {target["name"]: target["decision"] for target in targets}


def test_static_site(home, registry, tmp_path):
    port = free_port()

    def on_loopback(config):
        config["process"]["args"][config["process"]["args"].index("8080")] = f"127.0.0.1:{port}"
        config["linux"]["namespaces"] = [item for item in config["linux"]["namespaces"] if item["type"] != "network"]

    folder = bundle(home, registry, tmp_path, "static-site", on_loopback)
    server = subprocess.Popen(runc(folder, tmp_path), stdin=subprocess.DEVNULL)
    try:
        assert "image without a shell" in _fetch(f"http://127.0.0.1:{port}/index.html")
    finally:
        subprocess.run(
            ["runc", "--root", str(tmp_path / "state"), "kill", f"kiln-example-{os.getpid()}", "KILL"], check=False
        )
        server.wait(20)


def _fetch(url: str) -> str:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")
