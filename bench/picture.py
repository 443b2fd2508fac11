"""Results as SVG: bars for the bench, lines for the growth. Colours follow the reader's light or dark setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.results import Outcome, Results
from bench.table import number

_STYLE = """<style>
svg { font: 12px system-ui, sans-serif; background: #ffffff; }
text { fill: #24292f; } .quiet { fill: #656d76; } .strong { font-weight: 600; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.c0 { fill: #0f6fc6; stroke: #0f6fc6; } .c1 { fill: #b4530a; stroke: #b4530a; } .c2 { fill: #6b7f12; stroke: #6b7f12; }
.c3 { fill: #8250a8; stroke: #8250a8; } .c4 { fill: #b03a5b; stroke: #b03a5b; } .limit { fill: #8c959f; stroke: #8c959f; }
.line { fill: none; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; } text { fill: #e6edf3; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
.c0 { fill: #4ea3f0; stroke: #4ea3f0; } .c1 { fill: #e08a4a; stroke: #e08a4a; } .c2 { fill: #a3b83c; stroke: #a3b83c; }
.c3 { fill: #b58ad8; stroke: #b58ad8; } .c4 { fill: #e0708f; stroke: #e0708f; }
}
</style>"""
_LEFT, _BARS, _RIGHT = 350, 440, 100
_BAR, _GAP = 12, 16


def bars(results: Results) -> str:
    """One group of bars for each workload: each side's median seconds, as a part of the longest of the group."""
    sides = [*results.sides(), "limit"]
    body, down = _legend(sides, 20), 48
    for outcome in results.outcomes:
        drawn, down = _group(outcome, sides, down)
        body += drawn
    return _svg(_LEFT + _BARS + _RIGHT, down, body, "Seconds of each side, by workload")


def _svg(width: int, height: int, body: Sequence[str], title: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join([f'{head} role="img">', f"<title>{escape(title)}</title>", _STYLE, *body, "</svg>", ""])


def _legend(sides: Sequence[str], down: int) -> list[str]:
    drawn, along = [], _LEFT
    for index, side in enumerate(sides):
        drawn.append(f'<rect class="{_colour(side, index)}" x="{along}" y="{down - 9}" width="10" height="10" rx="2"/>')
        drawn.append(f'<text x="{along + 15}" y="{down}">{escape(side)}</text>')
        along += 40 + 7 * len(side)
    return drawn


def _colour(side: str, index: int) -> str:
    return "limit" if side == "limit" else f"c{index % 5}"


def _group(outcome: Outcome, sides: Sequence[str], down: int) -> tuple[list[str], int]:
    times = {side: outcome.limit_median() if side == "limit" else outcome.median(side) for side in sides}
    longest = max((value for value in times.values() if value), default=1.0)
    ratio = outcome.ratio()
    drawn = [
        f'<text class="strong" x="8" y="{down + 10}">{escape(outcome.key)}</text>',
        f'<text x="46" y="{down + 10}">{escape(outcome.title)}</text>',
    ]
    if ratio:
        drawn.append(f'<text class="quiet" x="46" y="{down + 26}">{number(ratio.median)} of the best peer</text>')
    for index, side in enumerate(sides):
        if (value := times[side]) is not None:
            drawn += _bar(_colour(side, index), value, longest, down)
            down += _BAR + 2
    return drawn, max(down, int(float(drawn[0].split('y="')[1].split('"')[0])) + 20) + _GAP


def _bar(colour: str, value: float, longest: float, down: int) -> list[str]:
    width = max(1.0, value / longest * _BARS)
    return [
        f'<rect class="{colour}" x="{_LEFT}" y="{down}" width="{width:.1f}" height="{_BAR}" rx="2" stroke="none"/>',
        f'<text class="quiet" x="{_LEFT + width + 6:.1f}" y="{down + 10}">{number(value)} s</text>',
    ]


@dataclass(frozen=True, slots=True)
class Line:
    """A measured quantity over a size; both axes are logarithmic."""

    title: str
    unit: str
    points: Sequence[tuple[float, float]]


_PANEL, _TALL, _EDGE = 420, 220, 56


def lines(rows: Sequence[Sequence[Line]]) -> str:
    """A panel for each line, row by row."""
    body = [
        part
        for row, panels in enumerate(rows)
        for column, line in enumerate(panels)
        for part in _panel(line, column * _PANEL, row * _TALL, column)
    ]
    return _svg(_PANEL * max(map(len, rows), default=1), _TALL * len(rows), body, "How time and memory grow")


def _panel(line: Line, left: int, top: int, column: int) -> list[str]:
    across = _Scale([x for x, _ in line.points], left + _EDGE, left + _PANEL - 24)
    up = _Scale([y for _, y in line.points], top + _TALL - 34, top + 34)
    places = [(across.at(x), up.at(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = [f'<text class="strong" x="{left + 10}" y="{top + 18}">{escape(line.title)}, {escape(line.unit)}</text>']
    for value in up.marks():
        drawn.append(
            f'<line class="grid" x1="{left + _EDGE}" x2="{left + _PANEL - 24}" y1="{up.at(value):.1f}" y2="{up.at(value):.1f}"/>'
        )
        drawn.append(
            f'<text class="quiet" x="{left + _EDGE - 6}" y="{up.at(value) + 4:.1f}" text-anchor="end">{short(value)}</text>'
        )
    for x, _ in line.points:
        drawn.append(
            f'<text class="quiet" x="{across.at(x):.1f}" y="{top + _TALL - 14}" text-anchor="middle">{short(x)}</text>'
        )
    drawn.append(f'<polyline class="line c{column}" style="fill:none" points="{path}"/>')
    return [*drawn, *(f'<circle class="c{column}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)]


class _Scale:
    """From values to places between two ends, by powers of ten."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self._low = math.log10(min(values)) - 0.05
        self._high = max(math.log10(max(values)) + 0.05, self._low + 0.3)
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return self._begin + part * (self._end - self._begin)

    def marks(self) -> list[float]:
        """1, 2 and 5 times the powers of ten that lie between."""
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        found = [step * 10.0**power for power in powers for step in (1, 2, 5)]
        return [value for value in found if self._low <= math.log10(value) <= self._high]


def short(value: float) -> str:
    """2000 as 2k, 3000000 as 3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
