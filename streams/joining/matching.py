"""Which vault record is which attempt of ours: a function of the set of both, whatever order they came in.

Three passes, each over what the one before left (docs/formats.md, "Vault attempts and the join"):
1. exact: the record carries the attempt's request id;
2. claimed: it carries the attempt's call id;
3. weak: by attributes alone, where the record carries no id, or one that nobody knows while the attempt got no answer
   that would have told it (`weak`).
In each pass records choose in the order of their time, attempts are offered in the order of theirs, all attributes
must agree, and an attempt is given away once. New arrivals change only the groups that share an id with them.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from alerts.model import Strength
from streams.joining.attempts import Access, Attempt, agree
from streams.joining.weak import WeakPool

_Index = defaultdict[str, set[Attempt]]


class Matching:
    """All records and attempts of one partition, matched."""

    def __init__(self) -> None:
        self._claims: dict[bytes, list[Attempt]] = {}
        self._accesses: dict[bytes, Access] = {}
        self._by_request: _Index = defaultdict(set)
        self._by_call: _Index = defaultdict(set)
        self._by_correlation: defaultdict[str, set[Access]] = defaultdict(set)
        self._pools: dict[tuple[str, str], WeakPool] = {}
        self._loose: dict[Access | Attempt, None] = {}  # waits for the weak pass
        self._changed: dict[bytes, None] = {}
        self._claims_changed: dict[bytes, None] = {}

    @property
    def pools(self) -> int:
        """How many pairs of a KEK and a source have something to match without a telling id."""
        return len(self._pools)

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
            if not attempt.settled:
                self._loose[attempt] = None
        self._claims_changed[claim] = None
        self._regroup(values)

    def put_access(self, access: Access) -> None:
        """Take a vault record."""
        self._accesses[access.ident] = access
        self._changed[access.ident] = None
        self._loose[access] = None
        values: dict[str, None] = {}
        if access.correlation_id is not None:
            self._by_correlation[access.correlation_id].add(access)
            values[access.correlation_id] = None
        self._regroup(values)

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
        attempt = access.attempt
        if attempt is None:
            self._leave(access)
            return None
        attempt.settled = True
        if access.strength is Strength.WEAK:
            self._pool(access).settle(access, attempt)
            self._drop_empty(access)
        return attempt

    def dependents(self, claim: bytes) -> list[bytes]:
        """The records that a claim explains or whose ids it knows: to be dropped as they are before it is forgotten."""
        touched: dict[bytes, None] = {}
        for attempt in self.attempts(claim):
            if attempt.taken is not None:
                touched[attempt.taken.ident] = None
            for value in (attempt.request_id, attempt.call_id):
                if value is not None:
                    touched |= dict.fromkeys(access.ident for access in self._carriers(value))
        return list(touched)

    def forget_claim(self, claim: bytes) -> None:
        """Forget a claim, after its dependents were dropped."""
        self._regroup(self._take_out(claim))

    def take_changed(self) -> tuple[list[bytes], list[bytes]]:
        """Hand over the records and claims to judge again."""
        changed, self._changed = list(self._changed), {}
        claims, self._claims_changed = list(self._claims_changed), {}
        return changed, claims

    # The passes

    def _regroup(self, values: dict[str, None]) -> None:
        """Match again all that carries one of these ids, what that sets free, and then what is loose."""
        while values:
            value = next(iter(values))
            del values[value]
            accesses = self._carriers(value)
            before = [access.attempt for access in accesses if access.attempt is not None]
            for access in accesses:
                self._release(access)
            self._pass(accesses, self._by_request.get(value, ()), Strength.EXACT, values)
            self._pass(accesses, self._by_call.get(value, ()), Strength.CLAIMED, values)
            for attempt in before:
                if attempt.taken is None and attempt.call_id != value:
                    values[attempt.call_id] = None
        loose, self._loose = self._loose, {}
        for what in loose:
            if isinstance(what, Attempt):
                self._pool(what).add_attempt(what)
            elif not self._known(what):
                self._pool(what).add_access(what)

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
                    if holder is not None and holder.strength is not Strength.WEAK:
                        self._release(holder)
                        if holder.correlation_id is not None:
                            values[holder.correlation_id] = None
                    self._give(access, attempt, strength)
                    break

    def _known(self, access: Access) -> bool:
        value = access.correlation_id
        return value is not None and (value in self._by_request or value in self._by_call)

    # Bookkeeping

    def _give(self, access: Access, attempt: Attempt, strength: Strength) -> None:
        """Give by id; a record that held the attempt weakly chooses another."""
        self._loose.pop(access, None)
        self._loose.pop(attempt, None)
        self._leave(attempt)
        access.attempt, access.strength, attempt.taken = attempt, strength, access
        self._note(access, attempt)

    def _release(self, access: Access) -> None:
        """Make a record, and what it was given by id, loose."""
        attempt = access.attempt
        self._changed[access.ident] = None
        self._loose[access] = None
        if attempt is None or access.strength is Strength.WEAK:
            self._leave(access)
            return
        access.attempt = access.strength = attempt.taken = None
        self._note(access, attempt)
        self._loose[attempt] = None

    def _take_out(self, claim: bytes) -> dict[str, None]:
        """Remove a claim's attempts, and return the ids under which others may have to be matched again."""
        values: dict[str, None] = {}
        for attempt in self._claims.pop(claim, ()):
            _discard(self._by_call, attempt.call_id, attempt)
            values[attempt.call_id] = None
            if attempt.request_id is not None:
                _discard(self._by_request, attempt.request_id, attempt)
                values[attempt.request_id] = None
            self._leave(attempt)
            holder = attempt.taken
            if holder is not None and not attempt.settled:
                self._release(holder)
                if holder.correlation_id is not None:
                    values[holder.correlation_id] = None
            self._loose.pop(attempt, None)
        return values

    def _carriers(self, value: str) -> list[Access]:
        return sorted(self._by_correlation.get(value, ()), key=lambda one: one.order)

    def _pool(self, what: Access | Attempt) -> WeakPool:
        place = (what.kek, what.source)
        pool = self._pools.get(place)
        if pool is None:
            pool = self._pools[place] = WeakPool(self._note)
        return pool

    def _leave(self, what: Access | Attempt) -> None:
        """Take a record or an attempt out of its pool, if it is in one."""
        if (what.kek, what.source) not in self._pools:
            return
        if isinstance(what, Attempt):
            self._pool(what).discard_attempt(what)
        else:
            self._pool(what).discard_access(what)
        self._drop_empty(what)

    def _drop_empty(self, what: Access | Attempt) -> None:
        """KEKs and services come and go; a pool goes with the last of its records and attempts."""
        if self._pool(what).is_empty:
            del self._pools[what.kek, what.source]

    def _note(self, access: Access, attempt: Attempt) -> None:
        self._changed[access.ident] = None
        self._claims_changed[attempt.claim] = None


_RANK: Final = {Strength.EXACT: 0, Strength.CLAIMED: 1, Strength.WEAK: 2}


def _rank(access: Access) -> int:
    return 3 if access.strength is None else _RANK[access.strength]


def _discard(index: "_Index | defaultdict[str, set[Access]]", value: str, what: object) -> None:
    members = index.get(value)
    if members is not None:
        members.discard(what)
        if not members:
            del index[value]
