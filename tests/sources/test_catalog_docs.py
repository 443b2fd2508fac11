"""The documentation names every key that the loader reads."""

import re
from pathlib import Path

import pytest

from kiln.sources.catalog.keys import BOOTSTRAP, FORMS, TOP

DOCS = Path(__file__).parents[2] / "docs" / "catalog.md"


@pytest.mark.parametrize(
    "keys", [TOP, BOOTSTRAP, *FORMS.values()], ids=["top", "bootstrap", *(name or "image" for name in FORMS)]
)
def test_every_key_has_a_row(keys):
    rows = dict(re.findall(r"^\| `(\w+)`(?: \(required\))? \| (.*) \|$", DOCS.read_text(), re.MULTILINE))
    assert {name: key.about.replace("|", "\\|") for name, key in keys.items() if name not in rows} == {}
