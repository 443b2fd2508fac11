"""The final report of a bake as lines of text."""

from __future__ import annotations

from collections import Counter

from kiln.baking.many import BUILT, FAILED, PULLED, PUSHED, SKIPPED, UNREACHED, Report, Row

_ORDER = (SKIPPED, PULLED, PUSHED, BUILT, FAILED, UNREACHED)
_MOST = 40


def report_lines(report: Report, *, color: bool) -> list[str]:
    """What was skipped and why, pulled, pushed, built, failed and not reached; then one line of counts."""
    counts = Counter(row.result for row in report.rows)
    width = max((len(row.name) for row in report.rows), default=0)
    lines = []
    for result in _ORDER:
        rows = [row for row in report.rows if row.result == result]
        if result == SKIPPED and len(rows) > _MOST:
            lines.append(f"  {SKIPPED:<12}{len(rows)} targets: unchanged")
            continue
        lines += [_line(row, width) for row in rows]
    words = ", ".join(f"{counts[result]} {result}" for result in reversed(_ORDER) if counts[result])
    return [*lines, f"{len(report.rows)} target{'s' * (len(report.rows) != 1)}: {words or 'nothing to do'}"]


def _line(row: Row, width: int) -> str:
    seconds = f" {row.seconds:.1f} s" if row.result == BUILT else ""
    pushed = ", pushed" if row.pushed and row.result != PUSHED else ""
    return f"  {row.result:<12}{row.name:<{width}}{seconds}{pushed}  ({row.reason})"
