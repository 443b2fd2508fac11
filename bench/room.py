"""A root folder of a newer Debian with the newest peers in it, and a mount namespace in which they run.

    python -m bench.room FOLDER [--suite sid]

makes the folder (needs mmdebstrap and root). All mounts belong to a namespace of their own: they go with the last process
that is in it, however that ends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from bench.daemon import Daemon

_PACKAGES = "docker.io,docker-cli,docker-buildx,buildah,ca-certificates,iptables,runc,tini,uidmap"

_MOUNTS = """
set -e
mount --make-rprivate /
mount --bind "$ROOM" "$ROOM"
mount -t proc proc "$ROOM/proc"
mount --rbind /sys "$ROOM/sys"
mount --rbind /dev "$ROOM/dev"
mount -t tmpfs tmpfs "$ROOM/run"
cat /etc/resolv.conf > "$ROOM/run/resolv.conf"
if [ -f "$ROOM/etc/resolv.conf" ]; then mount --bind "$ROOM/run/resolv.conf" "$ROOM/etc/resolv.conf"; fi
mkdir -p "$ROOM$WORK"
mount --bind "$WORK" "$ROOM$WORK"
touch "$ROOM/run/ready"
exec chroot "$ROOM" sleep infinity
"""


class Room:
    """The namespace. The work folder is at the same path inside."""

    def __init__(self, folder: Path, work: Path) -> None:
        self._environment = [f"ROOM={folder.resolve()}", f"WORK={work}"]
        self._log = work / "room.log"
        self._holder: Daemon | None = None

    def start(self) -> None:
        """Makes the mounts."""
        command = ["env", *self._environment, "unshare", "--mount", "sh", "-c", _MOUNTS]
        self._holder = Daemon(command, self._log)
        self._holder.wait_for(self._ready)

    def _ready(self) -> bool:
        return (
            subprocess.run([*self.inside, "test", "-e", "/run/ready"], capture_output=True, check=False).returncode == 0
        )

    @property
    def inside(self) -> list[str]:
        """What stands before a command that is to run in the room."""
        pid = self._holder.pid if self._holder else 0
        return ["nsenter", "-t", str(pid), "--mount", "--root", "--wd=/", "--"]

    def stop(self) -> None:
        if self._holder:
            self._holder.stop()


def make(folder: Path, suite: str) -> None:
    """Bootstraps the root folder."""
    flags = ["--variant=minbase", '--aptopt=Acquire::Check-Valid-Until "false"', f"--include={_PACKAGES}"]
    subprocess.run(["mmdebstrap", *flags, suite, str(folder)], check=True, env={**os.environ, "LC_ALL": "C"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--suite", default="sid")
    given = parser.parse_args()
    make(given.folder, given.suite)


if __name__ == "__main__":
    main()
