"""The book of findings: told at once when new or worse, at most once a minute after that, and never lost."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.grouping import finding_id, fingerprint
from alerts.model import Evidence, Finding, FindingMessage, FindingResolved, Severity
from streams.findings import MAX_EVIDENCE, REMEMBER_MS, REPEAT_MS, FindingBook
from streams.messages import FINDINGS, Effects
from streams.state import Kind, State

T = 1_000_000
decode = msgspec.json.Decoder(FindingMessage | FindingResolved).decode


def hit(at_ms: int = T, *, severity: Severity = Severity.HIGH, key: str = "k", event: str = "e") -> Finding:
    return Finding(
        rule_id="r",
        title="t",
        severity=severity,
        summary=f"at {at_ms}",
        effective_ms=at_ms,
        key=key,
        evidence=(Evidence("event", event, at_ms),),
    )


class Desk:
    """A book with its state, and what it sent."""

    def __init__(self) -> None:
        self.state, self.book, self.effects = State(), FindingBook(), Effects()

    def report(self, finding: Finding, now_ms: int) -> None:
        self.book.report(finding, now_ms, self.state, self.effects)

    def tick(self, now_ms: int) -> None:
        self.book.tick(now_ms, self.state, self.effects)

    def retract(self, finding: Finding, now_ms: int, hits: int | None = None) -> None:
        self.book.retract(finding, "it was us", now_ms, self.state, self.effects, hits=hits)

    def take_over(self) -> None:
        after = State()
        for key, value in self.state.dump().items():
            after.load(key, value)
        self.state, self.book = after, FindingBook()
        self.book.restore(after)

    def sent(self) -> list[FindingMessage]:
        assert all(out.topic == FINDINGS for out in self.effects.out)
        return [one for one in map(decode, (out.value for out in self.effects.out)) if isinstance(one, FindingMessage)]

    def resolved(self) -> list[FindingResolved]:
        return [one for one in map(decode, (out.value for out in self.effects.out)) if isinstance(one, FindingResolved)]


def test_the_first_hit_is_told_at_once_under_a_name_without_a_clock() -> None:
    desk = Desk()

    desk.report(hit(T), T + 5_000)

    (message,) = desk.sent()
    mark = fingerprint(hit(T))
    assert (message.fingerprint, message.finding_id) == (mark.hex(), finding_id(mark, T))
    assert (message.opened_ms, message.count, message.first_ms, message.last_ms) == (T, 1, T, T)
    assert message.finding == hit(T)


def test_repeats_are_told_once_a_minute_with_the_whole_count() -> None:
    desk = Desk()
    for second in range(30):
        desk.report(hit(T + second * 1000, event=f"e{second}"), T + second * 1000)

    assert len(desk.sent()) == 1
    desk.tick(T + REPEAT_MS - 1)
    assert len(desk.sent()) == 1
    desk.tick(T + REPEAT_MS)

    last = desk.sent()[-1]
    assert (len(desk.sent()), last.count, last.first_ms, last.last_ms) == (2, 30, T, T + 29_000)
    assert [proof.id for proof in last.finding.evidence] == [f"e{n}" for n in range(30 - MAX_EVIDENCE, 30)]
    desk.tick(T + 10 * REPEAT_MS)
    assert len(desk.sent()) == 2


def test_a_worse_hit_does_not_wait_and_a_milder_one_does_not_hide_it() -> None:
    desk = Desk()
    desk.report(hit(T), T)
    desk.report(hit(T + 1, severity=Severity.CRITICAL), T + 1)
    desk.report(hit(T + 2), T + 2)
    desk.tick(T + 2 * REPEAT_MS)

    assert [message.finding.severity for message in desk.sent()] == [
        Severity.HIGH,
        Severity.CRITICAL,
        Severity.CRITICAL,
    ]
    assert [message.count for message in desk.sent()] == [1, 2, 3]


def test_other_fingerprints_are_other_findings() -> None:
    desk = Desk()
    desk.report(hit(key="a"), T)
    desk.report(hit(key="b"), T)

    assert len({message.finding_id for message in desk.sent()}) == 2


def test_after_a_quiet_week_the_next_hit_opens_a_new_finding_and_the_state_is_let_go() -> None:
    desk = Desk()
    desk.report(hit(T), T)
    desk.tick(T + REMEMBER_MS)

    assert desk.state.count(Kind.FINGERPRINT) == 0
    desk.report(hit(T + REMEMBER_MS + 1), T + REMEMBER_MS + 1)
    assert len({message.finding_id for message in desk.sent()}) == 2
    assert desk.sent()[-1].count == 1


def test_explained_hits_are_taken_back_and_when_none_is_left_the_next_opens_anew() -> None:
    desk = Desk()
    for second in range(3):
        desk.report(hit(T + second), T + second)
    desk.retract(hit(), T + 10, hits=1)
    desk.retract(hit(), T + 20)

    assert [(done.count, done.retracted) for done in desk.resolved()] == [(3, 1), (3, 3)]
    assert desk.sent()[-1].count == 3
    desk.report(hit(T + 30), T + 30)
    assert desk.sent()[-1].count == 1
    assert desk.sent()[-1].finding_id != desk.resolved()[0].finding_id


def test_nothing_is_taken_back_that_was_never_told() -> None:
    desk = Desk()
    desk.retract(hit(), T)

    assert desk.effects.out == []


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("hit"), st.sampled_from("abc"), st.integers(0, 50_000)),
            st.tuples(st.just("tick"), st.just(""), st.integers(0, 200_000)),
            st.tuples(st.just("take over"), st.just(""), st.just(0)),
        ),
        max_size=40,
    )
)
def test_no_hit_is_lost_over_takeovers_and_no_minute_holds_two_messages(steps: list[tuple[str, str, int]]) -> None:
    desk, now_ms = Desk(), T
    hits: dict[str, int] = {}
    last_sent: dict[str, int] = {}
    for what, key, wait_ms in steps:
        now_ms += wait_ms
        before = len(desk.sent())
        if what == "hit":
            hits[key] = hits.get(key, 0) + 1
            desk.report(hit(now_ms, key=key), now_ms)
        elif what == "tick":
            desk.tick(now_ms)
        else:
            desk.take_over()
        for message in desk.sent()[before:]:
            mark = message.finding.key
            assert now_ms - last_sent.get(mark, -REPEAT_MS) >= REPEAT_MS
            last_sent[mark] = now_ms

    desk.tick(now_ms + REPEAT_MS)
    assert {message.finding.key: message.count for message in desk.sent()} == hits


def test_only_what_several_partitions_count_is_named_by_its_partition() -> None:
    found = {
        name: msgspec.structs.replace(hit(), rule_id=name)
        for name in ("audit_coverage", "pending_source", "chain_fork")
    }
    told = {name: set[str]() for name in found}

    for partition in (0, 3):
        desk = Desk()
        desk.book = FindingBook(partition)
        for name, finding in found.items():
            desk.report(finding, T)
            told[name].add(desk.sent()[-1].finding_id)

    assert {name: len(ids) for name, ids in told.items()} == {"audit_coverage": 2, "pending_source": 2, "chain_fork": 1}
