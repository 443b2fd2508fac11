"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from bench.results import Outcome, Results


def markdown(results: Results) -> str:
    """The tables: times, what they cost beside time, and what was measured on."""
    parts = [_times(results), _costs(results), _faults(results), _notes(results)]
    return "\n\n".join(part for part in parts if part)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 2) -> str:
    """A table; the first `texts` columns hold text, the others numbers."""
    marks = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows])


def _times(results: Results) -> str:
    sides = results.sides()
    head = ["", "seconds", *sides, "limit", "ratio to the best peer", "aim"]
    return grid(head, [_time_row(outcome, sides) for outcome in results.outcomes])


def _time_row(outcome: Outcome, sides: Sequence[str]) -> list[str]:
    times = [number(outcome.median(side)) for side in sides]
    ratio = outcome.ratio()
    told = f"{number(ratio.median)} ({number(ratio.least)} to {number(ratio.most)})" if ratio else "-"
    return [outcome.key, outcome.title, *times, number(outcome.limit_median()), told, _aim(outcome)]


def _aim(outcome: Outcome) -> str:
    if outcome.aim_seconds is not None:
        wanted = f"{outcome.aim_seconds:g} s"
    else:
        wanted = f"{outcome.aim:g}" if outcome.aim is not None else "-"
    return wanted + {True: ", reached", False: ", missed", None: ""}[outcome.reached()]


def _costs(results: Results) -> str:
    sides = results.sides()
    head = [
        "", "", *(f"{side} CPU s" for side in sides), *(f"{side} MB" for side in sides),
        *(f"{side} pushed MB" for side in sides), "pushed, ratio to the least",
    ]  # fmt: skip
    return grid(head, [_cost_row(outcome, sides) for outcome in results.outcomes])


def _cost_row(outcome: Outcome, sides: Sequence[str]) -> list[str]:
    cpu = [number(outcome.median(side, "cpu")) for side in sides]
    memory = [megabytes(outcome.median(side, "memory")) for side in sides]
    pushed = [megabytes(outcome.median(side, "pushed")) for side in sides]
    return [outcome.key, outcome.title, *cpu, *memory, *pushed, number(outcome.size_ratio())]


def _faults(results: Results) -> str:
    return "\n".join(f"{outcome.key}: {side} failed." for outcome in results.outcomes for side in outcome.faults)


def _notes(results: Results) -> str:
    known = results.machine
    place = (
        f"{known['processor']}, {known['cores']} cores, {known['memory']}, {known['system']}, Linux {known['kernel']}"
    )
    counts = sorted({len(runs) for outcome in results.outcomes for runs in outcome.runs.values()})
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0] if counts else 0)
    versions = "; ".join(f"{side}: {version}" for side, version in results.versions.items())
    return (
        f"{place}. {versions}. Medians of {many} runs, the sides in turn on the same content; ratios are taken pair by pair "
        f"(least and largest in brackets). CPU and memory (Pss) are of all processes, daemons among them. The limit is the "
        f"same bytes read, hashed, compressed, hashed and uploaded, and nothing else. Pushed: compressed layers on the base."
    )


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def megabytes(value: float | None) -> str:
    """Bytes in megabytes."""
    return "-" if value is None else number(value / 1e6) if value < 1e8 else f"{value / 1e6:.0f}"
