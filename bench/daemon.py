"""A process that runs beside the measurements, and ends with them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class Daemon:
    """A process of its own session that gets SIGTERM when the bench ends, even if the bench is killed."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, ready: Callable[[], bool], seconds: float = 30) -> None:
        """Waits until it is ready; raises RuntimeError with the end of its log if that does not happen."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            if ready():
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{self._process.args!r} did not start:\n{self._log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Ends it, at last by force."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def found(name: str, *folders: str) -> str:
    """The path of a program: in these folders first, then as PATH says; "" if there is none."""
    return shutil.which(name, path=":".join(folders)) or shutil.which(name) or ""
