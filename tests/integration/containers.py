"""Images of tests started for real: unpacked by umoci, run by runc as their own user, with the host's network."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.services import wait_for

TOOLS = ("skopeo", "umoci", "runc")
HOST = "127.0.0.1"


def missing(*more: str) -> str:
    """Why containers cannot be run here; empty if they can."""
    absent = [tool for tool in (*TOOLS, *more) if shutil.which(tool) is None]
    if os.geteuid() != 0:
        return "containers need root"
    return f"not installed: {', '.join(absent)}" if absent else ""


@dataclass
class Container:
    """A running container. `log` is what it wrote, known once it has ended."""

    name: str
    state: Path
    port: int
    process: subprocess.Popen[str]
    log: str = ""

    def runc(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of runc; its output is in the answer."""
        argv = ["runc", "--root", str(self.state), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    def get(self, path: str = "/") -> tuple[int, str]:
        """(status, body) of a request, once it listens."""
        return wait_for(lambda: self._asked(path), 60)

    def end(self, signal: str = "TERM") -> float:
        """Sends a signal to process 1; returns how long it took to end (seconds)."""
        start = time.monotonic()
        self.runc("kill", self.name, signal)
        self.log, _ = self.process.communicate(timeout=30)
        return time.monotonic() - start

    def _asked(self, path: str) -> tuple[int, str] | None:
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}:\n{self.process.communicate()[0]}")
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return None
        finally:
            connection.close()


@contextlib.contextmanager
def running(
    archive: Path, folder: Path, port: int, *, env: Sequence[str] = (), sealed: bool = False
) -> Iterator[Container]:
    """The image of an OCI archive as a container that is to listen on `port` of loopback; `sealed` is read-only but /tmp."""
    bundle = _bundle(archive, folder, [f"HOST={HOST}", *env], sealed)
    name = f"kiln-{folder.name}-{os.getpid()}"[-60:]
    argv = ["runc", "--root", str(folder / "state"), "run", "--bundle", str(bundle), name]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(argv, text=True, errors="replace", **pipes)
    container = Container(name, folder / "state", port, process)
    try:
        yield container
    finally:
        if process.poll() is None:
            container.end("KILL")
        process.stdout.close()
        shutil.rmtree(bundle)


def _bundle(archive: Path, folder: Path, env: Sequence[str], sealed: bool) -> Path:
    layout, bundle = folder / "layout", folder / "bundle"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", f"oci-archive:{archive}", f"oci:{layout}:1"]
    subprocess.run(copy, check=True, timeout=120)
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:1", bundle], check=True, timeout=120, capture_output=True)
    shutil.rmtree(layout)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "noNewPrivileges": True, "env": [*config["process"]["env"], *env]}
    config["root"]["readonly"] = sealed
    if sealed:
        config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]})
    config["linux"]["namespaces"] = [item for item in config["linux"]["namespaces"] if item["type"] != "network"]
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle
