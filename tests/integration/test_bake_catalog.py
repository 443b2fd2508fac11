"""Catalogs from end to end: the documented image.yml with a git server, and a kiln.yml with everything that it knows."""

import os
import shutil
import time

import pytest

from tests.integration.bakes import bake, planned, tags, tree, uploads
from tests.services import Kiln
from tests.sources.gitpeers import commit, digest_of, git, repository, serving
from tests.sources.test_catalog import LEGACY

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root")
SAMPLE = "src/backend/utils/misc/postgresql.conf.sample"
ENGINE = """FROM base
ARG CodeSource CodeBranch CodeVersion BuildBy PolarSource PolarBranch PolarVersion POLAR_SOURCE_DIR PFSRPM
LABEL CodeVersion=$CodeVersion BuildBy=$BuildBy PolarBranch=$PolarBranch PolarVersion=$PolarVersion PFSRPM=$PFSRPM
COPY ${POLAR_SOURCE_DIR} /source
COPY rootfs /
"""
MANAGER = """ARG ENGINE_IMAGE_FULL_NAME
FROM ${ENGINE_IMAGE_FULL_NAME}
ARG CodeBranch
LABEL CodeBranch=$CodeBranch
COPY docker/Dockerfile.manager /manager
"""


@pytest.fixture
def served(tmp_path):
    """The database's repository on the branch main, and a server in the place of GitHub."""
    files = {"configure": "#!/bin/sh\nPACKAGE_VERSION='11.9'\n", SAMPLE: "port = 1\n", "main.c": "int main;\n"}
    place = repository(tmp_path / "served" / "PolarDB-for-PostgreSQL.git", files)
    with serving(tmp_path / "served") as server:
        server.place = place
        yield server


@pytest.fixture
def work(tmp_path):
    """The user's own repository with the documented catalog."""
    files = {
        "image.yml": LEGACY, "docker/Dockerfile.pg.engine.test": ENGINE, "docker/Dockerfile.pg.engine.release": ENGINE,
        "docker/Dockerfile.manager": MANAGER, "rootfs/etc/motd": "mine\n",
    }  # fmt: skip
    return repository(tmp_path / "work", files)


@pytest.fixture
def builder(new_kiln, served, work):
    """Makes machines that find the server where GitHub is."""

    def make(name: str) -> Kiln:
        made = new_kiln(name)
        (made.home / ".gitconfig").write_text(
            f'[url "{served.url}/"]\n insteadOf = https://github.com/ApsaraDB/\n[user]\n email = me@example.org\n'
            f"[safe]\n directory = {work}\n"
        )
        return made

    return make


def released(registry, text=LEGACY):
    """The catalog with the release engine, which goes to our registry, and a result file."""
    text = text.replace("enable: false", "enable: true").replace("images:", "result: ./image.result\nimages:", 1)
    return text.replace("build_image_name: polardb_pg", f"build_image_name: {registry.host}/polardb_pg")


def test_a_disabled_engine_is_found_before_anything_is_done(builder, work):
    """The catalog as it is documented: its manager needs an engine that is disabled."""
    done = bake(builder("one"), work, code=1)
    assert done.rows == {}
    assert "'polardb_pg_manager' needs 'polardb_pg_engine_release', which is disabled at image.yml:26" in done.ended.err


def test_one_engine_of_the_documented_catalog(builder, work, served):
    """Not a byte of the catalog is changed; the folder stays as it was."""
    one, before = builder("one"), digest_of(work)
    assert bake(one, work, "polardb_pg_engine_test").results == {"polardb_pg_engine_test": "built"}
    assert digest_of(work) == before and git(work, "status", "--porcelain", "--ignored") == ""
    head = git(served.place, "rev-parse", "HEAD")
    name = next(entry for entry in one.index() if "engine_test" in str(entry["annotations"]))["annotations"]
    assert f"polardb_pg/polardb_pg_engine_test:11.9.{time.strftime('%Y%m%d')}.{head[:8]}." in str(name)


def test_the_documented_catalog(builder, work, served, registry):
    """Built, pushed, nothing built again, the tag stays; the branch moves: a new tag, the reason is shown."""
    one = builder("one")
    (work / "image.yml").write_text(released(registry))
    commit(work, {})
    first = bake(one, work)
    assert set(first.results.values()) == {"built"}
    labels = one.config("engine_release:" + tag_of(first, "polardb_pg_engine_release"))["config"]["Labels"]
    assert labels == {
        "CodeVersion": git(work, "rev-parse", "HEAD"), "BuildBy": "me@example.org", "PolarBranch": "main",
        "PolarVersion": git(served.place, "rev-parse", "HEAD"), "PFSRPM": "bash",
    }  # fmt: skip
    layers = one.layers("engine_release:" + tag_of(first, "polardb_pg_engine_release"))
    assert "source/main.c" in layers[-2] and layers[-1]["postgresql.conf.sample"].data == b"port = 1\n"
    assert layers[-1]["etc/motd"].data == b"mine\n"
    result = (work / "image.result").read_text().splitlines()
    assert result == [row["names"][0] for row in in_order(first)] and len(result) == 3
    assert tag_of(first, "polardb_pg_engine_release") in tags(registry, "polardb_pg/polardb_pg_engine_release")
    assert not tags(registry, "polardb_pg/polardb_pg_engine_test"), "push: false"
    again = bake(one, work)
    assert set(again.results.values()) == {"skipped"} and names_of(again) == names_of(first)
    assert served.asked.count("fetch") == 1
    moved(one, work, served, first)


def moved(one, work, served, first):
    head = commit(served.place, {"main.c": "int other;\n"})
    reason = planned(one, work)["polardb_pg_engine_release"]["reason"]
    assert "arguments PolarVersion changed" in reason or "argument PolarVersion changed" in reason
    time.sleep(1.1)  # automatic tags tell seconds
    after = bake(one, work)
    assert set(after.results.values()) == {"built"}
    assert f".{head[:8]}." in tag_of(after, "polardb_pg_engine_release")
    assert set(names_of(after)).isdisjoint(names_of(first))
    assert "base `polardb_pg_engine_release` moved" in after.reason("polardb_pg_manager")
    assert git(work, "status", "--porcelain", "--ignored") == "?? image.result"


def names_of(done):
    return [row["names"][0] for row in in_order(done)]


def in_order(done):
    return [done.rows[name] for name in ("polardb_pg_engine_test", "polardb_pg_engine_release", "polardb_pg_manager")]


def tag_of(done, name):
    return done.rows[name]["names"][0].rpartition(":")[2]


def test_automatic_tags_on_a_fresh_machine(builder, work, registry):
    """It shares the registry alone: the image is not made again, keeps its tag, and no further tag appears."""
    text = released(registry).replace("polardb_pg/", "polardb_fresh/")
    (work / "image.yml").write_text(text)
    first = bake(builder("one"), work, "polardb_pg_engine_release")
    known, before = tags(registry, "polardb_fresh/polardb_pg_engine_release"), uploads(registry)
    time.sleep(1.1)
    again = bake(builder("two"), work, "polardb_pg_engine_release")
    assert set(again.results.values()) == {"skipped"}
    assert tag_of(again, "polardb_pg_engine_release") == tag_of(first, "polardb_pg_engine_release")
    assert tags(registry, "polardb_fresh/polardb_pg_engine_release") == known and uploads(registry) == before


RICH = """version: 1
registry: ${REGISTRY}
tag: ${VERSION:-1.0}
result: names.txt
variables: {FLAVOUR: slim}
x-common: &common
  labels: {org.team: a}
defaults:
  args: {WHO: everybody}
groups:
  tools: [lint]
images:
  - id: ground
    <<: *common
    context: ground
    dockerfile: Groundfile
  - id: lint
    <<: *common
    image: team/lint
    dockerfile_inline: |
      FROM base
      ARG WHO
      LABEL who=$WHO flavour=${FLAVOUR} home=$${HOME}
      COPY --from=data x /x
    contexts: {data: ./data}
    push: true
  - id: app
    image: team/app-${matrix.py}
    matrix: {py: ["3.11", "3.12"]}
    context: app
    base: ground
    args: {PY: "${matrix.py}"}
    needs: [lint]
    push: true
  - id: old
    dockerfile: gone
    enable: false
"""
RICH_FILES = {
    "kiln.yml": RICH, "data/x": "x\n", "ground/Groundfile": "FROM base\nCOPY Groundfile /ground\n", "app/app.py": "app\n",
    "app/Dockerfile": "ARG BASE_IMAGE\nFROM base\nARG PY BASE_IMAGE\nLABEL py=$PY on=$BASE_IMAGE\nCOPY app.py /\n",
}  # fmt: skip


def test_a_rich_catalog(new_kiln, tmp_path, registry):
    """base, needs, contexts, matrix, anchors, defaults, variables, the environment, groups, inline, a result file."""
    prefix = f"{registry.host}/rich"
    kiln = new_kiln(REGISTRY=prefix, VERSION="2", HOME_OF="x")
    place = tree(tmp_path / "rich", RICH_FILES)
    done = bake(kiln, place)
    assert done.results == dict.fromkeys(["ground", "lint", "app-3.11", "app-3.12"], "built")
    ground = kiln.config("ground:2")
    assert ground["config"]["Labels"] == {"org.team": "a"}
    labels = kiln.config("docker.io/team/lint:2")["config"]["Labels"]
    assert labels == {"org.team": "a", "who": "everybody", "flavour": "slim", "home": ""}
    app = kiln.config(f"{prefix}/team/app-3.12:2")
    assert app["config"]["Labels"] == {"org.team": "a", "py": "3.12", "on": "ground:2"}
    assert app["rootfs"]["diff_ids"][:-1] == ground["rootfs"]["diff_ids"], "`FROM base` is the image that `base` names"
    assert tags(registry, "rich/team/app-3.11") >= {"2"} and not tags(registry, "rich/ground")
    names = (place / "names.txt").read_text().splitlines()
    assert names == ["ground:2", *(f"{prefix}/team/{name}:2" for name in ("lint", "app-3.11", "app-3.12"))]
    assert bake(kiln, place, "tools").results == {"lint": "skipped"}
    assert set(bake(kiln, place, "app").results) == {"ground", "lint", "app-3.11", "app-3.12"}
    other = new_kiln(REGISTRY=prefix, VERSION="2", FLAVOUR="full")
    assert planned(other, place, "lint")["lint"]["reason"] == "the Dockerfile in kiln.yml, line 3 of it, changed"


def test_an_inline_dockerfile_that_only_moved(new_kiln, tmp_path):
    """Lines above it are no change."""
    kiln = new_kiln(REGISTRY="127.0.0.1:1/rich")
    place = tree(tmp_path / "rich", {**RICH_FILES, "kiln.yml": RICH.replace("    push: true\n", "")})
    bake(kiln, place)
    (place / "kiln.yml").write_text("# a comment\n\n" + (place / "kiln.yml").read_text())
    assert set(bake(kiln, place).results.values()) == {"skipped"}


WRONG = [
    ("images: [{id: a}, {id: a}]", "'a' is given twice", 2),
    ("images:\n  - {id: a, base: b}\n  - {id: b, needs: [a]}", "targets need one another in a circle: a -> b -> a", 1),
    ("images: [{id: a, base: gone}]", "gone", 2),
    ("images: [{id: a, needs: [b]}, {id: b, enable: false}]", "which is disabled at kiln.yml:1", 1),
    ("images: [{id: a, image: 'UPPER:x y'}]", "kiln.yml:1", 2),
    ("images: [{id: a, dockerfile_inline: 'FROM 127.0.0.1:1/none:1'}]", "'a' stands on `127.0.0.1:1/none:1`", 1),
    ("images: [{id: a, dockerfile_inline: 'FROM'}]", "kiln.yml:1", 1),
    ("images: [{id: a, image: same}, {id: b, image: same}]", "both make same:latest", 1),
    ("images: [{id: a, colour: red}]", "an image has no key 'colour'", 2),
    ("images: {", "kiln.yml", 2),
    ("result: /proc/none/x\nimages: []", "/proc/none", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message", "code"), WRONG)
def test_what_is_wrong_is_said_before_anything_is_built(kiln, tmp_path, text, message, code):
    place = tree(tmp_path / "wrong", {"kiln.yml": text + "\n", "Dockerfile": "FROM base\nCOPY Dockerfile /\n"})
    done = bake(kiln, place, code=code)
    assert message in done.ended.err and not any(row["result"] == "built" for row in done.rows.values())


def test_a_target_that_is_not_there(kiln, tmp_path):
    place = tree(tmp_path / "few", {"kiln.yml": "images: [{id: app}]\n", "Dockerfile": "FROM base\n"})
    assert "there is no target 'ap'" in bake(kiln, place, "ap", code=2).ended.err
    assert "there is no such file" in bake(kiln, place / "none", code=2).ended.err
    assert "nothing that lists images" in bake(kiln, tree(tmp_path / "empty", {"x": ""}), code=2).ended.err


def test_both_places_of_a_circle_through_dockerfiles(kiln, tmp_path):
    """No `needs` says it: the names in FROM do."""
    place = tree(tmp_path / "circle", {
        "kiln.yml": "images:\n  - {id: a, context: a}\n  - {id: b, context: b}\n",
        "a/Dockerfile": "FROM b\n", "b/Dockerfile": "FROM base\nCOPY --from=a /x /x\n",
    })  # fmt: skip
    err = bake(kiln, place, code=1).ended.err
    assert "a -> b -> a" in err and "a (kiln.yml:2)" in err and "b (kiln.yml:3)" in err


@needs_root
@pytest.mark.root
@pytest.mark.slow
def test_a_base_of_packages(new_kiln, tmp_path, registry):
    """bootstrap: made once; what stands on it runs; a fresh machine takes it from the registry."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    place = tree(tmp_path / "packages", {
        "kiln.yml": f"registry: {registry.host}/packages\nimages:\n"
        "  - {id: ground, bootstrap: {suite: bookworm}, push: true}\n  - {id: app, context: app, base: ground, push: true}\n",
        "app/Dockerfile": "FROM base\nRUN . /etc/os-release && echo $VERSION_CODENAME > /made\n",
    })  # fmt: skip
    done = bake(new_kiln(), place, seconds=300)
    assert done.results == {"ground": "built", "app": "built"}
    assert new_kiln().layers("library/app:latest")[-1]["made"].data == b"bookworm\n"
    (place / "app/Dockerfile").write_text("FROM base\nCOPY Dockerfile /other\n")
    other = bake(new_kiln("other"), place, seconds=300)
    assert other.results == {"ground": "skipped", "app": "built"} and other.digests["ground"] == done.digests["ground"]
