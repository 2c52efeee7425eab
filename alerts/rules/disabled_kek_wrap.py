"""Wraps under a disabled KEK: a vault refuses to unwrap then, but is reported to go on wrapping.

Whoever wraps makes data keys that nobody can open while the KEK is disabled: either a service was not told, or somebody
locks data away.
"""

from typing import Any, Final

from alerts.examples import FLEET, NOW_MS, fires, kek_use, silent
from alerts.kekchanges import governing
from alerts.model import Evidence, Finding, KekAccess, KekChange, KekUseStatus, Rule, Scope, Severity
from alerts.thresholds import MINUTE_MS, Limits
from alerts.words import identity, moment

RULE = Rule(
    id="disabled_kek_wrap",
    title="Wrap under a disabled KEK",
    scope=Scope.KEK,
    severity=Severity.HIGH,
    policy="9.4b",
    technique="T1486",
    known_gaps="Knows a KEK as disabled from the vault's record of the KeyUpdate: one that was disabled before the log "
    "was read, or by its expiry, is not known. A KeyUpdate whose record comes two hours after that of the wrap does "
    "not look back at it. Where the KeyUpdate names no version and the KEK got a new one since, nothing is told.",
    first_step="find who disabled the KEK and why; point the service at the current version and rewrap what it wrapped",
)

WRAPS: Final = frozenset({"KeyWrap", "KeyEncrypt"})


def evaluate(seen: KekAccess, limits: Limits) -> Finding | None:  # noqa: ARG001 - every rule is given the limits
    """Report each wrap that the vault did under a version that its own log says is disabled."""
    use = seen.use
    if use.operation not in WRAPS or use.outcome != "succeeded":
        return None
    change = governing(seen.changes, use.version, use.time_us)
    if change is None or change.enabled is not False:
        return None
    target = f"{use.vault}/{use.name}"
    caller = use.principal_id
    who = identity(use.principal_kind or "", caller, use.principal_label) if caller else "nobody whom the record names"
    disabled_at = moment(change.time_us // 1000)
    return Finding.of(
        RULE,
        summary=f"{use.operation} on {target} succeeded, which is disabled since {disabled_at} UTC",
        effective_ms=use.time_us // 1000,
        key=target,
        principal=caller or "",
        who=f"{who}, {use.address or 'address unknown'}",
        sure="high: the vault's own records of the KeyUpdate and of the wrap",
        evidence=(Evidence("vault-access", use.access_id or use.id, use.time_us // 1000),),
        facts={"operation": use.operation, "disabled_at": disabled_at},
    )


_BEFORE_US, _AFTER_US = (NOW_MS - MINUTE_MS) * 1000, (NOW_MS + MINUTE_MS) * 1000
_OFF: Final = KekChange(time_us=_BEFORE_US, enabled=False, version="v1")
_OFF_UNNAMED: Final = KekChange(time_us=_BEFORE_US, enabled=False)


def _wrap(*changes: KekChange, operation: str = "KeyWrap", version: str = "v1", **other: Any) -> KekAccess:
    """A wrap by one of our services, beside what was done to the KEK around it."""
    use = kek_use(
        KekUseStatus.MATCHED, None, operation=operation, version=version, principal_id=FLEET, source="billing", **other
    )
    return KekAccess(use=use, changes=changes)


EXAMPLES = (
    fires("a wrap a minute after the KEK was disabled", Severity.HIGH, _wrap(_OFF)),
    fires("data is encrypted with the disabled KEK itself", Severity.HIGH, _wrap(_OFF, operation="KeyEncrypt")),
    fires("the KeyUpdate named no version, and there is no newer one", Severity.HIGH, _wrap(_OFF_UNNAMED)),
    fires(
        "it was enabled again only afterwards",
        Severity.HIGH,
        _wrap(_OFF, KekChange(time_us=_AFTER_US, enabled=True, version="v1")),
    ),
    silent("the vault refused", _wrap(_OFF, outcome="denied")),
    silent("a wrap of before", _wrap(KekChange(time_us=_AFTER_US, enabled=False, version="v1"))),
    silent("an old version is disabled, the current one is used", _wrap(_OFF, version="v2")),
    silent(
        "rotated since, and the KeyUpdate named no version",
        _wrap(_OFF_UNNAMED, KekChange(time_us=_BEFORE_US + 1, enabled=None)),
    ),
    silent("enabled again", _wrap(_OFF, KekChange(time_us=_BEFORE_US + 1, enabled=True, version="v1"))),
    silent("nobody ever said", _wrap()),
    silent("an unwrap, which a disabled KEK refuses anyway", _wrap(_OFF, operation="KeyUnwrap")),
)
