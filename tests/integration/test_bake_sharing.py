"""What machines share through a registry: results, decisions, no secrets; and registries that move, lose and fail."""

import subprocess
from dataclasses import replace

import pytest

from tests.integration.bakes import WEB, bake, manifest, planned, tags, tree, uploads
from tests.services import ask

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path):
    return tree(tmp_path / "tree", WEB)


@pytest.fixture
def prefix(registry, tmp_path):
    """A namespace of the registry that only this test uses."""
    return f"{registry.host}/{tmp_path.name.lower().replace('_', '-')}"


def repository(prefix, name):
    return f"{prefix.partition('/')[2]}/{name}"


def push_base(kiln, name, content, tmp_path):
    """Another image under a name of a registry; returns its digest."""
    context = tree(tmp_path / f"base-{content}", {"Dockerfile": "FROM base\nCOPY x /x\n", "x": content})
    kiln.build(context, "-t", name, "--push")
    return kiln.digest(name)


def test_a_base_that_moved(kiln, new_kiln, tmp_path, prefix):
    """Only --pull asks for it; the words are the issue's."""
    name, other = f"{prefix}/debian:bookworm", new_kiln("other")
    old = push_base(other, name, "1", tmp_path)
    place = tree(
        tmp_path / "moved", {"kiln.yml": "images: [{id: app}]\n", "Dockerfile": f"FROM {name}\nCOPY Dockerfile /\n"}
    )
    assert bake(kiln, place).results == {"app": "built"}
    new = push_base(other, name, "2", tmp_path)
    assert planned(kiln, place)["app"]["decision"] == "skip"
    node = planned(kiln, place, "--pull")["app"]
    assert node["reason"] == f"base `{name}` moved from {old[:19]} to {new[:19]}"
    assert bake(kiln, place, "--pull").results == {"app": "built"}
    assert kiln.files("app")["x"] == other.files(name)["x"]
    assert bake(kiln, place, "--pull").results == {"app": "skipped"}


def test_pushed_once(kiln, place, prefix, registry):
    first = bake(kiln, place, "--push", "--registry", prefix)
    assert all(row["pushed"] for row in first.rows.values())
    assert {tag[:5] for tag in tags(registry, repository(prefix, "web"))} == {"lates", "kiln-"}
    before = uploads(registry)
    again = bake(kiln, place, "--push", "--registry", prefix)
    assert set(again.results.values()) == {"skipped"} and uploads(registry) == before
    assert again.reason("web") == "unchanged, and the registry has it"


def test_a_fresh_machine(kiln, new_kiln, place, prefix, registry):
    """It shares nothing but the registry: nothing is built, nothing is pushed, nothing is even fetched."""
    first = bake(kiln, place, "--push", "--registry", prefix)
    fresh, before = new_kiln("fresh"), uploads(registry)
    assert {node["reason"] for node in planned(fresh, place, "--push", "--registry", prefix).values()} == {
        "unchanged: the registry has it"
    }
    again = bake(fresh, place, "--push", "--registry", prefix)
    assert set(again.results.values()) == {"skipped"} and again.digests == first.digests
    assert uploads(registry) == before and first.digests["web"].partition(":")[2] not in fresh.blobs()


def test_a_fresh_machine_builds_on_what_the_registry_has(kiln, new_kiln, place, prefix):
    """One leaf changed: it alone is built, on a base that is fetched; the reason is the change, not "never built"."""
    first = bake(kiln, place, "--push", "--registry", prefix)
    fresh = new_kiln("fresh")
    (place / "web/src/app.py").write_text("other\n")
    done = bake(fresh, place, "--push", "--registry", prefix)
    assert done.results == {"lib": "skipped", "tool": "skipped", "web": "built"}
    assert done.reason("web") == "`web/src/app.py` changed"
    assert done.digests["lib"] == first.digests["lib"] and fresh.damaged() == []
    assert bake(kiln, place, "--push", "--registry", prefix).digests == done.digests


def test_a_fresh_machine_pulls_where_names_are_missing(kiln, new_kiln, place, prefix, registry):
    """The registry has the images of these inputs under other names: they are not made, but named."""
    first = bake(kiln, place, "--push", "--registry", prefix, "--tag", "1")
    done = bake(new_kiln("fresh"), place, "--push", "--registry", prefix, "--tag", "2")
    assert set(done.results.values()) == {"pulled"} and done.digests == first.digests
    assert "made elsewhere from the same inputs" in done.reason("web") and "2" in tags(
        registry, repository(prefix, "web")
    )


def test_a_result_deleted_from_the_registry(kiln, place, prefix, registry):
    first = bake(kiln, place, "--push", "--registry", prefix)
    name = repository(prefix, "web")
    assert ask(registry.host, "DELETE", f"/v2/{name}/manifests/{first.digests['web']}")[0] == 202
    node = planned(kiln, place, "--push", "--registry", prefix)["web"]
    assert (
        node["decision"] == "build" and node["reason"] == f"its result is missing in the registry ({prefix}/web:latest)"
    )
    done = bake(kiln, place, "--push", "--registry", prefix)
    assert done.results == {"lib": "skipped", "tool": "skipped", "web": "pushed"} and done.ran == 0
    assert "layers" in manifest(registry, name, "latest")


def test_a_record_whose_image_is_gone(kiln, new_kiln, place, prefix, registry):
    """A fresh machine finds the record of what was deleted: it builds."""
    first = bake(kiln, place, "--push", "--registry", prefix)
    name = repository(prefix, "web")
    assert ask(registry.host, "DELETE", f"/v2/{name}/manifests/{first.digests['web']}")[0] == 202
    done = bake(new_kiln("fresh"), place, "--push", "--registry", prefix)
    assert done.results["web"] == "built" and done.digests == first.digests
    assert "layers" in manifest(registry, name, "latest")


def test_a_tag_that_somebody_else_took(kiln, new_kiln, place, prefix, tmp_path, registry):
    first = bake(kiln, place, "--push", "--registry", prefix)
    other = push_base(new_kiln("other"), f"{prefix}/web:latest", "other", tmp_path)
    node = planned(kiln, place, "--push", "--registry", prefix)["web"]
    assert node["reason"] == f"{prefix}/web:latest is another image there ({other[:19]})"
    assert bake(kiln, place, "--push", "--registry", prefix).results["web"] == "pushed"
    again = bake(new_kiln("fresh"), place, "--push", "--registry", prefix)
    assert set(again.results.values()) == {"skipped"} and again.digests == first.digests


def test_a_registry_that_is_only_named_may_be_away(kiln, place):
    """Nothing is pushed, so nothing fails."""
    assert set(bake(kiln, place, "--registry", "127.0.0.1:1/team").results.values()) == {"built"}


def test_a_registry_that_cannot_be_reached(kiln, place):
    done = bake(kiln, place, "--push", "--registry", "127.0.0.1:1/team", code=1)
    assert done.rows == {} and "the registry 127.0.0.1:1 cannot be used, so nothing was built" in done.ended.err


def test_secrets_stay_here(kiln, place, prefix, registry, tmp_path):
    """Not in keys, records, layers or logs; a new value is no change, as a secret is not to be in the image."""
    secret = "hunter2-of-this-test"
    (tmp_path / "token").write_text(secret)
    tree(
        place,
        {
            "kiln.yml": "images:\n  - {id: app, context: app, push: true, secrets: ['id=token,src=../token', 'id=env,env=S']}\n",
            "app/Dockerfile": "FROM base\nRUN --mount=type=secret,id=token --mount=type=secret,id=env,env=S "
            "test -s /run/secrets/token && test -n \"$S\"\n",
        },
    )  # fmt: skip
    done = bake(kiln_with(kiln, S=secret + "-env"), place, "--registry", prefix)
    assert done.results == {"app": "built"} and secret not in done.ended.text
    (tmp_path / "token").write_text(secret + "-other")
    assert bake(kiln_with(kiln, S="x"), place, "--registry", prefix).results == {"app": "skipped"}
    found = subprocess.run(
        ["grep", "-rlF", secret, kiln.store, registry.folder / "data"], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
    (tmp_path / "token").unlink()


def kiln_with(kiln, **env):
    return replace(kiln, env={**kiln.env, **env})
