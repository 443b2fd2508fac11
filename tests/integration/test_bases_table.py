"""`kiln bases`: adding, removing, checking, and files that are written wrongly."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.integration
ADD = ("bases", "add", "own", "--image", "base", "--template", "own", "--port", 80)


def template(kiln, text="FROM {{base}}\nCOPY . /srv/\n"):
    (kiln.home / "templates").mkdir(exist_ok=True)
    (kiln.home / "templates" / "own.dockerfile").write_text(text)


def test_no_bases_at_all(kiln):
    (kiln.home / "bases.toml").write_text("replace = true\n")
    assert "There are no bases" in kiln.run("bases", "list").out
    assert "no bases to check" in kiln.run("bases", "check", code=2).err
    assert "there is no base 'static'" in kiln.run("bases", "show", "static", code=2).err


@pytest.mark.parametrize("head", ["[base.own]", '[base."own"]', "[ base . 'own' ]"])
def test_a_wrong_entry_is_named_and_can_be_removed(kiln, head):
    file = kiln.home / "bases.toml"
    rest = '[base.other]\nimage = "base"\ntemplate = "raw"\nport = 80\n'
    file.write_text(f"{head}\nimage = 'a b'\ntemplate = 'raw'\nport = 80\n\n{rest}")
    assert "base.own" in kiln.run("bases", "list", code=2).err
    kiln.run("bases", "remove", "own")
    assert file.read_text() == rest and "other" in kiln.run("bases", "list").out
    assert "no table [base.own]" in kiln.run("bases", "remove", "own", code=2).err
    assert "replace = true" in kiln.run("bases", "remove", "static", code=2).err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--image", "bad image"), "--image: "),
        (("--template", "none"), "there is no template 'none'"),
        (("--template", "wrong"), "unknown placeholder 'colour'"),
    ],
)
def test_what_cannot_be_added_is_refused_at_once(kiln, words, says):
    template(kiln)
    (kiln.home / "templates" / "wrong.dockerfile").write_text("FROM {{base}}\nLABEL a={{colour}}\n")
    assert says in kiln.run(*ADD, *words, code=2).err
    assert not (kiln.home / "bases.toml").exists()


def test_names_that_differ_by_case(kiln):
    words = ("bases", "add", "Static", "--image", "base", "--template", "static", "--port", 80)
    assert "differs from the base 'static' only by case" in kiln.run(*words, code=2).err


def test_own_templates_are_checked_with_a_text_or_a_sample_of_their_own(kiln, tmp_path):
    template(kiln)
    kiln.run(*ADD)
    assert kiln.run("bases", "check", "own").out == "ok      own\n"
    template(kiln, "FROM {{base}}\nCOPY shop.conf /srv/\n")
    assert "failed  own" in kiln.run("bases", "check", "own", code=1).out
    (kiln.home / "sample").mkdir()
    (kiln.home / "sample" / "shop.conf").write_text("x")
    with (kiln.home / "bases.toml").open("a") as file:
        file.write('sample = "sample"\n')
    assert kiln.run("bases", "check", "own").out == "ok      own\n"
