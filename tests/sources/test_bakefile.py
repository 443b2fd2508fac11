"""Bake files: targets as buildx gives them, `--set`, and what is said about mistakes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiln.errors import KilnError, UsageError
from kiln.oci.platform import Platform
from kiln.plan.outputs import CachePlace, Output
from kiln.plan.target import Secret
from kiln.sources.buildx import bakefile
from kiln.sources.compose import load as compose
from kiln.sources.wish import Collection, Wish

FILES = Path(__file__).parent / "bake"
# Recorded from buildx 0.29: `bake --print` of the files in that folder.
RECORDED = json.loads((FILES / "recorded.json").read_text())


def shown(wish: Wish, base: Path) -> dict[str, Any]:
    """A wish in the form of the recorded targets."""
    file = os.path.relpath(wish.file, wish.context) if wish.file else "Dockerfile"
    made: dict[str, Any] = {
        "context": os.path.relpath(wish.context, base), "dockerfile": file, "dockerfile-inline": wish.inline,
        "args": dict(wish.args), "labels": dict(wish.labels), "target": wish.target,
        "platforms": [str(platform) for platform in wish.platforms], "tags": [tag.familiar for tag in wish.tags],
        "contexts": {name: os.path.relpath(text, base) if text.startswith("/") else text for name, text in wish.contexts.items()},
        "no-cache": wish.no_cache, "no-cache-filter": sorted(wish.no_cache_stages), "push": wish.push,
        "outs": [output.type for output in wish.outputs],
    }  # fmt: skip
    return {key: value for key, value in made.items() if value}


def expected(target: dict[str, Any]) -> dict[str, Any]:
    """A recorded target without what is not compared, and without what is empty."""
    known = {key: value for key, value in target.items() if key != "description" and value}
    known["contexts"] = {
        name: os.path.normpath(text) if text.startswith(".") else text
        for name, text in known.get("contexts", {}).items()
    }
    return {key: value for key, value in known.items() if value}


@pytest.mark.parametrize(
    "case", RECORDED, ids=lambda case: f"{'+'.join(case['files'])} {case['environment']} {len(case['sets'])}"
)
def test_targets_are_those_of_buildx(case: dict[str, Any]) -> None:
    module = compose if "compose.yaml" in case["files"] else bakefile
    paths = [FILES / name for name in case["files"]]
    made = module.load(paths, environment=case["environment"], sets=case["sets"])
    wishes = {wish.name: shown(wish, FILES) for wish in made.wishes}
    for name, target in case["targets"].items():
        assert wishes[name] == expected(target)


def load(
    tmp_path: Path, text: str, sets: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Collection:
    path = tmp_path / ("docker-bake.json" if text.startswith("{") else "docker-bake.hcl")
    path.write_text(text)
    return bakefile.load([path], environment=environment or {}, sets=sets)


def only(tmp_path: Path, text: str, sets: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Wish:
    (wish,) = load(tmp_path, text, sets, environment).wishes
    return wish


def test_a_whole_target(tmp_path: Path) -> None:
    text = """
target "app" {
  description  = "everything"
  context      = "src"
  dockerfile   = "docker/Dockerfile"
  args         = { A = 1, B = null }
  labels       = { l = true }
  tags         = ["acme/app:1", "", "acme/app:1", "acme/app"]
  target       = "run"
  platforms    = ["linux/arm64/v8", "linux/arm64"]
  cache-from   = ["acme/cache:x", { type = "local", src = "c" }, "type=gha"]
  cache-to     = [{ type = "local", dest = "c", mode = "max" }]
  output       = ["type=registry", "type=local,dest=out", { type = "docker" }, "type=oci,dest=a.tar", "-"]
  secret       = ["id=a,src=b", { id = "c", env = "D" }, "id=HERE", "type=env,id=E"]
  ssh          = ["default", { id = "k", paths = ["a", "/b"] }]
  contexts     = { x = "target:base", y = "./q", z = "docker-image://alpine", e = "", o = "oci-layout://lay:1" }
  no-cache     = true
  no-cache-filter = ["Deps"]
  pull         = true
  network      = "host"
  extra-hosts  = { h = "1.2.3.4" }
  annotations  = ["index:a=b"]
  shm-size     = "64m"
  ulimits      = ["nofile=1:2"]
  entitlements = ["network.host"]
  attest       = [{ type = "provenance", mode = "min" }, "type=sbom,disabled=true"]
  call         = "check"
}
target "base" {}
"""
    made = load(tmp_path, text, environment={"HERE": "1"})
    app, base = made.wishes
    assert (app.name, app.place) == ("app", f"{tmp_path}/docker-bake.hcl:2")
    assert (app.context, app.file) == (f"{tmp_path}/src", f"{tmp_path}/src/docker/Dockerfile")
    assert (app.args, app.labels, app.target) == ({"A": "1"}, {"l": "true"}, "run")
    assert [str(tag) for tag in app.tags] == ["docker.io/acme/app:1", "docker.io/acme/app:latest"]
    assert app.platforms == (Platform("arm64", "linux"),)
    assert app.cache_from == (CachePlace("registry", "acme/cache:x"), CachePlace("local", folder=tmp_path / "c"))
    assert app.cache_to == (CachePlace("local", folder=tmp_path / "c", mode="max"),)
    assert app.push
    assert app.outputs == (
        Output("local", f"{tmp_path}/out"), Output("docker"), Output("oci", f"{tmp_path}/a.tar"), Output("tar", "-"),
    )  # fmt: skip
    assert app.secrets == {
        "a": Secret("a", tmp_path / "b"), "c": Secret("c", env="D"), "HERE": Secret("HERE", env="HERE"), "E": Secret("E", env="E"),
    }  # fmt: skip
    assert app.ssh == {"default": "", "k": f"{tmp_path}/a,/b"}
    assert app.contexts == {
        "x": "target:base", "y": f"{tmp_path}/q", "z": "docker-image://alpine", "o": f"oci-layout://{tmp_path}/lay:1",
    }  # fmt: skip
    assert (app.no_cache, app.no_cache_stages, app.pull, app.network) == (True, frozenset({"deps"}), True, "host")
    assert (app.hosts, app.annotations, app.needs) == (("h:1.2.3.4",), {"index:a": "b"}, ("base",))
    assert [str(tag) for tag in base.tags] == ["docker.io/library/base:latest"]
    assert (base.context, base.file, base.push) == (str(tmp_path), "", False)
    assert [text for _, text in made.warnings] == [
        "app: attestations are not made", "app: call check is not done, the image is built",
        "app: cache-from type=gha is for BuildKit alone and is not used",
    ]  # fmt: skip
    assert made.kind == "bake" and made.root == tmp_path


@pytest.mark.parametrize(
    ("context", "dockerfile", "expected_context", "expected_file"),
    [
        (".", "", "{0}", ""),
        ("a/../b", "D", "{0}/a/../b", "{0}/a/../b/D"),
        ("/abs", "../D", "/abs", "/abs/../D"),
        ("cwd://x", "cwd://D", "{0}/x", "{0}/D"),
        ("x", "/y/D", "{0}/x", "/y/D"),
        ("https://github.com/a/b.git#main", "sub/D", "https://github.com/a/b.git#main", "sub/D"),
        ("git@github.com:a/b.git", "", "git@github.com:a/b.git", ""),
        ("${BAKE_CMD_CONTEXT}", "", "{0}", ""),
    ],
)
def test_paths(tmp_path: Path, context: str, dockerfile: str, expected_context: str, expected_file: str) -> None:
    wish = only(tmp_path, f'target "default" {{\n context = "{context}"\n dockerfile = "{dockerfile}"\n}}')
    assert (wish.context, wish.file) == (expected_context.format(tmp_path), expected_file.format(tmp_path))


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ('target "a" {}\ntarget "b" {}', {}),
        ('target "default" {}\ntarget "b" {}', {"default": ("default",)}),
        ('group "default" { targets = ["g", "a"] }\ngroup "g" { targets = ["b", "a"] }\ntarget "a" {}\ntarget "b" {}',
         {"default": ("b", "a"), "g": ("b", "a")}),
        ('group "a" { targets = ["a", "b"] }\ntarget "a" {}\ntarget "b" {}', {"a": ("a", "b")}),
        ('target "m" {\n matrix = { v = ["1", "2"] }\n name = "m-${v}"\n}', {"m": ("m-1", "m-2")}),
        ('target "m" {\n matrix = { v = ["m"] }\n name = v\n}', {}),
        ('group "default" { targets = [for v in ["a"] : v] }\ntarget "a" {}', {"default": ("a",)}),
    ],
)  # fmt: skip
def test_groups(tmp_path: Path, text: str, groups: dict[str, tuple[str, ...]]) -> None:
    assert load(tmp_path, text).groups == groups


@pytest.mark.parametrize(
    ("default", "environment", "given"),
    [
        ('default = "x"', {"V": "e"}, '"e"'), ("default = 3", {"V": "007"}, "7"), ("default = 3", {"V": "1e3"}, "1000"),
        ("default = true", {"V": "0"}, "false"), ("default = null", {"V": "e"}, '"e"'), ("default = null", {}, "null"),
        ("", {}, '""'), ("", {"V": "e"}, '"e"'), ("type = list(string)", {"V": 'a,"b,c"'}, '["a","b,c"]'),
        ("type = list(number)", {"V": "1,2"}, "[1,2]"), ("type = map(string)", {"V": "a:b,c:d"}, '{"a":"b","c":"d"}'),
        ("type = list(string)", {"V_JSON": '["q"]'}, '["q"]'), ("type = number", {"V": "5"}, "5"),
        ('type = list(string)\ndefault = ["a"]', {}, '["a"]'), ("type = string\ndefault = 1", {}, '"1"'),
        ('type = object({a = string, b = optional(number, 3)})\ndefault = {a = 1}', {}, '{"a":"1","b":3}'),
        ("type = set(string)\ndefault = [\"b\", \"a\", \"b\"]", {}, '["a","b"]'),
    ],
)  # fmt: skip
def test_variables_and_the_environment(tmp_path: Path, default: str, environment: dict[str, str], given: str) -> None:
    text = f'variable "V" {{\n{default}\n}}\ntarget "default" {{\n args = {{ V = jsonencode(V) }}\n}}'
    assert only(tmp_path, text, environment=environment).args == {"V": given}


def test_attributes_at_the_top_are_names_and_defaults(tmp_path: Path) -> None:
    text = 'variable "A" { default = "a" }\nA = "b"\nfoo = "${A}c"\ntarget "default" {\n args = { foo = foo }\n}'
    assert only(tmp_path, text).args == {"foo": "bc"}
    assert only(tmp_path, text, environment={"A": "e", "foo": "no"}).args == {"foo": "ec"}


def test_references_between_blocks(tmp_path: Path) -> None:
    text = """
target "a" {
  args = { T = target.b.tags[0], N = jsonencode(target.b.labels), D = target["b"].args["x"], G = group.g.targets[0] }
  inherits = ["b"]
}
target "b" {
  tags = ["b:1"]
  args = { x = "y" }
}
group "g" { targets = ["b"] }
"""
    assert load(tmp_path, text).wishes[0].args == {"x": "y", "T": "b:1", "N": "null", "D": "y", "G": "b"}


def test_json_files(tmp_path: Path) -> None:
    text = """{
  "//": "a note",
  "variable": {"A": {"default": "x", "validation": [{"condition": "${A != \\"\\"}", "error_message": "empty"}]}},
  "function": {"f": {"params": ["a"], "result": "${upper(a)}"}},
  "g": "v${A}",
  "group": {"default": {"targets": ["t"]}},
  "target": {"t": {"matrix": {"m": ["${A}", "z"]}, "name": "t-${m}", "tags": ["q:${f(A)}-${g}"],
                   "args": {"${A}k": 1, "q": "$${x} 100%", "w": "%{if A == \\"x\\"}y%{endif}"}}}
}"""
    made = load(tmp_path, text)
    assert made.groups == {"default": ("t-x", "t-z"), "t": ("t-x", "t-z")}
    assert made.wishes[0].args == {"xk": "1", "q": "${x} 100%", "w": "y"}
    assert (str(made.wishes[0].tags[0]), made.wishes[0].place) == (
        "docker.io/library/q:X-vx",
        f"{tmp_path}/docker-bake.json:7",
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('target "a" {\n  tgs = ["x"]\n}', 2, "a target has no 'tgs'"),
        ('target "a" {\n  tags = "x"\n}', 2, "tags: a list is needed"),
        ('target "a" {\n  tags = ["A:b"]\n}', 2, "must be lower case"),
        ('target "a" {\n  args = ["A=b"]\n}', 2, "args: an object is needed"),
        ('target "a" {\n\n  pull = "maybe"\n}', 3, "pull: true or false"),
        ('target "a" {\n  platforms = ["x"]\n}', 2, "operating system"),
        ('target "a" {\n  network = "x"\n}', 2, "the network 'x'"),
        ('target "a" {\n  output = ["type=what"]\n}', 2, "unknown type"),
        ('target "a" {\n  secret = ["src=x"]\n}', 2, "the secret"),
        ('target "a" {\n  ssh = [{id = "x", path = "y"}]\n}', 2, "an ssh agent has no 'path'"),
        ('target "a" {\n  args = {\n    A = NOPE\n  }\n}', 3, "there is no variable NOPE"),
        ('variable "NAME" {}\ntarget "a" {\n  args = {A = NAMES}\n}', 3, "there is no variable NAMES"),
        ('target "a" {\n  args = {A = uper("x")}\n}', 2, "there is no function uper"),
        ('target "a" {\n  inherits = ["b"]\n}', 2, "a inherits b, which is no target"),
        ('target "a" {\n  inherits = ["b"]\n}\ntarget "b" {\n  inherits = ["a"]\n}', 2, "a -> b -> a"),
        ('target "a" {\n  contexts = {x = "target:b"}\n}', 1, "a needs b, which is no target"),
        ('target "a" {\n  contexts = {x = "target:a"}\n}', 1, "a -> a"),
        ('a = b\nb = c\nc = a\ntarget "x" {}', 3, "a -> b -> c -> a"),
        ('variable "a" {\n default = a\n}', 2, "a -> a"),
        ('function "f" {\n params = [x]\n result = f(x)\n}\ntarget "a" {\n args = { X = f(1) }\n}', 3, "f() -> f()"),
        ('function "f" {\n params = [x]\n result = x\n}\ntarget "a" {\n args = { X = f() }\n}', 6, "f: 1 values are needed"),
        ('target "a" {\n args = { X = target.a.args.X }\n}', 2, "target.a.args -> target.a.args"),
        ('target "a" {\n args = { X = target.b.args }\n}', 2, "there is no target b"),
        ('group "default" { targets = ["b"] }\ngroup "b" { targets = ["default"] }', 1, "default -> b -> default"),
        ('group "default" { targets = ["ap"] }\ntarget "app" {}', 1, "the group default holds ap, which is no target"),
        ('targte "a" {}', 1, "there is no block targte"),
        ('target {}', 1, "a target has one name"),
        ('target "a.b" {}', 1, "is not a name for a target"),
        ('target "a" {\n name = "b"\n}', 2, "name is for targets with a matrix"),
        ('target "a" {\n matrix = { v = [1, 2] }\n}', 1, "several targets called a"),
        ('target "a" {\n matrix = { v = range(1000), w = range(1000) }\n name = "a${v}"\n}', 2, "more than 1000"),
        ('variable "V" {\n default = "x"\n validation {\n  condition = V == "y"\n  error_message = "V is ${V}"\n }\n}', 4, "V is x"),
        ('variable "V" {\n type = lst(string)\n}', 2, "this is not a type"),
        ('variable "V" {\n type = number\n default = "x"\n}', 3, "a number is needed"),
        ('{"target": {"a": {\n "tgs": []}}}', 2, "a target has no 'tgs'"),
        ('{"target": {"a": {\n "tags": ["${"]}}}', 2, "${ is not ended"),
        ('{"target": [\n1]}', 2, "target is an object"),
        ('{"target": {\n"a": {}', 2, "the file ends too early"),
        ('{"a": 1}\nx', 2, "'x' is not understood"),
        ('{"a": "\x01"}', 1, "not JSON"),
        ("{" + '"a":{' * 200, 1, "nested too deeply"),
        ("{" + '"a":' + "[" * 5000, 1, "nested too deeply"),
        ('{"a": 1e9999}', 1, "too large"),
        ("[]", 1, "not understood"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert said in caught.value.message
    assert caught.value.where.endswith(f":{line}") and "docker-bake." in caught.value.where


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('target "a" {\n  tgs = ["x"]\n}', "Did you mean tags?"),
        ('variable "NAME" { default = "" }\ntarget "a" {\n args = {A = name}\n}', ""),
        ('target "a" {\n args = {A = uper("x")}\n}', "Did you mean upper?"),
        ('target "a" {\n inherits = ["bse"]\n}\ntarget "base" {}', "Did you mean base?"),
        ('group "default" { targets = ["ap"] }\ntarget "app" {}', "Did you mean app?"),
    ],
)
def test_mistyped_words_are_offered(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert caught.value.hint == hint


def test_what_nobody_needs_is_left_out_with_a_warning(tmp_path: Path) -> None:
    text = """
variable "TAG" {}
group "default" { targets = ["app"] }
group "all" { targets = ["app", "release"] }
group "gone" { targets = ["nope"] }
target "app" {}
target "release" { tags = ["acme/app:${TAG}"] }
target "after" {
  contexts = { x = "target:release" }
}
"""
    made = load(tmp_path, text)
    assert [wish.name for wish in made.wishes] == ["app"]
    assert made.groups == {"default": ("app",)}
    assert [text.split(":")[0] for _, text in made.warnings] == [
        "the target release is left out", "the target after is left out", "the group gone is left out", "the group all is left out",
    ]  # fmt: skip
    assert made.warnings[0][0].endswith("docker-bake.hcl:7")
    everything = load(tmp_path, text, environment={"TAG": "1"})
    assert [wish.name for wish in everything.wishes] == ["app", "release", "after"]


BASE = 'target "app" {\n tags = ["a:1"]\n args = { A = "1" }\n output = ["type=docker"]\n}\ntarget "app2" {\n inherits = ["app"]\n}\ntarget "web" {}'


@pytest.mark.parametrize(
    ("sets", "name", "field", "given"),
    [
        (["app.args.A=2"], "app", "args", {"A": "2"}),
        (["app.args.A=2"], "app2", "args", {"A": "2"}),
        (["app2.args.B.c=x=y"], "app2", "args", {"A": "1", "B.c": "x=y"}),
        (["*.args.FROM_ENV"], "web", "args", {"FROM_ENV": "e"}),
        (["*.args.NOT_SET"], "web", "args", {}),
        (["app*.target=run"], "app2", "target", "run"),
        (["app*.target=run"], "web", "target", ""),
        (["*.no-cache=true"], "web", "no_cache", True),
        (["*.pull=1"], "web", "pull", True),
        (["*.platform=linux/amd64", "*.platform=linux/s390x"], "web", "platforms", (Platform("amd64", "linux"), Platform("s390x", "linux"))),
        (["app.push=true"], "app", "push", True),
        (["web.push=true"], "web", "push", True),
        (["web.output=type=image,push=true"], "web", "push", True),
        (["web.output=type=registry", "web.push=false"], "web", "push", False),
        (["web.load=true"], "web", "outputs", (Output("docker"),)),
        (["app.load=true"], "app", "outputs", (Output("docker"),)),
        (["app.output="], "app", "outputs", ()),
        (["web.labels.a.b=c"], "web", "labels", {"a.b": "c"}),
        (["web.contexts.x=target:app"], "web", "needs", ("app",)),
        (["web.no-cache-filter=a"], "web", "no_cache_stages", frozenset({"a"})),
        (["web.annotations=a=b"], "web", "annotations", {"a": "b"}),
        (["web.secrets=id=x,env=Y"], "web", "secrets", {"x": Secret("x", env="Y")}),
        (["web.ssh=default"], "web", "ssh", {"default": ""}),
        (["web.extra-hosts.h=::1"], "web", "hosts", ("h:::1",)),
        (["web.network=none"], "web", "network", "none"),
        (["web.cache-from=a/b"], "web", "cache_from", (CachePlace("registry", "a/b"),)),
        (["web.entitlements=network.host"], "web", "network", "default"),
    ],
)  # fmt: skip
def test_set(tmp_path: Path, sets: list[str], name: str, field: str, given: object) -> None:
    wishes = {wish.name: wish for wish in load(tmp_path, BASE, sets, {"FROM_ENV": "e"}).wishes}
    assert getattr(wishes[name], field) == given


@pytest.mark.parametrize(
    ("sets", "tags"),
    [
        (["app.tags=b"], ["b:latest"]),
        (["app.tags+=b"], ["a:1", "b:latest"]),
        (["app.tags=b", "app.tags=c:2"], ["b:latest", "c:2"]),
    ],
)
def test_set_tags(tmp_path: Path, sets: list[str], tags: list[str]) -> None:
    assert [tag.familiar for tag in load(tmp_path, BASE, sets).wishes[0].tags] == tags


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nope.tags=x", "no target matches 'nope'"), ("x*.tags=x", "no target matches"), ("app=x", "not understood"),
        ("app.tag=x", "a target has no key 'tag'"), ("app.args=x", "not understood"), ("app.tags.x=y", "not understood"),
        ("app.tags", "the value is missing"), ("app.pull=maybe", "must be true or false"), ("", "not understood"),
        ("=", "not understood"), ("*.platform=x", "operating system"),
    ],
)  # fmt: skip
def test_set_mistakes(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, BASE, [text])
    assert said in caught.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        bakefile.load([tmp_path / "none.hcl"], environment={})
    (tmp_path / "b.hcl").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        bakefile.load([tmp_path / "b.hcl"], environment={})


def test_long_chains_do_not_overflow(tmp_path: Path) -> None:
    text = "".join(f"v{n} = v{n + 1}\n" for n in range(3000)) + "v3000 = 1\n"
    with pytest.raises(KilnError, match="too deeply"):
        load(tmp_path, text)
    targets = "".join(f'target "t{n}" {{\n inherits = ["t{n + 1}"]\n}}\n' for n in range(1500)) + 'target "t1500" {}\n'
    with pytest.raises(KilnError, match="too deeply"):
        load(tmp_path, targets)


_WORDS = st.sampled_from(
    ['target "a" {', 'target "b" {', 'group "default" {', 'variable "V" {', 'function "f" {', "}", "\n", "matrix = {v = [1]}",
     'name = "x${v}"', 'inherits = ["a"]', 'inherits = ["b"]', 'targets = ["a", "default"]', "default = V", "default = 1",
     "type = list(string)", "params = [a]", "result = f(a)", 'tags = ["${V}"]', "args = {A = f(1)}", "args = target.b.args",
     'output = ["type=local"]', 'secret = [{}]', "ssh = [null]", "context = null", "validation {", "condition = false", "V = a", "a = V"]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_WORDS, max_size=14).map("\n".join))
def test_any_file_gives_a_collection_or_an_error(tmp_path: Path, text: str) -> None:
    try:
        load(tmp_path, text)
    except KilnError as bad:
        assert "docker-bake.hcl" in bad.where


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "${V}", "${", "%{if", "b", "x:1", "type=local"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["target", "group", "variable", "a", "default", "tags", "args", "matrix", "targets", "name"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_JSON)
def test_any_json_gives_a_collection_or_an_error(tmp_path: Path, document: object) -> None:
    try:
        load(tmp_path, json.dumps({"target": document, "x": document}))
    except KilnError as bad:
        assert "docker-bake.json" in bad.where
