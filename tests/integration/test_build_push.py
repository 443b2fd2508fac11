"""What Kiln builds is pushed to real registries and read by real tools: skopeo, and a Docker daemon that runs it."""

import json
import os
import shutil
import subprocess

import pytest

from tests.conformance.flatten import read_image
from tests.services import PASSWORD, USER, Kiln, ask

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root")
DOCKERFILE = """FROM base
COPY hello.txt /srv/hello.txt
RUN echo made > /made && chmod 640 /made && chown 1234:2345 /made && rm /etc/motd
USER app
WORKDIR /srv
ENV GREETING="good day"
CMD ["/bin/sh", "-c", "cat hello.txt; echo $GREETING; id -u; pwd; stat -c '%a %u:%g' /made; test ! -e /etc/motd && echo gone"]
"""
KIND = "application/vnd.oci.image.manifest.v1+json"
SAYS = "hello\ngood day\n1234\n/srv\n640 1234:2345\ngone\n"


def skopeo(*words):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    done = subprocess.run(["skopeo", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(busybox_home, tmp_path_factory):
    """A home with the image `app` of DOCKERFILE."""
    if os.geteuid() != 0:
        pytest.skip("RUN steps in these tests run as root")
    place = tmp_path_factory.mktemp("built")
    shutil.copytree(busybox_home, place / "home", symlinks=True)
    (place / "context").mkdir()
    (place / "context" / "Dockerfile").write_text(DOCKERFILE)
    (place / "context" / "hello.txt").write_text("hello\n")
    Kiln(place / "home").build(place / "context", "-t", "app")
    return place


@pytest.fixture
def app(built, tmp_path):
    """The command on a copy of `built`, and its context."""
    shutil.copytree(built / "home", tmp_path / "app-home", symlinks=True, ignore=shutil.ignore_patterns("snapshots"))
    return Kiln(tmp_path / "app-home", {"DOCKER_CONFIG": str(tmp_path / "docker")})


@pytest.fixture
def context(built):
    return built / "context"


def test_push_to_an_open_registry(app, context, registry, tmp_path):
    name = f"{registry.host}/push/open:1"
    app.build(context, "-t", name, "--push")
    facts = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    assert facts["Digest"] == app.digest("push/open:1")
    assert "GREETING=good day" in facts["Env"]
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/copied:1")
    assert dict(read_image(tmp_path / "copied").files) == dict(app.files("app"))


def test_the_store_is_an_oci_layout(app, tmp_path):
    name = next(
        entry["annotations"]["org.opencontainers.image.ref.name"] for entry in app.index() if "app" in str(entry)
    )
    facts = json.loads(skopeo("inspect", f"oci:{app.store}:{name}"))
    assert facts["Digest"] == app.digest("app:latest")
    skopeo("copy", f"oci:{app.store}:{name}", f"dir:{tmp_path}/dir")
    assert len(list((tmp_path / "dir").iterdir())) >= 4


def login(kiln, registry, password=PASSWORD, code=0):
    return kiln.run("login", registry.host, "-u", USER, "--password-stdin", data=password.encode() + b"\n", code=code)


def test_push_with_htpasswd(app, context, login_registry):
    name = f"{login_registry.host}/push/login:1"
    refused = app.build(context, "-t", name, "--push", code=1)
    assert f"kiln login {login_registry.host}" in refused.err
    login(app, login_registry)
    app.build(context, "-t", name, "--push")
    skopeo("inspect", "--tls-verify=false", "--creds", f"{USER}:{PASSWORD}", f"docker://{name}")
    app.run("logout", login_registry.host)
    app.build(context, "-t", name, "--push", code=1)


def test_push_with_tls_and_an_own_ca(app, context, tls_registry, test_authority):
    name = f"{tls_registry.host}/push/tls:1"
    refused = app.build(context, "-t", name, "--push", code=1)
    assert "certificate" in refused.err and "ca = " in refused.err
    (app.home / "config.toml").write_text(f'[registry."{tls_registry.host}"]\nca = "{test_authority.ca}"\n')
    app.build(context, "-t", name, "--push")
    facts = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    assert facts["Digest"] == app.digest("push/tls:1")


def test_push_with_a_token(app, context, token_registry, token_service):
    name = f"{token_registry.host}/push/token:1"
    refused = app.build(context, "-t", name, "--push", code=1)
    assert "kiln login" in refused.err
    login(app, token_registry)
    before = len(token_service.asked)
    app.build(context, "-t", name, "--push")
    assert token_service.asked[before:]
    skopeo("inspect", "--tls-verify=false", "--creds", f"{USER}:{PASSWORD}", f"docker://{name}")


def test_pull_gives_the_same_image(app, context, registry, tmp_path):
    name = f"{registry.host}/pull/app:1"
    app.build(context, "-t", name, "--push")
    other = Kiln(tmp_path / "other")
    digest = app.digest("pull/app:1")
    assert other.run("pull", name).out.strip().endswith(f"@{digest}")
    assert other.digest("pull/app:1") == digest and other.damaged() == []
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "Dockerfile").write_text(
        f"FROM {name}\nRUN cat hello.txt made > /tmp/both 2>&1 || id -u > /tmp/who\n"
    )
    other.build(tmp_path / "from", "-t", "above")
    assert other.files("above")["tmp/both"].content.startswith("=hello")


def test_copy_between_registries(app, context, registry, second_registry):
    name = f"{registry.host}/copy/app:1"
    app.build(context, "-t", name, "--push")
    app.run("copy", name, f"{second_registry.host}/copied/app:2")
    facts = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{second_registry.host}/copied/app:2"))
    assert facts["Digest"] == app.digest("copy/app:1")


def test_layers_are_mounted_from_another_repository(app, context, registry):
    app.build(context, "-t", f"{registry.host}/mount/first:1", "--push")
    before = len(registry.log())
    app.build(context, "-t", f"{registry.host}/mount/second:1", "--push")
    log = registry.log()[before:]
    layers = app.manifest("mount/second:1")["layers"]
    mounted = [
        line
        for line in log.splitlines()
        if "/v2/mount/second/blobs/uploads/?mount=" in line and '1.1" 201' in line.replace("2.0", "1.1")
    ]
    assert len(mounted) == len(layers), log
    uploads = [line for line in log.splitlines() if '"PUT /v2/mount/second/blobs/uploads/' in line]
    assert len(uploads) <= 1, "only the config may be uploaded again"


def test_what_the_registry_has_is_not_sent_again(app, context, registry):
    name = f"{registry.host}/again/app:1"
    app.build(context, "-t", name, "--push")
    before = len(registry.log())
    app.build(context, "-t", name, "--push")
    assert "blobs/uploads" not in registry.log()[before:]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_docker_daemon_pulls_and_runs_it(compression, app, context, registry, daemon):
    name = f"{registry.host}/docker/{compression}:1"
    app.build(context, "-t", name, "--push", "--compression", compression, "--no-cache")
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in app.manifest(f"docker/{compression}:1")["layers"][1:]]
    assert set(kinds) == {{"gzip": "tar+gzip", "zstd": "tar+zstd", "none": "tar"}[compression]}
    if compression == "zstd" and daemon("version", "--format", "{{.Server.Version}}").startswith("20."):
        skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{app.home}/zstd")
        pytest.skip("this dockerd is older than 23 and reads no zstd layers; skopeo read them")
    assert daemon("run", "--rm", "--network", "none", name) == SAYS


def test_load_into_a_docker_daemon(app, context, daemon):
    loaded = Kiln(app.home, {**app.env, "DOCKER_HOST": daemon.socket})
    loaded.build(context, "-t", "team/loaded:3", "--load")
    assert daemon("run", "--rm", "--network", "none", "team/loaded:3") == SAYS


def test_load_without_a_daemon(app, context, tmp_path):
    lonely = Kiln(app.home, {**app.env, "DOCKER_HOST": f"unix://{tmp_path}/no.sock"})
    ended = lonely.build(context, "-t", "x", "--load", code=1)
    assert "docker load failed" in ended.err and "Is the Docker daemon running?" in ended.err


@pytest.mark.parametrize(
    "flags", ["type=docker", "type=docker,compression=uncompressed", "type=oci,oci-mediatypes=false"]
)
def test_docker_load_of_an_archive(flags, app, context, daemon, tmp_path):
    """dockerd before 25 reads only `type=docker`; skopeo reads both."""
    place = tmp_path / "image.tar"
    name = f"team/archive:{len(flags)}"
    app.build(context, "-t", name, "--output", f"{flags},dest={place}")
    kind = "docker-archive" if "type=docker" in flags else "oci-archive"
    skopeo("inspect", f"{kind}:{place}")
    if kind == "oci-archive" and int(daemon("version", "--format", "{{.Server.Version}}").split(".")[0]) < 25:
        pytest.skip("this dockerd is older than 25 and loads no OCI archives; skopeo read it")
    assert name in daemon("load", "-i", str(place))
    assert daemon("run", "--rm", "--network", "none", name) == SAYS


def test_an_archive_on_standard_output(app, context, tmp_path):
    process = app.start("build", "-q", "--output", "type=oci,dest=-", "-t", "x", context)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    (tmp_path / "out.tar").write_bytes(out)
    assert dict(read_image(tmp_path / "out.tar").files) == dict(app.files("app"))


def test_pushing_under_a_name_leaves_no_half_image(app, context, registry):
    """The manifest comes last: a push that fails on the way has no tag to show."""
    name = f"{registry.host}/half/app:1"
    layer = app.manifest("app:latest")["layers"][-1]["digest"].partition(":")[2]
    blob = app.store / "blobs" / "sha256" / layer
    good = blob.read_bytes()
    blob.write_bytes(b"x" + good[1:])
    app.run("push", "app", name, code=1)
    assert ask(registry.host, "GET", "/v2/half/app/manifests/1", {"Accept": KIND})[0] == 404
    blob.write_bytes(good)
    app.run("push", "app", name)
    assert ask(registry.host, "GET", "/v2/half/app/manifests/1", {"Accept": KIND})[0] == 200


def test_docker_builds_when_it_is_asked_to(kiln, folder, daemon):
    kiln.env["DOCKER_HOST"] = daemon.socket
    place = folder("FROM scratch\nARG A\nLABEL a=$A\nCOPY f /\n", {"f": "f"})
    kiln.build(place, "--engine", "docker", "-t", "by-docker", "--build-arg", "A=1", "--progress", "plain")
    assert daemon("image", "inspect", "by-docker", "--format", "{{.Config.Labels.a}}").strip() == "1"
