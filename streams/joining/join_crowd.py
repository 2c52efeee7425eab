"""How much of one KEK the join keeps at once: beyond the bound it says so, and blames nobody for what it cannot tell.

A flood of vault records, or a service that invents events without end, would otherwise take a worker's memory, and with
it the judgement of every KEK of its partition. Beyond the bound neither the records of a KEK nor the claims about it
are joined. A record by an identity of no service is judged all the same, since nothing could explain it. One of a
service is `not_evaluated`, `too_many`, also for as long as a claim that was not taken might have explained it. All
that is one finding a KEK, which ends by itself.
"""

from collections import Counter
from typing import Final, Literal

from msgspec import Struct

from alerts.system import system_finding
from alerts.thresholds import MINUTE_MS, Limits
from streams.joining.standing import StandingFindings
from streams.messages import Effects
from streams.state import Kind, State

Family = Literal["use", "claim"]
_RENEW_MS: Final = MINUTE_MS


class Crowded(Struct):
    """A KEK of which something was not taken; until when that may be missed."""

    until_ms: int


class Crowd:
    """Counts what one partition keeps, by KEK (`vault/name`, lower case)."""

    def __init__(self, *, findings: StandingFindings, limits: Limits) -> None:
        self._findings = findings
        self._limits = limits
        self._kept: Counter[tuple[Family, bytes]] = Counter()

    def count(self, family: Family, key: bytes) -> None:
        """Note that one more is kept."""
        self._kept[family, key] += 1

    def leave(self, family: Family, key: bytes) -> None:
        """Note that one is kept no longer."""
        self._kept[family, key] -= 1
        if not self._kept[family, key]:
            del self._kept[family, key]

    def admits(self, family: Family, key: bytes) -> bool:
        """Say whether one more may be kept."""
        return self._kept[family, key] < self._limits.join_kept

    def turned_away(  # noqa: PLR0917 - the step's own arguments, handed on
        self, family: Family, key: bytes, at_ms: int, now_ms: int, state: State, effects: Effects
    ) -> None:
        """Tell that something of a moment was not taken."""
        until_ms = now_ms + self._limits.final_ms + self._limits.join_keep_ms
        known = state.get(Kind.SEEN, key, Crowded)
        if known is None or until_ms - known.until_ms >= _RENEW_MS:
            state.put(Kind.SEEN, key, Crowded(until_ms))
        what = "vault records" if family == "use" else "events"
        finding = system_finding(
            "join_overflow",
            summary=f"more than {self._limits.join_kept:,} {what} about {key.decode()} within two hours: "
            "those beyond are not joined, and uses by services not evaluated",
            effective_ms=at_ms,
            key=key.decode(),
        )
        self._findings.report(finding, now_ms, state, effects)

    def is_crowded(self, key: bytes, state: State) -> bool:
        """Say whether something of this KEK was not taken and may be missed."""
        return state.get(Kind.SEEN, key, Crowded) is not None

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """End what is over."""
        for key in state.idents(Kind.SEEN):
            known = state.get(Kind.SEEN, key, Crowded)
            if known is not None and known.until_ms <= now_ms:
                state.forget(Kind.SEEN, key)
                finding = system_finding("join_overflow", summary="", effective_ms=0, key=key.decode())
                self._findings.end(finding, "all that comes is joined again", now_ms, state, effects)
