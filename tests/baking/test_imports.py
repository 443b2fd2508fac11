"""What a bake with nothing to do reads in: a build with nothing to do must start fast."""

from __future__ import annotations

import subprocess
import sys


def test_a_bake_reads_in_what_it_needs() -> None:
    unneeded = {"yaml", "kiln.engine.sandbox", "kiln.engine.build", "kiln.baking.hookbox", "urllib3", "hcl2", "rich"}
    code = "import sys, kiln.cli.bake, kiln.cli.build, kiln.baking.loading, kiln.baking.many\n"
    code += f"print(sorted({unneeded!r} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
