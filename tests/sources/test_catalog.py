"""Catalogs: the documented image.yml unchanged, the richer form, and a place for everything that is wrong."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiln.errors import KilnError, SourceError, UsageError
from kiln.oci.platform import Platform
from kiln.plan.outputs import CachePlace
from kiln.plan.target import Bootstrap
from kiln.sources.catalog import load as catalog
from kiln.sources.catalog.keys import FORMS, TOP
from tests.sources.gitpeers import commit, digest_of, git, mirrors, repository, serving

NOW = datetime.datetime(2024, 1, 2, 3, 4, 5)
LEGACY = """\
---
images:
# 共有3个镜像相关的配置,分别为引擎镜像(本地测试用)、引擎镜像(发布用)和管理镜像。请根据打镜像的用途,调整相关参数。

# 引擎镜像(本地测试用)
  - id: polardb_pg_engine_test
      # id为该镜像的标识。管理镜像根据此id引用引擎镜像。可使用默认值,也可自定义。镜像id不允许重复。
    type: engine
    # 镜像类型,当前取值支持engine和manager,分别对应引擎镜像和管理镜像。引擎镜像是管理镜像的基础镜像。
    build_image_name: polardb_pg/polardb_pg_engine_test
    # build目标镜像全名。可使用默认值,也可自定义。
    build_image_dockerfile: ./docker/Dockerfile.pg.engine.test
    # build目标镜像使用的Dockerfile,包括其文件名以及在本项目的具体路径。
    engine_repo: https://github.com/ApsaraDB/PolarDB-for-PostgreSQL.git
    # PolarDB for PostgreSQL开源数据库的github地址。
    engine_branch: main
    # PolarDB for PostgreSQL开源数据库的github分支。
    engine_config_template: src/backend/utils/misc/postgresql.conf.sample
    # PolarDB for PostgreSQL开源数据库目录中参数模板的位置。
    push: false
    # 打完镜像是否自动push到镜像仓库。如果是发布镜像的话,需要push,本地测试则不需要push。
    enable: true
    # 是否build该镜像

# 引擎镜像(发布用),参数说明同上
  - id: polardb_pg_engine_release
    type: engine
    build_image_name: polardb_pg/polardb_pg_engine_release
    build_image_dockerfile: ./docker/Dockerfile.pg.engine.release
    engine_repo: https://github.com/ApsaraDB/PolarDB-for-PostgreSQL.git
    engine_branch: main
    engine_config_template: src/backend/utils/misc/postgresql.conf.sample
    push: true
    enable: false

#管理镜像
  - id: polardb_pg_manager
    # id为该镜像的标识。管理镜像根据此id引用引擎镜像。可使用默认值,也可自定义。镜像id不允许重复。
    type: manager
    # 镜像类型,当前取值支持engine和manager,分别对应引擎镜像和管理镜像。
    build_image_name: polardb_pg/polardb_pg_manager
    # build目标镜像全名。可使用默认值,也可自定义。
    build_image_dockerfile: ./docker/Dockerfile.manager
    # build目标镜像使用的Dockerfile,包括其文件名以及在本项目的具体路径。
    engine_image_id: polardb_pg_engine_release
    # 该manager镜像需要对应的引擎镜像id。引擎镜像是管理镜像的基础镜像。
    push: false
    # 打完镜像是否自动push到镜像仓库,如果是发布镜像的话,需要push,本地测试则不需要push。
    enable: true
    # 是否build该镜像
"""
RICH = """\
version: 1
registry: 127.0.0.1:5000/team
tag: ${VERSION:-1.0}
variables: {FLAVOUR: slim}
x-common: &common
  labels: {org.team: a}
defaults:
  platforms: [linux/amd64]
  args: {FROM_DEFAULTS: "1"}
groups:
  default: [app, tools]
  tools: [lint]
  all: [default, app]
images:
  - id: base
    bootstrap: {suite: bookworm, include: [curl], mirror: "http://m", components: main}
  - id: lint
    <<: *common
    image: [team/lint, "localhost:5000/lint:2"]
    context: ctx
    dockerfile: Lintfile
    base: base
    args: [A=1, HOME_OF, GONE]
    cache_from: type=local,src=cache
    outputs: ["type=oci,dest=out.tar"]
    network: none
    secrets: ["id=token,env=TOKEN", "id=file,src=ctx/secret"]
    ssh: [default, key=id_rsa]
    push: yes
  - name: app
    matrix:
      py: [3.11, 3.12]
      os: [slim, full]
      exclude: [{py: 3.11, os: full}]
      include: [{py: 3.13, os: "a/b"}]
    image: team/app:${matrix.py}-${FLAVOUR}
    dockerfile_inline: |
      FROM python:${matrix.py}
      RUN echo $HOME $${HOME}
    args: {OS: "${matrix.os}"}
    annotations: {note: x}
    needs: [lint]
    target: final
    no_cache: true
    pull: true
  - id: user
    needs: app
    contexts: {tools: "target:lint", data: ./ctx, image: "docker-image://debian:12", other: debian}
    enable: false
"""


def load(tmp_path, text, *, name="kiln.yml", found=None, **environment):
    path = tmp_path / "work" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return catalog.load(path, environment=environment, mirrors=found or mirrors(tmp_path), now=NOW)


def refused(tmp_path, text, **environment):
    with pytest.raises(KilnError) as caught:
        load(tmp_path, text, **environment)
    assert caught.value.where.startswith("kiln.yml"), caught.value
    return f"{caught.value} ({caught.value.hint})"


def tree_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in digest_of(folder).items() if not name.startswith(".git/")}


@pytest.fixture
def engine(tmp_path):
    sample = "src/backend/utils/misc/postgresql.conf.sample"
    files = {"configure": "#!/bin/sh\nPACKAGE_VERSION='11.9'\n", sample: "port = 1\n"}
    return repository(tmp_path / "served" / "PolarDB-for-PostgreSQL.git", files)


@pytest.fixture
def github(tmp_path, engine):
    """A server in the place of GitHub, and mirrors whose git finds it there."""
    with serving(tmp_path / "served") as server:
        found = mirrors(tmp_path)
        (tmp_path / "home" / ".gitconfig").write_text(
            f'[url "{server.url}/"]\n insteadOf = https://github.com/ApsaraDB/\n[user]\n email = me@example.org\n'
        )
        server.mirrors = found
        yield server


def engines(repo, *words):
    one = "  - {{id: {0}, type: engine, build_image_name: {1}, build_image_dockerfile: D, engine_repo: {3}, engine_branch: {2}}}\n"
    return "images:\n" + "".join(one.format(*some, repo) for some in words)


MANAGER = "  - {id: m, type: manager, build_image_name: m, build_image_dockerfile: D, engine_image_id: e}\n"


def test_the_documented_catalog_unchanged(tmp_path, engine, github):
    head = git(engine, "rev-parse", "HEAD")
    work = tmp_path / "work"
    repository(work, {"docker/Dockerfile.manager": "FROM x\n", "rootfs/kept": "mine\n"})
    git(work, "remote", "add", "origin", "https://me:pw@h/builder.git")
    own = git(work, "rev-parse", "HEAD")
    (work / "image.yml").write_text(LEGACY)
    before = tree_of(work)
    found = load(tmp_path, LEGACY, name="image.yml", found=github.mirrors)
    assert tree_of(work) == before
    test, release, manager = found.wishes
    assert (found.kind, found.root, found.result, found.groups) == ("catalog", work, None, {})
    names = ["polardb_pg_engine_test", "polardb_pg_engine_release", "polardb_pg_manager"]
    assert [wish.name for wish in found.wishes] == names
    assert [wish.enabled for wish in found.wishes] == [True, False, True]
    assert [wish.push for wish in found.wishes] == [False, True, False]
    assert [wish.auto_tag for wish in found.wishes] == [True, True, True]
    assert (test.context, test.file) == (str(work), str(work / "docker/Dockerfile.pg.engine.test"))
    assert str(test.tags[0]) == f"docker.io/polardb_pg/polardb_pg_engine_test:11.9.20240102.{head[:8]}.20240102030405"
    assert str(manager.tags[0]) == f"docker.io/polardb_pg/polardb_pg_manager:20240102030405.{own[:8]}"
    facts = {
        "CodeSource": "https://h/builder.git",
        "CodeBranch": "main",
        "CodeVersion": own,
        "BuildBy": "me@example.org",
    }
    assert manager.args == facts
    assert test.args == facts | {
        "PolarSource": "https://github.com/ApsaraDB/PolarDB-for-PostgreSQL.git",
        "PolarBranch": "main",
        "PolarVersion": head,
        "POLAR_SOURCE_DIR": "polardb_pg-main",
        "PFSRPM": "bash",
        "PolarDBRPM": "",
    }
    (source, tree), (template, file) = test.mounts
    assert (source, template) == ("polardb_pg-main", "rootfs/postgresql.conf.sample")
    assert (tree.kind, file.kind) == ("folder", "folder") and "configure" in digest_of(tree.folder)
    assert file.folder.read_text() == "port = 1\n" and file.folder.is_relative_to(tmp_path / "git")
    assert manager.image_args == {"ENGINE_IMAGE_FULL_NAME": "polardb_pg_engine_release"}
    assert manager.needs == ("polardb_pg_engine_release",) and release.mounts == () and release.args == {}
    assert test.place == "image.yml:6" and github.asked.count("fetch") == 1


def test_many_engines_on_one_commit_are_one_clone(tmp_path, engine, github):
    words = [(f"e{n}", f"team/e{n}", "main") for n in range(50)]
    text = engines("https://github.com/ApsaraDB/PolarDB-for-PostgreSQL.git", *words)
    found = load(tmp_path, text, found=github.mirrors)
    assert len({wish.mounts[0][1].folder for wish in found.wishes}) == 1
    assert github.asked.count("fetch") == 1 and github.asked.count("refs") <= 2


def test_two_branches_and_a_hostile_branch(tmp_path, engine):
    git(engine, "checkout", "-q", "-b", "topic/x")
    commit(engine, {"configure": "PACKAGE_VERSION='12.1'\n"})
    git(engine, "checkout", "-q", "main")
    a, b = load(tmp_path, engines(engine, ("a", "a", "main"), ("b", "b", "topic/x"))).wishes
    assert a.mounts[0][1].folder != b.mounts[0][1].folder
    assert b.mounts[0][0] == b.args["POLAR_SOURCE_DIR"] == "polardb_pg-topic/x"
    assert a.tags[0].tag.startswith("11.9.") and b.tags[0].tag.startswith("12.1.")
    for branch in ("'$(touch x)'", "'; touch x'", "--upload-pack=x", "../../x"):
        assert "no branch, tag or commit" in refused(tmp_path, engines(engine, ("a", "a", branch)))


def test_names_with_a_port_and_without_a_tag(tmp_path, engine):
    words = (("a", "'host:5000/name'", "main"), ("b", "'host:5000/name:1'", "main"))
    a, b = load(tmp_path, "pfsd_rpm: pfsd\n" + engines(engine, *words)).wishes
    assert a.auto_tag and (a.tags[0].name, a.tags[0].tag[:5]) == ("host:5000/name", "11.9.")
    assert not b.auto_tag and str(b.tags[0]) == "host:5000/name:1" and b.args["PFSRPM"] == "pfsd" and b.push
    found = load(tmp_path, "tag: v2\nresult: ./image.result\n" + engines(engine, *words))
    assert [str(wish.tags[0]) for wish in found.wishes] == ["host:5000/name:v2", "host:5000/name:1"]
    assert found.result == tmp_path / "work" / "image.result" and not found.wishes[0].auto_tag


def test_outside_of_a_repository_the_facts_are_empty(tmp_path, engine):
    _, manager = load(tmp_path, engines(engine, ("e", "e", "main")) + MANAGER).wishes
    assert manager.args == {"CodeSource": "", "CodeBranch": "", "CodeVersion": "", "BuildBy": ""}
    assert manager.tags[0].tag == "20240102030405"


def test_a_disabled_engine_does_no_work(tmp_path):
    text = engines("https://127.0.0.1:1/none.git", ("e", "e", "main")).replace("}", ", enable: false}")
    found = load(tmp_path, text + MANAGER)
    assert [wish.enabled for wish in found.wishes] == [False, True] and found.wishes[1].needs == ("e",)
    assert found.wishes[0].auto_tag and not (tmp_path / "git").exists()


def test_what_a_repository_lacks_is_named(tmp_path, engine):
    one = engines(engine, ("a", "a", "main"))
    gone = refused(tmp_path, one.replace("}", ", engine_config_template: no/such.conf}"))
    assert gone.startswith("kiln.yml:2: the repository ") and "has no no/such.conf" in gone
    assert "is no file" in refused(tmp_path, one.replace("}", ", engine_config_template: src}"))
    (engine / "link").symlink_to("/etc/passwd")
    commit(engine, {"configure": "nothing\n"})
    assert "has no link" in refused(tmp_path, one.replace("}", ", engine_config_template: link}"))
    assert "has no ../../x" in refused(tmp_path, one.replace("}", ", engine_config_template: ../../x}"))
    assert "has no PACKAGE_VERSION" in refused(tmp_path, one)
    assert str(load(tmp_path, engines(engine, ("a", "a:1", "main"))).wishes[0].tags[0]) == "docker.io/library/a:1"
    assert "git ls-remote failed" in refused(tmp_path, engines(tmp_path / "none", ("a", "a", "main")))


def rpm_wish(tmp_path, engine, *, output, branch="~", rpm="x.rpm"):
    """The engine of a catalog with an RPM on a server; a program in the place of rpm says `output`."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "rpm").write_text(f"#!/bin/sh\n[ $1 = -pqi ] || exit 1\ncat <<'E'\n{output}\nE\n")
    (programs / "rpm").chmod(0o755)
    (tmp_path / "served" / "x.rpm").write_bytes(b"rpm")
    with serving(tmp_path / "served") as server:
        server.dumb = True
        text = engines(engine, ("a", "a:1", branch)).replace("}", f", polardb_rpm: {server.url}/{rpm}}}")
        (wish,) = load(tmp_path, text, found=mirrors(tmp_path, PATH=f"{programs}:{os.environ['PATH']}")).wishes
    return wish


def test_a_branch_from_an_rpm(tmp_path, engine):
    git(engine, "branch", "stable")
    output = "Name : x\nDescription :\nCodeBranch: stable\nPFSDVersion: pfsd-1.2"
    wish = rpm_wish(tmp_path, engine, output=output, branch="main")
    assert (wish.args["PolarBranch"], wish.args["PFSDVersion"]) == ("stable", "pfsd-1.2")
    assert wish.mounts[0][0] == "polardb_pg-stable"
    assert wish.args["PolarDBRPM"].endswith("/x.rpm") and wish.args["PFSRPM"] == "bash"
    assert rpm_wish(tmp_path, engine, output="Name : x", branch="main").args["PolarBranch"] == "main"
    with pytest.raises(SourceError, match="has no CodeBranch"):
        rpm_wish(tmp_path, engine, output="Name : x")
    with pytest.raises(SourceError, match="answered 404"):
        rpm_wish(tmp_path, engine, output="Name : x", rpm="none.rpm")


def test_without_rpm(tmp_path, engine):
    text = engines(engine, ("a", "a:1", "main")).replace("}", ", polardb_rpm: http://127.0.0.1:1/x.rpm}")
    with pytest.raises(SourceError, match="rpm is not installed") as caught:
        load(tmp_path, text, found=mirrors(tmp_path, PATH="/nowhere"))
    assert caught.value.where == "kiln.yml:2"


def rich(tmp_path, **environment):
    (tmp_path / "work" / "ctx").mkdir(parents=True, exist_ok=True)
    (tmp_path / "work" / "ctx" / "secret").write_text("x")
    return load(tmp_path, RICH, **environment)


def test_the_richer_form(tmp_path):
    work = tmp_path / "work"
    found = rich(tmp_path, HOME_OF="h", TOKEN="t")
    base, lint, *apps, user = found.wishes
    assert base.bootstrap == Bootstrap("bookworm", ("curl",), "http://m", "minbase", "main") and base.file == ""
    assert str(base.tags[0]) == "docker.io/library/base:1.0" and base.args == {"FROM_DEFAULTS": "1"}
    assert [str(tag) for tag in lint.tags] == ["docker.io/team/lint:1.0", "localhost:5000/lint:2"]
    assert (lint.context, lint.file) == (str(work / "ctx"), str(work / "ctx" / "Lintfile"))
    assert lint.args == {"FROM_DEFAULTS": "1", "A": "1", "HOME_OF": "h"} and lint.labels == {"org.team": "a"}
    assert (lint.contexts, lint.image_args, lint.needs) == ({"base": "target:base"}, {"BASE_IMAGE": "base"}, ("base",))
    assert lint.cache_from == (CachePlace("local", folder=work / "cache"),) and lint.push and not base.push
    assert lint.outputs[0].dest == str(work / "out.tar") and lint.network == "none"
    assert lint.secrets["token"].env == "TOKEN" and lint.secrets["file"].path == work / "ctx" / "secret"
    assert lint.ssh == {"default": "", "key": str(work / "id_rsa")} and lint.place == "kiln.yml:17"
    assert lint.platforms == (Platform("amd64", "linux"),)
    names = ("app-3.11-slim", "app-3.12-slim", "app-3.12-full", "app-3.13-a-b")
    assert tuple(wish.name for wish in apps) == names
    assert str(apps[0].tags[0]) == "docker.io/team/app:3.11-slim" and apps[3].args["OS"] == "a/b"
    assert apps[1].inline == "FROM python:3.12\nRUN echo $HOME ${HOME}\n" and apps[0].annotations == {"note": "x"}
    assert (apps[0].target, apps[0].no_cache, apps[0].pull, apps[0].needs) == ("final", True, True, ("lint",))
    assert set(user.needs) == {*names, "lint"} and not user.enabled
    assert (user.contexts["tools"], user.contexts["data"]) == ("target:lint", str(work / "ctx"))
    assert (user.contexts["image"], user.contexts["other"]) == ("docker-image://debian:12", "debian")
    assert found.groups == {"app": names, "default": (*names, "lint"), "tools": ("lint",), "all": (*names, "lint")}
    assert found.destination.prefix == "127.0.0.1:5000/team" and found.aliases["team/lint"] == ("lint",)
    assert "lint" not in found.aliases and found.aliases["team/lint:1.0"] == ("lint",)


def test_variables_and_the_environment(tmp_path):
    found = rich(tmp_path, VERSION="7", FLAVOUR="fat", TOKEN="t")
    assert str(found.wishes[0].tags[0]).endswith("base:7") and str(found.wishes[2].tags[0]).endswith(":3.11-fat")


def test_contexts_and_sources_from_git(tmp_path):
    app = repository(tmp_path / "app.git", {"sub/dockerfile": "FROM scratch\n", "sub/f": "f\n"})
    remote = f"file://{app}"
    text = f"""\
images:
  - {{id: a, context: '{remote}#main:sub'}}
  - {{id: b, sources: {{lib/a: '../app.git#main', lib/b: '{remote}#:sub'}}, contexts: {{x: '{remote}'}}}}
  - {{id: c, context: 'http://h/x.tar', dockerfile: D}}
  - {{id: d, context: '{remote}', dockerfile: sub/dockerfile}}
  - {{id: e, context: '{remote}#none', sources: {{x: '{remote}#none'}}, enable: false}}
"""
    a, b, c, d, e = load(tmp_path, text).wishes
    assert Path(a.context).name == "sub" and a.file == a.context + "/dockerfile"
    assert [path for path, _ in b.mounts] == ["lib/a", "lib/b"]
    assert digest_of(b.mounts[1][1].folder).keys() == {"dockerfile", "f"}
    assert b.contexts["x"].startswith(str(tmp_path / "git")) and b.context == str(tmp_path / "work")
    assert (c.context, c.file) == ("http://h/x.tar", "D") and d.file == d.context + "/sub/dockerfile"
    assert e.context.endswith("#none") and e.mounts == ()
    (app / "Dockerfile").symlink_to("/etc/passwd")
    commit(app, {})
    assert "has no Dockerfile" in refused(tmp_path, f"images:\n  - {{id: a, context: '{remote}'}}\n")
    assert "has no ../x" in refused(tmp_path, f"images:\n  - {{id: a, context: '{remote}#main:../x'}}\n")


ONE = "images:\n  - {id: a}\n"
WRONG = [
    ("", "kiln.yml:1: a catalog is a mapping, not nothing"),
    ("[a]", "a catalog is a mapping, not a list"),
    ("image: []\n", "kiln.yml:1: the catalog has no key 'image' (Did you mean images?)"),
    ("result: x\n", "the catalog has no images"),
    ("images: {a: b}\n", "kiln.yml:1: images is a list, not a mapping"),
    ("images:\n  - a\n", "kiln.yml:2: an image is a mapping, not a text"),
    ("images:\n  - {image: a}\n", "kiln.yml:2: an image has no id"),
    ("images:\n  - id: a\n    contxt: b\n", "kiln.yml:3: an image has no key 'contxt' (Did you mean context?)"),
    ("images:\n  - id: a\n    engine_repo: b\n", "an image has no key 'engine_repo' (engine_repo belongs to images of type engine.)"),
    ("images:\n  - {id: a, type: enigne}\n", "kiln.yml:2: the type 'enigne' is not known (Did you mean engine?)"),
    ("images:\n  - {id: a, type: manager}\n", "a manager has no build_image_name"),
    ("images:\n  - {id: a, type: engine, image: b}\n", "an engine has no key 'image' (image belongs to images without a type.)"),
    ("images:\n  - id: a\n  - id: b\n  - id: a\n", "kiln.yml:4: the id 'a' is given twice, here and at kiln.yml:2"),
    ("images:\n  - {id: a, name: b}\n", "id or name, not both"),
    ("images:\n  - {id: 'a b'}\n", "'a b' is no id"),
    ("images:\n  - id: a\n    push: maybe\n", "kiln.yml:3: push is true or false, not 'maybe'"),
    ("images:\n  - id: a\n    args: x\n", "args is a mapping or a list of NAME=VALUE"),
    ("images:\n  - id: a\n    args:\n      - =x\n", "kiln.yml:4: an item of args is NAME=VALUE"),
    ("images:\n  - id: a\n    args:\n      X: [1]\n", "kiln.yml:4: args: X is a text, not a list"),
    ("images:\n  - id: a\n    needs: {b: c}\n", "needs is a text or a list of texts"),
    ("images:\n  - id: a\n    needs: [[b]]\n", "an item of needs is a text, not a list"),
    ("images:\n  - id: a\n    target: [b]\n", "target is one text, not a list"),
    ("images:\n  - id: app\n  - id: b\n    needs: ap\n", "kiln.yml:4: there is no image 'ap' (Did you mean app?)"),
    ("images:\n  - id: app\n  - id: b\n    base: ap\n", "kiln.yml:4: there is no image 'ap'"),
    ("images:\n  - id: b\n    contexts:\n      x: target:c\n", "kiln.yml:4: there is no image 'c'"),
    ("images:\n  - {id: a, image: a, matrix: {v: [1, 2]}}\n  - {id: b, base: a}\n", "kiln.yml:3: 'a' is several images (Name one of them: a-1, a-2.)"),
    ("images:\n  - {id: a, image: Upper}\n", "must be lower case"),
    ("images:\n  - {id: Upper}\n", "must be lower case"),
    ("images:\n  - {id: a, image: 'a@sha256:" + "0" * 64 + "'}\n", "not a digest"),
    ("images:\n  - {id: a, platforms: [x/y/z/w]}\n", "kiln.yml:2: 'x/y/z/w' is not a platform"),
    ("images:\n  - {id: a, network: bridge}\n", "network is one of default, none, host"),
    ("images:\n  - {id: a, context: none}\n", "the context 'none' is no folder"),
    ("images:\n  - {id: a, dockerfile: b, dockerfile_inline: c}\n", "dockerfile or dockerfile_inline, not both"),
    ("images:\n  - {id: a, bootstrap: {suite: b}, base: c}\n", "bootstrap or base, not both"),
    ("images:\n  - {id: a, bootstrap: {}}\n", "bootstrap has no suite"),
    ("images:\n  - {id: a, bootstrap: {suite: b, packages: c}}\n", "bootstrap has no key 'packages'"),
    ("images:\n  - {id: a, secrets: [id=b]}\n", "the secret b: there is no file b"),
    ("images:\n  - {id: a, secrets: [b]}\n", "the secret 'b' is not understood"),
    ("images:\n  - {id: a, outputs: type=none}\n", "unknown type 'none'"),
    ("images:\n  - {id: a, cache_to: 'type=local,mode=x'}\n", "must be min or max"),
    ('images:\n  - {id: a, outputs: "type=oci\\rdest=x"}\n', "outputs is not understood"),
    ("images:\n  - {id: a, sources: {../x: y}}\n", "no path below the context"),
    ("images:\n  - {id: a, matrix: {v: 1}}\n", "v is a list of values"),
    ("images:\n  - {id: a, matrix: {v: []}}\n", "v has no values"),
    ("images:\n  - {id: a, matrix: {v: [1], exclude: [{v: 1}]}}\n", "the matrix has no combination"),
    ("images:\n  - {id: a, matrix: {v: [1], include: [{w: 1}]}}\n", "the matrix has no 'w'"),
    ("images:\n  - {id: a, matrix: {v: [1], w: [1], include: [{w: 2}]}}\n", "an item of include has no v"),
    ("images:\n  - {id: a, matrix: {'v w': [1]}}\n", "no name for a matrix value"),
    ("images:\n  - id: a\n    type: engine\n    matrix: {v: [1]}\n", "kiln.yml:4: matrix belongs to images without a type"),
    ("images:\n  - {id: a, matrix: {v: [x]}, target: '${matrix.w}'}\n", "${matrix.w} has no value (Did you mean matrix.v?)"),
    ("images:\n  - id: a\n    target: ${NONE}\n", "kiln.yml:3: ${NONE} has no value"),
    ("groups: {g: [b]}\n" + ONE, "kiln.yml:1: there is no image 'b'"),
    ("groups: {a: [a]}\n" + ONE, "the id 'a' is given twice"),
    ("groups: {g: [h], h: [g]}\n" + ONE, "is part of itself"),
    ("version: 2\n" + ONE, "kiln.yml:1: the version '2'"),
    ("tag: a/b\n" + ONE, "is not an image reference"),
    ("registry: 'http://x'\n" + ONE, "is not an image reference"),
    ("defaults: {pull: maybe}\n" + ONE, "kiln.yml:1: pull is true or false"),
    ("defaults: {id: b}\n" + ONE, "defaults has no key 'id'"),
    ("variables: [a]\n" + ONE, "variables is a mapping, not a list"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message[:60] for _, message in WRONG])
def test_what_is_wrong_is_named_with_its_place(tmp_path, text, message):
    assert message in refused(tmp_path, text)


def test_defaults(tmp_path):
    text = """\
defaults: {args: [A=1, B=1], dockerfile: D, push: true, build_image_dockerfile: E}
images:
  - {id: a, args: {B: 2}}
  - {id: b, dockerfile_inline: FROM scratch, push: false, args: [C=3]}
  - {id: m, type: manager, build_image_name: m, engine_image_id: a}
"""
    a, b, m = load(tmp_path, text).wishes
    assert (a.args, a.push, Path(a.file).name) == ({"A": "1", "B": "2"}, True, "D")
    assert (b.args, b.push, b.file, b.inline) == ({"A": "1", "B": "1", "C": "3"}, False, "", "FROM scratch")
    assert m.args["A"] == "1" and Path(m.file).name == "E"


def test_nested_groups_do_not_explode(tmp_path):
    groups = "".join(f"  g{n}: [g{n - 1}, g{n - 1}]\n" for n in range(1, 40))
    assert load(tmp_path, "groups:\n  g0: [a]\n" + groups + ONE).groups["g39"] == ("a",)
    deep = "".join(f"  g{n}: [g{n + 1}]\n" for n in range(3000))
    assert "nested too deep" in refused(tmp_path, "groups:\n" + deep + "  g3000: [a]\n" + ONE)


def test_ten_thousand_images(tmp_path):
    (tmp_path / "work" / "ctx").mkdir(parents=True)
    one = "  - {{id: app-{0}, image: team/app-{0}, context: ctx, args: {{A: '1'}}, labels: {{b: c}}, push: true}}\n"
    text = "images:\n" + "".join(one.format(n) for n in range(10_000))
    begun = time.process_time()
    assert len(load(tmp_path, text).wishes) == 10_000
    assert time.process_time() - begun < 5  # 1.4 s on a quiet machine


WORDS = sorted({*TOP, *(name for form in FORMS.values() for name in form), "include", "exclude", "suite"})
SCALARS = st.sampled_from(
    ["", "a", "a:b", "true", "1", "${A}", "${matrix.v}", "target:a", "id=a,src=b", "type=oci,dest=x", "-", "../x", "~"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | SCALARS, inner, max_size=4),
    max_leaves=8,
)
IMAGES = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "b"])}, optional={word: VALUES for word in FORMS[""] if word != "id"}
)
DOCUMENTS = st.fixed_dictionaries(
    {"images": st.lists(IMAGES, max_size=3)}, optional={word: VALUES for word in TOP if word != "images"}
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(DOCUMENTS | VALUES)
def test_any_document_is_read_or_refused(tmp_path, document):
    try:
        load(tmp_path, yaml.safe_dump(document), found=mirrors(tmp_path, PATH="/nowhere"), A="b")
    except KilnError as bad:
        assert isinstance(bad, UsageError | SourceError) and bad.where


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_is_read_or_refused(tmp_path, text):
    try:
        load(tmp_path, text)
    except KilnError as bad:
        assert bad.where
