"""How long to wait before the next attempt: exponential with jitter, or what the registry asks for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from kiln.registry.faults import TransientError

Result = TypeVar("Result")
LONGEST = 60.0


class Backoff(Struct, frozen=True):
    """At most `attempts`, waiting about `first`, 2 `first`, 4 `first` ... seconds between them, never over a minute."""

    attempts: int = 5
    first: float = 0.5
    sleep: Callable[[float], None] = time.sleep

    def pause(self, attempt: int, asked: float = 0) -> None:
        """Waits after failed attempt number `attempt` (from 1); `asked` seconds if the registry named a time."""
        self.sleep(min(LONGEST, asked or self.first * 2 ** (attempt - 1) * random.uniform(0.5, 1)))

    def run(self, action: Callable[[], Result]) -> Result:
        """What `action` returns, tried again on `TransientError` as often as the error is worth.

        Raises the last error, which is then worth no more patience: who called must not start over.
        """
        attempt = 0
        while True:
            try:
                return action()
            except TransientError as bad:
                attempt += 1
                if attempt >= min(self.attempts, bad.patience):
                    bad.patience = 0
                    raise
                self.pause(attempt, bad.wait)


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date): 0 for none, at most 60."""
    if value.strip().isdigit():
        return min(LONGEST, float(value))
    try:
        from email.utils import parsedate_to_datetime

        when = parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0
    return min(LONGEST, max(0.0, when - time.time()))
