"""`keytrail baselines`: what people see, and the messages that carry their decisions."""

import msgspec

from alerts.words import short_id
from streams.conduct.baseline_commands import command, is_shortened, matches, profiles, show
from streams.conduct.observations import BaselineCommand, decode
from tests.streams.watching import SERVICE, Watch, past


def test_what_is_usual_can_be_shown_from_the_state_records() -> None:
    watch = Watch().feed(*past(10)).settle()
    watch.say("accept", vault="kv-prod")
    watch.state.cut()

    found = profiles(watch.state, SERVICE)
    shown = show(SERVICE, found[SERVICE])

    assert list(found) == [SERVICE]
    assert shown["since"] == "2026-09-28T00:00:00.000000Z"
    assert shown["networks"] == ["20.50.1.0/24"]
    (baseline,) = shown["baselines"]
    assert (baseline["object"], baseline["class"], baseline["windows"], baseline["usual"]) == (
        "secret smtp",
        "use",
        60,
        2,
    )
    assert shown["decisions"][0]["person"] == "user:on-call"
    assert msgspec.json.encode(shown)


def test_a_command_goes_to_the_principals_partition_in_lower_case() -> None:
    key, value = command("reset", SERVICE.upper(), vault="KV-Prod", person="user:ann", note="stolen", ident="1")

    said = decode(value)
    assert key == SERVICE.encode()
    assert said == BaselineCommand(
        v=1, id="1", act="reset", principal=SERVICE, vault="kv-prod", person="user:ann", note="stolen"
    )


WORKLOADS = (
    "8c1f0a9e-0000-4000-8000-0000000000e2",
    "8c1f0a9e-1111-4000-8000-0000000000e2",
    "8c1f0000-0000-4000-8000-01",
)


def test_the_short_form_of_an_alert_means_every_principal_that_it_may_mean() -> None:
    assert matches(WORKLOADS, short_id(WORKLOADS[0])) == [*WORKLOADS[:2]]
    assert matches(WORKLOADS, "8C1F0A9E...00E2") == [*WORKLOADS[:2]], "three dots, as people type them"
    assert matches(WORKLOADS, "8c1f0a9e-0000…") == [WORKLOADS[0]]
    assert matches(WORKLOADS, "8c1f0") == [*WORKLOADS]
    assert matches(WORKLOADS, " 8c1f00 ") == [WORKLOADS[2]]
    assert matches(WORKLOADS, "0000-4000") == [], "the start, not any part"
    assert matches(["abcd"], "abc…cd") == [], "its two ends do not overlap"


def test_what_is_short_for_an_id_is_known_as_such() -> None:
    assert is_shortened("8c1f0a9e…00e2")
    assert is_shortened("8c1f0a9e...00e2")
    assert not is_shortened("ann.lee@example.com")
