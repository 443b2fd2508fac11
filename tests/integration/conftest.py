"""Peers that the integration tests share; each is started once for the session, on first use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from kiln.engine.sandbox import SYSTEM_PATH
from tests.conformance import base
from tests.services import REGISTRY, SOURCE, DockerDaemon, DockerRegistry, Kiln, TokenService, authority, htpasswd


@pytest.fixture(scope="session")
def registry_program():
    if REGISTRY is None:
        pytest.skip("docker-registry is not installed")


def _running(registry):
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def registry(registry_program, tmp_path_factory):
    """A registry that is open to everybody."""
    yield from _running(DockerRegistry(tmp_path_factory.mktemp("registry")))


@pytest.fixture(scope="session")
def second_registry(registry_program, tmp_path_factory):
    """Another open registry, for copies and mirrors."""
    yield from _running(DockerRegistry(tmp_path_factory.mktemp("registry2")))


@pytest.fixture(scope="session")
def login_registry(registry_program, tmp_path_factory):
    """A registry that wants USER and PASSWORD (`tests.services`) by Basic."""
    folder = tmp_path_factory.mktemp("registry-login")
    yield from _running(DockerRegistry(folder, auth=htpasswd(folder)))


@pytest.fixture(scope="session")
def test_authority(tmp_path_factory):
    """A certificate authority and a certificate for 127.0.0.1."""
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tls_registry(registry_program, tmp_path_factory, test_authority):
    """A registry with a certificate of `test_authority`."""
    tls = {"certificate": str(test_authority.certificate), "key": str(test_authority.key)}
    yield from _running(DockerRegistry(tmp_path_factory.mktemp("registry-tls"), tls=tls))


@pytest.fixture(scope="session")
def token_service(tmp_path_factory):
    """The token service of `token_registry`."""
    service = TokenService(tmp_path_factory.mktemp("token"))
    yield service
    service.stop()


@pytest.fixture(scope="session")
def token_registry(registry_program, tmp_path_factory, token_service):
    """A registry that wants tokens of `token_service`."""
    yield from _running(DockerRegistry(tmp_path_factory.mktemp("registry-token"), auth=token_service.auth()))


@pytest.fixture(scope="session")
def busybox_home(tmp_path_factory):
    """A home of Kiln whose store has `base`, the busybox image of the conformance suite."""
    folder = tmp_path_factory.mktemp("busybox")
    cache = Path(os.environ.get("KILN_CONFORMANCE_CACHE", "/tmp/kiln-conformance-cache"))
    try:
        base.write_context(folder / "context", base.busybox_of_debian(cache))
    except (OSError, subprocess.CalledProcessError) as bad:
        pytest.skip(f"Debian's busybox-static cannot be had: {bad}")
    Kiln(folder / "home").build(folder / "context", "-t", "base", "-f", folder / "context" / "base.Dockerfile")
    return folder / "home"


@pytest.fixture
def new_kiln(busybox_home, tmp_path):
    """Makes commands on homes of their own, each with the image `base`."""

    def make(name: str = "home", **env: str) -> Kiln:
        if not (tmp_path / name).exists():
            shutil.copytree(busybox_home, tmp_path / name, symlinks=True)
        return Kiln(tmp_path / name, {"DOCKER_CONFIG": str(tmp_path / "docker"), **env})

    return make


@pytest.fixture
def kiln(new_kiln):
    """The command on a fresh home with the image `base`."""
    return new_kiln()


@pytest.fixture(params=["crun", "runc"])
def kiln_on_each_runtime(new_kiln, request):
    """The same, with one OCI runtime after the other."""
    if shutil.which(request.param, path=f"{os.environ['PATH']}:{SYSTEM_PATH}") is None:
        pytest.skip(f"{request.param} is not installed")
    return new_kiln(KILN_RUNTIME=request.param)


@pytest.fixture
def folder(tmp_path):
    """Makes context folders: `folder(Dockerfile, **files)`, further files in a mapping; texts or bytes."""

    def make(dockerfile: str, files: Mapping[str, str | bytes] | None = None, name: str = "context") -> Path:
        place = tmp_path / name
        for path, content in {"Dockerfile": dockerfile, **(files or {})}.items():
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return place

    return make


@pytest.fixture(scope="session")
def daemon(tmp_path_factory):
    """A Docker daemon of our own."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None or shutil.which("docker") is None:
        pytest.skip("a Docker daemon needs root, dockerd and docker")
    made = DockerDaemon(tmp_path_factory.mktemp("docker"))
    try:
        made.start()
    except RuntimeError as bad:
        pytest.skip(f"dockerd does not start on this machine: {bad}")
    yield made
    made.stop()


@pytest.fixture
def open_folder():
    """A folder that other users can come to: pytest's own are closed."""
    if any(above.stat().st_mode & 0o5 != 0o5 for above in [*SOURCE.parents, SOURCE, Path(sys.executable).parent]):
        pytest.skip("other users cannot read the source or the interpreter here")
    made = Path(tempfile.mkdtemp(prefix="kiln-test-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)
