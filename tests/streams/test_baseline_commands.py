"""`keytrail baselines`: what people see, and the messages that carry their decisions."""

import msgspec

from streams.baseline_commands import command, profiles, show
from streams.observations import BaselineCommand, decode
from tests.streams.watching import SERVICE, Watch, past


def test_what_is_usual_can_be_shown_from_the_state_records() -> None:
    watch = Watch().feed(*past(10)).settle()
    watch.say("accept", vault="kv-prod")
    watch.state.cut()

    found = profiles(watch.state.dump())
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
