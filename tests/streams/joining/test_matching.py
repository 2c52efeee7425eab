"""The matching is a function of the set: the order of arrival, replacement and forgetting do not show."""

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.model import Strength
from streams.joining.attempts import Access, Attempt, agree
from streams.joining.matching import Matching

IDS = st.sampled_from(["p", "q", "r"])
UNWRAP = frozenset({"unwrap"})
TIMES = st.integers(0, 6)


@st.composite
def attempts(draw: st.DrawFn) -> list[Attempt]:
    """Few ids and short windows, so that everything collides."""
    made = []
    for number in range(draw(st.integers(0, 5))):
        start = draw(TIMES)
        made.append(
            Attempt(
                claim=f"claim-{number}".encode(),
                number=0,
                source="billing",
                kek=draw(st.sampled_from(["kv/a", "kv/a", "kv/b"])),
                operation=draw(st.sampled_from(["unwrap", "unwrap", "suspend", "rotate"])),
                version=None,
                outcome=draw(st.sampled_from([None, "succeeded", "succeeded", "denied"])),
                request_id=draw(st.none() | IDS),
                call_id=draw(IDS),
                from_us=start,
                to_us=start + draw(TIMES),
                expected=True,
            )
        )
    return made


@st.composite
def accesses(draw: st.DrawFn) -> list[Access]:
    return [
        Access(
            ident=f"access-{number}".encode(),
            source="billing",
            kek=draw(st.sampled_from(["kv/a", "kv/a", "kv/b"])),
            explained_by=draw(
                st.sampled_from([UNWRAP, UNWRAP, frozenset({"suspend"}), frozenset({"rotate", "suspend"})])
            ),
            version=None,
            outcome=draw(st.sampled_from(["succeeded", "succeeded", "denied"])),
            correlation_id=draw(st.none() | IDS | st.just("nobody's")),
            time_us=draw(TIMES),
        )
        for number in range(draw(st.integers(0, 6)))
    ]


def by_the_book(attempts: list[Attempt], accesses: list[Access]) -> dict[bytes, tuple[bytes, Strength]]:
    """The three passes as the module's head states them, over the whole set at once."""
    known = {one.request_id for one in attempts} | {one.call_id for one in attempts}
    given_away: set[bytes] = set()
    explained: dict[bytes, tuple[bytes, Strength]] = {}
    for strength in Strength:
        for access in sorted(accesses, key=lambda one: one.order):
            value = access.correlation_id
            if access.ident in explained:
                continue
            fitting = [one for one in attempts if one.claim not in given_away and agree(access, one)]
            if strength is Strength.EXACT:
                fitting = [one for one in fitting if value is not None and one.request_id == value]
            elif strength is Strength.CLAIMED:
                fitting = [one for one in fitting if one.call_id == value]
            else:
                fitting = [one for one in fitting if value is None or (value not in known and one.request_id is None)]
                fitting.sort(key=lambda one: one.to_us)
            if strength is not Strength.WEAK:
                fitting.sort(key=lambda one: one.order)
            else:
                fitting.sort(key=lambda one: (one.to_us, one.order))
            if fitting:
                explained[access.ident] = (fitting[0].claim, strength)
                given_away.add(fitting[0].claim)
    return explained


def told(matching: Matching, accesses: list[Access]) -> dict[bytes, tuple[bytes, Strength]]:
    return {
        access.ident: (access.attempt.claim, access.strength)
        for access in accesses
        if access.attempt is not None and access.strength is not None
    }


@settings(max_examples=200, deadline=None)
@given(data=st.data(), attempts=attempts(), accesses=accesses())
def test_any_order_of_arrival_gives_what_the_book_says(
    data: st.DataObject, attempts: list[Attempt], accesses: list[Access]
) -> None:
    matching = Matching()
    expected = by_the_book(attempts, accesses)

    arriving: list[Attempt | Access] = [*attempts, *accesses]
    for what in data.draw(st.permutations(arriving)):
        if isinstance(what, Attempt):
            matching.put_claim(what.claim, [what])
        else:
            matching.put_access(what)
        if data.draw(st.booleans()):
            matching.take_changed()
    matching.take_changed()

    assert told(matching, accesses) == expected
    taken = [access.attempt for access in accesses if access.attempt is not None]
    assert all(attempt.taken is not None and attempt.taken.attempt is attempt for attempt in taken)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), attempts=attempts(), first=attempts(), accesses=accesses())
def test_a_claim_that_was_replaced_leaves_no_trace(
    data: st.DataObject, attempts: list[Attempt], first: list[Attempt], accesses: list[Access]
) -> None:
    matching = Matching()
    for attempt in first:
        matching.put_claim(attempt.claim, [attempt])
    for access in accesses:
        matching.put_access(access)
    matching.take_changed()

    for attempt in data.draw(st.permutations(attempts)):
        matching.put_claim(attempt.claim, [attempt])
    for attempt in first:
        if attempt.claim not in {one.claim for one in attempts}:
            matching.forget_claim(attempt.claim)
    matching.take_changed()

    assert told(matching, accesses) == by_the_book(attempts, accesses)


@settings(max_examples=100, deadline=None)
@given(attempts=attempts(), accesses=accesses(), late=accesses())
def test_a_record_that_is_forgotten_keeps_its_attempt(
    attempts: list[Attempt], accesses: list[Access], late: list[Access]
) -> None:
    matching = Matching()
    for attempt in attempts:
        matching.put_claim(attempt.claim, [attempt])
    for access in accesses:
        matching.put_access(access)
    matching.take_changed()
    before = told(matching, accesses)

    for access in accesses:
        matching.drop_access(access.ident)
    renamed = [
        Access(
            one.ident + b"-late",
            one.source,
            one.kek,
            one.explained_by,
            None,
            one.outcome,
            one.correlation_id,
            one.time_us,
        )
        for one in late
    ]
    for access in renamed:
        matching.put_access(access)
    matching.take_changed()

    assert told(matching, accesses) == before
    gone = {claim for claim, _ in before.values()}
    assert not gone & {claim for claim, _ in told(matching, renamed).values()}


def test_every_record_and_claim_whose_match_changed_is_handed_over_once() -> None:
    matching = Matching()
    attempt = Attempt(b"c", 0, "billing", "kv/a", "unwrap", None, None, "p", "q", 0, 9, expected=True)
    access = Access(b"a", "billing", "kv/a", UNWRAP, None, "succeeded", "p", 5)
    matching.put_access(access)
    assert matching.take_changed() == ([b"a"], [])

    matching.put_claim(b"c", [attempt])

    assert matching.take_changed() == ([b"a"], [b"c"])
    assert matching.take_changed() == ([], [])


def _attempt(name: str, request_id: str | None, call_id: str, from_us: int = 0) -> Attempt:
    return Attempt(
        name.encode(), 0, "billing", "kv/a", "unwrap", None, None, request_id, call_id, from_us, 99, expected=True
    )


def _access(name: str, correlation_id: str | None) -> Access:
    return Access(name.encode(), "billing", "kv/a", UNWRAP, None, "succeeded", correlation_id, 50)


def test_an_attempt_that_an_exact_match_sets_free_goes_to_the_record_that_claims_it() -> None:
    matching = Matching()
    by_request, by_call = _access("u", "r"), _access("v", "c2")
    matching.put_claim(b"a2", [_attempt("a2", "r", "c2", from_us=1)])
    matching.put_access(by_request)
    matching.put_access(by_call)
    assert by_call.attempt is None

    matching.put_claim(b"a1", [_attempt("a1", "r", "c1", from_us=0)])

    assert told(matching, [by_request, by_call]) == {b"u": (b"a1", Strength.EXACT), b"v": (b"a2", Strength.CLAIMED)}


def test_a_record_that_loses_its_attempt_to_an_exact_match_takes_the_next() -> None:
    matching = Matching()
    by_call, by_request = _access("u", "c"), _access("v", "r")
    matching.put_claim(b"a1", [_attempt("a1", "r", "c", from_us=0)])
    matching.put_claim(b"a2", [_attempt("a2", None, "c", from_us=1)])
    matching.put_access(by_call)
    assert told(matching, [by_call]) == {b"u": (b"a1", Strength.CLAIMED)}

    matching.put_access(by_request)

    assert told(matching, [by_call, by_request]) == {b"u": (b"a2", Strength.CLAIMED), b"v": (b"a1", Strength.EXACT)}


@given(attempts(), accesses())
@settings(max_examples=100)
def test_nothing_is_kept_of_keks_whose_records_and_claims_are_all_forgotten(
    tried: list[Attempt], seen: list[Access]
) -> None:
    matching = Matching()
    for attempt in tried:
        matching.put_claim(attempt.claim, [attempt])
    for access in seen:
        matching.put_access(access)

    for access in seen:
        matching.drop_access(access.ident)
    for attempt in tried:
        matching.forget_claim(attempt.claim)

    assert matching.pools == 0
