"""An image that is only pushed leaves base layers that nothing reads in their registry."""

import json
import os

import pytest

from tests.services import Kiln, ask

pytestmark = pytest.mark.integration


@pytest.fixture
def away(kiln, registry, tmp_path):
    """A base in a registry, and a home that has nothing."""
    kiln.run("push", "base", f"{registry.host}/lazy/base:1")
    return Kiln(tmp_path / "empty-home")


def written(folder, *lines):
    return folder("\n".join(lines) + "\n", {"x.txt": "x\n"})


def blobs(kiln):
    return {entry.name for entry in (kiln.store / "blobs" / "sha256").iterdir()}


def layers_of(registry, name, tag):
    status, body = ask(
        registry.host, "GET", f"/v2/{name}/manifests/{tag}", {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    )
    assert status == 200, body
    return [layer["digest"].removeprefix("sha256:") for layer in json.loads(body)["layers"]]


@pytest.mark.parametrize("other_host", [False, True])
def test_unread_layers_stay_where_they_are(away, registry, second_registry, folder, other_host):
    context = written(
        folder,
        f"FROM {registry.host}/lazy/base:1",
        "COPY --link --chown=10:10 x.txt /x.txt",
        'CMD ["/bin/cat", "/x.txt"]',
    )
    target = second_registry if other_host else registry
    away.run("build", "--push", "-t", f"{target.host}/lazy/app:{int(other_host)}", context)
    pushed = layers_of(target, "lazy/app", int(other_host))
    base = layers_of(registry, "lazy/base", "1")
    assert pushed[: len(base)] == base and len(pushed) == len(base) + 1
    assert not set(base) & blobs(away), "the base's layers were fetched though nothing read them"


def test_what_a_step_reads_is_brought(away, registry, folder):
    base = f"{registry.host}/lazy/base:1"
    context = written(folder, f"FROM {base}", "COPY x.txt /srv/x.txt")
    away.run("build", "--push", "-t", f"{registry.host}/lazy/read:1", context)
    assert set(layers_of(registry, "lazy/base", "1")) <= blobs(away)


@pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root")
def test_what_a_command_needs_is_brought(away, registry, folder):
    context = written(
        folder, f"FROM {registry.host}/lazy/base:1", "COPY --link --chown=10:10 x.txt /x.txt", "RUN cat /x.txt > /y.txt"
    )
    away.run("build", "--push", "-t", f"{registry.host}/lazy/run:1", context)
    assert set(layers_of(registry, "lazy/base", "1")) <= blobs(away)


def test_a_local_image_is_whole(away, registry, folder):
    context = written(folder, f"FROM {registry.host}/lazy/base:1", "COPY --link --chown=10:10 x.txt /x.txt")
    away.run("build", "--push", "-t", f"{registry.host}/lazy/whole:1", context)
    away.run("build", "-t", "whole", context)
    assert set(layers_of(registry, "lazy/base", "1")) <= blobs(away)


def test_a_base_that_is_gone_is_an_error_with_its_name(away, second_registry, kiln, folder):
    kiln.run("push", "base", f"{second_registry.host}/gone/base:1")
    context = written(folder, f"FROM {second_registry.host}/gone/base:2", "COPY --link x.txt /x.txt")
    ended = away.run("build", "--push", "-t", f"{second_registry.host}/gone/app:1", context, code=1)
    assert f"{second_registry.host}/gone/base:2" in ended.err and "Dockerfile:1" in ended.err
