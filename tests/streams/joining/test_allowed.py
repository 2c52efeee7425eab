"""allowed.toml: what it lets pass, until when, and what it refuses to be told."""

from pathlib import Path

import pytest

from alerts.thresholds import Limits
from streams.joining.allowed import Allowed, AllowedInvalid
from streams.joining.join import JoinStep
from tests.streams.joining.join_bench import BILLING, STRANGER, Bench, registry, use

DAY_BEFORE, SAME_DAY, DAY_AFTER = "2025-11-15", "2025-11-16", "2025-11-17"
FIELDS = {
    "id": '"nightly-backup"',
    "principal": f'"{STRANGER.upper()}"',
    "vault": '"KV-Prod"',
    "key": '"tenant-kek"',
    "operations": '["KeyUnwrap"]',
    "reason": '"verifies that backups open"',
    "owner": '"platform team"',
    "approved_by": '["lena", "tom"]',
    "from": SAME_DAY,
    "until": DAY_AFTER,
}


def text(**changes: str) -> str:
    fields = FIELDS | {name.rstrip("_"): value for name, value in changes.items()}
    return "[[allowed]]\n" + "".join(f"{name} = {value}\n" for name, value in fields.items() if value)


def bench(toml: str) -> Bench:
    return Bench(step=JoinStep(registry=registry(), limits=Limits(), allowed=Allowed.parse(toml)))


def test_a_use_that_an_entry_allows_is_neither_matched_nor_unaccounted_and_names_the_entry() -> None:
    allowed = bench(text())

    allowed.send(use("u", principal_id=STRANGER))

    assert allowed.verdict("u") == ("allowed", None, "nightly-backup")
    assert allowed.findings == []


@pytest.mark.parametrize(
    "toml",
    [
        "",
        text(until=SAME_DAY, from_=DAY_BEFORE),
        text(from_=DAY_AFTER, until="2025-11-18"),
        text(principal='"somebody-else"'),
        text(vault='"kv-test"'),
        text(key='"tokens-kek"'),
        text(operations='["KeyWrap"]'),
    ],
    ids=["no entry", "expired", "not yet", "another principal", "another vault", "another key", "another operation"],
)
def test_everything_else_alerts_as_before(toml: str) -> None:
    allowed = bench(toml)

    allowed.send(use("u", principal_id=STRANGER))

    assert allowed.verdict("u") == ("unaccounted", None, "foreign_principal")
    assert allowed.standing() == {"unaccounted_kek_access": 1}


def test_an_entry_never_explains_a_service_of_ours() -> None:
    listed = Allowed.parse(text(principal=f'"{BILLING}"'))
    allowed = Bench(step=JoinStep(registry=registry(), limits=Limits(), allowed=listed))

    allowed.send(use("u", principal_id=BILLING))
    allowed.wait(Limits().final_ms)

    assert allowed.verdict("u") == ("unaccounted", None, "no_event")
    with pytest.raises(AllowedInvalid, match="the identity of billing"):
        listed.check(registry())


@pytest.mark.parametrize(
    ("toml", "field", "problem"),
    [
        (text(owner=""), "allowed 1.owner", "is missing"),
        (text(reason='"  "'), "allowed 1.reason", "says something"),
        (text(approved_by='["lena", "Lena"]'), "allowed 1.approved_by", "two different persons"),
        (text(approved_by='"lena"'), "allowed 1.approved_by", "list"),
        (text(until="2026-11-18"), "allowed 1.until", "a year at most"),
        (text(until=SAME_DAY), "allowed 1.until", "after"),
        (text(until='"2025-11-17"'), "allowed 1.until", "must be a date"),
        (text(until="2025-11-17T08:00:00Z"), "allowed 1.until", "must be a date"),
        (text(operations='["KeyPurge"]'), "allowed 1.operations", "KeyPurge"),
        (text(operations="[]"), "allowed 1.operations", "list"),
        (text(key='"*"'), "allowed 1.key", "another form"),
        (text(id='"a b"'), "allowed 1.id", "another form"),
        (text(note='"x"'), "allowed 1.note", "is not known"),
        (text() + text(), "allowed 2.id", "twice"),
        ("[other]\n", "file", "nothing else"),
        ("allowed = 3\n", "file", "nothing else"),
        ("[[allowed", "file", "not TOML"),
    ],
)
def test_a_file_that_says_too_little_or_too_much_is_refused_with_its_place(toml: str, field: str, problem: str) -> None:
    with pytest.raises(AllowedInvalid) as refused:
        Allowed.parse(toml)

    assert field in str(refused.value)
    assert problem in str(refused.value)


def test_a_year_is_the_longest_and_a_leap_year_is_one() -> None:
    assert Allowed.parse(text(from_="2028-01-01", until="2029-01-01")).entries[0].id == "nightly-backup"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AllowedInvalid, match=r"absent\.toml cannot be read"):
        Allowed.load(tmp_path / "absent.toml")
