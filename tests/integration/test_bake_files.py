"""Bake files and compose services from end to end; `docker buildx bake` is asked for its opinion where it is at hand."""

import json
import os
import shutil
import subprocess
import tarfile

import pytest

from tests.conformance.flatten import read_image
from tests.integration.bakes import bake, planned, tags, tree

pytestmark = pytest.mark.integration
HCL = """
variable "VERSION" { default = "1" }
group "default" { targets = ["app", "tools"] }
group "tools" { targets = ["lint", "docs"] }
target "_common" {
  args = { WHO = "everybody", VERSION = VERSION }
  labels = { team = "a" }
}
target "app" {
  inherits = ["_common"]
  name = "app-${item}"
  matrix = { item = ["one", "two"] }
  context = "app"
  contexts = { ground = "target:ground" }
  args = { ITEM = item }
  tags = ["team/app-${item}:${VERSION}"]
}
target "ground" {
  dockerfile-inline = <<EOT
FROM base
COPY ground.txt /ground.txt
EOT
}
target "lint" {
  inherits = ["_common"]
  context = "lint"
  dockerfile = "Lintfile"
  target = "final"
}
target "docs" {
  dockerfile-inline = "FROM scratch\\nCOPY docs /\\n"
  output = ["type=local,dest=out/docs"]
}
"""
FILES = {
    "docker-bake.hcl": HCL, "ground.txt": "ground\n", "docs/index.html": "<p>hello\n",
    "app/Dockerfile": "FROM ground\nARG ITEM WHO VERSION\nLABEL item=$ITEM who=$WHO version=$VERSION\nCOPY app.txt /\n",
    "app/app.txt": "app\n",
    "lint/Lintfile": "FROM base AS final\nARG WHO\nLABEL who=$WHO\nFROM base\nCOPY none /\n",
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    return tree(tmp_path / "bake", FILES)


def test_an_hcl_file(kiln, new_kiln, place):
    """Groups, a matrix, inheritance, contexts of targets, inline text, stages, variables, a local output."""
    done = bake(kiln, place)
    assert done.results == dict.fromkeys(["app-one", "app-two", "ground", "lint", "docs"], "built")
    labels = kiln.config("team/app-two:1")["config"]["Labels"]
    assert labels == {"team": "a", "item": "two", "who": "everybody", "version": "1"}
    assert (
        kiln.config("team/app-two:1")["rootfs"]["diff_ids"][:-1] == kiln.config("ground:latest")["rootfs"]["diff_ids"]
    )
    assert (place / "out/docs/index.html").read_text() == FILES["docs/index.html"]
    assert set(bake(kiln, place).results.values()) == {"skipped"}
    node = planned(kiln, place, "app-one", "--set", "app-one.args.ITEM=three")["app-one"]
    assert node["reason"] == "argument ITEM changed" and node["needs"] == ["ground"]
    other = bake(new_kiln(VERSION="2"), place, "app")
    assert other.results == {"ground": "skipped", "app-one": "built", "app-two": "built"}
    assert other.rows["app-one"]["names"] == ["team/app-one:2"]


def test_sets(kiln, place, registry):
    words = ["--set", f"*.tags={registry.host}/bake/all:3", "--set", "lint.labels.team=b", "--set", "*.args.WHO=me"]
    done = bake(kiln, place, "lint", *words, "--push")
    assert done.rows["lint"]["pushed"] and "3" in tags(registry, "bake/all")
    assert kiln.config("bake/all:3")["config"]["Labels"] == {"team": "b", "who": "me"}
    both = bake(kiln, place, "app", *words, code=1)
    assert "both make" in both.ended.err and both.rows == {}


def test_outputs_are_there_after_every_bake(kiln, place):
    """A folder that was removed is written again; so is one that holds what was made from something else."""
    bake(kiln, place, "docs")
    shutil.rmtree(place / "out")
    assert bake(kiln, place, "docs").reason("docs") == (f"its output {place}/out/docs is missing; it came out the same")
    (place / "docs/index.html").write_text("<p>other\n")
    bake(kiln, place, "docs")
    (place / "docs/index.html").write_text(FILES["docs/index.html"])
    assert bake(kiln, place, "docs").reason("docs") == "`docs/index.html` changed"
    assert (place / "out/docs/index.html").read_text() == FILES["docs/index.html"]
    assert bake(kiln, place, "docs").results == {"docs": "skipped"}


def test_a_json_file_and_an_archive(kiln, tmp_path):
    target = {
        "app": {
            "tags": ["app:1"], "output": ["type=oci,dest=out.tar", "type=docker,dest=docker.tar"], "platforms": ["linux/arm64"],
            "annotations": ["note=x"], "contexts": {"src": "./files"}, "dockerfile-inline": "FROM scratch\nCOPY --from=src . /\n",
        }
    }  # fmt: skip
    place = tree(tmp_path / "json", {"docker-bake.json": json.dumps({"target": target}), "files/x": "x\n"})
    done = bake(kiln, place, "app")
    assert read_image(place / "out.tar").files["x"].content == "=x\n"
    assert json.loads(kiln.blob(done.digests["app"]))["annotations"] == {"note": "x"}
    with tarfile.open(place / "docker.tar") as archive:
        assert "manifest.json" in archive.getnames()


COMPOSE = """
name: shop
services:
  web:
    build:
      context: ./web
      args: {VERSION: "${VERSION:-1}"}
      additional_contexts: {lib: "service:lib"}
  lib:
    image: shop/lib:2
    build:
      context: .
      dockerfile_inline: |
        FROM base
        COPY lib.txt /
  db:
    image: postgres
"""


def test_compose(kiln, tmp_path):
    place = tree(tmp_path / "compose", {
        "compose.yaml": COMPOSE, "lib.txt": "lib\n", "web/Dockerfile": "FROM lib\nARG VERSION\nLABEL v=$VERSION\nCOPY Dockerfile /\n",
        ".env": "VERSION=7\n",
    })  # fmt: skip
    done = bake(kiln, place)
    assert done.results == {"lib": "built", "web": "built"} and done.rows["lib"]["names"] == ["shop/lib:2"]
    assert kiln.config(done.rows["web"]["names"][0])["config"]["Labels"] == {"v": "7"}
    (place / "lib.txt").write_text("other\n")
    assert bake(kiln, place, "web").results == {"lib": "built", "web": "built"}


def test_metadata(kiln, place, tmp_path):
    """buildx's keys, and what Kiln knows beyond them."""
    file = tmp_path / "meta" / "data.json"
    done = bake(kiln, place, "lint", "--metadata-file", file)
    found = json.loads(file.read_text())
    assert (
        found["lint"]["containerimage.digest"] == done.digests["lint"] and found["lint"]["image.name"] == "lint:latest"
    )
    assert found["lint"]["containerimage.descriptor"]["digest"] == done.digests["lint"]
    assert found["lint"]["kiln.reason"] == "never built" and not found["lint"]["kiln.pushed"]


PUSHED = """
variable "NAME" {}
target "default" {
  contexts = { ground = "target:ground" }
  args = { A = "x" }
  dockerfile-inline = "FROM ground\\nARG A\\nCOPY src /src\\nENV A=$A\\nLABEL a=b\\n"
  output = ["type=oci,dest=${NAME}"]
}
target "ground" {
  dockerfile-inline = "FROM scratch\\nCOPY ground /\\nWORKDIR /work\\n"
}
"""


def test_docker_buildx_bake_gives_the_same_files(new_kiln, daemon, tmp_path):
    """The same file given to both: the same files in the image, the same configuration."""
    place = tree(tmp_path / "both", {"docker-bake.hcl": PUSHED, "ground/a/b": "b\n", "src/x": "x\n", "src/y/z": "z\n"})
    theirs = buildx(daemon, place, tmp_path / "theirs.tar")
    kiln = new_kiln(NAME=str(tmp_path / "ours.tar"))
    bake(kiln, place)
    ours = read_image(tmp_path / "ours.tar")
    assert {path: (entry.kind, entry.mode, entry.content) for path, entry in ours.files.items()} == {
        path: (entry.kind, entry.mode, entry.content) for path, entry in theirs.files.items()
    }
    for key in ("Env", "Labels", "WorkingDir"):
        assert ours.config["config"].get(key) == theirs.config["config"].get(key)


def buildx(daemon, place, archive):
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "DOCKER_HOST": daemon.socket, "NAME": str(archive)}
    if subprocess.run(["docker", "buildx", "version"], env=env, capture_output=True, check=False).returncode:
        pytest.skip("docker buildx is not installed")
    create = ["docker", "buildx", "bake", "--allow", "fs=*", "--set", "default.attest="]
    done = subprocess.run(create, env=env, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"docker buildx bake: {done.stderr[-300:]}")
    return read_image(archive)
