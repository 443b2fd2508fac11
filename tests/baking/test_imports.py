"""What is read in where there is nothing to do: that is most of the time that such a run takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

HTTP = {"urllib3", "ssl", "kiln.registry.challenge"}
BUILD = {"kiln.engine.sandbox", "kiln.sources.git", "kiln.sources.fetch"}
BAKE = {"yaml", "hcl2", "rich", "kiln.engine.build", "kiln.baking.making", "kiln.baking.hookbox"}


@pytest.mark.parametrize(
    ("modules", "unneeded"),
    [
        ("kiln.cli.bake, kiln.bake, kiln.baking.loading, kiln.baking.many, kiln.registry.client", HTTP | BUILD | BAKE),
        ("kiln.cli.build, kiln.bake, kiln.baking.making, kiln.baking.publish, kiln.registry.early", HTTP | BUILD),
    ],
)
def test_only_what_is_needed(modules: str, unneeded: set[str]) -> None:
    code = f"import sys, {modules}\nprint(sorted({unneeded!r} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
