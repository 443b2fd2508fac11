"""Compose files: services with `build`, variables, merging, and what is said about mistakes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiln.errors import KilnError, UsageError
from kiln.oci.platform import Platform
from kiln.plan.outputs import CachePlace, Output
from kiln.plan.target import Secret
from kiln.sources.compose import load as compose
from kiln.sources.compose.words import fill, read_env
from kiln.sources.wish import Collection, Wish


def load(
    tmp_path: Path, *texts: str, environment: Mapping[str, str] | None = None, sets: Sequence[str] = ()
) -> Collection:
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / ("compose.yaml" if not number else f"compose.{number}.yaml"))
        paths[-1].write_text(text)
    return compose.load(paths, environment=environment or {}, sets=sets)


def only(tmp_path: Path, *texts: str, environment: Mapping[str, str] | None = None) -> Wish:
    (wish,) = load(tmp_path, *texts, environment=environment).wishes
    return wish


def test_a_whole_service(tmp_path: Path) -> None:
    text = """
name: My.Proj
x-common: &common
  args: {A: "1", B: null, C: null, NUM: 5, T: true}
services:
  web:
    image: ${REG:-ghcr.io}/web:${TAG-dev}
    environment: {B: own}
    build:
      <<: *common
      context: ./sub
      dockerfile: D
      labels: ["a=b", "c"]
      target: t
      tags: ["x/y:1"]
      platforms: [linux/amd64]
      cache_from: [a/b]
      cache_to: ["type=local,dest=o"]
      network: host
      no_cache: true
      pull: true
      secrets: [s1, {source: s2, target: zz}]
      ssh: [default, k=key]
      extra_hosts: ["h:1.2.3.4", "i=::1", "j:[::2]"]
      additional_contexts: {r: "service:db.x", q: "./sub", z: "docker-image://alpine"}
      shm_size: 64m
      sbom: true
      x-bake:
        tags: ["e:1", "x/y:1"]
        platforms: linux/arm64 linux/amd64
        output: type=docker
        contexts: {xx: ./yy, r: ./not}
        no-cache-filter: Deps
  db.x:
    profiles: [p]
    build: ./db
  nothing:
    image: foo
secrets:
  s1: {file: ./b}
  s2: {environment: TOK}
"""
    made = load(tmp_path, text, environment={"C": "c"})
    web, db = made.wishes
    assert (web.name, web.place, web.context, web.file) == (
        "web",
        f"{tmp_path}/compose.yaml:6",
        f"{tmp_path}/sub",
        f"{tmp_path}/sub/D",
    )
    assert web.args == {"A": "1", "B": "own", "C": "c", "NUM": "5", "T": "true"}
    assert (web.labels, web.target) == ({"a": "b", "c": ""}, "t")
    assert [tag.familiar for tag in web.tags] == ["x/y:1", "e:1"]
    assert web.platforms == (Platform("amd64", "linux"), Platform("arm64", "linux"))
    assert (web.cache_from, web.cache_to) == (
        (CachePlace("registry", "a/b"),),
        (CachePlace("local", folder=tmp_path / "o"),),
    )
    assert (web.network, web.no_cache, web.pull, web.no_cache_stages) == ("host", True, True, frozenset({"deps"}))
    assert web.secrets == {"s1": Secret("s1", tmp_path / "b"), "s2": Secret("s2", env="TOK")}
    assert web.ssh == {"default": "", "k": f"{tmp_path}/key"}
    assert web.hosts == ("h:1.2.3.4", "i:::1", "j:::2")
    assert web.contexts == {
        "r": "target:db_x",
        "q": f"{tmp_path}/sub",
        "z": "docker-image://alpine",
        "xx": f"{tmp_path}/yy",
    }
    assert (web.needs, web.outputs) == (("db_x",), (Output("docker"),))
    assert [tag.familiar for tag in db.tags] == ["myproj-db.x:latest"]
    assert made.groups == {"default": ("web", "db_x")}
    assert made.warnings == ((f"{tmp_path}/compose.yaml:27", "web: attestations are not made"),)


@pytest.mark.parametrize(
    ("text", "environment", "folder", "name"),
    [
        ("name: Some.Name_1\n", {}, "x", "somename_1-a:latest"),
        ("", {}, "My Folder", "myfolder-a:latest"),
        ("name: n\n", {"COMPOSE_PROJECT_NAME": "env"}, "x", "env-a:latest"),
        ("", {}, "___", "default-a:latest"),
    ],
)
def test_names_of_images(tmp_path: Path, text: str, environment: dict[str, str], folder: str, name: str) -> None:
    (tmp_path / folder).mkdir()
    wish = only(tmp_path / folder, text + "services: {a: {build: .}}", environment=environment)
    assert [tag.familiar for tag in wish.tags] == [name]


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("a$$b", "a$b"), ("$A-${A}", "1-1"), ("${E}", ""), ("$NO", ""), ("${E:-d}", "d"), ("${E-d}", ""), ("${NO-d}", "d"),
        ("${NO:-${A}x}", "1x"), ("${NO:-${NO:-deep}}", "deep"), ("${A:+y}", "y"), ("${E:+y}", ""), ("${E+y}", "y"),
        ("${NO+y}", ""), ("${A:?no}", "1"), ("${E?no}", ""), ("x}y", "x}y"), ("${NO:-a-b:c}", "a-b:c"), ("${NO:-}", ""),
        ("100%", "100%"), ("$$${A}", "$1"), ("${NO:-$$}", "$"),
    ],
)  # fmt: skip
def test_variables(text: str, given: str) -> None:
    assert fill(text, {"A": "1", "E": ""}, "f:1") == given


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${E:?set E}", "E is not set: set E"), ("${NO?}", "NO is not set"), ("${A", "is not a variable"), ("${}", "is not a variable"),
        ("$", "is not a variable"), ("$1", "is not a variable"), ("${NO:-x", "not ended"), ("${A!x}", "is not a variable"),
        ("${NO:-" * 100 + "}" * 100, "too deeply"),
    ],
)  # fmt: skip
def test_variables_that_are_mistaken(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        fill(text, {"A": "1", "E": ""}, "f:1")
    assert said in caught.value.message
    assert caught.value.where == "f:1"


def test_env_files(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert read_env(path, {"A": "1"}) == {"A": "1"}
    path.write_text(
        '# note\nexport B=b # why\nC=\'$B "x"\'\nD="${B}\\n\\$A"\nE=\nA=file\nF: colon\nG="two\nlines"\nH=a#b\n\nI=${A}\nALONE\n'
    )
    assert read_env(path, {"A": "1"}) == {
        "A": "1", "B": "b", "C": '$B "x"', "D": "b\n$A", "E": "", "F": "colon", "G": "two\nlines", "H": "a#b", "I": "1",
    }  # fmt: skip
    for text, line in (("A=1\n!!\n", 2), ("\nA='x\n", 2), ("A=${B\n", 1)):
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            read_env(path, {})
        assert caught.value.where == f"{path}:{line}"


def test_the_env_file_is_under_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=file\nOTHER=o\n")
    text = "services: {a: {image: 'x:${TAG}-${OTHER}', build: {args: [TAG]}}}"
    wish = only(tmp_path, text, environment={"TAG": "env"})
    assert (wish.tags[0].tag, wish.args) == ("env-o", {"TAG": "env"})


def test_several_files(tmp_path: Path) -> None:
    first = "services:\n a:\n  image: one\n  build: ./x\n b: {build: .}\nsecrets: {s: {file: s1}}\n"
    second = (
        "services:\n a:\n  image: two\n  build:\n   args: {A: '1'}\n   secrets: [s]\n   tags: [t:1]\n c: {build: ./c}\n"
        "secrets: {s: {file: s2}}\n"
    )
    third = "services:\n a:\n  build:\n   args: [A=2, B=3]\n   tags: [t:1, t:2]\n   context: ./y\n"
    made = load(tmp_path, first, second, third)
    a = made.wishes[0]
    assert [wish.name for wish in made.wishes] == ["a", "b", "c"]
    assert (a.context, a.args) == (f"{tmp_path}/y", {"A": "2", "B": "3"})
    assert a.secrets == {"s": Secret("s", tmp_path / "s2")}
    assert [tag.familiar for tag in a.tags] == ["t:1", "t:2"]


def test_extends(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "base.yml").write_text(
        "services:\n  base: {extends: root, build: {args: {B: b}}}\n  root: {image: r, build: {context: src, args: {A: a, B: r}}}\n"
    )
    text = """
services:
  one: {extends: {file: other/base.yml, service: base}, build: {args: {C: c}}}
  two: {extends: {service: one}, image: two, build: {context: ./own}}
"""
    one, two = load(tmp_path, text).wishes
    assert (one.context, one.args) == (f"{tmp_path}/other/src", {"A": "a", "B": "b", "C": "c"})
    assert (two.context, two.args, two.tags[0].familiar) == (f"{tmp_path}/own", one.args, "two:latest")


def test_set(tmp_path: Path) -> None:
    made = load(tmp_path, "services: {a: {build: .}, b: {build: .}}", sets=["*.args.X=1", "b.tags=q:1"])
    assert [dict(wish.args) for wish in made.wishes] == [{"X": "1"}] * 2
    assert made.wishes[1].tags[0].familiar == "q:1"
    with pytest.raises(UsageError, match="no target matches 'c'"):
        load(tmp_path, "services: {a: {build: .}}", sets=["c.args.X=1"])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("services:\n  a:\n    build:\n      contxt: .\n", 4, "build has no 'contxt'"),
        ("services:\n  a:\n    build:\n      tags: x\n", 4, "tags is a list"),
        ("services:\n  a:\n    build:\n      context: [x]\n", 4, "context is a text"),
        ("services:\n  a:\n    build:\n      args: x\n", 4, "args is a mapping or a list"),
        ("services:\n  a:\n    build:\n      pull: maybe\n", 4, "pull is true or false"),
        ("services:\n  a:\n    build:\n      tags: ['A:b']\n", 4, "must be lower case"),
        ("services:\n  a:\n    image: 'x:'\n    build: .\n", 3, "is not a tag"),
        ("services:\n  a:\n    build:\n      secrets: [s]\n", 4, "the secret s is not described"),
        ("services:\n  a:\n    build:\n      secrets: [{target: s}]\n", 4, "has no source"),
        ("services:\n  a:\n    build:\n      secrets: [s]\nsecrets: {s: {external: true}}\n", 4, "is external"),
        ("services:\n  a:\n    build:\n      additional_contexts: {x: 'service:b'}\n", 2, "a needs b"),
        ("services:\n  a:\n    build:\n      x-bake:\n        tag: x\n", 5, "x-bake has no 'tag'"),
        ("services:\n  a:\n    build: 'x${'\n", 3, "is not a variable"),
        ("services:\n  a:\n    build: [.]\n", 3, "build is a mapping"),
        ("services:\n  a: x\n", 2, "the service a is a mapping"),
        ("services: x\n", 1, "services is a mapping"),
        ("- x\n", 1, "a compose file is a mapping"),
        ("services:\n  a:\n    extends: b\n", 3, "there is no service b"),
        ("services:\n  a:\n    extends: b\n  b:\n    extends: a\n", 2, "a -> b -> a"),
        ("services:\n  a:\n    extends: {file: no.yml, service: b}\n", 3, "there is no file no.yml"),
        ("services:\n  a:\n    extends: {}\n", 3, "extends names no service"),
        ("services:\n  a.b: {build: .}\n  a_b: {build: .}\n", 3, "two services give"),
        ("services:\n  'a b': {build: .}\n", 2, "is not a name for a service"),
        ("services:\n  a: {\n", 3, "is not YAML"),
        ("include: [x]\n", 1, "include is not supported"),
        ("services:\n  a: &x\n    build: *x\n", 3, ""),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert said in caught.value.message
    assert caught.value.where == f"{tmp_path}/compose.yaml:{line}"


def test_a_file_without_services(tmp_path: Path) -> None:
    assert load(tmp_path, "").wishes == ()
    with pytest.raises(UsageError, match="cannot be read"):
        compose.load([tmp_path / "none.yaml"], environment={})


_WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "b", ".", "${", "${A}", "a=b", "service:a", "type=local"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["build", "a", "b", "extends", "service", "args", "tags", "image", "secrets", "x-bake", "context", "ssh"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_WORDS, _WORDS)
def test_any_document_gives_a_collection_or_an_error(tmp_path: Path, services: object, secrets: object) -> None:
    try:
        load(tmp_path, json.dumps({"services": services, "secrets": secrets}))
    except KilnError as bad:
        assert "compose.yaml" in bad.where


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_any_text_gives_a_collection_or_an_error(tmp_path: Path, text: str) -> None:
    try:
        (tmp_path / ".env").write_text(text, "utf-8", "surrogatepass")
        load(tmp_path, "services: {a: {build: .}}")
    except KilnError:
        pass
    assert "$" in text or fill(text, {}, "f:1") == text
