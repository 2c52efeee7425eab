"""What the vault agent tells the who agent, and what it keeps to itself."""

import pytest
from msgspec.structs import replace

from alerts.model import AccessClass, Finding, Principal, PrincipalKind, Severity, VaultAccess
from streams.conduct.observations import Challenged, Seen, decode, principal_key, tell
from streams.messages import WHO, Effects
from tests.streams.watching import SERVICE, T0, access, challenge


def told(one: VaultAccess, *found: Finding) -> list[tuple[bytes | None, object]]:
    effects = Effects()
    tell(one, T0 + 5, found, effects)
    assert all(out.topic == WHO for out in effects.out)
    return [(out.key, decode(out.value)) for out in effects.out]


def test_an_access_is_keyed_by_its_principal_and_tells_the_worst_that_was_said_of_it() -> None:
    rules = [
        Finding(rule_id=rule, title="t", severity=severity, summary="s", effective_ms=T0)
        for rule, severity in (
            ("kek_administration", Severity.LOW),
            ("other", Severity.MEDIUM),
            ("rule_error", Severity.HIGH),
        )
    ]

    ((key, said),) = told(access(T0, "tenant-kek", "KeyCreate"), *rules)

    assert key == SERVICE.encode()
    assert isinstance(said, Seen)
    assert (said.object_kind, said.object_name, said.access_class) == ("key", "tenant-kek", AccessClass.ADMIN)
    assert (said.told, said.append_ms, said.time_us) == (Severity.MEDIUM, T0 + 5, T0 * 1000)


def test_a_challenge_is_keyed_by_its_address_and_without_one_says_nothing() -> None:
    ((key, said),) = told(challenge(T0))

    assert key == b"address:198.51.100.9"
    assert isinstance(said, Challenged)
    assert told(replace(challenge(T0), address=None)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"principal": Principal(None, PrincipalKind.UNKNOWN)},
        {"vault": None},
        {"outcome": None},
        {"access_class": AccessClass.NOTIFICATION},
    ],
)
def test_what_belongs_in_no_baseline_is_not_sent(changes: dict[str, object]) -> None:
    assert told(replace(access(T0), **changes)) == []


def test_a_principal_of_absurd_length_is_kept_by_its_digest() -> None:
    assert principal_key("A" * 10) == "a" * 10
    assert principal_key("A" * 300) == principal_key("a" * 300)
    assert len(principal_key("a" * 300)) == 71
