"""The who agent: what is usual is learned, what is not is told once, whatever order the records come in."""

import random
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.model import Finding, Severity, VaultAccess
from alerts.thresholds import DAY_MS, HOUR_MS, MINUTE_MS, Limits
from streams.conduct.observations import Opened, encode
from streams.state import Kind
from tests.streams.watching import OTHER, SERVICE, T0, Watch, access, challenge, past

LATER = T0 + 20 * DAY_MS


def many(at_ms: int, count: int, name: str = "smtp", **changes: object) -> list[VaultAccess]:
    """So many reads of one secret within four minutes."""
    return [access(at_ms + 240_000 * n // count, name, salt=n, **changes) for n in range(count)]  # type: ignore[arg-type]


def test_nothing_is_told_while_the_vault_is_learned() -> None:
    watch = Watch()

    watch.feed(*past(6))
    watch.feed(*(access(T0 + 6 * DAY_MS + n * 1_000, f"app-{n}", who=OTHER) for n in range(40)))
    watch.feed(*many(T0 + 6 * DAY_MS + HOUR_MS, 500), access(T0 + 6 * DAY_MS + 2 * HOUR_MS, "", "SecretList"))
    watch.settle()

    assert watch.findings == []


def test_what_needs_no_past_is_told_from_the_first_hour_on() -> None:
    watch = Watch()

    watch.feed(*(access(T0 + n * 1_000, f"app-{n % 3}", status=403) for n in range(5)))
    watch.feed(*(access(T0 + HOUR_MS + n * 1_000, f"guess-{n}", who=OTHER, status=404) for n in range(10)))
    watch.settle()

    assert watch.rules() == ["denied_burst", "names_guessed"]
    assert {finding.severity for finding in watch.findings} == {Severity.MEDIUM}


def test_a_new_principal_at_night_is_one_incident_of_low_severity() -> None:
    watch = Watch().feed(*past())

    watch.feed(*(access(LATER + n * 1_000, f"app-{n}", who=OTHER) for n in range(3))).settle()

    (finding,) = watch.findings
    assert (finding.rule_id, finding.key, finding.principal) == ("first_seen_access", "kv-prod", OTHER)
    assert finding.severity is Severity.LOW
    assert finding.effective_ms == LATER
    assert len(finding.evidence) == 3


def test_one_hour_of_new_things_is_one_hit_and_another_hour_one_more() -> None:
    watch = Watch().feed(*past())

    watch.feed(*(access(LATER + n * 7 * MINUTE_MS, f"app-{n}", who=OTHER) for n in range(8)))
    watch.feed(access(LATER + 3 * HOUR_MS, "app-20", "SecretDelete", who=OTHER)).settle()

    (told,) = watch.told.values()
    assert (told.finding.rule_id, told.count) == ("first_seen_access", 2)


def test_a_known_principal_that_lists_and_then_collects_is_one_incident_of_high_severity() -> None:
    watch = Watch().feed(*past())

    watch.feed(access(LATER, "", "SecretList"))
    watch.feed(*(access(LATER + 200_000 + n * 4_000, f"app-{n}") for n in range(40))).settle()

    (finding,) = watch.findings
    assert finding.rule_id == "first_seen_access"
    assert finding.severity is Severity.HIGH
    assert "fan_out" in finding.facts["signs"]


def test_a_hundredfold_volume_is_one_alert_until_a_person_accepts_it() -> None:
    watch = Watch().feed(*past(40))
    begun = T0 + 40 * DAY_MS

    for hour in range(0, 24, 2):
        watch.feed(*many(begun + hour * HOUR_MS, 200))
    watch.settle()
    (told,) = watch.told.values()
    assert (told.finding.rule_id, told.finding.severity) == ("volume_anomaly", Severity.MEDIUM)
    assert told.count == 12
    assert watch.profile().pairs["kv-prod/secret/smtp/use"].level.usual == 2, "the surge must not train its own level"

    watch.say("accept")
    for hour in range(26, 50, 2):
        watch.feed(*many(begun + hour * HOUR_MS, 200))
    watch.settle()
    assert [told.count for told in watch.told.values()] == [12]

    watch.feed(*many(begun + 60 * HOUR_MS, 430)).settle()
    assert [told.count for told in watch.told.values()] == [13]


def test_a_level_that_grows_by_less_than_double_is_followed() -> None:
    watch = Watch().feed(*past())

    for step, count in enumerate([4, 10, 20, 30, 50, 80, 120]):
        for window in range(6):
            watch.feed(*many(LATER + (step * 6 + window) * HOUR_MS, count))
    watch.settle()

    assert watch.findings == []
    assert watch.profile().pairs["kv-prod/secret/smtp/use"].level.usual >= 80


def test_a_new_network_is_never_told_alone_and_raises_what_else_is_seen() -> None:
    watch = Watch().feed(*past())

    watch.feed(access(LATER, network="185.220.4.0/24")).settle()
    assert watch.findings == []

    watch.feed(access(LATER + 5 * HOUR_MS, "", "SecretList", network="91.10.4.0/24")).settle()
    (finding,) = watch.findings
    assert finding.severity is Severity.HIGH
    assert "91.10.4.0/24" in finding.summary
    assert finding.facts["signs"] == "first_seen_access, new_network"


def test_its_own_objects_denied_mean_a_lost_permission() -> None:
    watch = Watch()
    for name in ("a", "b", "c"):
        watch.feed(*past(1, name))
        watch.now_ms = T0
    watch.until(T0 + 2 * DAY_MS)

    watch.feed(*(access(T0 + 2 * DAY_MS + n * 1_000, "abc"[n % 3], status=403) for n in range(30))).settle()

    assert [(finding.rule_id, finding.severity) for finding in watch.findings] == [("denied_burst", Severity.LOW)]


def test_a_partition_that_saw_nothing_yet_knows_from_the_others_since_when_a_vault_is_watched() -> None:
    verdicts = []
    for known in (False, True):
        watch = Watch()
        if known:
            watch.raw(encode(Opened(v=1, vault="kv-prod", hour=T0 // HOUR_MS)))
        watch.feed(access(LATER, who=OTHER)).settle()
        verdicts.append(watch.rules())

    assert verdicts == [[], ["first_seen_access"]]


def test_a_use_of_a_key_is_left_to_the_join_where_there_is_one() -> None:
    verdicts = []
    for joined in (True, False):
        watch = Watch(joined=joined).feed(*past())
        watch.feed(access(LATER, "tenant-kek", "KeyUnwrap", who=OTHER)).settle()
        verdicts.append(watch.rules())

    assert verdicts == [[], ["first_seen_access"]]


def test_key_administration_by_a_service_of_ours_is_left_to_the_join_and_that_of_secrets_is_not() -> None:
    verdicts = []
    for joined, administrators in ((True, {OTHER}), (True, {SERVICE}), (False, {OTHER})):
        watch = Watch(joined=joined, administrators=frozenset(administrators)).feed(*past())
        watch.feed(access(LATER, "tenant-kek", "KeyRotate", who=OTHER)).settle()
        verdicts.append(watch.rules())
    assert verdicts == [[], ["first_seen_access"], ["first_seen_access"]]

    watch = Watch(administrators=frozenset({OTHER})).feed(*past())
    watch.feed(access(LATER, "smtp", "SecretDelete", who=OTHER)).settle()
    assert watch.rules() == ["first_seen_access"]


def test_an_act_that_another_rule_reports_is_not_told_again() -> None:
    watch = Watch().feed(*past())
    reported = Finding(rule_id="kek_administration", title="t", severity=Severity.HIGH, summary="s", effective_ms=LATER)

    watch.feed(access(LATER, "tenant-kek", "KeyBackup"), found=[reported])
    watch.feed(access(LATER + 3 * HOUR_MS, "smtp", "SecretBackup")).settle()

    (finding,) = watch.findings
    assert finding.facts["operations"] == "SecretBackup"


def test_after_a_reset_a_principal_is_learned_anew_without_a_word_except_for_administration() -> None:
    watch = Watch().feed(*past()).settle()

    watch.say("reset")
    watch.feed(*(access(LATER + n * HOUR_MS, f"app-{n}") for n in range(5))).settle()
    assert watch.findings == []
    assert watch.profile().events == 5

    watch.feed(access(LATER + 24 * HOUR_MS, "app-1", "SecretDelete")).settle()
    assert watch.rules() == ["first_seen_access"]


def test_a_reset_of_one_vault_leaves_the_others() -> None:
    watch = Watch().feed(*past(8))
    watch.now_ms = T0
    watch.feed(*past(8, vault="kv-ops")).settle()

    watch.say("reset", vault="kv-ops")
    watch.say("reset", ident="c-1")

    assert {key.split("/")[0] for key in watch.profile().pairs} == {"kv-prod"}
    assert [done.vault for done in watch.profile().decisions] == ["kv-ops"], "an id counts once"


def test_what_was_not_seen_for_thirty_days_is_new_again_and_a_silent_principal_is_forgotten() -> None:
    watch = Watch().feed(*past(10))
    watch.feed(*past(45, "other", who=OTHER))
    assert watch.state.get(Kind.PRINCIPAL, SERVICE.encode(), object) is None  # type: ignore[type-var]

    watch.feed(access(T0 + 46 * DAY_MS)).settle()

    assert watch.rules() == ["first_seen_access"]


def test_meeting_new_objects_on_three_days_of_a_month_is_a_habit() -> None:
    watch = Watch().feed(*past(16))

    for day in range(16, 24):
        watch.feed(*past(0), *(access(T0 + day * DAY_MS + n * 1_000, f"tenant-{day}") for n in range(2)))
    watch.settle()

    (told,) = watch.told.values()
    assert told.count == 3
    assert told.finding.severity is Severity.LOW


def test_more_objects_than_fit_are_counted_and_never_an_alert() -> None:
    limits = Limits(baseline_pairs=16)
    watch = Watch(limits=limits)
    nights = [access(T0 + day * DAY_MS + n * 10_000, f"app-{n}") for day in range(20) for n in range(40)]

    watch.feed(*nights).settle()

    assert watch.findings == []
    assert len(watch.profile().pairs) == 16
    assert watch.profile().evicted > 0


def test_late_records_are_judged_on_their_own_and_counted() -> None:
    watch = Watch().feed(*past())
    watch.until(LATER + 5 * HOUR_MS)

    for n in range(3):
        watch.arrive(watch.now_ms, access(LATER + n * 1_000, f"app-{n}", who=OTHER))
    watch.settle()

    (finding,) = watch.findings
    assert (finding.principal, finding.effective_ms) == (OTHER, LATER)
    assert watch.meter.late == 3


def test_a_record_with_an_absurd_time_is_counted_and_nothing_waits_for_it() -> None:
    watch = Watch().feed(*past(1))

    watch.arrive(watch.now_ms, access(watch.now_ms + 400 * DAY_MS))
    watch.arrive(watch.now_ms, access(watch.now_ms - 400 * DAY_MS))
    watch.settle()

    assert watch.meter.out_of_range == 2
    assert watch.state.count(Kind.BIN) == 0
    assert watch.meter.vaults == {"kv-prod": T0 // HOUR_MS}


def test_a_thousand_lone_challenges_are_one_alert_and_a_token_clears_them() -> None:
    for answered in (False, True):
        watch = Watch()
        for n in range(1_100):
            watch.feed(challenge(T0 + n * 4_000, salt=n))
        if answered:
            watch.feed(access(T0 + 1_100 * 4_000 + 1_000, address="198.51.100.9"))
        watch.settle()

        assert watch.rules() == ([] if answered else ["lone_challenges"])
        assert answered or watch.findings[0].principal == "address:198.51.100.9"
        watch.until(watch.now_ms + 2 * DAY_MS)
        assert watch.state.count(Kind.ADDRESS) == 0


def test_clients_that_start_and_sign_in_leave_nothing_behind() -> None:
    watch = Watch()

    for n in range(300):
        at_ms = T0 + n * 10 * MINUTE_MS
        watch.feed(challenge(at_ms, "20.50.1.7"), access(at_ms + 1_000))
    watch.settle()

    assert watch.findings == []
    assert watch.state.count(Kind.ADDRESS) == 0


def test_addresses_are_bounded() -> None:
    watch = Watch(limits=Limits(addresses=10))

    watch.feed(*(challenge(T0 + n, f"198.51.100.{n}") for n in range(30)))

    assert watch.state.count(Kind.ADDRESS) == 10
    assert watch.meter.addresses_refused == 20


def test_what_nobody_of_ours_wrote_is_rejected() -> None:
    watch = Watch()

    watch.raw(b'{"type":"seen"}')
    watch.raw(b"\xff")

    assert watch.rejected == 2
    assert watch.meter.rejected == 2


def _story() -> list[VaultAccess]:
    """Twenty days of a service and of a person, then everything that is told, close together."""
    story = past() + past(20, "mail", who=OTHER, upn="ann@example.test")
    story += [access(LATER, "", "SecretList", network="185.220.4.0/24")]
    story += [access(LATER + 100_000 + n * 9_000, f"app-{n}", network="185.220.4.0/24") for n in range(30)]
    story += many(LATER + 20 * MINUTE_MS, 90)
    story += [access(LATER + n * 50_000, f"door-{n % 5}", status=403, who=OTHER) for n in range(9)]
    story += [access(LATER + n * 30_000, f"guess-{n}", status=404, who=OTHER, vault="kv-ops") for n in range(14)]
    story += [access(LATER + 2 * HOUR_MS + n, f"app-{n}", who="cccc", address=f"10.0.0.{n}") for n in range(4)]
    return sorted(story, key=lambda one: one.time_us)


STORY = _story()


def _lived(arrivals: list[tuple[int, VaultAccess]], *, restarts: frozenset[int] = frozenset()) -> Watch:
    watch = Watch()
    for number, (at_ms, one) in enumerate(arrivals):
        watch.arrive(max(at_ms, watch.now_ms), one)
        if number in restarts:
            watch.restart()
    return watch.until(LATER + 5 * HOUR_MS)


@cache
def _calm() -> Watch:
    return _lived([(one.time_us // 1000, one) for one in STORY])


def _verdicts(watch: Watch) -> list[tuple[str, int, int, int, Finding]]:
    found = [
        (message.finding_id, message.count, message.first_ms, message.last_ms, message.finding)
        for message in watch.told.values()
    ]
    return sorted(found, key=lambda one: one[0])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), restarts=st.frozensets(st.integers(0, len(STORY) - 1), max_size=3))
def test_any_order_within_the_lateness_gives_the_same_findings_and_the_same_baselines(
    seed: int, restarts: frozenset[int]
) -> None:
    draw = random.Random(seed)
    calm = _calm()
    shuffled = [(one.time_us // 1000 + draw.randrange(14 * MINUTE_MS), draw.random(), one) for one in STORY]

    watch = _lived([(at_ms, one) for at_ms, _, one in sorted(shuffled, key=lambda each: each[:2])], restarts=restarts)

    assert watch.rules() == [
        "denied_burst",
        "first_seen_access",
        "first_seen_access",
        "names_guessed",
    ]
    assert _verdicts(watch) == _verdicts(calm)
    baselines = bytes((Kind.PRINCIPAL,))
    assert {key: value for key, value in watch.state.dump().items() if key[:1] == baselines} == {
        key: value for key, value in calm.state.dump().items() if key[:1] == baselines
    }
    assert watch.meter.late == 0
