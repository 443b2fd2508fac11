"""Functions of HCL for times, written as RFC 3339 does."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from kiln.errors import UsageError
from kiln.sources.hcl.value import Function, Value, text, whole

_WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _when(value: Value) -> datetime:
    word = text(value)
    if not _WHEN.fullmatch(word):
        raise UsageError(f"{word!r} is not a time", hint="Write it like 2026-01-31T12:00:00Z.")
    return datetime.fromisoformat(word)


def _written(when: datetime) -> str:
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


def _zone(when: datetime, colon: bool) -> str:
    offset = when.strftime("%z")
    return f"{offset[:3]}:{offset[3:5]}" if colon else offset[:5]


def _date_part(word: str, when: datetime) -> str:
    hour = when.hour % 12 or 12
    known = {
        "YYYY": f"{when.year:04}", "YY": f"{when.year % 100:02}", "MMMM": _MONTHS[when.month - 1],
        "MMM": _MONTHS[when.month - 1][:3], "MM": f"{when.month:02}", "M": str(when.month), "DD": f"{when.day:02}",
        "D": str(when.day), "EEEE": _DAYS[when.weekday()], "EEE": _DAYS[when.weekday()][:3], "hh": f"{when.hour:02}",
        "h": str(when.hour), "HH": f"{hour:02}", "H": str(hour), "AA": "PM" if when.hour >= 12 else "AM",
        "aa": "pm" if when.hour >= 12 else "am", "mm": f"{when.minute:02}", "m": str(when.minute),
        "ss": f"{when.second:02}", "s": str(when.second), "ZZZZZ": _zone(when, True), "ZZZZ": _zone(when, False),
        "ZZZ": "UTC" if not when.utcoffset() else _zone(when, False), "Z": "Z" if not when.utcoffset() else _zone(when, True),
    }  # fmt: skip
    if word not in known:
        raise UsageError(f"{word!r} is not part of a date format", hint="Put words that stand for themselves in '...'.")
    return known[word]


def _format_date(form: Value, value: Value) -> Value:
    out, when, at = [], _when(value), 0
    for found in _PART.finditer(text(form)):
        if found.start() != at:
            break
        at = found.end()
        quoted = found[1]
        letters = found[2] is not None
        out.append(
            _date_part(found[0], when) if letters else quoted.replace("''", "'") if quoted is not None else found[0]
        )
    if at != len(text(form)):
        raise UsageError("a ' of the format is not ended")
    return "".join(out)


def _duration(word: str) -> timedelta:
    sign, rest = (-1, word[1:]) if word.startswith("-") else (1, word.removeprefix("+"))
    if rest == "0":
        return timedelta()
    found = _DURATION.findall(rest)
    if not found or "".join(amount + unit for amount, unit in found) != rest:
        raise UsageError(f"{word!r} is not a duration", hint="Write it like 1h30m or -24h.")
    return timedelta(seconds=sign * sum(float(amount) * _SECONDS[unit] for amount, unit in found))


def _parsed(value: Value) -> Value:
    when = datetime.fromtimestamp(whole(value), UTC)
    iso = when.isocalendar()
    return {
        "year": when.year, "year_day": when.timetuple().tm_yday, "month": when.month,
        "month_name": _MONTHS[when.month - 1], "day": when.day, "weekday": when.isoweekday() % 7,
        "weekday_name": _DAYS[when.weekday()], "hour": when.hour, "minute": when.minute, "second": when.second,
        "rfc3339": _written(when), "iso_year": iso.year, "iso_week": iso.week,
    }  # fmt: skip


FUNCTIONS: dict[str, Function] = {
    "formatdate": _format_date,
    "timeadd": lambda value, duration: _written(_when(value) + _duration(text(duration))),
    "timestamp": lambda: _written(datetime.now(UTC)),
    "unixtimestampparse": _parsed,
}
