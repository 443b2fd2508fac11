"""References, platforms, digests, documents."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.errors import KilnError, UsageError
from kiln.oci import digest, image, platform, reference


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("127.0.0.1:5000/team/app", "127.0.0.1:5000/team/app:latest", "127.0.0.1:5000/team/app:latest"),
        ("localhost/a:1", "localhost/a:1", "localhost/a:1"),
        ("index.docker.io/a", "docker.io/library/a:latest", "a:latest"),
        ("h.example/a/b_c/d--e:V1", "h.example/a/b_c/d--e:V1", "h.example/a/b_c/d--e:V1"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
    ],
)
def test_reference(text: str, full: str, familiar: str) -> None:
    found = reference.parse(text).with_default_tag()
    assert (str(found), found.familiar) == (full, familiar)


def test_a_digest_needs_no_tag() -> None:
    found = reference.parse("a@sha256:" + "0" * 64).with_default_tag()
    assert (found.tag, found.digest) == ("", "sha256:" + "0" * 64)


@pytest.mark.parametrize(
    "text",
    ["", "A", "a/B:1", "a:", "a:b c", "a@sha256:12", "-a", "a//b", "a/", ":1", "h:5000:1/a", "a" * 300, "0" * 64],
)
def test_bad_references_are_usage_errors_that_name_the_text(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        reference.parse(text)
    assert repr(text)[:20] in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.text(max_size=30))
def test_what_parses_is_written_the_same_again(text: str) -> None:
    try:
        found = reference.parse(text)
    except UsageError:
        return
    assert reference.parse(str(found)) == found
    assert reference.parse(found.familiar) == found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("Linux/AMD64", "linux/amd64"),
    ],
)
def test_platform(text: str, wanted: str) -> None:
    assert str(platform.parse(text)) == wanted


@pytest.mark.parametrize("text", ["", "a/b/c/d", "nope", "linux/", "linux/a b"])
def test_bad_platform(text: str) -> None:
    with pytest.raises(UsageError):
        platform.parse(text)


def test_older_arm_variants_serve_newer_machines_but_not_the_other_way() -> None:
    v6, v7 = platform.parse("linux/arm/v6"), platform.parse("linux/arm/v7")
    assert platform.matches(v7, v6)
    assert not platform.matches(v6, v7)


def test_chain_id_is_that_of_the_specification() -> None:
    one, two = digest.sha256(b"1"), digest.sha256(b"2")
    assert digest.chain_id((one,)) == one
    assert digest.chain_id((one, two)) == digest.sha256(f"{one} {two}".encode())


def test_config_survives_nulls_and_unknown_members() -> None:
    data = {"architecture": "amd64", "os": "linux", "config": {"Cmd": None, "Env": ["A=1"]}, "history": None, "docker_version": "1",
            "rootfs": {"type": "layers", "diff_ids": []}}  # fmt: skip
    found = image.parse_config(json.dumps(data).encode(), "x")
    assert found.config.env == ["A=1"]
    assert "docker_version" not in json.loads(image.encode(found))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"schemaVersion":1}',
        b'{"config":{"mediaType":"x","digest":"sha256:1","size":1},"layers":[]}',
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(KilnError, match="not an image manifest"):
        image.parse_manifest(data, "somewhere")
