"""How far the processes of each source are heard, and which vault records wait for them.

A record is judged as soon as every live process of its source has passed its time: no event that could explain it is
still to come. Processes of which only claims are known hold judgement up too, until they report.
"""

from collections import defaultdict
from heapq import heappop, heappush
from typing import Final, NamedTuple

from alerts.thresholds import HOUR_MS
from streams.joining.correlate import Claim, Progress
from streams.joining.joinstate import InstanceState
from streams.state import Kind, State

WAIT_MS: Final = 6 * HOUR_MS
"""How far back a record may be dated and still be judged by progress; an older one is judged by the clock alone."""


class Heard(NamedTuple):
    """How far the slowest live process is behind a moment (None: none is live), and how many are live.

    `silent_ms`: where none is live, how far the process that fell silent last was behind; None where none did, or where
    all that was committed before the moment had come.
    """

    behind_ms: int | None
    instances: int
    silent_ms: int | None = None


class SourceProgress:
    """Derived from the instance records of the state."""

    def __init__(self, *, slack_ms: int, keep_ms: int) -> None:
        self._slack_ms = slack_ms
        self._keep_ms = keep_ms
        self._live: defaultdict[str, dict[bytes, int]] = defaultdict(dict)
        self._silent: defaultdict[str, dict[bytes, int]] = defaultdict(dict)
        self._waiting: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._pruned_ms = 0

    def restore(self, state: State) -> None:
        self._live.clear()
        self._silent.clear()
        self._waiting.clear()
        for ident in state.idents(Kind.SOURCE):
            known = state.get(Kind.SOURCE, ident, InstanceState)
            if known is not None:
                self._note(ident, known)

    def advance(self, progress: Progress, now_ms: int, state: State) -> list[bytes]:
        """Take the word on one process; returns the records that wait no longer."""
        ident = _ident(progress.source, progress.instance)
        known = state.get(Kind.SOURCE, ident, InstanceState)
        passed_ms = progress.passed_ms if known is None or not known.heard else max(known.passed_ms, progress.passed_ms)
        record = InstanceState(
            source=progress.source, passed_ms=passed_ms, state=progress.state, seen_ms=now_ms, heard=True
        )
        self._keep(ident, record, state)
        return self._released(progress.source)

    def claimed(self, claim: Claim, now_ms: int, state: State) -> None:
        """Note that a process exists, when its first claim comes before its first report."""
        ident = _ident(claim.source, claim.instance)
        if ident not in self._live[claim.source] and state.get(Kind.SOURCE, ident, InstanceState) is None:
            begun_ms = claim.effective_ms - self._slack_ms
            record = InstanceState(source=claim.source, passed_ms=begun_ms, state="live", seen_ms=now_ms)
            self._keep(ident, record, state)

    def heard(self, source: str, time_ms: int) -> Heard:
        """Say how far the source is heard, seen from the time of a vault record."""
        live = self._live.get(source)
        if not live:
            silent = self._silent.get(source)
            return Heard(None, 0, max(0, time_ms + self._slack_ms - max(silent.values())) or None if silent else None)
        return Heard(max(0, time_ms + self._slack_ms - min(live.values())), len(live))

    def wait(self, source: str, time_ms: int, ident: bytes) -> None:
        """Remember a record that is to be judged when its source has passed it."""
        heappush(self._waiting[source], (time_ms + self._slack_ms, ident))

    def prune(self, now_ms: int, state: State) -> list[bytes]:
        """Forget processes that ended or never reported long ago; returns the records that wait no longer."""
        if now_ms - self._pruned_ms < self._keep_ms // 4:
            return []
        self._pruned_ms = now_ms
        self._stop_waiting(now_ms - WAIT_MS)
        released: list[bytes] = []
        for ident in state.idents(Kind.SOURCE):
            known = state.get(Kind.SOURCE, ident, InstanceState)
            if known is None or now_ms - known.seen_ms < self._keep_ms or (known.heard and known.state == "live"):
                continue
            state.forget(Kind.SOURCE, ident)
            self._live[known.source].pop(ident, None)
            self._silent[known.source].pop(ident, None)
            released += self._released(known.source)
        return released

    def _stop_waiting(self, before_ms: int) -> None:
        """Let go of records that the clock has judged long ago: a source may never be heard again."""
        for source in list(self._waiting):
            waiting = self._waiting[source]
            while waiting and waiting[0][0] < before_ms:
                heappop(waiting)
            if not waiting:
                del self._waiting[source]

    def _keep(self, ident: bytes, record: InstanceState, state: State) -> None:
        state.put(Kind.SOURCE, ident, record)
        self._note(ident, record)

    def _note(self, ident: bytes, record: InstanceState) -> None:
        for kept, word in ((self._live, "live"), (self._silent, "silent")):
            if record.state == word:
                kept[record.source][ident] = record.passed_ms
            else:
                kept[record.source].pop(ident, None)

    def _released(self, source: str) -> list[bytes]:
        live, waiting = self._live[source], self._waiting[source]
        if not live:
            return []
        passed_ms = min(live.values())
        released = []
        while waiting and waiting[0][0] <= passed_ms:
            released.append(heappop(waiting)[1])
        return released


def _ident(source: str, instance: str) -> bytes:
    return f"{source}/{instance}".encode()
