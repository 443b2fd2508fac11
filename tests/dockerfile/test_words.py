"""Words: expansion, quotes, escapes."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.dockerfile.words import Rules, WordError, expand

ENV = {"A": "alpha", "E": "", "P": "a/b/a.tar.gz", "S": "two words", "STAR": "a*b"}

CASES = [
    ("plain", "plain"),
    ("$A", "alpha"),
    ("${A}x", "alphax"),
    ("$NOPE", ""),
    ("\\$A", "$A"),
    ("'$A'", "$A"),
    ('"$A b"', "alpha b"),
    ('"\\$A \\x \\" "', '$A \\x " '),
    ("$", "$"),
    ("a$", "a$"),
    ("${A:-d}", "alpha"),
    ("${E:-d}", "d"),
    ("${E-d}", ""),
    ("${N-d}", "d"),
    ("${A:+y}", "y"),
    ("${E:+y}", ""),
    ("${E+y}", "y"),
    ("${N+y}", ""),
    ("${N:-${A}}", "alpha"),
    ("${N:-a\\}b}", "a}b"),
    ("${A:?no}", "alpha"),
    ("${P#*/}", "b/a.tar.gz"),
    ("${P##*/}", "a.tar.gz"),
    ("${P%.*}", "a/b/a.tar"),
    ("${P%%.*}", "a/b/a"),
    ("${P%/*}", "a/b"),
    ("${P/a/X}", "X/b/a.tar.gz"),
    ("${P//a/X}", "X/b/X.tXr.gz"),
    ("${P/b*/X}", "a/X"),
    ("${P//?.t/Y}", "a/b/Yar.gz"),
    ("${STAR#a\\*}", "b"),
    ("$1 $@", " "),
]


@pytest.mark.parametrize(("word", "wanted"), CASES)
def test_expansion(word: str, wanted: str) -> None:
    assert expand(word, ENV).text == wanted


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("${", "missing '}'"),
        ("${}", "bad substitution"),
        ("${A", "unsupported modifier"),
        ("${A:=x}", "unsupported modifier"),
        ("${N:?}", "N: is not allowed to be unset"),
        ("${E:?gone}", "E: gone"),
        ("${A/x}", "missing '/'"),
        ("'open", "single-quote"),
        ('"open', "double-quote"),
        ("${A:-x", "missing '}'"),
    ],
)
def test_what_cannot_be_expanded_says_why(word: str, why: str) -> None:
    with pytest.raises(WordError, match=re.escape(why)):
        expand(word, ENV)


def test_words_split_where_there_are_no_quotes() -> None:
    assert expand("a $S 'b c' \"$S\"", ENV).words == ["a", "two", "words", "b c", "two words"]


def test_matched_and_unmatched_variables_are_told() -> None:
    result = expand("$A ${NOPE:-x}", ENV)
    assert (result.matched, result.unmatched) == ({"A"}, {"NOPE"})


def test_backtick_as_escape() -> None:
    assert expand("`$A\\$A", ENV, Rules(escape="`")).text == "$A\\alpha"


def test_unset_variables_can_stay() -> None:
    assert expand("$N ${N:-x} $A", ENV, Rules(keep_unset=True)).text == "$N ${N:-x} alpha"


@given(st.text(st.characters(blacklist_characters="$'\"\\", blacklist_categories=["Cs"])))
def test_text_without_special_characters_stays(text: str) -> None:
    assert expand(text, {}).text == text


@given(st.text(max_size=40))
def test_any_text_expands_or_says_why(text: str) -> None:
    try:
        expand(text, ENV)
    except WordError as bad:
        assert str(bad).startswith("failed to process")


@given(
    st.text(alphabet="ab./", max_size=12),
    st.text(alphabet="ab./*?", min_size=1, max_size=5),
    st.sampled_from(["#", "##", "%", "%%"]),
)
def test_pattern_removal_is_what_a_shell_does(value: str, pattern: str, operator: str) -> None:
    mine = expand("${V" + operator + pattern.replace("/", "\\/") + "}", {"V": value}).text
    script = "${V" + operator + pattern.replace("/", "\\/") + "}"
    shell = subprocess.run(
        ["/bin/dash", "-c", f'printf %s "{script}"'], env={"V": value}, capture_output=True, check=True
    )
    assert mine == shell.stdout.decode()
