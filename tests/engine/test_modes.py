"""`--chmod` against chmod(1)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiln.engine.modes import parse_mode
from kiln.errors import DockerfileError

WHO = st.sampled_from(["u", "g", "o", "a", "ug", "go", "uo", "ugo", ""])
WHAT = st.one_of(
    st.sets(st.sampled_from("rwxX"), max_size=3).map(lambda letters: "".join(sorted(letters))), st.sampled_from("ugo")
)
CLAUSES = st.builds("{}{}{}".format, WHO, st.sampled_from("+-="), WHAT)
MODES = st.lists(CLAUSES, min_size=1, max_size=3).map(",".join)


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=MODES, start=st.integers(0, 0o777), folder=st.booleans())
def test_like_chmod(tmp_path: Path, text: str, start: int, folder: bool) -> None:
    path = tmp_path / ("folder" if folder else "file")
    path.mkdir(exist_ok=True) if folder else path.touch()
    path.chmod(start)
    subprocess.run(["/bin/chmod", "--", text, path], check=True, umask=0)
    assert parse_mode(text)(start, folder) == os.stat(path).st_mode & 0o7777


@pytest.mark.parametrize(
    ("text", "start", "result"),
    [
        ("755", 0, 0o755), ("0644", 0o7777, 0o644), ("4755", 0, 0o4755), ("7777", 0, 0o7777), ("0", 0o777, 0), ("00755", 0, 0o755),
        ("u+s", 0o755, 0o4755), ("g+s", 0o755, 0o2755), ("ug-s", 0o6755, 0o755), ("+t", 0o755, 0o1755), ("a-t", 0o1777, 0o777),
        ("u+x-w", 0o600, 0o500), ("o+s", 0o755, 0o755),
    ],
)  # fmt: skip
def test_modes(text: str, start: int, result: int) -> None:
    assert parse_mode(text)(start, False) == result


@pytest.mark.parametrize(
    "text", ["8", "75x", "10000", "u+q", "u", "", ",", "u+r,", "z+x", "u+ug", "-1", "0o755", "u + x"]
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match="invalid chmod parameter") as error:
        parse_mode(text)
    assert error.value.hint
