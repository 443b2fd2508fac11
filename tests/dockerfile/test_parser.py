"""Dockerfile text -> statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.dockerfile import parser, reading
from kiln.errors import DockerfileError, KilnError


def statements(text: str) -> list[parser.Statement]:
    return parser.parse(text.encode(), "Dockerfile").statements


def test_continuation_skips_comments_and_blank_lines_and_counts_lines() -> None:
    one, two = statements("FROM a\nRUN x \\\n  # comment\n\n  y \\\n z\n")
    assert (two.rest, two.place.start, two.place.end) == ("x   y  z", 2, 6)
    assert one.place.end == 1


def test_two_escape_characters_do_not_continue() -> None:
    assert [item.rest for item in statements("RUN a\\\\\nRUN b\n")] == ["a\\\\", "b"]


def test_escape_directive() -> None:
    found = parser.parse(b"# escape=`\nFROM a\nRUN b `\n c\\\n", "Dockerfile")
    assert (found.escape, found.statements[1].rest) == ("`", "b  c\\")


def test_byte_order_mark_and_carriage_returns() -> None:
    found = parser.parse(b"\xef\xbb\xbf# escape=`\r\nFROM a\r\nRUN b `\r\n c\r\n", "Dockerfile")
    assert [item.rest for item in found.statements] == ["a", "b  c"]


def test_heredocs_in_order_with_and_without_tabs() -> None:
    copy = statements('COPY <<A <<-"B" /x/\n$one\nA\n\ttwo\n\tB\n')[0]
    assert [(item.name, item.expand, item.text) for item in copy.heredocs] == [
        ("A", True, "$one\n"),
        ("B", False, "two\n"),
    ]


@pytest.mark.parametrize("line", ["RUN cat <<EOF", "COPY <<-X /x", "ONBUILD RUN <<E"])
def test_unterminated_heredoc_names_its_line(line: str) -> None:
    with pytest.raises(DockerfileError, match="unterminated heredoc") as caught:
        statements(f"FROM a\n{line}\ntext\n")
    assert caught.value.where == "Dockerfile:2"


def test_flags_with_quotes_and_the_end_of_flags() -> None:
    one = statements("COPY --chown='a b' --x=\"y\" -- --z a /b")[0]
    assert (one.flags, one.rest) == (("--chown=a b", "--x=y"), "--z a /b")


def test_json_with_other_members_is_an_error_and_broken_json_is_text() -> None:
    assert parser.json_array("['a']") is None
    assert parser.json_array('["a", "b"]') == ["a", "b"]
    with pytest.raises(ValueError, match="strings only"):
        parser.json_array('["a", 1]')


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        ("", "cannot be empty", ""),
        ("# nothing\n", "no instructions", ""),
        ("FROM a\nNOPE x\n", "unknown instruction: NOPE", ":2"),
        ("RUN x\nFROM a\n", "before the first FROM", ":1"),
        ("FROM a b\n", "either one or three arguments", ":1"),
        ("FROM a AS 1x\n", "invalid name for build stage", ":1"),
        ("FROM a\nCOPY a\n", "at least two arguments", ":2"),
        ("FROM a\nCOPY --nope a b\n", "unknown flag: --nope", ":2"),
        ("FROM a\nCOPY --chown a b\n", "missing a value on flag", ":2"),
        ("FROM a\nCOPY --chown=1 --chown=2 a b\n", "duplicate flag", ":2"),
        ("FROM a\nRUN --network=moon x\n", "network mode", ":2"),
        ("FROM a\nRUN --mount=type=nope,target=/x y\n", "unsupported mount type", ":2"),
        ("FROM a\nRUN --mount=type=bind,from=$x,target=/x y\n", "variable expansion", ":2"),
        ("FROM a\nENV a\n", "must have two arguments", ":2"),
        ("FROM a\nSHELL sh\n", "JSON form", ":2"),
        ("FROM a\nONBUILD ONBUILD RUN x\n", "isn't allowed", ":2"),
        ("FROM a\nHEALTHCHECK --interval=1 CMD x\n", "invalid duration", ":2"),
        ("FROM a\nVOLUME\n", "at least one argument", ":2"),
        ("# escape=x\nFROM a\n", "invalid escape token", ":1"),
        ("# escape=`\n# escape=`\nFROM a\n", "only one escape", ":2"),
    ],
)
def test_bad_input_names_line_and_reason(text: str, why: str, line: str) -> None:
    with pytest.raises(DockerfileError, match=why) as caught:
        reading.read(parser.parse(text.encode(), "Dockerfile"))
    assert caught.value.where == f"Dockerfile{line}"


def test_an_unknown_instruction_gets_a_suggestion() -> None:
    with pytest.raises(DockerfileError) as caught:
        reading.read(parser.parse(b"FROM a\nCOYP a b\n", "Dockerfile"))
    assert "COPY" in caught.value.hint


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_fail_in_words(data: bytes) -> None:
    try:
        reading.read(parser.parse(data, "Dockerfile"))
    except KilnError as bad:
        assert bad.where.startswith("Dockerfile")


_KEYWORDS = st.sampled_from(
    ["FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "LABEL", "ONBUILD", "HEALTHCHECK", "EXPOSE", "SHELL"]
)


@given(st.lists(st.tuples(_KEYWORDS, st.text(alphabet="ab =<-\"'\\[]{}$,/:1\t", max_size=20)), max_size=6))
def test_any_instructions_parse_or_fail_in_words(lines: list[tuple[str, str]]) -> None:
    text = "FROM a\n" + "\n".join(f"{keyword} {rest}" for keyword, rest in lines)
    try:
        reading.read(parser.parse(text.encode(), "Dockerfile"))
    except KilnError as bad:
        assert bad.where.startswith("Dockerfile")
