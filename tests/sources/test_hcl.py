"""HCL: expressions, templates, functions, and what is said about mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.errors import KilnError, UsageError
from kiln.sources.hcl import syntax as hclsyntax
from kiln.sources.hcl.evaluate import evaluate
from kiln.sources.hcl.functions import FUNCTIONS
from kiln.sources.hcl.value import Function, Value

# Recorded from buildx 0.29: expressions with the JSON it gives, and those it refuses.
RECORDED = json.loads((Path(__file__).parent / "expressions.json").read_text())


class Names:
    """A scope with three variables."""

    known: dict[str, Value] = {"x": "X", "l": ("a", "b"), "n": 3}  # noqa: RUF012

    def variable(self, name: str) -> Value:
        if name not in self.known:
            raise UsageError(f"there is no variable {name}")
        return self.known[name]

    def function(self, name: str) -> Function:
        if name not in FUNCTIONS:
            raise UsageError(f"there is no function {name}")
        return FUNCTIONS[name]


def value(expression: str) -> Value:
    body = hclsyntax.parse(f"a = {expression}\n", "f.hcl")
    return evaluate(body.attributes["a"].value, Names())


@pytest.mark.parametrize(("expression", "expected"), RECORDED["values"], ids=[text for text, _ in RECORDED["values"]])
def test_as_buildx(expression: str, expected: str) -> None:
    assert value(f"jsonencode({expression}\n)") == expected


@pytest.mark.parametrize("expression", RECORDED["errors"])
def test_refused_as_by_buildx(expression: str) -> None:
    with pytest.raises(KilnError, match=r"^f\.hcl:\d+: "):
        value(f"jsonencode({expression}\n)")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('semvercmp("1.2.3", ">= 1.2, < 2")', True),
        ('semvercmp("v2.0.0", "^1.2")', False),
        ('semvercmp("1.2.9", "~1.2.3")', True),
        ('semvercmp("1.3.0", "~1.2.3")', False),
        ('semvercmp("0.3.1", "^0.3.0 || 1.x")', True),
        ("unixtimestampparse(0).rfc3339", "1970-01-01T00:00:00Z"),
        ("unixtimestampparse(86400).weekday_name", "Friday"),
        ('length(timestamp()) == length("2026-01-01T00:00:00Z")', None),
        ("strlen(uuidv4())", 36),
        ("length({a = 1})", 1),
        ('"${{a = "}"}.a}"', "}"),
        ("{ for k, v in {a = 1} : k\n => v\n}", {"a": 1}),
        ('(\n  n == 3\n  ? "y" # why\n  : "n" /* not */\n)', "y"),
        ("[\n1, // one\n2\n]", (1, 2)),
        ('"${1}"', 1),
        ('"${true}"', True),
        ('"${true}!"', "true!"),
        ('"${ x }"', "X"),
        ('"${\nx}-${ n\t}"', "X-3"),
    ],
)
def test_more_values(expression: str, expected: Value) -> None:
    if expected is None:
        with pytest.raises(KilnError, match="a list or object is needed"):
            value(expression)
    else:
        assert value(expression) == expected


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = 1\nb = 5 5\n", 2, "'5' is not understood"),
        ('a = "x', 1, "not ended"),
        ('a = "x\ny"', 1, "on the line it begins on"),
        ("t {\n a = \n}\n", 2, "missing at the end of the line"),
        ("t {\n a = [1\n}\n", 3, "'}' is not understood"),
        ("t {\n a = 1\n", 3, "missing at the end"),
        ('\na = "${f(}"', 2, "missing at the end"),
        ('a = "${', 1, "not ended with }"),
        ('a = "${1)+(2}"', 1, "closes nothing"),
        ('a = "${}"', 1, "missing"),
        ("\n\na = <<E\nfoo", 3, "heredoc <<E is not ended"),
        ("a = 1\n/* x", 2, "comment"),
        ('a = "\\q"', 1, "not an escape sequence"),
        ('a = "\\uD800"', 1, "not an escape sequence"),
        ('a = "%{foo}"', 1, "if, else, endif"),
        ('a = "%{if true}"', 1, "not ended with %{endif}"),
        ('a = "%{endif}"', 1, "has no beginning"),
        ('a = "%{for in l}%{endfor}"', 1, "%{for} is not understood"),
        ("a = 1\na = 2", 2, "set twice"),
        ("a = " + "(" * 500 + "1" + ")" * 500, 1, "too deeply"),
        ("a = " + '"${' * 60 + "1" + '}"' * 60, 1, "nested"),
        ("a {" * 200 + "}" * 200, 1, ""),
    ],
)
def test_mistakes(text: str, line: int, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        hclsyntax.parse(text, "f.hcl")
    assert caught.value.where == f"f.hcl:{line}"
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("1 / 0", "division by zero"),
        ('"a" + 1', "a number is needed, not a text ('a')"),
        ('"${l}-"', "a text is needed, not a list inside a text"),
        ('"x${null}"', "not null"),
        ("l[7]", "no element 7 in a list of 2"),
        ("{abc = 1}.abd", "the object has no 'abd'"),
        ("x.y", "a text has no members"),
        ("upper()", "upper: not made for 0 values"),
        ("pow(10, 100000)", "too large"),
        ("1e9999 * 1e9999", "too large"),
        ("pow(9, 4000)", "too large"),
        ("range(100000)", "at most 1024"),
        ('{for v in ["a", "a"] : v => 1}', "more than once"),
        ('bcrypt("x")', "is not supported"),
        ('rsadecrypt("a", "b")', "use a secret"),
        ('regex("(", "a")', "not a regular expression"),
        ('format("%99999d", 1)', "too wide"),
        ('"%{if "q"}%{endif}"', "true or false is needed"),
        ("-x", "a number is needed"),
        ('jsondecode("{")', "not JSON"),
        ('cidrsubnet("10.0.0.0/8", 30, 1)', "no subnet"),
        ("+".join(["1"] * 3000), ""),
    ],
)
def test_mistakes_in_expressions(expression: str, said: str) -> None:
    if not said:
        with pytest.raises(UsageError, match="too deeply"):
            value(expression)
        return
    with pytest.raises(UsageError) as caught:
        value(expression)
    assert said in caught.value.message
    assert caught.value.where == "f.hcl:1"


def test_the_place_is_the_innermost() -> None:
    with pytest.raises(UsageError) as caught:
        value("[\n  1,\n  upper(\n    nope\n  ),\n]")
    assert caught.value.where == "f.hcl:4"


_PIECES = st.sampled_from(
    ['"', "${", "}", "%{", "if", "for", "in", "else", "endif", "endfor", "~", "[", "]", "(", ")", "{", ":", "=>", "...",
     "a", "b", "x", "l", "1", "2.5", "null", "true", "=", "==", "?", "+", "-", "*", "/", "%", "!", "&&", "||", ".", ",", "\n",
     " ", "<<E\n", "<<-E\n", "E\n", "#", "//", "/*", "*/", "\\", "upper(", "try(", "[*]", "target", "\ufeff", "é", "\0"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=25).map("".join)))
def test_any_text_gives_a_body_or_an_error(text: str) -> None:
    try:
        body = hclsyntax.parse(text, "f.hcl")
        for attribute in body.attributes.values():
            evaluate(attribute.value, Names())
    except KilnError as bad:
        assert bad.where.startswith("f.hcl")


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES, max_size=12).map(" ".join))
def test_any_expression_gives_a_value_or_an_error(text: str) -> None:
    try:
        value(text)
    except KilnError as bad:
        assert bad.where.startswith("f.hcl")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(set(FUNCTIONS) - {"timestamp", "uuidv4"})), st.data())
def test_any_arguments_give_a_value_or_an_error(name: str, data: st.DataObject) -> None:
    plain = st.sampled_from(
        [
            "null",
            "true",
            "0",
            "-1",
            "2.5",
            "1e30",
            '""',
            '"a"',
            '"1"',
            "[]",
            '["a", 1]',
            "{}",
            "{a = 1}",
            "[[1], {}]",
            '"%d"',
        ]
    )
    arguments = data.draw(st.lists(plain, max_size=4))
    try:
        value(f"{name}({', '.join(arguments)})")
    except KilnError as bad:
        assert bad.where == "f.hcl:1"


@given(st.text(max_size=40))
def test_a_text_survives_quoting(text: str) -> None:
    quoted = json.dumps(text).replace("${", "$${").replace("%{", "%%{")
    quoted = quoted.replace("\\b", "\\u0008").replace("\\f", "\\u000c")
    if not any(0xD800 <= ord(char) < 0xE000 or ord(char) > 0xFFFF for char in text):
        assert value(quoted) == text


def test_a_name_alone_needs_no_grammar() -> None:
    """Reading the grammar in takes longer than a bake of a few images with nothing to do."""
    code = "import sys\nfrom kiln.sources.hcl import json\n"
    code += "print(json.parse('{\"a\": \"${x}/${y-1}:${ z }\"}', 'f').attributes['a'].value, 'hcl2' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.count("Name(") == 3
    assert said.strip().endswith("False")


@pytest.mark.parametrize("word", ["true", "false", "null"])
def test_words_of_the_language_are_no_names(word: str) -> None:
    assert value(f'"${{{word}}}"') is {"true": True, "false": False, "null": None}[word]


def test_a_large_file_is_read_in_reasonable_time() -> None:
    text = "".join(
        f'target "t{n}" {{\n  tags = ["a/b:${{x}}-{n}"]\n  args = {{ A = "{n}", B = upper("b") }}\n}}\n'
        for n in range(300)
    )
    begin = time.monotonic()
    assert len(hclsyntax.parse(text, "f.hcl").blocks) == 300
    assert time.monotonic() - begin < 20
