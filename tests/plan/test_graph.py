"""The graph of stages: what the target needs and nothing else."""

from __future__ import annotations

import pytest

from kiln.dockerfile.parser import parse
from kiln.dockerfile.reading import read
from kiln.errors import DockerfileError, UsageError
from kiln.oci.platform import Platform, local
from kiln.plan.graph import Graph, Origin, make_graph

ARM = Platform("arm64", "linux")


def graph(text: str, target: str = "", platform: Platform | None = None, **args: str) -> Graph:
    """The graph of a Dockerfile."""
    return make_graph(read(parse(text.encode(), "Dockerfile")), target=target, platform=platform, args=args)


MANY = """\
FROM base AS one
FROM scratch AS unused
COPY --from=one /a /a
FROM one AS two
FROM scratch AS three
COPY --from=two / /
RUN --mount=type=bind,from=four,target=/x true
FROM scratch AS last
COPY --from=busybox /bin /bin
"""


@pytest.mark.parametrize(
    ("target", "needed"),
    [
        ("one", [0]),
        ("unused", [0, 1]),
        ("two", [0, 2]),
        ("three", [0, 2, 3]),
        ("last", [4]),
        ("", [4]),
        ("TWO", [0, 2]),
    ],
)
def test_reachable(target: str, needed: list[int]) -> None:
    found = graph(MANY, target)
    assert list(found.vertices) == needed and found.target == needed[-1]


def test_origins() -> None:
    found = graph(MANY, "three").vertices[3]
    assert found.origins == {"two": Origin(stage=2), "four": Origin(name="four")} and found.needs == [2]
    assert graph(MANY, "last").vertices[4].origins == {"busybox": Origin(name="busybox")}
    assert graph(MANY, "one").vertices[0].base == Origin(name="base")


def test_stages_by_number_and_by_name_of_any_case() -> None:
    found = graph("FROM a AS Build\nFROM b\nCOPY --from=0 / /\nCOPY --from=bUILD / /x")
    assert found.vertices[1].origins == {"0": Origin(stage=0), "bUILD": Origin(stage=0)}
    mounts = graph("FROM a\nFROM b\nRUN --mount=from=0,target=/x true")
    assert mounts.vertices[1].origins == {"0": Origin(name="0")}


def test_the_last_stage_of_a_name_before_counts() -> None:
    found = graph("FROM a AS x\nFROM b AS x\nFROM x AS x\nCOPY --from=x / /")
    assert found.target == 2 and found.vertices[2].base == Origin(stage=1)
    assert found.vertices[2].origins["x"] == Origin(stage=1)
    assert graph("FROM x AS x").vertices[0].base == Origin(name="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a AS x\nCOPY --from=x / /", "circular dependency detected on stage: x"),
        ("FROM a AS x\nCOPY --from=y / /\nFROM x AS y\nFROM y", "circular dependency"),
        (
            "FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nFROM x",
            'cannot copy from stage "y", it needs to be defined before',
        ),
        ("FROM a\nCOPY --from=7 / /", "invalid stage index 7"),
        ("FROM a\nCOPY --from=$x / /", "variable expansion is not supported for --from"),
        ("FROM $nothing", "should not be blank"),
        ("FROM --platform=$nothing a", "empty platform value"),
        ("FROM --platform=a/b/c/d a", "is not a platform"),
        ("FROM ${x", "failed to process"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as error:
        graph(text)
    assert error.value.where.startswith("Dockerfile:")


def test_faults_of_stages_that_are_not_needed_do_not_matter() -> None:
    assert list(graph("FROM $nothing AS bad\nCOPY --from=bad / /\nFROM a").vertices) == [1]


@pytest.mark.parametrize("target", ["thre", "0", "nothing"])
def test_unknown_target(target: str) -> None:
    with pytest.raises(UsageError, match=f'target stage "{target}" could not be found') as error:
        graph(MANY, target)
    assert error.value.exit_code == 2
    assert ("three" in error.value.hint) and ("mean" in error.value.hint) == (target == "thre")


def test_arguments_in_from() -> None:
    text = "ARG V=1\nARG N=img:$V\nFROM $N-${TARGETARCH}"
    assert graph(text, platform=ARM).vertices[0].base.name == "img:1-arm64"
    assert graph(text, platform=ARM, V="2").vertices[0].base.name == "img:2-arm64"
    assert graph(text, N="other", TARGETARCH="x").vertices[0].base.name == "other-x"
    assert graph("ARG B=x\nFROM a AS x\nFROM $B").vertices[1].base == Origin(stage=0)
    assert graph("ARG X=1\nFROM a", UNKNOWN="y").global_args.get("UNKNOWN") is None


def test_platforms() -> None:
    text = "FROM --platform=$BUILDPLATFORM a AS tool\nFROM --platform=linux/arm/v7 b AS old\nFROM c\nCOPY --from=tool / /\nCOPY --from=old / /"
    found = graph(text, platform=ARM)
    assert [(vertex.platform, vertex.explicit_platform) for vertex in found.vertices.values()] == [
        (local(), True), (Platform("arm", "linux", "v7"), True), (ARM, False),
    ]  # fmt: skip
    assert found.platform == ARM and graph(text).platform == local()


def test_automatic_arguments() -> None:
    values = graph("FROM a AS Final", platform=Platform("arm", "linux", "v6")).global_args
    assert (values["TARGETPLATFORM"], values["TARGETOS"], values["TARGETARCH"], values["TARGETVARIANT"]) == (
        "linux/arm/v6",
        "linux",
        "arm",
        "v6",
    )
    assert values["BUILDPLATFORM"] == str(local()) and values["TARGETSTAGE"] == "final"
    assert graph("FROM a").global_args["TARGETSTAGE"] == "default"
