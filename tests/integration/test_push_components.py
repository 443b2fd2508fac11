"""Pushing the images of a component tree as its configuration says; passwords show nowhere."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from tests.integration.componenttree import ALL, Tree, bake, fates, sha256
from tests.services import PASSWORD, USER, ask, is_below, processes_with

pytestmark = pytest.mark.integration


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "tree")


def test_push_of_a_tree(kiln, tree, login_registry, tmp_path):
    """Building asks for no log-in; pushing uses that of the configuration, and the password shows nowhere."""
    tree.component("a", {"a": ALL, "a2.common": ALL}, files={"f": "a"}).component("b", ALL, files={"f": "b"})
    config = tree.configure(login_registry.host, login=(USER, f'"{PASSWORD}"'))
    assert "never built" in kiln.run("push", "-c", config, tree.root, code=1).err
    built = bake(kiln, tree, "-c", config)
    assert set(fates(built.err).values()) == {"built"}
    auth = {"Authorization": _basic(), "Accept": "application/vnd.oci.image.manifest.v1+json"}
    assert ask(login_registry.host, "GET", "/v2/team/b/manifests/1.10", auth)[0] == 404
    ended = kiln.run("push", "--progress", "json", "-c", config, tree.root, "-i", "b")
    assert ended.out.strip() == f"{login_registry.host}/team/b@{kiln.digest('b:latest')}"
    status, manifest = ask(login_registry.host, "GET", "/v2/team/b/manifests/1.10", auth)
    assert status == 200 and f"sha256:{sha256(manifest)}" == kiln.digest("b:latest")
    assert ask(login_registry.host, "GET", "/v2/team/a/manifests/1.10", auth)[0] == 404
    kiln.run("push", "-c", config, tree.root, "--images", "a,", "--images", "b")
    assert ask(login_registry.host, "GET", "/v2/team/a2/manifests/1.10", auth)[0] == 404, "an image, not its component"
    everything = kiln.run("push", "-c", config, tree.root)
    assert len(everything.out.splitlines()) == 3
    wrong = kiln.run("push", "-c", config, tree.root, "-i", "b,bbb", code=2)
    assert "no image 'bbb'" in wrong.err
    tree.configure(login_registry.host, login=(USER, "wrong-word"))
    refused = kiln.run("push", "-c", config, tree.root, code=1)
    assert "pushed: 0 of 3" in refused.err and "not pushed" in refused.err
    said = built.text + ended.text + everything.text + wrong.text + refused.text
    assert PASSWORD not in said and "wrong-word" not in said and _found(kiln.home, PASSWORD) == []


def _basic():
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def _found(folder: Path, word: str) -> list[str]:
    done = subprocess.run(["grep", "-rlF", word, str(folder)], capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_bake_pushes_with_the_configuration(kiln, tree, login_registry):
    """The password is in no command line, no environment of a hook, no event and no file of the store."""
    tree.component("a", ALL, pre="env; cat /proc/*/cmdline | tr '\\0' ' '; sleep 0.3\n", files={"f": "push"})
    config = tree.configure(login_registry.host, namespace="baked", login=(USER, f'"{PASSWORD}"'))
    process = kiln.start("bake", "--progress", "json", "-c", config, "--push", tree.root)
    lines = []
    while process.poll() is None:
        lines += [pid for pid in processes_with(PASSWORD) if is_below(pid, process.pid)]
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert lines == [] and PASSWORD.encode() not in out + err and _found(kiln.home, PASSWORD) == []
    auth = {"Authorization": _basic(), "Accept": "application/vnd.oci.image.manifest.v1+json"}
    assert ask(login_registry.host, "GET", "/v2/baked/a/manifests/1.10", auth)[0] == 200


def test_words_of_push(kiln, tree, tmp_path):
    tree.component("a", ALL)
    (tmp_path / "empty").mkdir()
    assert "push takes other words" in kiln.run("push", code=2).err
    assert "push takes other words" in kiln.run("push", "a", "-i", "x", code=2).err
    assert "services-configuration.yaml" in kiln.run("push", "-c", tmp_path / "empty", tree.root, code=2).err
    config = tree.configure("public", namespace="")
    assert "neither a registry nor a namespace" in kiln.run("push", "-c", config, tree.root, code=2).err
    assert "no component tree" in kiln.run("push", "-c", config, tmp_path / "empty", code=2).err
