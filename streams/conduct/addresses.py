"""Sign-in challenges by address: counted until a token follows, and told when a thousand are alone. Pure.

A challenge names nobody, so the address is all there is to count by. The answers come from the bins of principals,
once per bin and address, when those are judged: a bin of challenges waits for them one lateness longer.
"""

from heapq import heapify, heappop, heappush
from typing import Final

from msgspec import Struct

from alerts import rules
from alerts.conduct import Challenges
from alerts.model import Evidence
from alerts.thresholds import Limits
from streams.conduct.bins import CITED
from streams.conduct.observations import Answered, Challenged
from streams.findings import FindingBook
from streams.messages import Effects
from streams.state import Kind, State

MAX_VAULTS: Final = 8


class Lonely(Struct, kw_only=True, omit_defaults=True):
    """Challenges of one address by bin, since a token last came from it; `first` and `ids` are evidence."""

    due_ms: int
    counts: dict[int, int] = {}
    answered: int = -1
    network: str | None = None
    vaults: list[str] = []
    first: list[tuple[int, str]] = []
    told_bin: int = -1


class Addresses:
    """The addresses of one partition."""

    def __init__(self, *, limits: Limits, book: FindingBook) -> None:
        self._limits = limits
        self._book = book
        self._due: list[tuple[int, bytes]] = []
        self.refused = 0

    def restore(self, state: State) -> None:
        """Rebuild the order in which addresses are judged."""
        found = ((state.get(Kind.ADDRESS, ident, Lonely), ident) for ident in state.idents(Kind.ADDRESS))
        self._due = [(lonely.due_ms, ident) for lonely, ident in found if lonely is not None]
        heapify(self._due)

    def challenged(self, said: Challenged, now_ms: int, state: State) -> bool:
        """Count one challenge; False where there are too many addresses to know one more."""
        ident = said.address.encode()
        lonely = state.get(Kind.ADDRESS, ident, Lonely)
        if lonely is None:
            if state.count(Kind.ADDRESS) >= self._limits.addresses:
                return False
            lonely = Lonely(due_ms=self._due_ms(said.time_us, now_ms), network=said.network)
            heappush(self._due, (lonely.due_ms, ident))
        elif (due_ms := self._due_ms(said.time_us, now_ms)) < lonely.due_ms:
            lonely.due_ms = due_ms
            heappush(self._due, (due_ms, ident))
        number = said.time_us // (self._limits.bin_ms * 1000)
        lonely.counts[number] = lonely.counts.get(number, 0) + 1
        lonely.first = sorted([*lonely.first, (said.time_us, said.access_id)])[:CITED]
        if said.vault not in lonely.vaults:
            lonely.vaults = sorted([*lonely.vaults, said.vault])[:MAX_VAULTS]
        state.put(Kind.ADDRESS, ident, lonely)
        return True

    def answered(self, said: Answered, state: State) -> None:
        """Note that a token came from the address."""
        ident = said.address.encode()
        lonely = state.get(Kind.ADDRESS, ident, Lonely)
        if lonely is not None and said.bin > lonely.answered:
            lonely.answered = said.bin
            state.put(Kind.ADDRESS, ident, lonely)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Judge the addresses that are due, and forget those with no challenge left."""
        while self._due and self._due[0][0] <= now_ms:
            due_ms, ident = heappop(self._due)
            lonely = state.get(Kind.ADDRESS, ident, Lonely)
            if lonely is None or lonely.due_ms != due_ms:
                continue  # judged earlier than it once had to be
            self._judge(ident.decode(), lonely, now_ms, state, effects)
            if not lonely.counts:
                state.forget(Kind.ADDRESS, ident)
                continue
            lonely.due_ms = self._next_ms(lonely, now_ms)
            state.put(Kind.ADDRESS, ident, lonely)
            heappush(self._due, (lonely.due_ms, ident))

    def _judge(self, address: str, lonely: Lonely, now_ms: int, state: State, effects: Effects) -> None:
        limits = self._limits
        newest = (now_ms - self._waits_ms()) // limits.bin_ms - 1
        oldest = newest - limits.lone_challenges_keep_ms // limits.bin_ms
        lonely.counts = {
            number: count for number, count in lonely.counts.items() if number > lonely.answered and number >= oldest
        }
        ripe = [number for number in lonely.counts if number <= newest]
        began_us = min(lonely.counts, default=0) * limits.bin_ms * 1000
        lonely.first = [proof for proof in lonely.first if proof[0] >= began_us]
        if not ripe or max(ripe) <= lonely.told_bin:
            return
        subject = Challenges(
            address=address,
            network=lonely.network,
            count=sum(lonely.counts[number] for number in ripe),
            first_us=min(ripe) * limits.bin_ms * 1000,
            time_us=(max(ripe) + 1) * limits.bin_ms * 1000,
            vaults=tuple(lonely.vaults),
            evidence=tuple(Evidence("vault-access", ident, time_us // 1000) for time_us, ident in lonely.first),
        )
        found = rules.run(subject, limits)
        if found:
            lonely.told_bin = max(ripe) + limits.incident_quiet_ms // limits.bin_ms
        for finding in found:
            self._book.report(finding, now_ms, state, effects)

    def _next_ms(self, lonely: Lonely, now_ms: int) -> int:
        """When there is something to judge again: the next bin is ripe, or the oldest has had its day."""
        bin_ms, waits_ms = self._limits.bin_ms, self._waits_ms()
        ripe_ms = [(number + 1) * bin_ms + waits_ms for number in lonely.counts]
        later_ms = [at_ms for at_ms in ripe_ms if at_ms > now_ms]
        return min([*later_ms, min(ripe_ms) + self._limits.lone_challenges_keep_ms + bin_ms])

    def _waits_ms(self) -> int:
        return 2 * (self._limits.lateness_ms + self._limits.lateness_grace_ms)

    def _due_ms(self, time_us: int, now_ms: int) -> int:
        end_ms = (time_us // (self._limits.bin_ms * 1000) + 1) * self._limits.bin_ms
        return max(end_ms + self._waits_ms(), now_ms)
