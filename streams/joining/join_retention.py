"""When the join lets go of a record or a claim: judged long ago, in the index, and what it was joined with in order.

What was joined stays one: a record that goes leaves its attempt given away, and a claim that goes leaves the records
that it explains as they were judged.
"""

from heapq import heappush
from typing import Final

from alerts.thresholds import MINUTE_MS, Limits
from streams.joining.correlate import partition_key
from streams.joining.join_crowd import Crowd
from streams.joining.joinstate import ClaimState, UseState
from streams.joining.kek_watch import KekWatch
from streams.joining.matching import Matching
from streams.state import Kind, State

Due = tuple[int, int, bytes]
"""When to look at something again: milliseconds, kind, id."""

_RETRY_MS: Final = MINUTE_MS
"""A record that may go but is not indexed yet is looked at again after this long."""


class Retention:
    """Lets go of what one partition keeps; `due` is the heap of the step, where it asks to be called again."""

    def __init__(self, *, matching: Matching, keks: KekWatch, crowd: Crowd, limits: Limits, due: list[Due]) -> None:
        self._matching = matching
        self._keks = keks
        self._crowd = crowd
        self._limits = limits
        self._due = due

    def use_dues(self, ident: bytes, known: UseState) -> list[Due]:
        """When a record is judged by the clock, and when it may go."""
        limits = self._limits
        waits = (limits.provisional_ms, limits.final_ms, limits.final_ms + limits.join_keep_ms)
        return [(known.seen_ms + wait_ms, int(Kind.USE), ident) for wait_ms in waits]

    def claim_dues(self, ident: bytes, known: ClaimState) -> list[Due]:
        """The same of a claim."""
        limits = self._limits
        waits = (limits.unlogged_first_look_ms, limits.unlogged_ms, limits.unlogged_ms + limits.join_keep_ms)
        return [(known.seen_ms + wait_ms, int(Kind.CLAIM), ident) for wait_ms in waits]

    def use(self, ident: bytes, now_ms: int, state: State) -> None:
        """Forget a record, if its time has come."""
        known = state.get(Kind.USE, ident, UseState)
        if known is None:
            return
        keep_until_ms = max(known.seen_ms + self._limits.final_ms, known.judged_ms) + self._limits.join_keep_ms
        if now_ms < known.seen_ms + self._limits.final_ms + self._limits.join_keep_ms:
            return
        if now_ms < keep_until_ms or known.doc_indexed != known.revision:
            heappush(self._due, (max(keep_until_ms, now_ms + _RETRY_MS), int(Kind.USE), ident))
            return
        self._settle_attempt(ident, state)
        self._keks.forget(ident, known)
        self._crowd.leave("use", partition_key(known.use.vault, known.use.name))
        state.forget(Kind.USE, ident)

    def claim(self, ident: bytes, now_ms: int, state: State) -> None:
        """Forget a claim, if its time has come."""
        known = state.get(Kind.CLAIM, ident, ClaimState)
        if known is None or now_ms < known.seen_ms + self._limits.unlogged_ms + self._limits.join_keep_ms:
            return
        if known.doc_indexed != known.revision:
            heappush(self._due, (now_ms + _RETRY_MS, int(Kind.CLAIM), ident))
            return
        for dependent in self._matching.dependents(ident):
            self._settle_use(dependent, state)
        self._matching.forget_claim(ident)
        self._crowd.leave("claim", partition_key(known.claim.vault, known.claim.name))
        state.forget(Kind.CLAIM, ident)

    def _settle_use(self, ident: bytes, state: State) -> None:
        """Leave a judged record as it is, now that what it was joined with goes."""
        known = state.get(Kind.USE, ident, UseState)
        if known is not None and known.use.final:
            self._settle_attempt(ident, state)
            known.settled = True
            state.put(Kind.USE, ident, known)

    def _settle_attempt(self, ident: bytes, state: State) -> None:
        attempt = self._matching.drop_access(ident)
        claim = None if attempt is None else state.get(Kind.CLAIM, attempt.claim, ClaimState)
        if attempt is not None and claim is not None:
            claim.settled.append(attempt.call_id)
            state.put(Kind.CLAIM, attempt.claim, claim)
