"""What HCL and JSON files are read into: bodies of attributes and blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from kiln.sources.hcl.evaluate import Node


@dataclass(frozen=True, slots=True)
class Attribute:
    """`name = value`."""

    name: str
    value: Node
    place: str


@dataclass(frozen=True, slots=True)
class Body:
    """Attributes by name, and blocks, in the order of the file."""

    attributes: dict[str, Attribute] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Block:
    """`kind "label" { ... }`. `place` is the line where it begins."""

    kind: str
    labels: tuple[str, ...]
    body: Body
    place: str
