"""YAML with lines: what is shared, merged, substituted, and what is refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.errors import UsageError
from kiln.sources.yamlplaces import MAX_BYTES, Map, Seq, fill, parse, read, substituted


def load(text):
    return parse(text.encode(), "a.yml")


def refused(text):
    with pytest.raises(UsageError) as caught:
        load(text)
    return str(caught.value)


def test_scalars_stay_texts_and_nothing_is_none():
    found = load("a: 1.10\nb: yes\nc: 2021-09-10\nd:\ne: ~\nf: ''\ng: 'null'\nh: !!str 1\ni: !!null x\nj: 0o7\n")
    assert found == {
        "a": "1.10", "b": "yes", "c": "2021-09-10", "d": None, "e": None, "f": "", "g": "null", "h": "1", "i": None, "j": "0o7",
    }  # fmt: skip


def test_every_value_has_its_line():
    found = load("---\na: 1\nb:\n  - x\n  - {c: 1,\n     d: 2}\n")
    assert found.line == 2 and found.lines == {"a": 2, "b": 3}
    assert isinstance(found["b"], Seq) and found["b"].lines == [4, 5]
    assert found["b"][1].lines == {"c": 5, "d": 6}


def test_anchors_and_merges():
    found = load(
        "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2}\n"
        "x: {<<: *one, b: own}\ny: {<<: [*one, *two]}\nz:\n  '<<': text\nw: {c: own, <<: {<<: *two, d: 4}}\n"
    )
    assert found["x"] == {"b": "own", "a": "1"} and found["y"] == {"a": "1", "b": "1", "c": "2"}
    assert found["z"] == {"<<": "text"} and found["w"] == {"c": "own", "d": "4", "b": "2"}
    assert found["x"].lines == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "a.yml:3: the key 'a' is given twice, here and on line 1"),
        ("a: [1, 2\n", "a.yml:2: is not YAML"),
        ("a: 1\n b: 2\n", "a.yml:2: is not YAML"),
        ("a: *b\n", "a.yml:1: *b names nothing"),
        ("a: &a [x, *a]\n", "a.yml:1: *a stands inside of what it names"),
        ("a: &a {b: *a}\n", "a.yml:1: *a stands inside of what it names"),
        ("a: 1\n---\nb: 2\n", "a.yml:2: a second document"),
        ("? [a]\n: 1\n", "a.yml:1: a key must be a text"),
        ("x: &x {a: 1}\n? *x\n: 1\n", "a.yml:2: a key must be a text"),
        ("a: !env X\n", "a.yml:1: the tag !env is not known"),
        ("a: !!python/object:os.system x\n", "is not known here"),
        ("a: !!set {b}\n", "is not known here"),
        ("a:\n  <<: text\n", "a.yml:2: << takes a mapping"),
        ("a: {<<: [x]}\n", "<< takes a mapping"),
        ('a: "\\0"\n', "holds a NUL"),
        ("[" * 200, "nested more than"),
        ("a: \x01\n", "a.yml: is not YAML"),
        ("%FOO\n", "is not YAML"),
    ],
)
def test_refused_with_a_place(text, message):
    assert message in refused(text)


def test_a_brace_in_a_flow_gets_a_hint():
    with pytest.raises(UsageError) as caught:
        load("a: [${A:-b}]\n")
    assert "quotes" in caught.value.hint


def test_not_utf_8():
    with pytest.raises(UsageError, match=r"a.yml:2: is not UTF-8"):
        parse(b"a: 1\nb: \xff\n", "a.yml")
    with pytest.raises(UsageError, match="larger than"):
        parse(b" " * (MAX_BYTES + 1), "a.yml")


def test_a_bomb_of_aliases_is_refused_at_once():
    for shape in ("[{}]", "{{{}}}"):
        lines = ["x0: &x0 " + shape.format("a: 1" if "{{" in shape else "a")]
        for level in range(1, 30):
            inner = f"*x{level - 1}"
            body = ", ".join(f"k{n}: {inner}" if "{{" in shape else inner for n in range(10))
            lines.append(f"x{level}: &x{level} " + shape.format(body))
        begun = time.monotonic()
        assert "aliases" in refused("\n".join(lines))
        assert time.monotonic() - begun < 1


def test_depth_behind_aliases_counts():
    lines = ["x0: &x0 [a]"] + [f"x{n}: &x{n} [[[[[[[[[[*x{n - 1}]]]]]]]]]]" for n in range(1, 20)]
    assert "nested more than" in refused("\n".join(lines))


def test_a_large_document_of_aliases_is_no_bomb():
    text = "a: &a {k: 1, l: 2}\nb:\n" + "- {<<: *a, m: *a}\n" * 20000
    assert len(load(text)["b"]) == 20000


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "none.yml")


def test_substitution():
    values = {"A": "1", "EMPTY": "", "matrix.v": "m"}
    found = load(
        "a: ${A}-${B:-two}\nb: [$$A, '$${A}', $A, '${EMPTY:-d}', '${EMPTY}', '${B:-}']\nc: {x: '${matrix.v}'}\n${A}: k\nd: plain\n"
    )
    assert found.dollar
    filled = substituted(found, values.get, "a.yml")
    assert filled == {
        "a": "1-two", "b": ["$A", "${A}", "$A", "d", "", ""], "c": {"x": "m"}, "${A}": "k", "d": "plain",
    }  # fmt: skip
    assert isinstance(filled, Map) and filled.lines == found.lines


def test_what_holds_no_dollar_is_left_alone():
    found = load("a: {b: [c]}\n")
    assert not found.dollar and substituted(found, {}.get, "a.yml") is found


@pytest.mark.parametrize("text", ["${A", "${}", "${A b}", "${A-b}", "${A:-${B}}", "${1}"])
def test_what_is_no_substitution(text):
    with pytest.raises(UsageError, match=r"a.yml:7: .*is not understood"):
        fill(text, {}.get, "a.yml:7")


def test_a_name_without_a_value():
    with pytest.raises(UsageError) as caught:
        substituted(load("a:\n  - ${NONE}\n"), {}.get, "a.yml")
    assert str(caught.value) == "a.yml:2: ${NONE} has no value" and "$${NONE}" in caught.value.hint


@given(st.text(alphabet="ab:-[]{}&*<>!|#'\"%@,? \n\t~$0", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        found = load(text)
        substituted(found, {"a": "b"}.get, "a.yml")
    except UsageError as bad:
        assert "a.yml" in str(bad)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    try:
        parse(data, "a.yml")
    except UsageError as bad:
        assert str(bad).startswith("a.yml")
