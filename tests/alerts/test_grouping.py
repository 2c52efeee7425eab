from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from alerts import grouping
from alerts.model import Finding, Severity


def _finding(**parts: str) -> Finding:
    values = {"rule_id": "r", "title": "t", "summary": "s"} | parts
    return Finding(severity=Severity.HIGH, effective_ms=1, **values)  # type: ignore[arg-type]


def test_the_fingerprint_is_that_of_the_written_format() -> None:
    finding = _finding(rule_id="unaccounted_kek_access", key="kv-prod/tenant-kek", principal="p")

    mark = grouping.fingerprint(finding)

    written = b"keytrail/fingerprint/v1\x00" + b"\x00\x16unaccounted_kek_access" + b"\x00\x00"
    written += b"\x00\x12kv-prod/tenant-kek" + b"\x00\x01p"
    assert mark == sha256(written).digest()
    opened = grouping.finding_id(mark, 1_763_260_867_000)
    assert opened == sha256(b"keytrail/finding/v1\x00" + mark + (1_763_260_867_000).to_bytes(8, "big")).hexdigest()
    assert grouping.alert_id(mark, opened) == sha256(mark + bytes.fromhex(opened)).hexdigest()


_texts = st.tuples(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3), st.text(max_size=3))


@given(_texts, _texts)
def test_different_parts_never_share_a_fingerprint(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    names = ("rule_id", "tenant", "key", "principal")

    marks = [grouping.fingerprint(_finding(**dict(zip(names, parts, strict=True)))) for parts in (one, other)]

    assert (marks[0] == marks[1]) is (one == other)


def test_neither_time_nor_words_nor_severity_change_the_fingerprint() -> None:
    one, other = (
        _finding(summary="a"),
        Finding(rule_id="r", title="x", severity=Severity.LOW, summary="b", effective_ms=9),
    )

    assert grouping.fingerprint(one) == grouping.fingerprint(other)


def test_two_partitions_that_count_one_cause_from_the_same_millisecond_name_their_runs_apart() -> None:
    mark = grouping.fingerprint(_finding(rule_id="pending_source"))

    ids = {grouping.finding_id(mark, 1_763_260_867_000, partition) for partition in range(24)}

    assert len(ids) == 24
    assert grouping.finding_id(mark, 1_763_260_867_000) in ids, "of the one partition of a replay, named as ever"
