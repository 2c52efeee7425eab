"""The keys agent spares rules the uses that none can fire on: that none does is checked here, for every rule."""

from hypothesis import given
from hypothesis import strategies as st

from alerts import rules
from alerts.model import KeyUse, KeyView, RecentUse
from alerts.thresholds import Limits
from cryptocore.events import Operation, Outcome

LIMITS = Limits()
WINDOW_MS = 2 * LIMITS.failures_window_ms

recent = st.builds(
    RecentUse,
    event_id=st.uuids().map(str),
    effective_ms=st.integers(0, WINDOW_MS),
    operation=st.sampled_from(Operation),
    outcome=st.sampled_from(Outcome),
    revision=st.integers(1, 9),
    version=st.integers(1, 3),
    actor=st.just("user:1"),
    purpose=st.just("sync"),
    service=st.just("billing"),
)
uses = st.builds(
    KeyUse,
    event_id=st.uuids().map(str),
    operation=st.sampled_from(Operation),
    outcome=st.just(Outcome.SUCCEEDED),
    reason=st.none(),
    effective_ms=st.integers(0, WINDOW_MS),
    service=st.just("billing"),
    actor=st.just("user:1"),
    purpose=st.just("sync"),
    tenant=st.sampled_from(["", "t-1"]),
    key=st.none()
    | st.builds(
        KeyView,
        id=st.just("ab" * 16),
        version=st.integers(1, 3),
        state=st.sampled_from([None, "pre-activation", "active", "suspended", "archived", "destroyed"]),
        revision=st.integers(0, 9),
    ),
    key_revision=st.integers(0, 9),
    recent=st.lists(recent, max_size=32),
    failed=st.lists(recent, min_size=LIMITS.failures, max_size=32),
    suspect=st.booleans(),
)


@given(uses)
def test_no_rule_fires_on_an_ordinary_use(use: KeyUse) -> None:
    assert rules.is_ordinary(use.outcome, None if use.key is None else use.key.revoked_ms)

    assert rules.run(use, LIMITS) == []


def test_what_rules_fire_on_is_not_ordinary() -> None:
    assert not rules.is_ordinary(Outcome.DENIED, None)
    assert not rules.is_ordinary(Outcome.FAILED, None)
    assert not rules.is_ordinary(Outcome.SUCCEEDED, 1)
