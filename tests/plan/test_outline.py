"""What a Dockerfile takes from outside, read without building: nothing that counts may be left out."""

from __future__ import annotations

import pytest

from kiln.dockerfile.parser import parse
from kiln.dockerfile.reading import read
from kiln.errors import DockerfileError
from kiln.oci.platform import Platform
from kiln.plan.graph import make_graph
from kiln.plan.outline import Outline, merged, outline


def outlined(text: str, target: str = "", folders: tuple[str, ...] = (), **args: str) -> Outline:
    program = read(parse(text.encode(), "Dockerfile"))
    return outline(program, make_graph(program, target=target, platform=None, args=args), args, frozenset(folders))


def taken(found: Outline) -> list[tuple[str, ...]]:
    """(context, sources or the path with a slash before it) of each take."""
    return [(take.context, *(take.copy.sources if take.copy else (f"/{take.path}",))) for take in found.takes]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("FROM a\nFROM b", ["b"]),
        ("FROM a AS x\nFROM x\nCOPY --from=c / /", ["a", "c"]),
        ("FROM scratch\nCOPY --from=a / /\nCOPY --from=a / /y", ["a"]),
        ("FROM a AS one\nFROM b\nCOPY --from=0 / /", ["b", "a"]),
        ("FROM a\nRUN --mount=type=bind,from=b,target=/x true", ["a", "b"]),
        ("FROM a\nRUN --mount=type=cache,from=c,target=/x true\nRUN --mount=type=cache,target=/y true", ["a", "c"]),
        ("ARG V=1\nFROM a:$V", ["a:1"]),
        ("FROM scratch", []),
    ],
)
def test_images(text: str, images: list[str]) -> None:
    assert sorted(outlined(text).images) == sorted(images)


def test_only_the_stages_that_count() -> None:
    text = "FROM a AS one\nCOPY one /\nFROM b AS two\nCOPY two /\nFROM c AS three\nCOPY --from=one / /\n"
    assert taken(outlined(text, "three")) == [("", "one")] and taken(outlined(text, "two")) == [("", "two")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("COPY a b /", [("", "a", "b")]),
        ("COPY <<X /x\nhello\nX", []),
        ("COPY a <<X /x/\nhello\nX", [("", "a")]),
        ("ADD https://h/x a /", [("", "a")]),
        ("RUN --mount=type=bind,source=src,target=/x true", [("", "/src")]),
        ("RUN --mount=type=bind,target=/x true", [("", "/")]),
        ("RUN --mount=type=tmpfs,target=/x --mount=type=secret,id=a true", []),
        ("COPY --from=data x /", [("data", "x")]),
        ("RUN --mount=type=bind,from=data,source=y,target=/x true", [("data", "/y")]),
        ("ARG A=dir\nCOPY ${A}/x /", [("", "dir/x")]),
        ("ENV A=dir\nENV B=$A/b\nCOPY $B /", [("", "dir/b")]),
        ("COPY $UNKNOWN /", [("", "/")]),
        ("COPY $UNKNOWN x /", [("", "/")]),
        ("ARG A=${UNKNOWN}/x\nCOPY $A /", [("", "/")]),
        ("ENV A=${UNKNOWN}/x\nCOPY $A y /", [("", "/")]),
        ('COPY ["a b", "/"]', [("", "a b")]),
    ],
)  # fmt: skip
def test_takes(lines: str, expected: list[tuple[str, ...]]) -> None:
    """A variable that only the base can set makes the whole context count."""
    assert taken(outlined(f"FROM base\n{lines}\n", folders=("data",))) == expected


def test_a_folder_as_a_base() -> None:
    found = outlined("FROM data\nCOPY x /", folders=("data",))
    assert found.images == [] and taken(found) == [("data", "/"), ("", "x")]


def test_arguments() -> None:
    found = outlined("ARG G=1\nFROM base AS one\nARG A B=2\nFROM base\nARG C\n")
    assert found.arguments == {"G", "C"}
    assert outlined("FROM base\nARG A=x\nCOPY $A /", A="y").takes[0].copy.sources == ("y",)  # type: ignore[union-attr]
    assert outlined("ARG A=g\nFROM base\nARG A\nCOPY $A /").takes[0].copy.sources == ("g",)  # type: ignore[union-attr]


def test_remotes() -> None:
    found = outlined(
        "FROM base\nADD --checksum=sha256:" + "a" * 64 + " https://h/x /\nADD https://h/r.git#main /\nADD git@h:r /\n"
    )
    assert found.remotes == [("https://h/x", "sha256:" + "a" * 64), ("https://h/r.git#main", ""), ("git@h:r", "")]
    assert found.takes == []


def test_triggers() -> None:
    """Of the result they are for others; of a stage they fire here, and nobody knows what they take."""
    assert outlined("FROM base\nONBUILD COPY . /").triggers
    found = outlined("FROM base AS one\nONBUILD COPY . /\nFROM one")
    assert found.fires and not found.triggers
    assert not outlined("FROM base AS one\nONBUILD COPY . /\nFROM base").fires


def test_a_word_that_cannot_be_expanded() -> None:
    with pytest.raises(DockerfileError, match="Dockerfile:2"):
        outlined("FROM scratch\nCOPY ${A:?missing} /\n")
    assert taken(outlined("FROM base\nCOPY ${A:?missing} /\n")) == [("", "/")], "the base may set it"


def test_runs() -> None:
    assert outlined("FROM a\nRUN true").runs and not outlined("FROM a\nCOPY b /").runs


def test_arg_wins_over_env() -> None:
    """Also over that of a base, as recorded from BuildKit (tests/conformance/cases/args.yml)."""
    assert taken(outlined("FROM base\nENV D=b\nARG D=a\nCOPY $D /")) == [("", "a")]
    assert taken(outlined("FROM base\nENV D=b\nARG D\nCOPY $D /")) == [("", "b")]
    assert taken(outlined("FROM base\nARG D\nCOPY $D /")) == [("", "/")], "the base may set it"


def test_all_platforms_count() -> None:
    program = read(parse(b"FROM base\nARG TARGETARCH\nCOPY bin-$TARGETARCH /\n", "Dockerfile"))
    both = [
        outline(program, make_graph(program, target="", platform=Platform(name, "linux"), args={}), {})
        for name in ("amd64", "arm64")
    ]
    assert taken(merged(both)) == [("", "bin-amd64"), ("", "bin-arm64")]
