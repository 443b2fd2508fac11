"""Record what BuildKit makes of every case: `python -m tests.conformance.record [--only TEXT] [--root FOLDER [--start]]`.

Needs docker with the buildx plugin and the containerd image store (which can export OCI layouts). DOCKER_HOST chooses the daemon. With
`--root` docker is run inside of that root file system, and `--start` starts a daemon there for the time of the recording.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import base
from .cases import HERE, Case, Laid, lay_out, load_cases, served
from .expected import Files, Result, decode, encode, failure, read_group, result_of, write_group
from .flatten import read_image

SOCKET = "unix:///run/kiln-recorder.sock"
TIMEOUT_SECONDS = 120
_NOISE = re.compile(r"^(ERROR: )?(failed to build: )?(failed to solve: )?(rpc error: code = \w+ desc = )?")
_REF = re.compile(r"[a-z0-9]{25}::[a-z0-9]{25}")
_DIAL = re.compile(r"dial tcp: .*")
_MOUNT = re.compile(r"/\S*/cachemounts/buildkit\d+")


@dataclass(frozen=True, slots=True)
class Oracle:
    """Where BuildKit is: docker's root file system, a folder in it for scratch files, and the daemon's address."""

    root: Path
    scratch: Path
    host: str
    busybox: bytes

    def run(
        self, argv: Iterable[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where docker is; never raises for its exit code."""
        into = [] if self.root == Path("/") else ["chroot", str(self.root)]
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/root",
            "DOCKER_HOST": self.host,
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
            **(environment or {}),
        }
        return subprocess.run(
            [*into, *argv], env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )

    def seen(self, path: Path) -> str:
        """The path as docker sees it."""
        return "/" + str(path.relative_to(self.root))


def main() -> None:
    """Record the chosen cases and rewrite their groups' files."""
    options = _options()
    scratch = (options.root / "tmp" / "kiln-conformance").resolve()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    busybox = base.busybox_of_debian(Path(options.cache))
    with _daemon(options.root, scratch) if options.start else _reachable() as host:
        oracle = Oracle(options.root.resolve(), scratch, host, busybox)
        record(oracle, [case for case in load_cases() if options.only in case.id])


def record(oracle: Oracle, cases: list[Case]) -> None:
    """Build the base images, then every case, and write what they gave."""
    _forget(oracle)
    files = _record_base(oracle)
    for group in dict.fromkeys(case.group for case in cases):
        path = HERE / "expected" / f"{group}.json"
        names = [case.name for case in load_cases() if case.group == group]
        kept = read_group(path)
        for case in (c for c in cases if c.group == group):
            kept[case.name] = encode(_build_case(oracle, case), files)
            _tell(case, kept[case.name])
        write_group(path, {name: kept[name] for name in names if name in kept})


def base_files() -> Files:
    """The recorded files of the image `base`. Raises KeyError when nothing was recorded yet."""
    return decode(read_group(HERE / "expected" / "_base.json")["base"], {}).files


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Record what BuildKit makes of the conformance cases.")
    parser.add_argument("--only", default="", help="record only cases whose group/name contains this")
    parser.add_argument("--root", type=Path, default=Path("/"), help="the root file system that docker is in")
    parser.add_argument("--start", action="store_true", help="start a daemon there")
    parser.add_argument("--cache", default="/tmp/kiln-conformance-cache", help="where busybox is kept")
    return parser.parse_args()


@contextmanager
def _reachable() -> Iterator[str]:
    yield os.environ["DOCKER_HOST"]


@contextmanager
def _daemon(root: Path, scratch: Path) -> Iterator[str]:
    """Start dockerd inside of the root and stop it at the end."""
    (scratch / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": True}}))
    inside = "/" + str(scratch.relative_to(root.resolve()))
    flags = [
        f"--config-file={inside}/daemon.json",
        f"--data-root={inside}/data",
        f"--exec-root={inside}/exec",
        f"--pidfile={inside}/pid",
    ]
    argv = [
        "chroot",
        str(root),
        "dockerd",
        "-H",
        SOCKET,
        *flags,
        "--iptables=false",
        "--ip6tables=false",
        "--bridge=none",
    ]
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(root / SOCKET.removeprefix("unix:///"))
        yield SOCKET
    finally:
        process.terminate()
        process.wait(timeout=60)
        # The daemon mounts its data folder upon itself and leaves that so, which would keep the folder from being removed.
        subprocess.run(["umount", str(scratch / "data")], capture_output=True, check=False)


def _wait_for(path: Path) -> None:
    for _ in range(300):
        if path.exists():
            time.sleep(1)
            return
        time.sleep(0.1)
    raise TimeoutError(f"the daemon made no {path}")


def _forget(oracle: Oracle) -> None:
    """Cache mounts and cached steps of earlier recordings must not change this one."""
    oracle.run(["docker", "builder", "prune", "--all", "--force"])


def _record_base(oracle: Oracle) -> Files:
    folder = oracle.scratch / "base"
    base.write_context(folder, oracle.busybox)
    group: dict[str, Any] = {}
    files: Files = {}
    for name in base.DOCKERFILES:
        laid = Laid(Path(oracle.seen(folder)), Path(oracle.seen(folder / f"{name}.Dockerfile")), (), {})
        _build(oracle, laid, ["--load", "-t", name])
        result = _build(oracle, laid, _output(oracle))
        if result.fails:
            raise RuntimeError(f"{name}: {result.message}")
        group[name] = encode(result, files)
        files = files or result.files
    write_group(HERE / "expected" / "_base.json", group)
    return files


def _build_case(oracle: Oracle, case: Case) -> Result:
    folder = oracle.scratch / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    laid = lay_out(case.asked(), folder, oracle.root)
    with served(case):
        result = _build(oracle, laid, _output(oracle))
    return replace(result, config=_renamed(result.config, case.equivalent.get("history", {})))


def _renamed(config: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """The config with the history lines of an equivalent Dockerfile changed to those of the case."""
    if not names:
        return config
    history = [
        {**entry, "created_by": names.get(entry.get("created_by", ""), entry.get("created_by", ""))}
        for entry in config["history"]
    ]
    return {**config, "history": history}


def _output(oracle: Oracle) -> list[str]:
    return ["--output", f"type=oci,dest={oracle.seen(oracle.scratch / 'out.tar')}"]


def _build(oracle: Oracle, laid: Laid, flags: list[str]) -> Result:
    out = oracle.scratch / "out.tar"
    out.unlink(missing_ok=True)
    # No cache, since a cached step does not notice another secret. The host's network, since a daemon without a bridge has no other; neither leaves
    # a mark in an image.
    argv = [
        "docker",
        "buildx",
        "build",
        "--no-cache",
        "--network=host",
        "--progress=plain",
        *flags,
        "-f",
        str(laid.dockerfile),
        *laid.flags,
        str(laid.context),
    ]
    done = oracle.run(argv, laid.environment)
    if done.returncode:
        return failure(_message(done.stderr, oracle))
    return result_of(read_image(out), base.digest(oracle.busybox)) if out.exists() else Result({}, 0, {})


def _message(stderr: str, oracle: Oracle) -> str:
    lines = stderr.strip().splitlines()
    first = next((index for index in reversed(range(len(lines))) if lines[index].startswith("ERROR: ")), len(lines) - 1)
    text = _NOISE.sub("", "\n".join(lines[first:]))
    for pattern, replacement in ((_REF, "REF"), (_MOUNT, ""), (_DIAL, "dial tcp")):
        text = pattern.sub(replacement, text)
    return text.replace(oracle.seen(oracle.scratch), "").strip()


def _tell(case: Case, encoded: Mapping[str, Any]) -> None:
    failed = bool(encoded.get("fails"))
    surprise = "" if failed == case.fails else "  <-- the case says otherwise"
    print(
        f"{case.id}: {'fails: ' + encoded['message'] if failed else str(encoded['layers']) + ' layers'}{surprise}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
