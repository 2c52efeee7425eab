"""What the join says of one KEK use, as a value: the words of its document and of its finding."""

from msgspec.structs import replace

from alerts.model import Evidence, Finding, KekUse, KekUseStatus, Strength
from alerts.system import system_finding
from cryptocore.clock import parse_rfc3339
from streams.joining.attempts import VAULT_OPERATION, outcome_of
from streams.joining.correlate import Claim, Use
from streams.joining.joinstate import ClaimState


def pending(use: Use, source: str | None) -> KekUse:
    """Take a vault record over, not judged yet; `source` is whose identity it was."""
    return KekUse(
        id=use.access_id,
        status=KekUseStatus.PENDING,
        strength=None,
        reason=None,
        final=False,
        vault=use.vault.lower(),
        name=use.name.lower(),
        version=use.version.lower() if use.version else None,
        operation=use.operation,
        outcome=use.outcome,
        time_us=use.time_us,
        principal_id=use.principal_id,
        principal_kind=use.principal_kind,
        principal_label=use.principal_label,
        address=use.address,
        correlation_id=use.correlation_id,
        access_id=use.access_id,
        source=source,
    )


def judged(use: KekUse, status: KekUseStatus, reason: str | None, *, final: bool) -> KekUse:
    """The record with a judgement and without what an earlier one knew."""
    return replace(
        use,
        status=status,
        strength=None,
        reason=reason,
        final=final,
        event_id=None,
        actor=None,
        purpose=None,
        tenant=None,
        key_id=None,
        behind_ms=None,
        instances=None,
    )


def explained(use: KekUse, strength: Strength | None, known: ClaimState | None) -> KekUse:
    """The record with whose act it was, for what, and by what it was recognised."""
    matched = replace(judged(use, KekUseStatus.MATCHED, None, final=True), strength=strength)
    return matched if known is None else replace(matched, **_who(known.claim))


def _who(claim: Claim) -> dict[str, str | None]:
    owner = claim.owner
    tenant = None
    if owner is not None:
        tenant = owner.tenant_id if owner.secret_name is None else f"secret:{owner.secret_name}"
    return {
        "event_id": claim.event_id,
        "source": claim.source,
        "actor": claim.actor,
        "purpose": claim.purpose,
        "tenant": tenant,
        "key_id": None if claim.key is None else claim.key.id,
    }


def of_act(use: KekUse) -> KekUse:
    """Say it in the words for an administrative act: what no event explains is no use that nobody accounts for."""
    if use.status is KekUseStatus.MATCHED:
        return replace(use, status=KekUseStatus.EXPLAINED)
    if use.status in {KekUseStatus.UNACCOUNTED, KekUseStatus.NOT_EVALUATED}:
        return replace(use, status=KekUseStatus.UNEXPLAINED)
    return use


def same(one: KekUse, other: KekUse) -> bool:
    """Whether two judgements say the same; how far a source was behind may differ."""
    return replace(one, behind_ms=None, instances=None) == replace(other, behind_ms=None, instances=None)


def unlogged(known: ClaimState, number: int) -> KekUse:
    """Describe a call by its attempt that the vault's log does not show, or does show after all."""
    claim, told = known.claim, known.claim.attempts[number]
    use = KekUse(
        id=claim.event_id,
        status=KekUseStatus.UNLOGGED if known.unlogged else KekUseStatus.NOT_EVALUATED,
        strength=None,
        reason="no_vault_record" if known.unlogged else "logged_late",
        final=True,
        vault=claim.vault.lower(),
        name=claim.name.lower(),
        version=claim.version,
        operation=VAULT_OPERATION[claim.operation],
        outcome="failed" if told.http_status is None else outcome_of(told.http_status),
        time_us=parse_rfc3339(told.started_at),
        principal_id=None,
        correlation_id=told.request_id or told.call_id,
    )
    return replace(use, **_who(claim))


def coverage_finding(use: KekUse) -> Finding:
    """Say that an answered call is not in the vault's log: one alert per vault, whose log it is, with a count."""
    return system_finding(
        "audit_coverage",
        summary=f"{use.source} reports a {use.operation} on {use.vault}/{use.name} that the vault answered; "
        "the vault's log does not show it an hour later",
        effective_ms=use.time_us // 1000,
        key=use.vault,
        who=f"{use.actor} through {use.source}",
        sure="medium: the vault promises no complete log; a service can also report what it did not do",
        evidence=(Evidence("kek-use", use.id, use.time_us // 1000),),
        facts={"kek": use.name, "outcome": use.outcome, "source": use.source or ""},
    )
