"""What HCL and JSON files are read into: bodies of attributes and blocks."""

from __future__ import annotations

from msgspec import Struct, field

from kiln.sources.hcl.evaluate import Node


class Attribute(Struct, frozen=True):
    """`name = value`."""

    name: str
    value: Node
    place: str


class Body(Struct, frozen=True):
    """Attributes by name, and blocks, in the order of the file."""

    attributes: dict[str, Attribute] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)


class Block(Struct, frozen=True):
    """`kind "label" { ... }`. `place` is the line where it begins."""

    kind: str
    labels: tuple[str, ...]
    body: Body
    place: str
