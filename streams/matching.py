"""Which vault record is which attempt of ours: a function of the set of both, whatever order they came in.

Three passes, each over what the one before left (docs/formats.md, "Vault attempts and the join"):
1. exact: the record carries the attempt's request id;
2. claimed: it carries the attempt's call id;
3. weak: by attributes alone, where the record carries no id, or one that nobody knows while the attempt got no answer
   that would have told it.
In each pass records choose in the order of their time, attempts are offered in the order of theirs, all attributes
must agree, and an attempt is given away once. New arrivals change only the groups that share an id with them.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from alerts.model import Strength
from streams.attempts import Access, Attempt, agree

_MAX_EAGER: Final = 20_000
"""Pairs up to which the weak pass is done at once; a bigger pool waits for the next tick."""


@dataclass(slots=True)
class _Pool:
    """What the passes by id left of one KEK and source: records without and with an id, attempts without and with."""

    plain: set[Access] = field(default_factory=set)
    named: set[Access] = field(default_factory=set)
    unanswered: set[Attempt] = field(default_factory=set)
    answered: set[Attempt] = field(default_factory=set)

    def accesses(self, like: Access) -> set[Access]:
        return self.plain if like.correlation_id is None else self.named

    def attempts(self, like: Attempt) -> set[Attempt]:
        return self.unanswered if like.request_id is None else self.answered

    @property
    def pairs(self) -> int:
        """How many pairs the weak pass would have to look at."""
        return len(self.plain) * (len(self.unanswered) + len(self.answered)) + len(self.named) * len(self.unanswered)


_Place = tuple[str, str]


class Matching:
    """All records and attempts of one partition, matched."""

    def __init__(self) -> None:
        self._claims: dict[bytes, list[Attempt]] = {}
        self._accesses: dict[bytes, Access] = {}
        self._by_request: defaultdict[str, set[Attempt]] = defaultdict(set)
        self._by_call: defaultdict[str, set[Attempt]] = defaultdict(set)
        self._by_correlation: defaultdict[str, set[Access]] = defaultdict(set)
        self._pools: defaultdict[_Place, _Pool] = defaultdict(_Pool)
        self._stale: dict[_Place, None] = {}
        self._changed: dict[bytes, None] = {}
        self._claims_changed: dict[bytes, None] = {}

    def access(self, ident: bytes) -> Access | None:
        return self._accesses.get(ident)

    def attempts(self, claim: bytes) -> list[Attempt]:
        return self._claims.get(claim, [])

    def named_by(self, access: Access) -> Attempt | None:
        """The first attempt whose id the record carries, agreeing or not."""
        value = access.correlation_id
        if value is None:
            return None
        named = self._by_request.get(value, set()) | self._by_call.get(value, set())
        return min(named, key=lambda attempt: attempt.order, default=None)

    def put_claim(self, claim: bytes, attempts: list[Attempt]) -> None:
        """Take the attempts of a claim, in place of those that it had."""
        values = self._take_out(claim)
        self._claims[claim] = attempts
        for attempt in attempts:
            if attempt.request_id is not None:
                self._by_request[attempt.request_id].add(attempt)
                values[attempt.request_id] = None
            self._by_call[attempt.call_id].add(attempt)
            values[attempt.call_id] = None
            self._leave(attempt)
        self._claims_changed[claim] = None
        self._regroup(values)

    def put_access(self, access: Access) -> None:
        """Take a vault record."""
        self._accesses[access.ident] = access
        self._changed[access.ident] = None
        self._leave(access)
        if access.correlation_id is not None:
            self._by_correlation[access.correlation_id].add(access)
            self._regroup({access.correlation_id: None})

    def dependents(self, claim: bytes) -> list[bytes]:
        """The records that a claim explains or whose ids it knows: to be dropped as they are before it is forgotten."""
        touched: dict[bytes, None] = {}
        for attempt in self.attempts(claim):
            if attempt.taken is not None:
                touched[attempt.taken.ident] = None
            for value in (attempt.request_id, attempt.call_id):
                if value is not None:
                    known = self._by_correlation.get(value, set())
                    touched |= dict.fromkeys(access.ident for access in sorted(known, key=lambda one: one.order))
        return list(touched)

    def note(self, ident: bytes) -> None:
        """Have a record judged that takes no part in the matching."""
        self._changed[ident] = None

    def drop_access(self, ident: bytes) -> Attempt | None:
        """Forget a record, whose attempt stays given away; returns that attempt."""
        access = self._accesses.pop(ident, None)
        if access is None:
            return None
        if access.correlation_id is not None:
            _discard(self._by_correlation, access.correlation_id, access)
        self._pools[self._place(access)].accesses(access).discard(access)
        if access.attempt is not None:
            access.attempt.settled = True
        return access.attempt

    def forget_claim(self, claim: bytes) -> None:
        """Forget a claim, after its dependents were dropped."""
        self._regroup(self._take_out(claim))

    def take_changed(self, *, eager: bool) -> tuple[list[bytes], list[bytes]]:
        """Do the weak pass where it is due, and hand over the records and claims to judge again.

        Args:
            eager: do it for big pools as well; what waits for one is not handed over.
        """
        for place in list(self._stale):
            if eager or self._pools[place].pairs <= _MAX_EAGER:
                self._match_weakly(self._pools[place])
                del self._stale[place]
        if not self._stale:
            changed, self._changed = list(self._changed), {}
        else:
            changed = [ident for ident in self._changed if not self._waits(ident)]
            for ident in changed:
                del self._changed[ident]
        claims, self._claims_changed = list(self._claims_changed), {}
        return changed, claims

    def _waits(self, ident: bytes) -> bool:
        access = self._accesses.get(ident)
        return access is not None and access.strength in {None, Strength.WEAK} and self._place(access) in self._stale

    # The passes by id

    def _regroup(self, values: dict[str, None]) -> None:
        """Match again all that carries one of these ids, and what that sets free."""
        while values:
            value = next(iter(values))
            del values[value]
            accesses = sorted(self._by_correlation.get(value, ()), key=lambda one: one.order)
            before = [access.attempt for access in accesses if access.attempt is not None]
            for access in accesses:
                self._release(access)
            self._pass(accesses, self._by_request.get(value, ()), Strength.EXACT, values)
            self._pass(accesses, self._by_call.get(value, ()), Strength.CLAIMED, values)
            for attempt in before:
                if attempt.taken is None and attempt.call_id != value:
                    values[attempt.call_id] = None

    def _pass(
        self, accesses: list[Access], attempts: Iterable[Attempt], strength: Strength, values: dict[str, None]
    ) -> None:
        offered = sorted((one for one in attempts if not one.settled), key=lambda one: one.order)
        if not offered:
            return
        for access in accesses:
            if access.attempt is not None:
                continue
            for attempt in offered:
                holder = attempt.taken
                if (holder is None or _rank(holder) > _RANK[strength]) and agree(access, attempt):
                    if holder is not None:
                        self._release(holder)
                        if holder.correlation_id is not None:
                            values[holder.correlation_id] = None
                    self._give(access, attempt, strength)
                    break

    # The weak pass

    def _match_weakly(self, pool: _Pool) -> None:
        accesses = sorted(pool.plain | pool.named, key=lambda one: one.order)
        for access in accesses:
            if access.attempt is not None:
                self._release(access)
        accesses = [access for access in accesses if not self._known(access)]
        offered = pool.unanswered | pool.answered if pool.plain else pool.unanswered
        attempts = sorted(offered, key=lambda one: one.order)
        near: list[Attempt] = []
        start = 0
        for access in accesses:
            while start < len(attempts) and attempts[start].from_us <= access.time_us:
                near.append(attempts[start])
                start += 1
            near = [one for one in near if one.to_us >= access.time_us and one.taken is None]
            fitting = [one for one in near if _unnamed(access, one) and agree(access, one)]
            if fitting:
                self._give(access, min(fitting, key=lambda one: (one.to_us, one.order)), Strength.WEAK)

    def _known(self, access: Access) -> bool:
        value = access.correlation_id
        return value is not None and (value in self._by_request or value in self._by_call)

    # Bookkeeping

    def _give(self, access: Access, attempt: Attempt, strength: Strength) -> None:
        access.attempt, access.strength, attempt.taken = attempt, strength, access
        self._changed[access.ident] = None
        self._claims_changed[attempt.claim] = None
        if strength is not Strength.WEAK:
            pool = self._pools[self._place(access)]
            pool.attempts(attempt).discard(attempt)
            pool.accesses(access).discard(access)

    def _release(self, access: Access) -> None:
        attempt = access.attempt
        self._changed[access.ident] = None
        if attempt is not None:
            access.attempt = access.strength = attempt.taken = None
            self._claims_changed[attempt.claim] = None
            self._leave(attempt)
        self._leave(access)

    def _leave(self, what: Access | Attempt) -> None:
        """Leave something to the weak pass."""
        place = self._place(what)
        pool = self._pools[place]
        if isinstance(what, Access):
            pool.accesses(what).add(what)
        elif not what.settled:
            pool.attempts(what).add(what)
        if pool.pairs:
            self._stale[place] = None

    @staticmethod
    def _place(what: Access | Attempt) -> _Place:
        return what.kek, what.source

    def _take_out(self, claim: bytes) -> dict[str, None]:
        """Remove a claim's attempts, and return the ids under which others may have to be matched again."""
        values: dict[str, None] = {}
        for attempt in self._claims.pop(claim, ()):
            self._pools[self._place(attempt)].attempts(attempt).discard(attempt)
            _discard(self._by_call, attempt.call_id, attempt)
            values[attempt.call_id] = None
            if attempt.request_id is not None:
                _discard(self._by_request, attempt.request_id, attempt)
                values[attempt.request_id] = None
            holder = attempt.taken
            if holder is not None and not attempt.settled:
                self._release(holder)
                self._pools[self._place(attempt)].attempts(attempt).discard(attempt)
                if holder.correlation_id is not None:
                    values[holder.correlation_id] = None
        return values


_RANK: Final = {Strength.EXACT: 0, Strength.CLAIMED: 1, Strength.WEAK: 2}


def _rank(access: Access) -> int:
    return 3 if access.strength is None else _RANK[access.strength]


def _unnamed(access: Access, attempt: Attempt) -> bool:
    return access.correlation_id is None or attempt.request_id is None


def _discard(index: "defaultdict[str, set[Attempt]] | defaultdict[str, set[Access]]", value: str, what: object) -> None:
    members = index.get(value)
    if members is not None:
        members.discard(what)
        if not members:
            del index[value]
