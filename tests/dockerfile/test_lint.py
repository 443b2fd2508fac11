"""The checks against what BuildKit was recorded to find, and what the recordings cannot show."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

from kiln.dockerfile import parser, reading
from kiln.dockerfile.instructions import Program
from kiln.dockerfile.lint import Finding, lint, refuse, review
from kiln.dockerfile.lintrules import RULES
from kiln.dockerfile.lintsuggest import suggestion
from kiln.dockerfile.patterns import Matcher, read_ignore_file
from kiln.errors import DockerfileError, KilnError
from kiln.oci.platform import local
from kiln.plan.graph import make_graph, predefined_args

IMAGES = {"lint.test/env:1": {"GOPATH": "/go", "PATH": "/go/bin:/bin"}, "lint.test/plain:1": {}}


@lru_cache(maxsize=1)
def cases() -> dict[str, dict]:
    """The recorded cases by name."""
    return yaml.load(Path(__file__).with_name("lint_cases.yml").read_text(), yaml.CSafeLoader)


@dataclass
class Outcome:
    """What a check came to: findings as the cases write them, and the message of the error that ended it."""

    findings: list[list] = field(default_factory=list)
    error: str = ""


def read(text: str) -> Program:
    return reading.read(parser.parse(text.encode(), "Dockerfile"))


def find(text: str, **options: object) -> list[Finding]:
    given = {"args": {}, "automatic": predefined_args(local(), local(), ""), "env_of": IMAGES.get, **options}
    return lint(read(text), **given)


def row(finding: Finding) -> list:
    start, end = finding.place.start, finding.place.end
    return [finding.rule, start if start == end else f"{start}-{end}", finding.message]


def outcome(case: dict) -> Outcome:
    result = Outcome()
    args, target = case.get("args", {}), case.get("target", "")
    try:
        program = read(case["dockerfile"])
        stages = make_graph(program, target=target, platform=None, args=args).vertices if target else None
        ignore = Matcher(read_ignore_file(case.get("ignore", "")))
        found = find(case["dockerfile"], args=args, ignore=ignore, stages=stages)
        result.findings = [row(finding) for finding in found]
        refuse(program, args, found)
        make_graph(program, target=target, platform=None, args=args)
    except KilnError as bad:
        result.error = bad.message
    return result


def rows(text: str, **options: object) -> list[list]:
    return [row(finding) for finding in find(text, **options)]


@pytest.mark.parametrize("name", cases())
def test_finds_what_buildkit_finds(name):
    case = cases()[name]
    result = outcome(case)
    assert result.findings == case.get("kiln", case["findings"])
    assert bool(result.error) == bool(case.get("error"))
    assert result.error in case.get("error", "")


def test_a_recording_differs_only_where_that_is_explained():
    for name, case in cases().items():
        assert ("kiln" in case) == ("differs" in case), name
        assert case.get("kiln") != case["findings"], name


def test_every_rule_is_recorded_with_and_without_a_finding():
    for rule in RULES.values():
        name = rule.url.split("/")[-2]
        own = [case for case_name, case in cases().items() if case_name.startswith(f"{name}/")]
        hits = [rule.name in [finding[0] for finding in case["findings"]] for case in own]
        assert any(hits) and not all(hits), rule.name


def test_finding_carries_description_and_address():
    (finding,) = find("FROM scratch\nCMD x\n")
    assert finding.url == "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    assert finding.description.startswith("JSON arguments recommended for ENTRYPOINT/CMD")
    assert str(finding.place) == "Dockerfile:2"


UNKNOWN = "FROM lint.test/unknown:1\n"


@pytest.mark.parametrize(
    "line",
    [
        "COPY $foo /",
        "ENV PATH=$PAHT:/bin",
        "WORKDIR $HOME",
        "WORKDIR ${HOME}/x",
        "EXPOSE 80/$PROTO",
        "LABEL a=${x:?must}",
        "RUN --mount=type=tmpfs,target=/t,size=$SIZE true",
    ],
)
def test_variables_of_an_unknown_base_image_are_not_guessed_at(line):
    assert rows(UNKNOWN + line + "\n") == []


def test_an_unknown_base_image_keeps_other_checks():
    assert [found[0] for found in rows(UNKNOWN + "WORKDIR app\nENV TOKEN=1\n")] == [
        "WorkdirRelativePath",
        "SecretsUsedInArgOrEnv",
    ]


def test_a_stage_from_a_stage_on_an_unknown_image_is_unknown_too():
    assert rows("FROM lint.test/unknown:1 AS a\nFROM a\nLABEL x=$y\n") == []


def test_a_word_that_cannot_be_expanded_names_its_line():
    with pytest.raises(DockerfileError, match="unsupported modifier") as caught:
        find("FROM scratch\nLABEL a=${x!y}\n")
    assert caught.value.where == "Dockerfile:2"


def test_expose_and_from_name_their_line_too():
    for text, where in (("FROM scratch\nEXPOSE ${x!y}\n", "Dockerfile:2"), ("FROM scratch${x!y}\n", "Dockerfile:1")):
        with pytest.raises(DockerfileError) as caught:
            find(text)
        assert caught.value.where == where


def test_a_bad_directive_names_its_line():
    with pytest.raises(DockerfileError) as caught:
        find("# escape=`\n# check=skp=all\nFROM scratch\n")
    assert caught.value.where == "Dockerfile:2"
    assert caught.value.hint == "Did you mean skip?"


def test_review_tells_every_finding_and_then_fails_where_the_file_asks_for_that():
    told: list[Finding] = []
    program = read("# check=error=true\nFROM scratch as a\nCMD x\n")
    with pytest.raises(DockerfileError, match="lint violation found for rules: FromAsCasing, JSONArgsRecommended"):
        review(program, told.append, args={}, automatic={})
    assert [finding.rule for finding in told] == ["FromAsCasing", "JSONArgsRecommended"]


def test_review_does_not_fail_otherwise():
    told: list[Finding] = []
    review(read("FROM scratch as a\n"), told.append, args={}, automatic={})
    assert len(told) == 1


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("PAHT", ["PATH"], "PATH"),
        ("abc", ["abcd", "abc1", "ab"], "abcd"),
        ("abc", ["axyz", "abx"], "abx"),
        ("abcdef", ["abc"], ""),
        ("abcd", ["wxyz"], ""),
    ],
)
def test_suggestion_is_the_first_of_the_nearest(name, known, expected):
    assert suggestion(name, known, "$") == (f" (did you mean ${expected}?)" if expected else "")
