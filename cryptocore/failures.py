"""Failures that touched no DEK, per caller: the first ones leave an event each, a flood of them is counted instead.

Nothing is lost from the count: what had no event of its own is in a summary, exactly.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from cryptocore.events import Count, Operation, Outcome, Reason
from cryptocore.lines.texts import MAX_COUNTS

BURST: Final = 100
"""Events that one caller may leave at once."""
PER_SECOND: Final = 5.0
"""Events a second that one caller may leave for as long as he likes."""
SUMMARY_EVERY_S: Final = 60.0
MAX_CALLERS: Final = 10_000
UNTOUCHED: Final = frozenset({Reason.PARSE_ERROR, Reason.UNKNOWN_KEY, Reason.OWNER_MISMATCH})
"""Reasons of failures that ended before any DEK."""


@dataclass(slots=True)
class _Caller:
    left: float
    at: float
    counted: Counter[tuple[Operation, Outcome, Reason]] = field(default_factory=Counter)
    purpose: str = ""


class FailureMeter:
    """A token bucket for each actor."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller] = {}
        self._next_summary = 0.0

    def allows(self, actor: str, now: float) -> bool:
        """Say whether the caller's next failure may leave an event of its own."""
        caller = self._callers.get(actor)
        if caller is None:
            if len(self._callers) >= MAX_CALLERS:
                self._drop_idle(now)
            caller = self._callers[actor] = _Caller(BURST, now)
        caller.left = min(BURST, caller.left + (now - caller.at) * PER_SECOND)
        caller.at = now
        if caller.left < 1:
            return False
        caller.left -= 1
        return True

    def count(self, actor: str, purpose: str, what: tuple[Operation, Outcome, Reason]) -> None:
        """Count a failure that left no event."""
        caller = self._callers[actor]
        caller.counted[what] += 1
        caller.purpose = purpose

    def due(self, now: float, *, everything: bool = False) -> list[tuple[str, str, tuple[Count, ...]]]:
        """Take what is to be summarised: actor, last purpose, exact counts."""
        if not everything and now < self._next_summary:
            return []
        self._next_summary = now + SUMMARY_EVERY_S
        summaries = []
        for actor, caller in self._callers.items():
            counted = list(caller.counted.items())[:MAX_COUNTS]
            if counted:
                counts = tuple(
                    Count(operation=operation, outcome=outcome, reason=reason, count=count)
                    for (operation, outcome, reason), count in counted
                )
                summaries.append((actor, caller.purpose, counts))
        return summaries

    def summarised(self, actor: str, counts: tuple[Count, ...]) -> None:
        """Take off what a durable summary has told."""
        counted = self._callers[actor].counted
        for line in counts:
            counted[line.operation, line.outcome, line.reason] -= line.count
        self._callers[actor].counted = +counted

    def _drop_idle(self, now: float) -> None:
        for actor, caller in list(self._callers.items()):
            if not caller.counted and now - caller.at > BURST / PER_SECOND:
                del self._callers[actor]
