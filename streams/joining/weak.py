"""The weak pass, kept up to date: records without a telling id, and attempts that nobody else explains.

By the book, records choose in the order of their time, and each takes, of the attempts that agree and that no earlier
record took, the one whose window ends first. Here the result of that is kept, and an arrival or a departure moves only
those who would have chosen otherwise: a free attempt goes to the first record that prefers it, whose old one is then
free for later records; a record takes the best that no earlier one holds, and whoever held it chooses again.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable

from alerts.model import Strength
from streams.joining.attempts import Access, Attempt, agree


class WeakPool:
    """What the passes by id left of one KEK and source.

    Args:
        changed: called with each record and each attempt whose match changed.
    """

    def __init__(self, changed: Callable[[Access, Attempt], None]) -> None:
        self._changed = changed
        self._accesses: list[tuple[tuple[int, bytes], Access]] = []
        self._attempts: list[tuple[tuple[int, bytes, int], Attempt]] = []
        self._longest_us = 0

    @property
    def is_empty(self) -> bool:
        """Nothing is in it."""
        return not self._accesses and not self._attempts

    def add_access(self, access: Access) -> None:
        """Let a record choose."""
        insort(self._accesses, (access.order, access))
        self._choose(access)

    def discard_access(self, access: Access) -> None:
        """Take a record out, if it is in; its attempt is free for later ones."""
        at = bisect_left(self._accesses, (access.order,))
        if at == len(self._accesses) or self._accesses[at][1] is not access:
            return
        del self._accesses[at]
        attempt = access.attempt
        if attempt is not None:
            self._part(access, attempt)
            self._offer(attempt, after=access.order)

    def add_attempt(self, attempt: Attempt) -> None:
        """Offer an attempt."""
        insort(self._attempts, (attempt.order, attempt))
        self._longest_us = max(self._longest_us, attempt.to_us - attempt.from_us)
        self._offer(attempt, after=None)

    def discard_attempt(self, attempt: Attempt) -> None:
        """Take an attempt out, if it is in; whoever held it chooses again."""
        at = bisect_left(self._attempts, (attempt.order,))
        if at == len(self._attempts) or self._attempts[at][1] is not attempt:
            return
        del self._attempts[at]
        holder = attempt.taken
        if holder is not None:
            self._part(holder, attempt)
            self._choose(holder)

    def settle(self, access: Access, attempt: Attempt) -> None:
        """Take out a pair that stays one."""
        del self._accesses[bisect_left(self._accesses, (access.order,))]
        del self._attempts[bisect_left(self._attempts, (attempt.order,))]

    def _offer(self, attempt: Attempt, *, after: tuple[int, bytes] | None) -> None:
        offered: Attempt | None = attempt
        while offered is not None:
            taker = self._first_taker(offered, after)
            if taker is None:
                return
            before = taker.attempt
            if before is not None:
                self._part(taker, before)
            self._pair(taker, offered)
            offered, after = before, taker.order

    def _first_taker(self, attempt: Attempt, after: tuple[int, bytes] | None) -> Access | None:
        start = bisect_left(self._accesses, ((attempt.from_us,),))
        if after is not None:
            start = max(start, bisect_right(self._accesses, after, key=lambda entry: entry[0]))
        for at in range(start, len(self._accesses)):
            access = self._accesses[at][1]
            if access.time_us > attempt.to_us:
                return None
            held = access.attempt
            if (held is None or _rank(attempt) < _rank(held)) and _fits(access, attempt):
                return access
        return None

    def _choose(self, access: Access) -> None:
        chooser: Access | None = access
        while chooser is not None:
            best = self._best(chooser)
            if best is None:
                return
            loser = best.taken
            if loser is not None:
                self._part(loser, best)
            self._pair(chooser, best)
            chooser = loser

    def _best(self, access: Access) -> Attempt | None:
        start = bisect_left(self._attempts, ((access.time_us - self._longest_us,),))
        best: Attempt | None = None
        for at in range(start, len(self._attempts)):
            attempt = self._attempts[at][1]
            if attempt.from_us > access.time_us:
                break
            holder = attempt.taken
            free = holder is None or holder.order > access.order
            if free and (best is None or _rank(attempt) < _rank(best)) and _fits(access, attempt):
                best = attempt
        return best

    def _pair(self, access: Access, attempt: Attempt) -> None:
        access.attempt, access.strength, attempt.taken = attempt, Strength.WEAK, access
        self._changed(access, attempt)

    def _part(self, access: Access, attempt: Attempt) -> None:
        access.attempt = access.strength = attempt.taken = None
        self._changed(access, attempt)


def _fits(access: Access, attempt: Attempt) -> bool:
    return (access.correlation_id is None or attempt.request_id is None) and agree(access, attempt)


def _rank(attempt: Attempt) -> tuple[int, tuple[int, bytes, int]]:
    return attempt.to_us, attempt.order
