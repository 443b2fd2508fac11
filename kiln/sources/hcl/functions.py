"""The functions that bake files may call: those of buildx (go-cty's standard library and a few more)."""

from __future__ import annotations

from kiln.sources.hcl import coding as hclcoding
from kiln.sources.hcl import lists as hcllists
from kiln.sources.hcl import numbers as hclnumbers
from kiln.sources.hcl import texts as hcltexts
from kiln.sources.hcl import times as hcltimes
from kiln.sources.hcl.value import Function

# `try`, `can` and `convert` do not evaluate all their arguments; they are part of the language (hcl.Call).
LANGUAGE = ("try", "can", "convert")
FUNCTIONS: dict[str, Function] = (
    hclnumbers.FUNCTIONS | hcltexts.FUNCTIONS | hcllists.FUNCTIONS | hclcoding.FUNCTIONS | hcltimes.FUNCTIONS
)
