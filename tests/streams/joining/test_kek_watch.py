"""The state of a KEK beside its use: wraps that a disabled one still does, and what contradicts, in any order."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.examples import key_change
from alerts.model import FindingMessage, FindingResolved, Severity
from alerts.thresholds import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Limits
from cryptocore.clock import rfc3339_ms
from streams.feeds.vaults import VaultDeclarations
from streams.joining.correlate import Claim, Use
from streams.joining.join import JoinStep
from streams.joining.kek_history import MAX_ACTS, MAX_VERSIONS, KekHistory
from streams.state import Kind
from tests.streams.joining.join_bench import (
    STRANGER,
    T0,
    VERSION,
    Bench,
    Timed,
    act,
    disordered,
    intent,
    kek_act,
    news,
    outcome,
    play,
    progress,
    registry,
    request_id,
    use,
)

KEK = b"kv-prod/tenant-kek"
OFF, ON = key_change(enabled=False), key_change(enabled=True)
NEWER = "d" * 32


def disabled(record: str = "off", /, at_ms: int = T0, **changes: Any) -> Use:
    values: dict[str, Any] = {"key_change": OFF, "version": VERSION, "principal_id": STRANGER}
    return act(record, "KeyUpdate", at_ms, **(values | changes))


def enabled(record: str = "on", /, at_ms: int = T0, **changes: Any) -> Use:
    return disabled(record, at_ms, **({"key_change": ON} | changes))


def wrap(record: str, /, at_ms: int, **changes: Any) -> Use:
    return use(record, at_ms, operation="KeyWrap", **({"principal_id": STRANGER} | changes))


def drifts(bench: Bench) -> list[str]:
    """Kinds of drift that stand."""
    taken_back = {message.finding_id for message in bench.findings if isinstance(message, FindingResolved)}
    return [
        message.finding.facts["drift"]
        for message in bench.findings
        if isinstance(message, FindingMessage)
        and message.finding.rule_id == "kek_drift"
        and message.finding_id not in taken_back
    ]


def wraps_told(bench: Bench) -> int:
    return bench.standing().get("disabled_kek_wrap", 0)


# Wraps under a disabled KEK


@pytest.mark.parametrize("first", ["update", "wrap"])
def test_a_wrap_that_a_disabled_key_still_does_is_told_whatever_came_first(first: str) -> None:
    bench = Bench()
    messages = [disabled(), wrap("w", T0 + SECOND_MS)]

    bench.send(*(messages if first == "update" else reversed(messages)))
    bench.wait(MINUTE_MS)

    assert wraps_told(bench) == 1
    told = next(found for found in bench.findings if found.finding.rule_id == "disabled_kek_wrap")  # type: ignore[union-attr]
    assert isinstance(told, FindingMessage)
    assert told.finding.key == "kv-prod/tenant-kek"
    assert "disabled since 2025-11-16 02:40:00" in told.finding.summary


def test_a_wrap_is_judged_by_an_update_that_comes_after_a_restart() -> None:
    bench = Bench()
    bench.send(wrap("w", T0 + SECOND_MS))
    bench.restart()

    bench.send(disabled())

    assert wraps_told(bench) == 1


def test_a_late_record_that_shows_it_enabled_takes_the_alert_back() -> None:
    bench = Bench()
    bench.send(disabled(), wrap("w", T0 + 10 * SECOND_MS))
    assert wraps_told(bench) == 1

    bench.send(enabled(at_ms=T0 + 5 * SECOND_MS))

    assert wraps_told(bench) == 0


def test_a_wrap_of_before_or_after_or_under_a_newer_version_is_not_told() -> None:
    bench = Bench()

    bench.send(
        disabled(at_ms=T0 + 5 * MINUTE_MS),
        wrap("before", T0 + 4 * MINUTE_MS),
        wrap("newer", T0 + 6 * MINUTE_MS, version=NEWER),
        enabled(at_ms=T0 + 9 * MINUTE_MS),
        wrap("after", T0 + 10 * MINUTE_MS),
    )

    assert wraps_told(bench) == 0


def test_wraps_are_let_go_with_their_records() -> None:
    bench = Bench()
    bench.send(wrap("w", T0), wrap("v", T0, name="other"), use("g", name="guess", outcome="not_found"))

    bench.wait(4 * HOUR_MS, step_ms=10 * MINUTE_MS)

    assert bench.step._keks._wraps == {}
    bench.send(disabled(at_ms=T0 - SECOND_MS))
    assert wraps_told(bench) == 0, "nobody remembers them any more"


def test_a_denied_update_changes_nothing() -> None:
    bench = Bench()

    bench.send(disabled(outcome="denied"), wrap("w", T0 + SECOND_MS))

    assert wraps_told(bench) == 0


# What contradicts


def claim(call: str, /, at_ms: int, **changes: Any) -> Claim:
    return outcome(call, at_ms, **changes)


LATER = T0 + 6 * MINUTE_MS


@pytest.mark.parametrize(
    ("change", "changes", "kind"),
    [
        (disabled(), {}, "disabled_in_use"),
        (act("gone", "KeyDelete", T0, principal_id=STRANGER), {}, "gone_in_use"),
        (disabled(key_change=key_change(operations=("wrapKey",))), {}, "operation_in_use"),
        (disabled(key_change=key_change(expires_at="2025-11-16T02:40:00.000000Z")), {}, "expired_in_use"),
    ],
)
@pytest.mark.parametrize("first", ["change", "use"])
def test_what_goes_on_after_a_change_that_forbids_it_is_drift(
    change: Use, changes: dict[str, Any], kind: str, first: str
) -> None:
    bench = Bench()
    messages = [change, claim("a", LATER, **changes)]

    bench.send(*(messages if first == "change" else reversed(messages)))

    assert drifts(bench) == [kind]
    found = next(
        one.finding for one in bench.findings if isinstance(one, FindingMessage) and one.finding.rule_id == "kek_drift"
    )
    assert (found.key, found.principal) == ("kv-prod/tenant-kek", STRANGER), "falls together with the act's own alert"
    assert found.effective_ms == T0
    assert {proof.kind for proof in found.evidence} == {"vault-access", "event"}


@pytest.mark.parametrize(
    "bench_messages",
    [
        [disabled(), claim("a", T0 + 4 * MINUTE_MS)],
        [disabled(), claim("a", LATER, version=NEWER)],
        [disabled(), enabled(at_ms=LATER), claim("a", LATER + 10 * MINUTE_MS)],
        [disabled(outcome="denied"), claim("a", LATER)],
        [disabled(key_change=key_change(operations=("wrapKey", "unwrapKey"))), claim("a", LATER)],
        [disabled(key_change=key_change(operations=("unwrapKey",))), claim("a", LATER)],
        [disabled(key_change=key_change(expires_at="2025-12-01T00:00:00.000000Z")), claim("a", LATER)],
        [
            act("gone", "KeyDelete", T0),
            act("back", "KeyRecover", T0 + MINUTE_MS),
            claim("a", LATER),
        ],
        [act("gone", "KeyDelete", T0), claim("a", T0 - MINUTE_MS)],
        [
            disabled(version=None),
            act("new", "KeyRotate", T0 + SECOND_MS),
            claim("a", LATER, version=NEWER),
        ],
    ],
    ids=[
        "caches live on for a while",
        "another version",
        "enabled again",
        "denied",
        "all that is used may be done",
        "no wrap is done",
        "not expired yet",
        "recovered",
        "not used since",
        "rotated since, and the update named no version",
    ],
)
def test_what_fits_is_no_drift(bench_messages: list[Claim | Use]) -> None:
    bench = Bench()

    bench.send(*bench_messages)
    bench.wait(3 * HOUR_MS, step_ms=10 * MINUTE_MS)

    assert drifts(bench) == []


def test_drift_that_is_over_is_taken_back() -> None:
    bench = Bench()
    bench.send(disabled(), claim("a", LATER))
    assert drifts(bench) == ["disabled_in_use"]

    bench.send(enabled(at_ms=LATER + MINUTE_MS))

    assert drifts(bench) == []
    resolved = [message.explanation for message in bench.findings if isinstance(message, FindingResolved)]
    assert "the KEK and its use agree again" in resolved


def test_drift_that_lasts_is_told_again_each_day_until_it_is_over() -> None:
    bench = Bench()
    bench.send(disabled(), claim("a", LATER))

    bench.wait(10 * DAY_MS + HOUR_MS, step_ms=HOUR_MS)
    assert bench.standing()["kek_drift"] == 11
    bench.restart()
    bench.send(enabled(at_ms=bench.now_ms))

    assert "kek_drift" not in bench.standing()


def test_a_purge_is_worse_than_a_deletion() -> None:
    bench = Bench()

    bench.send(act("gone", "KeyPurge", T0, principal_id=STRANGER), claim("a", LATER))

    severities = [
        one.finding.severity
        for one in bench.findings
        if isinstance(one, FindingMessage) and one.finding.rule_id == "kek_drift"
    ]
    assert severities == [Severity.CRITICAL]


def test_enabling_outside_what_was_disabled_through_keytrail_is_drift() -> None:
    bench = Bench()
    ours = act("off", "KeyUpdate", T0, correlation=request_id("a"), key_change=OFF, version=VERSION)
    bench.send(kek_act("suspend", "a", T0), ours)
    assert drifts(bench) == []

    bench.send(enabled(at_ms=T0 + MINUTE_MS))
    assert drifts(bench) == ["enabled_outside"]
    bench.send(disabled("again", T0 + 2 * MINUTE_MS))

    assert drifts(bench) == []


def test_enabling_what_somebody_else_disabled_or_through_keytrail_is_not() -> None:
    bench = Bench()
    back = act("on", "KeyUpdate", T0 + MINUTE_MS, correlation=request_id("b"), key_change=ON, version=VERSION)

    bench.send(disabled(), enabled(at_ms=T0 + SECOND_MS))
    bench.send(kek_act("suspend", "a", T0 + 30_000), disabled("c", T0 + 30_000, correlation=request_id("a")))
    bench.send(kek_act("resume", "b", T0 + MINUTE_MS), back)

    assert drifts(bench) == []


def test_a_version_that_nobody_made_is_told_after_an_hour_where_the_log_begins_with_the_key() -> None:
    bench = Bench()
    bench.send(act("born", "KeyCreate", T0), claim("a", T0 + MINUTE_MS), claim("b", T0 + MINUTE_MS, version=NEWER))

    bench.wait(50 * MINUTE_MS)
    assert drifts(bench) == []
    bench.wait(20 * MINUTE_MS)
    assert drifts(bench) == ["unknown_version"]
    bench.send(act("made", "KeyRotate", T0 + 30_000))

    assert drifts(bench) == []


def test_a_version_that_event_grid_tells_of_is_known() -> None:
    bench = Bench()

    bench.send(news("n", "KeyNewVersionCreated", T0 - 1, version=VERSION), act("born", "KeyCreate", T0))
    bench.send(claim("a", T0 + MINUTE_MS), news("m", "KeyNewVersionCreated", T0 + MINUTE_MS, version=NEWER))
    bench.send(claim("b", T0 + 2 * MINUTE_MS, version=NEWER))
    bench.wait(3 * HOUR_MS, step_ms=10 * MINUTE_MS)

    assert drifts(bench) == []
    bench.send(claim("c", bench.now_ms, version="f" * 32), claim("d", bench.now_ms, version="a" * 32))
    bench.wait(2 * HOUR_MS, step_ms=10 * MINUTE_MS)
    assert drifts(bench) == ["unknown_version"]


@pytest.mark.parametrize("operation", ["KeyNearExpiry", "KeyExpired", "KeyNewVersionCreated"])
@pytest.mark.parametrize("first", ["news", "use"])
def test_an_expiry_that_event_grid_tells_of_counts(operation: str, first: str) -> None:
    bench = Bench()
    told = news("n", operation, T0 - HOUR_MS, version=VERSION, expires_at="2025-11-16T02:40:00.000000Z")
    messages = [told, claim("a", LATER), claim("b", LATER, version=NEWER)]

    bench.send(*(messages if first == "news" else reversed(messages)))

    assert drifts(bench) == ["expired_in_use"]
    assert [name for name in bench.documents if name.startswith("e")] == [], (
        "news is no act that anybody has to explain"
    )


def test_where_the_key_is_older_than_the_log_no_version_is_unknown() -> None:
    bench = Bench()

    bench.send(claim("old", T0 - MINUTE_MS), act("born", "KeyCreate", T0), claim("b", T0 + MINUTE_MS, version=NEWER))
    bench.wait(3 * HOUR_MS, step_ms=10 * MINUTE_MS)

    assert drifts(bench) == []


DECLARED = """
[[vault]]
name = "kv-prod"
resource_id = "/subscriptions/s/resourcegroups/g/providers/microsoft.keyvault/vaults/kv-prod"
owner = "platform"
keks = ["KEKS"]
"""


def declared(kek: str) -> Bench:
    declarations = VaultDeclarations.parse(DECLARED.replace("KEKS", kek))
    return Bench(step=JoinStep(registry=registry(), limits=Limits(), declared=declarations))


def test_the_declaration_is_held_against_what_is_used_and_what_is_gone() -> None:
    named, other = declared("tenant-kek"), declared("tokens-kek")

    named.send(claim("a", T0), act("gone", "KeyDelete", T0 + MINUTE_MS, principal_id=STRANGER))
    other.send(claim("a", T0), act("gone", "KeyDelete", T0 + MINUTE_MS, principal_id=STRANGER))

    assert drifts(named) == ["gone_declared"]
    assert drifts(other) == ["undeclared"]


def test_without_application_events_nothing_contradicts() -> None:
    bench = Bench(step=JoinStep(registry=registry(), limits=Limits(), evaluate=False))

    bench.send(disabled(), claim("a", LATER))

    assert drifts(bench) == []


def test_what_is_kept_of_a_kek_is_bounded() -> None:
    bench = Bench()
    bench.send(*[disabled(f"d{number}", T0 + number) for number in range(MAX_ACTS + 9)])
    bench.send(*[claim(f"c{number}", T0 + number, version=f"v{number}") for number in range(MAX_VERSIONS + 9)])

    history = bench.state.get(Kind.KEK, KEK, KekHistory)

    assert history is not None
    assert (len(history.acts), len(history.uses), history.forgotten) == (MAX_ACTS, MAX_VERSIONS, True)
    assert history.acts[-1].time_us == (T0 + MAX_ACTS + 8) * 1000


def test_names_that_only_somebody_guessed_are_not_kept() -> None:
    bench = Bench()

    bench.send(*[use(f"g{number}", name=f"guess-{number}", outcome="not_found") for number in range(9)])
    bench.send(act("denied", "KeyDelete", outcome="denied", principal_id=STRANGER))

    assert bench.state.count(Kind.KEK) == 0


def test_no_more_keks_are_followed_than_the_limit_says() -> None:
    bench = Bench(step=JoinStep(registry=registry(), limits=Limits(keks=5)))

    bench.send(*[claim(f"c{number}", T0, name=f"kek-{number}") for number in range(9)])
    bench.send(disabled(at_ms=T0, name="kek-1"), claim("late", LATER, name="kek-1"))

    assert bench.state.count(Kind.KEK) == 5
    assert drifts(bench) == ["disabled_in_use"]


def test_a_kek_that_nobody_touched_for_long_is_forgotten() -> None:
    bench = Bench()
    bench.send(claim("a", T0))

    bench.wait(399 * DAY_MS, step_ms=DAY_MS)
    assert bench.state.count(Kind.KEK) == 1
    bench.wait(2 * DAY_MS, step_ms=DAY_MS)

    assert bench.state.count(Kind.KEK) == 0


# Order does not matter

_CHANGES = [OFF, OFF, ON, key_change(operations=("wrapKey",)), key_change(operations=("wrapKey", "unwrapKey")), None]


@st.composite
def histories(draw: st.DrawFn) -> list[Timed]:
    """Half an hour in the life of a KEK; each message with the time it was written."""
    messages: list[Timed] = []
    for number in range(draw(st.integers(1, 9))):
        at_ms = T0 + draw(st.integers(0, 30)) * MINUTE_MS + number
        version = draw(st.sampled_from([VERSION, VERSION, NEWER, None]))
        name = f"n{number}"
        kinds = ["update", "update", "renew", "gone", "wrap", "wrap", "claim", "claim", "ours", "news"]
        kind = draw(st.sampled_from(kinds))
        if kind == "update":
            change = draw(st.sampled_from(_CHANGES))
            messages.append((at_ms, disabled(name, at_ms, version=version, key_change=change)))
        elif kind == "renew":
            operation = draw(st.sampled_from(["KeyRotate", "KeyCreate"]))
            messages.append((at_ms, act(name, operation, at_ms, principal_id=STRANGER, version=version)))
        elif kind == "gone":
            operation = draw(st.sampled_from(["KeyDelete", "KeyRecover", "KeyPurge"]))
            messages.append((at_ms, act(name, operation, at_ms, principal_id=STRANGER)))
        elif kind == "news":
            operation = draw(st.sampled_from(["KeyNewVersionCreated", "KeyNearExpiry"]))
            expires_at = rfc3339_ms(at_ms + draw(st.integers(-20, 20)) * MINUTE_MS)
            told = news(name, operation, at_ms, version=version or VERSION, expires_at=expires_at)
            messages.append((at_ms, told))
        elif kind == "wrap":
            messages.append((at_ms, wrap(name, at_ms, version=version)))
        elif kind == "claim":
            operation = draw(st.sampled_from(["wrap", "unwrap"]))
            ended = claim(name, at_ms, version=version or VERSION, operation=operation)
            messages += [(at_ms, intent(name, at_ms, operation=operation)), (at_ms + 50, ended)]
        else:
            off = draw(st.booleans())
            record = act(name, "KeyUpdate", at_ms, key_change=OFF if off else ON, correlation=request_id(name))
            messages += [(at_ms, kek_act("suspend" if off else "resume", name, at_ms)), (at_ms + 5, record)]
    messages += [(T0 + beat * MINUTE_MS, progress(T0 + beat * MINUTE_MS)) for beat in range(0, 40, 5)]
    return sorted(messages, key=lambda timed: timed[0])


def _run(messages: list[Timed], *, restart_after: int | None = None) -> Bench:
    bench = play(messages, restart_after=restart_after)
    bench.wait(T0 + 3 * HOUR_MS - bench.now_ms, step_ms=5 * MINUTE_MS)
    return bench


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), history=histories())
def test_disorder_within_the_lateness_gives_the_findings_of_the_calm_run(
    data: st.DataObject, history: list[Timed]
) -> None:
    calm = _run(history)
    disorder, restart_after = disordered(data, history, most_minutes=15)
    live = _run(disorder, restart_after=restart_after)

    kept = [bench.state.get(Kind.KEK, KEK, KekHistory) or KekHistory() for bench in (calm, live)]
    assert live.standing() == calm.standing()
    assert kept[0].told.keys() == kept[1].told.keys()
    assert (kept[0].acts, kept[0].uses) == (kept[1].acts, kept[1].uses)
