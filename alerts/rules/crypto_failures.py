"""Failed cryptographic operations in numbers: a caller that loops, guesses, or feeds ciphertext of somebody else."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Final

from alerts.examples import earlier, fires, key_use, key_view, silent
from alerts.model import Evidence, Finding, KeyUse, RecentUse, Rule, Scope, Severity
from alerts.rules import canary
from alerts.thresholds import HOUR_MS, MINUTE_MS, SECOND_MS, Limits
from alerts.words import duration, short_id
from cryptocore.events import Operation, Outcome, Reason

RULE = Rule(
    id="crypto_failures",
    title="Many failed cryptographic operations",
    scope=Scope.KEY,
    severity=Severity.HIGH,
    policy="9.5d",
    technique="T1110",
    known_gaps="Fewer than the threshold per key is silent, also when many keys fail once each. Failures that a "
    "service counts in a summary event instead of single ones are not seen here.",
    first_step="ask the service which ciphertexts fail: a release that changed owner or record names fails for all, "
    "somebody who tries stolen ciphertext fails for some",
)

_COUNTED: Final = frozenset(
    {Operation.ENCRYPT, Operation.DECRYPT, Operation.REENCRYPT, Operation.WRAP, Operation.UNWRAP},
)
_BAD: Final = frozenset({Outcome.FAILED, Outcome.DENIED})
_VAULT_AWAY: Final = frozenset({Reason.VAULT_THROTTLED, Reason.VAULT_UNREACHABLE, Reason.VAULT_ERROR})


def evaluate(use: KeyUse, limits: Limits) -> Finding | None:
    """Report a failure that is one of at least `limits.failures` within `limits.failures_window_ms`."""
    if use.outcome not in _BAD or use.operation not in _COUNTED or _is_revocation_at_work(use, use.reason):
        return None
    if use.service == canary.SOURCE:
        return None
    others = {
        past.event_id: past
        for past in chain(use.recent, use.failed)
        if past.outcome in _BAD and past.operation in _COUNTED and not _is_revocation_at_work(use, past.reason)
    }
    others.pop(use.event_id, None)
    if len(others) + 1 < limits.failures:
        return None
    fullest = _fullest_window(use, others.values(), limits.failures_window_ms)
    if len(fullest) + 1 < limits.failures:
        return None
    reasons = Counter([use.reason or "no reason given", *(past.reason or "no reason given" for past in fullest)])
    away = all(reason in _VAULT_AWAY for reason in reasons)
    where = f"with key {short_id(use.key.id)}" if use.key is not None else f"of {use.service} without a known key"
    return Finding.of(
        RULE,
        severity=Severity.MEDIUM if away else RULE.severity,
        summary=f"{len(fullest) + 1} failed or denied operations {where} within {duration(limits.failures_window_ms)}: "
        f"{_told(reasons)}{'; the vault is overloaded or away, nothing points at the caller' if away else ''}",
        effective_ms=use.effective_ms,
        tenant=use.tenant if use.key is not None else "",
        key=use.key.id if use.key is not None else f"service:{use.service}",
        who=f"{use.actor} through {use.service}, purpose {use.purpose}",
        sure="high: every one is a sealed event of the service itself",
        evidence=(
            *(Evidence("event", past.event_id, past.effective_ms) for past in fullest),
            Evidence("event", use.event_id, use.effective_ms),
        ),
        facts={"outcome": use.outcome.value, "failures": str(len(fullest) + 1), "service": use.service},
    )


def _is_revocation_at_work(use: KeyUse, reason: str | None) -> bool:
    """A revoked key that is refused is revoked_key_decrypt's to tell; one cause, one alert."""
    return use.key is not None and use.key.revoked_ms is not None and reason == Reason.KEY_STATE


def _fullest_window(use: KeyUse, others: Iterable[RecentUse], window_ms: int) -> list[RecentUse]:
    """Of all windows that hold this use, return the others in the fullest: events may come out of order."""
    near = sorted(
        (past for past in others if abs(past.effective_ms - use.effective_ms) < window_ms),
        key=lambda past: (past.effective_ms, past.event_id),
    )
    starts = [past.effective_ms for past in near if past.effective_ms <= use.effective_ms] or [use.effective_ms]
    windows = ([past for past in near if start <= past.effective_ms < start + window_ms] for start in starts)
    return max(windows, key=len)


def _told(reasons: Counter[str]) -> str:
    return ", ".join(
        f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda kept: (-kept[1], kept))
    )


EXAMPLES = (
    fires(
        "the tenth bad ciphertext of a key in nine minutes",
        Severity.HIGH,
        key_use(Operation.DECRYPT, Outcome.FAILED, reason="bad_tag", failed=earlier(9, every_ms=MINUTE_MS)),
    ),
    fires(
        "ciphertexts that cannot be parsed, so no key is known",
        Severity.HIGH,
        key_use(
            Operation.DECRYPT,
            Outcome.FAILED,
            reason="parse_error",
            key=None,
            tenant="",
            failed=earlier(9, every_ms=SECOND_MS, reason="parse_error"),
        ),
    ),
    fires(
        "the vault throttles: said, but milder",
        Severity.MEDIUM,
        key_use(
            Operation.UNWRAP,
            Outcome.FAILED,
            reason="vault_throttled",
            recent=earlier(12, every_ms=SECOND_MS, operation=Operation.UNWRAP, reason="vault_throttled"),
        ),
    ),
    silent(
        "the canary, which is refused every minute",
        key_use(
            Operation.REENCRYPT,
            Outcome.DENIED,
            reason="key_state",
            service=canary.SOURCE,
            failed=earlier(12, every_ms=MINUTE_MS, outcome=Outcome.DENIED, reason="key_state"),
        ),
    ),
    silent(
        "nine in nine minutes",
        key_use(Operation.DECRYPT, Outcome.FAILED, reason="bad_tag", failed=earlier(8, every_ms=MINUTE_MS)),
    ),
    silent(
        "ten, but spread over twenty minutes",
        key_use(Operation.DECRYPT, Outcome.FAILED, reason="bad_tag", failed=earlier(9, every_ms=2 * MINUTE_MS)),
    ),
    silent(
        "one that worked after many failures",
        key_use(Operation.DECRYPT, Outcome.SUCCEEDED, failed=earlier(12, every_ms=SECOND_MS)),
    ),
    silent(
        "a revoked key that is refused, as it should be",
        key_use(
            Operation.DECRYPT,
            Outcome.DENIED,
            reason="key_state",
            key=key_view(revoked_ago_ms=HOUR_MS),
            failed=earlier(12, every_ms=SECOND_MS, outcome=Outcome.DENIED, reason="key_state"),
        ),
    ),
)
