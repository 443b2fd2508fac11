"""Drawing a graph in columns as SVG, with plain text, so that it can be searched, and colours for light and dark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape

from msgspec import Struct

Drawn = tuple[str, str, str, tuple[str, ...], int]

_HEIGHT, _GAP, _MARGIN, _HEAD = 28, 10, 24, 64
_LETTER, _LEAST_WIDTH, _MOST_LETTERS, _COLUMN_GAP = 7.3, 90, 34, 90
_SWEEPS = 8
_WORDS = {"build": "is built", "skip": "stays as it is", "pull": "is pulled"}

_STYLE = """
  .page { fill: #ffffff } text { font: 12px ui-sans-serif, system-ui, "Segoe UI", sans-serif; fill: #1d242b }
  .title { font-size: 15px; font-weight: 600 } .quiet { fill: #5d6873 }
  .edge { fill: none; stroke: #aeb8c2; stroke-width: 1.2 } .edge.hot { stroke: #d18b1f }
  .node rect { stroke-width: 1.2; rx: 6px } .build rect { fill: #fdeccd; stroke: #d18b1f }
  .skip rect { fill: #eef1f4; stroke: #b9c2cb } .pull rect { fill: #dcebfa; stroke: #4a90d0 }
  .node:hover rect { stroke-width: 2.4 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #14181d } text { fill: #e6ebf0 } .quiet { fill: #94a1ae }
    .edge { stroke: #48535e } .edge.hot { stroke: #d9992f } .build rect { fill: #4a3511; stroke: #d9992f }
    .skip rect { fill: #232a31; stroke: #4b5661 } .pull rect { fill: #17324b; stroke: #5aa0df }
  }
"""


class _Box(Struct, frozen=True):
    x: float
    y: float
    width: float


def svg(nodes: Sequence[Drawn], title: str) -> str:
    """The picture of nodes given as (name, decision, reason, needs, depth), each after what it needs."""
    columns = _columns(nodes)
    boxes, width, height = _placed(columns)
    decisions = {name: decision for name, decision, *_ in nodes}
    edges = [
        _edge(boxes[need], boxes[name], decisions[need] != "skip" and decisions[name] != "skip")
        for name, _, _, needs, _ in nodes
        for need in needs
        if need in boxes
    ]
    shown = [_node(boxes[name], name, decision, reason) for name, decision, reason, _, _ in nodes]
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>", '<rect class="page" width="100%" height="100%"/>',
        f'<text class="title" x="{_MARGIN}" y="28">{escape(title)}</text>', *_legend(decisions), *edges, *shown, "</svg>", "",
    ])  # fmt: skip


def _columns(nodes: Sequence[Drawn]) -> list[list[str]]:
    """Names by depth, each column in an order in which edges cross little: every node near the middle of its neighbours."""
    columns: dict[int, list[str]] = defaultdict(list)
    near: dict[str, list[str]] = defaultdict(list)
    for name, _, _, needs, depth in nodes:
        columns[depth].append(name)
        for need in needs:
            near[name].append(need)
            near[need].append(name)
    ordered = [columns[depth] for depth in sorted(columns)]
    place = {name: number / max(1, len(column)) for column in ordered for number, name in enumerate(column)}
    for sweep in range(_SWEEPS):
        for column in ordered if sweep % 2 == 0 else reversed(ordered):
            wish = {name: _middle([place[other] for other in near[name]], place[name]) for name in column}
            column.sort(key=wish.__getitem__)
            for number, name in enumerate(column):
                place[name] = (number + 0.5) / len(column)
    return ordered


def _middle(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _placed(columns: list[list[str]]) -> tuple[Mapping[str, _Box], float, float]:
    """(boxes, width, height); a column is as wide as its longest name, shorter columns stand in the middle."""
    tallest = max((len(column) for column in columns), default=0)
    body = tallest * (_HEIGHT + _GAP)
    boxes, x = {}, float(_MARGIN)
    for column in columns:
        width = max(_LEAST_WIDTH, *(min(len(name), _MOST_LETTERS) * _LETTER + 24 for name in column))
        top = _HEAD + (body - len(column) * (_HEIGHT + _GAP)) / 2
        for number, name in enumerate(column):
            boxes[name] = _Box(x, top + number * (_HEIGHT + _GAP), width)
        x += width + _COLUMN_GAP
    return boxes, max(360.0, x - _COLUMN_GAP + _MARGIN), _HEAD + body + _MARGIN


def _node(box: _Box, name: str, decision: str, reason: str) -> str:
    shown = name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"
    words = f"{name}: {_WORDS.get(decision, decision)} ({reason})"
    return (
        f'<g class="node {escape(decision)}"><title>{escape(words)}</title>'
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{_HEIGHT}"/>'
        f'<text x="{box.x + 12:.1f}" y="{box.y + 18:.1f}">{escape(shown)}</text></g>'
    )


def _edge(start: _Box, end: _Box, hot: bool) -> str:
    x1, y1, x2, y2 = start.x + start.width, start.y + _HEIGHT / 2, end.x, end.y + _HEIGHT / 2
    bend = max(30.0, (x2 - x1) / 2)
    kind = "edge hot" if hot else "edge"
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"/>'


def _legend(decisions: Mapping[str, str]) -> list[str]:
    lines, x = [], float(_MARGIN)
    for decision, words in _WORDS.items():
        if decision in decisions.values():
            lines.append(
                f'<g class="node {decision}"><rect x="{x:.1f}" y="39" width="12" height="12"/>'
                f'<text class="quiet" x="{x + 18:.1f}" y="49">{words}</text></g>'
            )
            x += 18 + len(words) * _LETTER + 20
    return lines
