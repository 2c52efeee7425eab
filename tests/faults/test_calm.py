"""What the comparison of a storm and a calm run overlooks, and what it does not."""

from streams.state import Kind, encode
from tests.faults.calm import comparable


def alert(ident: int, opened_ms: int, *, count: int = 2) -> tuple[bytes, bytes]:
    told = {"finding of partition 1": [count, 0], "finding of partition 2": [1, 0]}
    record = {"alert_id": f"{ident:064x}", "fingerprint": "f" * 64, "opened_ms": opened_ms, "told": told}
    return bytes((Kind.ALERT,)) + ident.to_bytes(32, "big"), encode(record)


def test_which_partition_was_heard_first_names_an_alert_and_makes_no_difference() -> None:
    assert comparable(dict([alert(1, 5)])) == comparable(dict([alert(2, 5)]))


def test_another_count_and_an_alert_more_are_differences() -> None:
    assert comparable(dict([alert(1, 5)])) != comparable(dict([alert(1, 5, count=3)]))
    assert len(comparable(dict([alert(1, 5), alert(2, 9)]))) == 2
