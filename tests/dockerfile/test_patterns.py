"""Ignore patterns and globs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.dockerfile.patterns import Matcher, PatternError, has_wildcard, match, read_ignore_file


@pytest.mark.parametrize(
    ("pattern", "name", "wanted"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("a*/b", "abc/b", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a]x", "/x", False),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("*.txt", ".txt", True),
    ],
)
def test_glob(pattern: str, name: str, wanted: bool) -> None:
    assert match(pattern, name) is wanted


@pytest.mark.parametrize("pattern", ["[", "[a", "a\\", "[]a]", "[a-]"])
def test_malformed_globs_are_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        match(pattern, "a")


@pytest.mark.parametrize(
    ("patterns", "path", "wanted"),
    [
        (["a"], "a/b/c", True),
        (["a"], "b/a", False),
        (["**/a"], "b/a", True),
        (["**/a"], "a", True),
        (["a/**"], "a/b", True),
        (["a/**"], "a", False),
        (["**"], "anything/at/all", True),
        (["*.o", "!keep.o"], "keep.o", False),
        (["*.o", "!keep.o", "keep.o"], "keep.o", True),
        (["a", "!a/b"], "a/b", False),
        (["a", "!a/b"], "a/c", True),
        (["a/*/c"], "a/b/c/d", True),
        (["a+b(c)"], "a+b(c)", True),
        (["!a"], "a", False),
    ],
)
def test_matcher(patterns: list[str], path: str, wanted: bool) -> None:
    assert Matcher(patterns).matches(path) is wanted


def test_ignore_file() -> None:
    text = "\ufeff# comment\n\n  /a/  \n!b/../c\n./d\n ! e\n"
    assert read_ignore_file(text) == ["a", "!c", "d", "!e"]


def test_lone_exclamation_mark() -> None:
    with pytest.raises(PatternError):
        Matcher(["!"])


@given(st.text(alphabet="ab/*?", min_size=1, max_size=8), st.text(alphabet="ab/", min_size=1, max_size=8))
def test_glob_agrees_with_a_plain_translation(pattern: str, name: str) -> None:
    regex = "".join({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)) for char in pattern)
    assert match(pattern, name) == (re.fullmatch(regex, name) is not None)


@given(st.text(alphabet="a*?[\\", max_size=6))
def test_wildcard_is_seen_unless_escaped(text: str) -> None:
    plain = re.sub(r"\\.", "", text)
    assert has_wildcard(text) == any(char in plain for char in "*?[")
