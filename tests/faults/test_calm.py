"""What the comparison of a storm and a calm run overlooks, and what it does not."""

from alerts.model import Finding, Severity
from streams.findings import OpenFinding
from streams.state import Kind, encode
from tests.faults.calm import comparable, miscounted

SENT_MS, LATER_MS = 1_000, 2_000
FINDING = Finding(rule_id="r", title="t", severity=Severity.LOW, summary="s", effective_ms=1)


def alert(ident: int, opened_ms: int, *, count: int = 2, retracted: int = 0) -> tuple[bytes, bytes]:
    told = {"finding of partition 1": [count, retracted], "finding of partition 2": [1, 0]}
    record = {"alert_id": f"{ident:064x}", "fingerprint": "f" * 64, "opened_ms": opened_ms, "told": told}
    return bytes((Kind.ALERT,)) + ident.to_bytes(32, "big"), encode(record)


def finding(*, count: int, sent: int) -> tuple[bytes, bytes]:
    known = OpenFinding(
        finding_id="finding of partition 1",
        opened_ms=1,
        count=count,
        sent_count=sent,
        sent_ms=SENT_MS,
        hit_ms=1,
        first_ms=1,
        last_ms=1,
        finding=FINDING,
    )
    return bytes((Kind.FINGERPRINT,)) + bytes(32), encode(known)


def test_which_partition_was_heard_first_names_an_alert_and_makes_no_difference() -> None:
    assert comparable(dict([alert(1, 5)])) == comparable(dict([alert(2, 5)]))


def test_how_many_hits_have_reached_an_alert_makes_no_difference_and_how_many_there_are_does() -> None:
    assert comparable(dict([alert(1, 5, count=3)])) == comparable(dict([alert(1, 5)]))
    assert comparable(dict([finding(count=3, sent=2)])) == comparable(dict([finding(count=3, sent=3)]))
    assert comparable(dict([finding(count=3, sent=2)])) != comparable(dict([finding(count=2, sent=2)]))


def test_a_hit_that_was_taken_back_and_an_alert_more_are_differences() -> None:
    assert comparable(dict([alert(1, 5)])) != comparable(dict([alert(1, 5, retracted=1)]))
    assert len(comparable(dict([alert(1, 5), alert(2, 9)]))) == 2


def test_an_alert_that_counts_more_or_less_than_was_sent_is_found_wherever_the_count_is_kept() -> None:
    for told, sent, wrong in ((2, 2, 0), (3, 2, 1), (2, 3, 1)):
        states = [dict([alert(1, 5, count=told)]), dict([finding(count=3, sent=sent)])]

        assert len(miscounted(states, LATER_MS)) == wrong
        assert miscounted(states, SENT_MS) == []
