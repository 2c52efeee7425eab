"""What the join keeps of one KEK is bounded; beyond the bound it says so, and calls nobody a thief for it."""

import pytest

from alerts.model import FindingMessage
from alerts.thresholds import HOUR_MS, MINUTE_MS, SECOND_MS, Limits
from streams.joining.join import JoinStep
from streams.state import Kind
from tests.streams.joining.join_bench import STRANGER, T0, Bench, outcome, progress, registry, request_id, use

MATCHED = ("matched", "exact", None)
TOO_MANY = ("not_evaluated", None, "too_many")
BOUND = 5


def crowded_bench() -> Bench:
    return Bench(step=_step())


def _step() -> JoinStep:
    return JoinStep(registry=registry(), limits=Limits(join_kept=BOUND))


def flood(bench: Bench, count: int = 20) -> None:
    for number in range(count):
        bench.send(use(f"u{number}", T0 + number * SECOND_MS, correlation=request_id(f"a{number}")))


def test_records_beyond_the_bound_are_not_kept_and_one_finding_counts_them() -> None:
    bench = crowded_bench()

    flood(bench)
    bench.wait(2 * MINUTE_MS)

    assert bench.state.count(Kind.USE) == BOUND
    assert [bench.verdict(f"u{number}") for number in range(BOUND, 20)] == [TOO_MANY] * 15
    assert bench.standing()["join_overflow"] == 15
    [first, *_] = bench.findings
    assert isinstance(first, FindingMessage)
    assert (first.finding.key, first.finding.severity) == ("kv-prod/tenant-kek", "high")
    assert "more than 5 vault records about kv-prod/tenant-kek" in first.finding.summary


def test_a_stranger_in_the_flood_is_told_all_the_same() -> None:
    bench = crowded_bench()
    flood(bench)

    bench.send(use("stolen", principal_id=STRANGER))

    assert bench.verdict("stolen") == ("unaccounted", None, "foreign_principal")
    assert bench.standing()["unaccounted_kek_access"] == 1
    assert bench.state.count(Kind.USE) == BOUND


def test_events_beyond_the_bound_are_not_kept_and_the_uses_that_they_might_explain_are_not_called_theft() -> None:
    bench = crowded_bench()
    for number in range(20):
        bench.send(outcome(f"a{number}", T0 + number * SECOND_MS))
    bench.send(progress(T0 + HOUR_MS))

    for number in (0, 12):
        bench.send(use(f"u{number}", T0 + number * SECOND_MS, correlation=request_id(f"a{number}")))

    assert bench.state.count(Kind.CLAIM) == BOUND
    assert (bench.verdict("u0"), bench.verdict("u12")) == (MATCHED, TOO_MANY)
    assert bench.standing() == {"join_overflow": 1}, "further hits are told once a minute"
    bench.wait(2 * MINUTE_MS)
    assert bench.standing() == {"join_overflow": 15}


def test_a_copied_id_is_told_in_the_flood_too() -> None:
    bench = crowded_bench()
    bench.send(*(outcome(f"a{number}", T0 + number * SECOND_MS) for number in range(20)), progress(T0 + HOUR_MS))
    bench.send(use("u", correlation=request_id("a0")))

    bench.send(use("copy", T0 + 30, correlation=request_id("a0")))

    assert bench.verdict("copy") == ("unaccounted", None, "id_reused")


def test_another_kek_is_judged_as_ever() -> None:
    bench = crowded_bench()
    flood(bench)

    bench.send(progress(T0 + HOUR_MS), use("other", name="tokens-kek", correlation="x"))

    assert bench.verdict("other") == ("unaccounted", None, "no_event")


@pytest.mark.parametrize("restart", [False, True])
def test_it_ends_by_itself_when_what_was_kept_has_gone(restart: bool) -> None:
    bench = crowded_bench()
    flood(bench)
    if restart:
        bench.restart()
        bench.step = _step()
        bench.step.restore(bench.state)
        bench.send(use("more", T0 + MINUTE_MS, correlation="y"))
        assert bench.verdict("more") == TOO_MANY

    bench.wait(5 * HOUR_MS)
    assert "join_overflow" not in bench.standing()
    assert bench.state.count(Kind.USE) == bench.state.count(Kind.SEEN) == 0
    bench.send(progress(bench.now_ms + HOUR_MS), use("later", bench.now_ms, correlation="x"))

    assert bench.verdict("later") == ("unaccounted", None, "no_event")


def test_what_was_too_many_stays_so_when_the_flood_is_over() -> None:
    bench = crowded_bench()
    for number in range(20):
        bench.send(outcome(f"a{number}", T0 + number * SECOND_MS))
    bench.wait(60 * MINUTE_MS)
    bench.send(use("u", T0 + 12 * SECOND_MS, correlation=request_id("a12")), progress(bench.now_ms))

    bench.wait(3 * HOUR_MS)

    assert bench.verdict("u") == TOO_MANY
    assert "unaccounted_kek_access" not in bench.standing()


def test_the_bound_holds_for_any_mixture_and_order() -> None:
    bench = crowded_bench()

    for number in range(60):
        at_ms = T0 + number * SECOND_MS
        bench.send(use(f"u{number}", at_ms, correlation=request_id(f"a{number}")), at_ms=at_ms)
        bench.send(outcome(f"a{number}", at_ms))
        if number % 7 == 0:
            bench.wait(40 * MINUTE_MS)
        assert bench.state.count(Kind.USE) <= BOUND
        assert bench.state.count(Kind.CLAIM) <= BOUND
