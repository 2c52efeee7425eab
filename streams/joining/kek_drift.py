"""Where the state of a KEK, as the vault's records tell it, contradicts what our services do with it. Pure.

Each contradiction stands as long as it holds: `kek_watch` tells it when it begins and takes it back when it ends. It is
named after the identity whose act made it, so that it falls together with what is told of that act itself.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from alerts.model import Evidence, Finding, Severity
from alerts.system import system_finding
from alerts.thresholds import Limits
from alerts.words import moment
from streams.joining.kek_history import NEW_VERSION, RENEWING, Act, KekHistory, VersionUse

_GONE: Final = frozenset({"KeyDelete", "KeyPurge"})
_BACK: Final = frozenset({"KeyRecover", "KeyRestore", "KeyCreate", "KeyImport"})
_BORN: Final = frozenset({"KeyCreate", "KeyImport"})
_NEEDS: Final = {"wrap": "wrapKey", "unwrap": "unwrapKey"}
_SHORT: Final = 8


class Drift(NamedTuple):
    """One contradiction; `key` names it among those of the same KEK."""

    kind: str
    says: str
    at_ms: int
    severity: Severity = Severity.MEDIUM
    act: Act | None = None
    use: VersionUse | None = None

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.principal}"

    @property
    def principal(self) -> str:
        return "" if self.act is None else self.act.principal_id or ""


def drifts(known: KekHistory, *, declared: bool | None, now_ms: int, limits: Limits) -> list[Drift]:
    """List what contradicts.

    Args:
        known: the KEK's history.
        declared: whether vaults.toml declares it; None where that file says nothing of the vault's KEKs.
        now_ms: the broker's time.
        limits: how long services may go on after a change.
    """
    found = [*_inventory(known, declared=declared), *_reopened(known), *_unborn(known, now_ms, limits)]
    gone = _last(known.acts, lambda act: act.operation in _GONE | _BACK)
    if gone is not None and gone.operation in _GONE:
        return [*found, *_gone(known, gone, declared=declared, limits=limits)]
    for version, use in sorted(known.uses.items()):
        found += _of_version(known.acts, version, use, limits)
    return list({drift.key: drift for drift in reversed(found)}.values())


def finding_of(kek: str, drift: Drift) -> Finding:
    """Say it as a finding."""
    proofs = []
    if drift.act is not None:
        proofs.append(Evidence("vault-access", drift.act.access_id, drift.act.time_us // 1000))
    if drift.use is not None and drift.use.event_id:
        proofs.append(Evidence("event", drift.use.event_id, drift.use.last_ms))
    return system_finding(
        "kek_drift",
        summary=f"{kek} {drift.says}",
        effective_ms=drift.at_ms,
        severity=drift.severity,
        key=kek,
        principal=drift.principal,
        who=f"identity {drift.principal} changed it" if drift.principal else "",
        sure="high: both sides are on record",
        evidence=tuple(proofs),
        facts={"drift": drift.kind},
    )


def _gone(known: KekHistory, act: Act, *, declared: bool | None, limits: Limits) -> Iterator[Drift]:
    """A KEK that is deleted may not be asked for any more, nor be declared."""
    at_ms = act.time_us // 1000
    does = "was purged" if act.operation == "KeyPurge" else "was deleted"
    used = max(known.uses.values(), key=lambda use: use.last_ms, default=None)
    if used is not None and used.last_ms > at_ms + limits.kek_settled_ms:
        severity = Severity.CRITICAL if act.operation == "KeyPurge" else Severity.HIGH
        says = f"{does} on {moment(at_ms)} UTC, and services still ask for it: keys of theirs are under it"
        yield Drift("gone_in_use", says, at_ms, severity, act, used)
    elif declared:
        yield Drift("gone_declared", f"{does}, and vaults.toml still declares it", at_ms, Severity.LOW, act)


def _of_version(acts: list[Act], version: str, use: VersionUse, limits: Limits) -> Iterator[Drift]:
    """What was done to a version that is still used afterwards."""
    known = version or None
    named = f"version {version[:_SHORT]}" if version else "its version"
    act = _about(acts, known, lambda one: one.enabled is not None)
    if act is not None and act.enabled is False and _after(use, act.time_us // 1000, limits):
        at_ms = act.time_us // 1000
        says = f"is disabled since {moment(at_ms)} UTC ({named}), and services still ask for it"
        yield Drift("disabled_in_use", says, at_ms, Severity.MEDIUM, act, use)
    act = _about(acts, known, lambda one: one.operations is not None)
    if act is not None and act.operations is not None and _after(use, act.time_us // 1000, limits):
        needs = {_NEEDS[operation] for operation in use.operations if operation in _NEEDS}
        lacks = sorted(needs - set(act.operations))
        if lacks:
            at_ms = act.time_us // 1000
            says = f"may not do {', '.join(lacks)} since {moment(at_ms)} UTC ({named}), and services still ask for it"
            yield Drift("operation_in_use", says, at_ms, Severity.MEDIUM, act, use)
    act = _about(acts, known, lambda one: one.expires_ms is not None)
    if act is not None and act.expires_ms is not None and _after(use, act.expires_ms, limits):
        says = f"expired on {moment(act.expires_ms)} UTC ({named}) and is still used: its expiry stops nobody"
        yield Drift("expired_in_use", says, act.expires_ms, Severity.MEDIUM, act, use)


def _after(use: VersionUse, at_ms: int, limits: Limits) -> bool:
    return use.last_ms > at_ms + limits.kek_settled_ms


def _reopened(known: KekHistory) -> Iterator[Drift]:
    """Somebody outside keytrail enabled again what was disabled through keytrail."""
    for version in {act.version for act in known.acts if act.enabled}:
        act = _about(known.acts, version, lambda one: one.enabled is not None)
        if act is None or not act.enabled or act.explained is not False:
            continue
        before = _about([one for one in known.acts if one < act], version, lambda one: one.enabled is not None)
        if before is not None and before.enabled is False and before.explained:
            says = (
                f"was disabled through keytrail on {moment(before.time_us // 1000)} UTC, and enabled again outside it"
            )
            yield Drift("enabled_outside", says, act.time_us // 1000, Severity.MEDIUM, act)


def _inventory(known: KekHistory, *, declared: bool | None) -> Iterator[Drift]:
    """A KEK that services use is to be declared, where the vault's KEKs are."""
    if declared is False and known.uses:
        use = min(known.uses.values(), key=lambda one: one.last_ms)
        yield Drift("undeclared", "is used by services, and vaults.toml does not name it", use.last_ms, Severity.LOW)


def _unborn(known: KekHistory, now_ms: int, limits: Limits) -> Iterator[Drift]:
    """Versions in use that the vault's log never made, where that log begins with the KEK's creation."""
    acts = known.acts
    born = next((act for act in acts if act.operation != NEW_VERSION), None)
    if known.forgotten or born is None or born.operation not in _BORN or known.earliest_ms is None:
        return
    if known.earliest_ms < born.time_us // 1000 or any(act.operation == "KeyRestore" for act in acts):
        return
    made = [act.version for act in acts if act.operation in RENEWING]
    used = {
        version: use.first_ms
        for version, use in known.uses.items()
        if version and version not in made and use.first_ms is not None and use.first_ms + limits.final_ms <= now_ms
    }
    if len(used) > made.count(None):
        names = ", ".join(version[:_SHORT] for version in sorted(used))
        says = f"is used in more versions than the vault's log shows being made ({names})"
        yield Drift("unknown_version", says, min(used.values()), Severity.LOW)


def _about(acts: list[Act], version: str | None, says: Callable[[Act], bool]) -> Act | None:
    """Return the last act that says something of a version; as in alerts/kekchanges.py, None where nobody can tell."""
    renewed = False
    for act in reversed(acts):
        named = act.version is not None and version is not None
        if act.operation in RENEWING:
            if named and act.version == version:
                return act if says(act) else None
            renewed = True
        elif says(act) and named:
            if act.version == version:
                return act
        elif says(act):
            return None if renewed else act
    return None


def _last(acts: list[Act], says: Callable[[Act], bool]) -> Act | None:
    return next((act for act in reversed(acts) if says(act)), None)
