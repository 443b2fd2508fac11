"""Keys are made of everything that counts, and every change has its words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.plan.decide import Decision, Facts, bounded, change, lines_of, readable, short, shown

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
LAST = Facts(
    source="Dockerfile", text="t", lines=lines_of("FROM x\nRUN a\nCOPY b\nCMD c"), args={"X": "1", "Y": "1"},
    bases={"debian:bookworm": A, "https://h/f": '"1" 5', "https://h/r.git#main": "a" * 40}, content="c",
    files={"src/web/app.py": "1", "b": "1", "c": "1"}, options={"target": "1", "network": "1"},
)  # fmt: skip


def now(**changes: object) -> Facts:
    return msgspec.structs.replace(LAST, **changes)


REASONS = [
    (now(bases={**LAST.bases, "debian:bookworm": B}), "base `debian:bookworm` moved from sha256:aaaaaaaaaaaa to sha256:bbbbbbbbbbbb"),
    (now(bases={**LAST.bases, "new": B}), "base `new` is new"),
    (now(bases={**LAST.bases, "https://h/f": '"2" 5'}), "`https://h/f` changed"),
    (now(bases={**LAST.bases, "https://h/r.git#main": "b" * 40}), "`https://h/r.git#main` moved from aaaaaaaaaaaa to bbbbbbbbbbbb"),
    (now(text="u", lines=lines_of("FROM x\nRUN a\nCOPY b\nCMD d")), "Dockerfile line 4 changed"),
    (now(text="u", lines=lines_of("FROM x\nRUN a\nCOPY b\nCMD c\n")), "Dockerfile line 5 changed"),
    (now(text="u", lines=lines_of("FROM x")), "Dockerfile line 2 changed"),
    (now(text="u", source="Other"), "Other is used instead of Dockerfile"),
    (now(args={"X": "2", "Y": "1"}), "argument X changed"),
    (now(args={}), "arguments X, Y changed"),
    (now(args={"A": "1", "B": "1", "C": "1"}), "arguments X, Y, A and others changed"),
    (now(content="d", files={**LAST.files, "src/web/app.py": "2"}), "`src/web/app.py` changed"),
    (now(content="d", files={**LAST.files, "src/web/app.py": "2", "b": "2"}), "`src/web/app.py` changed (and 1 other)"),
    (now(content="d", files={"src/web/app.py": "2", "d": "1"}), "`src/web/app.py` changed (and 3 others)"),
    (now(content="d", files={**LAST.files, "d": "1"}), "`d` was added"),
    (now(content="d", files={"b": "1", "c": "1"}), "`src/web/app.py` was removed"),
    (now(content="d"), "its files changed"),
    (now(options={"target": "2", "network": "1"}), "option target changed"),
    (now(options={}), "options target, network changed"),
    (now(args={}, content="d", options={}), "arguments X, Y changed; its files changed; options target, network changed"),
    (now(bases={**LAST.bases, "debian:bookworm": B, "new": B}, args={}, content="d"),
     "base `debian:bookworm` moved from sha256:aaaaaaaaaaaa to sha256:bbbbbbbbbbbb; base `new` is new, and 2 other things"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "reason"), REASONS, ids=[reason for _, reason in REASONS])
def test_reasons(facts: Facts, reason: str) -> None:
    assert change(LAST, facts) == reason
    assert facts.key() != LAST.key()


def test_never_built_and_nothing_changed() -> None:
    assert change(None, LAST) == "never built"
    assert change(LAST, now()) == "" and now().key() == LAST.key()


def test_a_dockerfile_in_another_file_may_move_there() -> None:
    """Its place is told, and is no input."""
    moved = now(source="kiln.yml:9")
    assert change(now(source="kiln.yml:3"), moved) == "" and moved.key() == LAST.key()
    changed = now(source="kiln.yml:9", text="u", lines=lines_of("FROM y"))
    assert change(now(source="kiln.yml:3"), changed) == "the Dockerfile in kiln.yml, line 1 of it, changed"


def test_orders_do_not_count() -> None:
    """A key is the same on machines that gather facts in another order."""
    facts = now(args=dict(reversed(LAST.args.items())), bases=dict(reversed(LAST.bases.items())))
    assert facts.key() == LAST.key() and len(LAST.key()) == 64


@given(st.dictionaries(st.text("ab/", min_size=1, max_size=8), st.text("01", min_size=1, max_size=2), max_size=20))
def test_bounded_keeps_few_files_as_they_are(files: dict[str, str]) -> None:
    assert bounded(files) == files


@pytest.mark.parametrize("path", ["a/{0}/f", "{0}", "a/b/c/d{0}", "{0}/x/y"])
def test_bounded_tells_a_change_among_very_many(path: str) -> None:
    files = {path.format(number): "1" for number in range(5000)}
    last = path.format(4999)
    before, after = bounded(files), bounded({**files, last: "2"})
    assert len(before) <= 2000 and before != after and len(set(before.items()) ^ set(after.items())) == 2


@given(st.binary(max_size=20))
def test_readable_is_text_on_one_line(data: bytes) -> None:
    text = readable(data.decode("utf-8", "surrogateescape"))
    text.encode()
    assert "\n" not in text and "\x1b" not in text and "\0" not in text


def test_small_words() -> None:
    assert (shown(A), shown("abc")) == ("sha256:aaaaaaaaaaaa", "abc") and short("x") == short(b"x")
    assert (
        Decision("build", "").builds and not Decision("build", "", push=True).builds and not Decision("skip", "").builds
    )
