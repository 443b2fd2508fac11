"""Who is measured: Kiln, and the builders that it is compared with. Each keeps its state below a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.daemon import Daemon, found


@dataclass(frozen=True, slots=True)
class Job:
    """What to build: `name` is the whole reference of the result, or for a tree what stands before the names of its images
    (its bake file reads that from the variable PREFIX). With `shared` the results carry what another machine needs to take
    them for its own. RUN steps use the host's network where they run: the daemons have no bridge."""

    folder: Path
    name: str
    tree: bool = False
    push: bool = True
    host_network: bool = False
    shared: bool = False


class Side(Protocol):
    """A builder."""

    @property
    def name(self) -> str: ...

    def start(self) -> str:
        """Starts what it needs; returns its versions."""

    def stop(self) -> None: ...

    def daemons(self) -> list[int]:
        """Processes that work for it without being started by its commands."""

    def commands(self, job: Job) -> list[list[str]]:
        """What to run, one after the other; nothing if it cannot do that."""

    def forget(self) -> None:
        """Makes it forget all that it has on this machine."""


@dataclass(frozen=True, slots=True)
class Kiln:
    """This project."""

    program: Sequence[str]
    home: Path
    name: str = "kiln"

    def start(self) -> str:
        return _output([*self.program, "version"])

    def stop(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def daemons(self) -> list[int]:
        return []

    def commands(self, job: Job) -> list[list[str]]:
        program = [*self.program, "--home", str(self.home)]
        push = ["--push"] if job.push else []
        if job.tree:
            return [[*program, "bake", "-q", "--source", "bake", *push, str(job.folder)]]
        network = ["--network", "host"] if job.host_network else []
        return [[*program, "build", "-q", *network, *push, "-t", job.name, str(job.folder)]]

    def forget(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)


@dataclass(slots=True)
class Docker:
    """A Docker daemon that the bench starts, with BuildKit: `docker build` and `docker push`, or through buildx in one
    command. `inside` stands before every command (a room of its own)."""

    name: str
    folder: Path
    inside: Sequence[str] = ()
    buildx: bool = False
    _daemon: Daemon | None = field(default=None)

    @property
    def _client(self) -> list[str]:
        # The client that was installed with the daemon, whatever else PATH has.
        client = "docker" if self.inside else found("docker", "/usr/bin")
        return [*self.inside, client, "-H", self._socket]

    @property
    def _socket(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def start(self) -> str:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "daemon.json").write_text("{}")
        self._daemon = Daemon(
            [
                *self.inside, "dockerd", f"--config-file={self.folder}/daemon.json", f"--data-root={self.folder}/data",
                f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid", f"--host={self._socket}",
                "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2",
            ],
            self.folder.with_suffix(".log"),
        )  # fmt: skip
        self._daemon.wait_for(lambda: _works([*self._client, "info"]))
        version = _output([*self._client, "version", "--format", "{{.Server.Version}}"])
        return f"Docker {version}" + (f", {self._buildx_version()}" if self.buildx else " with BuildKit")

    def _buildx_version(self) -> str:
        return " ".join(_output([*self._client, "buildx", "version"]).split()[:2]).replace("github.com/docker/", "")

    def stop(self) -> None:
        if self._daemon:
            self._daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def daemons(self) -> list[int]:
        return [self._daemon.pid] if self._daemon else []

    def commands(self, job: Job) -> list[list[str]]:
        if job.tree:
            return [self._bake(job)] if self.buildx else []
        network = ["--network", "host"] if job.host_network else []
        build = ["build", "-q", *network, "-t", job.name]
        if self.buildx:
            return [[*self._client, "buildx", *build, "--push" if job.push else "--load", str(job.folder)]]
        made = [*self.inside, "env", "DOCKER_BUILDKIT=1", *self._client[len(self.inside) :], *build, str(job.folder)]
        return [made, *([[*self._client, "push", "-q", job.name]] if job.push else [])]

    def _bake(self, job: Job) -> list[str]:
        files = ["docker-bake.json", *(["shared.json"] if job.shared else [])]
        flags = [word for file in files for word in ("-f", f"{job.folder}/{file}")]
        # Targets name their contexts from the folder that the client runs in.
        client = ["env", f"--chdir={job.folder}", *self._client[len(self.inside) :]]
        bake = ["buildx", "bake", "--push" if job.push else "--load", "--progress", "quiet"]
        return [*self.inside, *client, *bake, *flags]

    def forget(self) -> None:
        # Not by pruning: a daemon goes on removing files for a while after that, and was seen to get slower each time
        # (40,000 files: 35, 49, 60 s).
        self.stop()
        self.start()


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah with its cache of layers, RUN by chroot."""

    name: str
    folder: Path
    inside: Sequence[str] = ()

    @property
    def _program(self) -> list[str]:
        roots = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run", "--storage-driver", "overlay"]
        return [*self.inside, "buildah", *roots]

    def start(self) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        return "buildah " + _output([*self._program, "--version"]).split()[2]

    def stop(self) -> None:
        _works([*self._program, "rmi", "--all", "--force"])
        _works([*self.inside, "umount", f"{self.folder}/root/overlay"])
        shutil.rmtree(self.folder, ignore_errors=True)

    def daemons(self) -> list[int]:
        return []

    def commands(self, job: Job) -> list[list[str]]:
        if job.tree:
            return []
        network = ["--network", "host"] if job.host_network else []
        build = ["bud", "-q", "--layers", "--isolation", "chroot", "--tls-verify=false", *network, "-t", job.name]
        push = [[*self._program, "push", "-q", "--tls-verify=false", job.name]] if job.push else []
        return [[*self._program, *build, str(job.folder)], *push]

    def forget(self) -> None:
        _output([*self._program, "rmi", "--all", "--force"])


def sides(names: Sequence[str], kiln: Sequence[str], work: Path, room: Sequence[str]) -> list[Side]:
    """Kiln and the peers of these names that this machine has. `room` is how to run something among the newest
    peers; empty if there is no such place."""
    made: list[Side] = [Kiln(kiln, work / "kiln")]
    if "docker" in names and found("dockerd", "/usr/sbin") and (client := found("docker", "/usr/bin")):
        made.append(Docker("docker", work / "docker", buildx=_works([client, "buildx", "version"])))
    if "buildah" in names and found("buildah"):
        made.append(Buildah("buildah", work / "buildah"))
    if "newest" in names and room:
        made.append(Docker("newest", work / "newest", room, buildx=True))
    if "newest-buildah" in names and room:
        made.append(Buildah("newest-buildah", work / "newest-buildah", room))
    return made


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout.strip()


def _works(command: Sequence[str]) -> bool:
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode == 0
