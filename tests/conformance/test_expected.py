"""The record keeps what it is given, and a difference names its place."""

from __future__ import annotations

from pathlib import Path

from .expected import Result, config_subset, decode, differences, encode, failure, read_group, write_group
from .flatten import Entry

BASE = {name: Entry("f", 0o644, 0, 0, 1, "=x") for name in "abcd"}
SPECIAL = {
    "dir": Entry("d", 0o755, 0, 0),
    "device": Entry("c", 0o600, 1, 2, device="1:3"),
    "capable": Entry("f", 0o755, 0, 0, 1, "=x", xattrs=(("security.capability", "\x01\x00"),)),
    "link": Entry("l", 0o777, 0, 0, target="a"),
    "hard": Entry("f", 0o644, 0, 0, 1, "=x", links="hard"),
}


def test_a_result_survives_the_file(tmp_path: Path) -> None:
    """What is decoded from the file is what was encoded, over the base or alone."""
    results = {
        "over": Result({"os": "linux"}, 2, {**BASE, **SPECIAL}),
        "without": Result({"os": "linux"}, 2, {name: BASE[name] for name in "abc"}),
        "alone": Result({"os": "linux"}, 1, SPECIAL),
        "failed": failure("no such file"),
    }
    write_group(tmp_path / "g.json", {name: encode(result, BASE) for name, result in results.items()})
    raw = read_group(tmp_path / "g.json")
    assert {name: decode(raw[name], BASE) for name in raw} == results
    assert raw["over"]["over"] == "base"
    assert raw["without"]["gone"] == ["d"]


def test_differences_name_path_and_field() -> None:
    """One line for each field that differs, one for each path too many or missing."""
    expected = Result({"config": {"Env": ["A=1"]}}, 2, {"a": Entry("f", 0o644, 0, 0, 1, "=x"), "b": SPECIAL["dir"]})
    actual = Result({"config": {"Env": ["A=2"]}}, 1, {"a": Entry("f", 0o600, 5, 0, 1, "=x"), "c": SPECIAL["dir"]})
    assert differences(expected, actual) == [
        "config.config.Env[0]: expected 'A=1', got 'A=2'",
        "layers: expected 2, got 1",
        "/a mode: expected '0644', got '0600'",
        "/a uid: expected 0, got 5",
        '/b: missing, expected ["d","0755",0,0]',
        '/c: not expected, got ["d","0755",0,0]',
    ]


def test_a_failure_differs_from_a_success_only() -> None:
    """Two failures agree, whatever they say."""
    assert differences(failure("one"), failure("two")) == []
    assert differences(failure("one"), Result({}, 0, {})) == ["build: expected 'failure (one)', got 'success'"]


def test_config_subset_leaves_times_out() -> None:
    """Times and layer digests differ with every build."""
    config = {"os": "linux", "created": "now", "rootfs": {}, "history": [{"created": "now", "created_by": "X"}]}
    assert config_subset(config) == {"os": "linux", "history": [{"created_by": "X"}]}
