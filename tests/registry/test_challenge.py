import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.registry.challenge import parse


def test_bearer_with_quoted_commas():
    (found,) = parse('Bearer realm="https://a.test/token?x=1,2",service="a, b",scope="repository:x:pull,push"')
    assert found.scheme == "bearer"
    assert dict(found.parameters) == {
        "realm": "https://a.test/token?x=1,2",
        "service": "a, b",
        "scope": "repository:x:pull,push",
    }


@pytest.mark.parametrize(
    ("header", "schemes"),
    [
        ('Basic realm="x"', ["basic"]),
        ('Basic realm="x", Bearer realm="https://t"', ["basic", "bearer"]),
        ('Negotiate, Basic realm="x"', ["negotiate", "basic"]),
        ('Negotiate abc123==, Basic realm="x"', ["negotiate", "basic"]),
        ("NTLM", ["ntlm"]),
        ("", []),
        (", ,", []),
    ],
)
def test_several_challenges(header, schemes):
    assert [found.scheme for found in parse(header)] == schemes


def test_escapes_and_spaces():
    (found,) = parse(r'BASIC  Realm = "say \"hi\", you" ,charset=UTF-8')
    assert (found.get("realm"), found.get("charset"), found.get("none")) == ('say "hi", you', "UTF-8", "")


@given(st.text())
def test_any_text_ends(header):
    assert isinstance(parse(header), list)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(), min_size=1))
def test_quoted_values_come_back(parameters):
    written = ", ".join('{}="{}"'.format(k, v.replace("\\", "\\\\").replace('"', '\\"')) for k, v in parameters.items())
    (found,) = parse(f"Bearer {written}")
    assert dict(found.parameters) == parameters
