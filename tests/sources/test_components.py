"""Component trees as they are read: names, variants, needs, aliases, the configuration, and what is wrong with them."""

from __future__ import annotations

import pytest

from kiln.errors import KilnError, PlanError, UsageError
from kiln.sources.componentconfig import read_destination
from kiln.sources.components import image_name, is_tree, load, read_dependencies, with_images
from kiln.sources.wish import Destination


@pytest.fixture
def tree(tmp_path):
    """Makes a tree of files: path -> text."""

    def make(files):
        for path, text in files.items():
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return tmp_path

    return make


def images(*names, **more):
    return {
        f"src/{name.partition('/')[0]}/build/{name.partition('/')[2]}.dockerfile": "FROM scratch\n" for name in names
    } | more


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("rest-server.dockerfile", "rest-server"),
        ("rest-server.common.dockerfile", "rest-server"),
        ("rest-server.k8s.dockerfile", "rest-server"),
        ("a.b.c.dockerfile", "a"),
    ],
)
def test_image_names(file, name):
    assert image_name(file) == name


@pytest.mark.parametrize(
    ("variant", "names"),
    [("k8s", {"a", "b", "c"}), ("yarn", {"b", "c", "d"}), ("other", {"b", "c"}), ("all", {"a", "b", "c", "d"}), ("", {"a", "b", "c", "d"})],
)  # fmt: skip
def test_variants(variant, names, tree):
    root = tree(images("x/a.k8s", "x/b.common", "x/c", "x/d.yarn"))
    assert {wish.name for wish in load(root, variant=variant).wishes} == names


def test_wishes(tree):
    root = tree(images("x/a", "x/b", "y/c") | {"src/y/build/component.dep": "x\n", "src/z/file": ""})
    found = {wish.name: wish for wish in load(root).wishes}
    assert found["c"].needs == ("a", "b") and found["a"].needs == ()
    assert found["c"].context == str(root / "src/y") and found["c"].place == "src/y/build/c.dockerfile"
    assert [str(name) for name in found["c"].tags] == ["docker.io/library/c:latest"] and found["c"].component == "y"


def test_both_names_of_dependency_files(tree):
    """Comments, blank lines, spaces, line ends of Windows, a byte order mark; the same twice."""
    root = tree(
        images("a/a", "b/b", "c/c")
        | {"src/c/build/component.dep": "\ufeff# all\r\n\r\n  a # one\r\na\n", "src/c/build/components.dep": "b"}
    )
    found = load(root)
    assert found.hooks["c"].needs == ("a", "b")
    assert read_dependencies(root / "src/c/build/component.dep") == [
        ("a", f"{root}/src/c/build/component.dep:3"), ("a", f"{root}/src/c/build/component.dep:4")
    ]  # fmt: skip


def test_needs_through_components_without_images(tree):
    """And many ways to one component take no longer than one."""
    files = {
        f"src/n{number:02}/build/component.dep": "".join(f"n{low:02}\n" for low in range(number))
        for number in range(1, 40)
    }
    root = tree(files | images("n00/first", "last/last") | {"src/last/build/component.dep": "n39\n"})
    found = load(root)
    assert next(wish for wish in found.wishes if wish.name == "last").needs == ("first",)
    assert "n05" not in found.aliases


def test_hooks(tree):
    root = tree(
        images("a/a")
        | {"src/a/build/build-pre.sh": "", "src/b/build/build-post.sh": "", "src/c/build/build-pre.sh/f": ""}
    )
    hooks = load(root).hooks
    assert hooks["a"].pre == root / "src/a/build/build-pre.sh" and hooks["a"].post is None
    assert hooks["b"].post == root / "src/b/build/build-post.sh" and hooks["c"].pre is None


def test_names_of_components_and_images(tree):
    aliases = load(tree(images("a/a", "a/a2", "b/a3", "a3/c"))).aliases
    assert (
        aliases["a"] == ("a", "a2")
        and aliases["b"] == ("a3",)
        and aliases["a3"] == ("a3", "c")
        and aliases["a2"] == ("a2",)
    )


@pytest.mark.parametrize(
    ("files", "kind", "message", "where", "hint"),
    [
        ({"src/a/build/component.dep": "# x\nhostt\n", "src/host/f": ""}, PlanError, "needs 'hostt'", "src/a/build/component.dep:2", "host"),
        ({"src/a/build/component.dep": "b", "src/b/build/component.dep": "c", "src/c/build/component.dep": "\nb"}, PlanError,
         "in a circle: b -> c -> b", "src/c/build/component.dep:2", "away"),
        ({"src/a/build/component.dep": "a"}, PlanError, "in a circle: a -> a", "src/a/build/component.dep:1", "away"),
        (images("a/x", "b/x.common"), PlanError, "made twice: by src/a/build/x.dockerfile and by src/b/build/x.common.dockerfile",
         "src/b/build/x.common.dockerfile", "--variant"),
        (images("a/Upper"), UsageError, "lower", "src/a/build/Upper.dockerfile", "name of its file"),
    ],
)  # fmt: skip
def test_wrong_trees(files, kind, message, where, hint, tree):
    with pytest.raises(KilnError) as caught:
        load(tree(files))
    assert isinstance(caught.value, kind) and message in caught.value.message
    assert caught.value.where == where and hint in caught.value.hint


def test_what_is_no_tree(tree, tmp_path):
    assert not is_tree(tmp_path) and not is_tree(
        tree({"src/a/x.dockerfile": "", "src/x/build/deeper/y.dockerfile": ""})
    )
    assert is_tree(tree(images("a/a")))
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "nothing")


def test_dependency_files_that_are_no_text(tree):
    root = tree(images("a/a"))
    (root / "src/a/build/component.dep").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        load(root)


def test_names_that_are_no_text(tree):
    root = tree(images("a/a", "caf\udce9/b"))
    with pytest.raises(UsageError, match="UTF-8") as caught:
        load(root)
    assert caught.value.where.endswith(r"src/caf\xe9")


def test_components_that_stand_on_images_of_others(tree):
    """They see those components, but never in a circle."""
    found = load(tree(images("a/a", "b/b", "b/b2", "c/c") | {"src/c/build/component.dep": "a"}))
    linked = with_images(found, {"a": ["b"], "b2": ["a"], "c": ["a", "c", "elsewhere"]}).hooks
    assert linked["a"].needs == ("b",) and linked["a"].bases == {"b"}
    assert linked["b"].needs == () and linked["c"].needs == ("a",) and linked["c"].bases == frozenset()


SERVICES = "cluster:\n  docker-registry:\n    namespace: {0}\n    domain: {1}\n    tag: {2}\n    username: {3}\n    password: {4}\n"
LEGACY = "docker-registry-info:\n  docker-namespace: {0}\n  docker-registry-domain: {1}\n  docker-tag: {2}\n  docker-username: {3}\n  docker-password: {4}\n"


@pytest.mark.parametrize("legacy", [False, True, "nested"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("pai", "reg.example:5000", "1.10", "me", "'007'"), Destination("reg.example:5000/pai", "1.10", "me", "007")),
        (("pai", "public", "0x1F", "~", ""), Destination("pai", "0x1F")),
        (("/pai/", "https://reg.example/", "v1", "yes", "no"), Destination("reg.example/pai", "v1", "yes", "no")),
        (("", "reg.example", "", "", ""), Destination("reg.example")),
    ],
)
def test_configurations(given, expected, legacy, tmp_path):
    text = (LEGACY if legacy else SERVICES).format(*given)
    if legacy == "nested":
        text = "cluster:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    (tmp_path / ("cluster-configuration.yaml" if legacy else "services-configuration.yaml")).write_text(text)
    assert read_destination(tmp_path) == expected


def test_the_legacy_configuration_wins(tmp_path):
    (tmp_path / "services-configuration.yaml").write_text(SERVICES.format("new", "public", "1", "", ""))
    (tmp_path / "cluster-configuration.yaml").write_text(LEGACY.format("old", "public", "1", "", ""))
    assert read_destination(tmp_path).prefix == "old"
    (tmp_path / "cluster-configuration.yaml").write_text("machines: []\n")
    assert read_destination(tmp_path).prefix == "new"


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("cluster:\n  docker-registry:\n    tag: [1]\n", "tag must be a text", ":3"),
        ("cluster:\n  docker-registry:\n    tag: 'a b'\n", "cannot be named", ":3"),
        ("cluster:\n  docker-registry:\n    password: 'geheim\n    tag: 1\n", "is not YAML", ""),
        ("other: 1\n", "nobody knows where images go", ""),
    ],
)
def test_wrong_configurations(text, message, place, tmp_path):
    (tmp_path / "services-configuration.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_destination(tmp_path)
    assert message in caught.value.message and caught.value.where.endswith(place)
    assert "geheim" not in f"{caught.value}{caught.value.detail}{caught.value.hint}"


def test_a_password_is_in_no_representation():
    assert "geheim" not in repr(Destination("a", "b", "c", "geheim"))
