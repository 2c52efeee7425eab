"""The simulated clock of the demo: it stands still until somebody moves it, and never goes back."""

from datetime import UTC, datetime

from cryptocore.clock import EPOCH

MINUTE_US = 60 * 1_000_000
# Monday of week 47, 2026, 00:00 UTC: the demo's week is always the same one.
WEEK = "2026-W47"
WEEK_START_US = int((datetime(2026, 11, 16, tzinfo=UTC) - EPOCH).total_seconds()) * 1_000_000
WEEK_END_US = WEEK_START_US + 7 * 24 * 60 * MINUTE_US


class SimClock:
    """A cryptocore Clock whose time is set by the story."""

    def __init__(self, start_us: int = WEEK_START_US) -> None:
        self._now_us = start_us

    def now_us(self) -> int:
        return self._now_us

    def now_ms(self) -> int:
        return self._now_us // 1000

    def monotonic(self) -> float:
        return self._now_us / 1_000_000

    def advance(self, seconds: float) -> None:
        self.advance_to(self._now_us + round(seconds * 1_000_000))

    def advance_to(self, us: int) -> None:
        """Move on to this time; earlier ones are ignored."""
        self._now_us = max(self._now_us, us)
