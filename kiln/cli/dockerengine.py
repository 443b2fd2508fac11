"""`kiln build --engine docker`: hands the build to `docker buildx build` (or `docker build`)."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from kiln.errors import KilnError, UsageError

_MANY = {
    "tags": "--tag", "build_args": "--build-arg", "labels": "--label", "annotations": "--annotation", "platforms": "--platform",
    "contexts": "--build-context", "secrets": "--secret", "agents": "--ssh", "hosts": "--add-host", "outputs": "--output",
    "no_cache_stages": "--no-cache-filter", "cache_from": "--cache-from", "cache_to": "--cache-to",
}  # fmt: skip
_ONE = {"file": "--file", "target": "--target", "iidfile": "--iidfile", "metadata_file": "--metadata-file"}
_FLAGS = {"no_cache": "--no-cache", "pull": "--pull", "push": "--push", "load": "--load", "quiet": "--quiet"}


def docker_argv(docker: str, given: dict[str, Any]) -> list[str]:
    """The command line for Docker; raises `UsageError` for what Docker has no word for."""
    if given["debug_on_error"]:
        raise UsageError("--debug-on-error needs --engine native")
    argv = [docker, "buildx", "build"] if _has_buildx(docker) else [docker, "build"]
    for name, flag in _MANY.items():
        for value in given[name]:
            argv += [flag, value]
    for name, flag in _ONE.items():
        argv += [flag, given[name]] if given[name] else []
    argv += [flag for name, flag in _FLAGS.items() if given[name]]
    if given["network"] != "default":
        argv += ["--network", given["network"]]
    if argv[1] == "buildx":
        argv += ["--progress", {"json": "rawjson"}.get(given["progress"], given["progress"])]
    return [*argv, "--", given["context"]]


def _has_buildx(docker: str) -> bool:
    return subprocess.run([docker, "buildx", "version"], capture_output=True, check=False).returncode == 0


def run_docker(given: dict[str, Any]) -> int:
    """Runs Docker's build; returns its exit code."""
    docker = shutil.which("docker")
    if docker is None:
        raise KilnError("--engine docker needs the docker command", hint="Install docker, or use --engine native.")
    code = subprocess.run(docker_argv(docker, given), check=False).returncode
    return 1 if code else 0
