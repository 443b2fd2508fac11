"""The ssh agent that `--ssh` names: one that runs, or one of our own that holds given keys."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kiln.errors import UsageError
from kiln.settings import Settings


@contextlib.contextmanager
def agent_socket(spec: str, settings: Settings) -> Iterator[str]:
    """The path of an agent's socket: of the user's agent where `spec` is empty, of the socket that it names, or of an
    agent that is started for the key files that it lists and ended afterwards. Raises `UsageError`."""
    paths = [Path(part) for part in spec.split(",") if part]
    if not paths:
        if not settings.ssh_auth_sock:
            raise UsageError(
                "--ssh: no agent runs (SSH_AUTH_SOCK is not set)", hint="Start ssh-agent, or name a key file."
            )
        yield settings.ssh_auth_sock
        return
    if len(paths) == 1 and paths[0].is_socket():
        yield str(paths[0])
        return
    with tempfile.TemporaryDirectory(prefix="kiln-ssh-") as folder:
        yield from _own_agent(paths, Path(folder))


def _own_agent(keys: list[Path], folder: Path) -> Iterator[str]:
    agent, add = shutil.which("ssh-agent"), shutil.which("ssh-add")
    if agent is None or add is None:
        raise UsageError("--ssh with key files needs ssh-agent", hint="Install the package openssh-client.")
    socket = folder / "agent"
    process = subprocess.Popen([agent, "-D", "-a", str(socket)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if socket.exists():
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        for key in keys:
            done = subprocess.run(
                [add, "--", str(key)], env={"SSH_AUTH_SOCK": str(socket)}, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise UsageError(f"--ssh: {key} cannot be used: {done.stderr.strip()}")
        yield str(socket)
    finally:
        process.terminate()
        process.wait()
