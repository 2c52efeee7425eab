"""KEK uses that no event of ours explains: the strongest single sign that a KEK is used outside our services."""

import re
from typing import Final

from alerts.certainty import sureness
from alerts.examples import FLEET, fires, kek_use, silent
from alerts.model import Evidence, Finding, KekUse, KekUseStatus, Rule, Scope, Severity, Strength
from alerts.thresholds import MINUTE_MS, Limits
from alerts.words import identity

RULE = Rule(
    id="unaccounted_kek_access",
    title="KEK used outside our services",
    scope=Scope.KEK,
    severity=Severity.HIGH,
    policy="9.5b",
    technique="T1552",
    known_gaps="Sees only what the vault logged; a wrap or verify that an SDK does locally leaves no record. A "
    "compromised service can invent an event for each use of its own identity; it cannot for another identity. A "
    "service of Azure is known by the resource that its token names; with a user-assigned identity it cannot be told "
    "from other workloads, and is judged as one.",
    first_step="ask the owner of the identity whether this was theirs; if nobody knows, disable the identity",
)

_GUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WHY: Final = {
    "foreign_principal": "no application event can explain it: the identity belongs to none of our services",
    "azure_service": "a service of Azure encrypts with it: no code of ours runs there, and no event can explain it",
    "id_reused": "its correlation id is that of a call of ours which it does not fit, so the id was copied",
    "no_event": "no application event explains it",
}


def evaluate(use: KekUse, limits: Limits) -> Finding | None:
    """Report every use that the join calls unaccounted; how bad depends on whose identity it was and how it ended."""
    if use.status is not KekUseStatus.UNACCOUNTED:
        return None
    return Finding.of(
        RULE,
        severity=_severity(use),
        summary=f"{use.operation} on {use.vault}/{use.name}; {_WHY.get(use.reason or '', _WHY['no_event'])}",
        effective_ms=use.time_us // 1000,
        key=f"{use.vault}/{use.name}",
        principal=use.principal_id or "",
        who=_who(use),
        sure=_sure(use, limits),
        first_step=_first_step(use),
        evidence=(Evidence("kek-use", use.id, use.time_us // 1000),),
        facts=_facts(use),
    )


def _severity(use: KekUse) -> Severity:
    """A stranger who got in is critical; the same by an identity of ours, or a stranger who was turned away, high.

    A service of Azure that wraps and unwraps under the KEK got a role from somebody: a mistake, hardly a theft.
    """
    if use.reason == "azure_service":
        return Severity.MEDIUM if use.outcome == "succeeded" else Severity.LOW
    foreign, succeeded = use.reason == "foreign_principal", use.outcome == "succeeded"
    if foreign and succeeded:
        return Severity.CRITICAL
    if succeeded or (foreign and use.outcome == "denied"):
        return Severity.HIGH
    return Severity.MEDIUM


def _who(use: KekUse) -> str:
    if use.principal_id is None:
        return f"nobody whom the vault's record names, {use.address or 'address unknown'}"
    belongs = f", identity of {use.source}" if use.source else ""
    caller = identity(use.principal_kind or "", use.principal_id, use.principal_label, belongs)
    return f"{caller}, {use.address or 'address unknown'}"


def _sure(use: KekUse, limits: Limits) -> str:
    if use.reason == "azure_service":
        return "medium: the vault's own record names a resource of Azure; whether it should use this KEK it cannot say"
    if use.reason == "foreign_principal":
        return "high: the vault's own record; if it is a new service of ours, see runbook step 2"
    return sureness(use, limits)


def _first_step(use: KekUse) -> str:
    """Name the command, on a line of its own, only for an id of Azure's form: it will be pasted into a shell."""
    ident = use.principal_id or ""
    if use.reason == "azure_service":
        return "ask the owner of the resource; give it a key of its own, or an entry in allowed.toml"
    if use.reason != "foreign_principal" or not _GUID.fullmatch(ident):
        return RULE.first_step
    if use.principal_kind == "user":
        return f"disable the identity:\naz ad user update --id {ident} --account-enabled false"
    return f"disable the identity:\naz ad sp update --id {ident} --set accountEnabled=false"


def _facts(use: KekUse) -> dict[str, str]:
    facts = {"outcome": use.outcome, "operation": use.operation, "reason": use.reason or "no_event"}
    if use.address:
        facts["address"] = use.address
    if use.source:
        facts["source"] = use.source
    if use.reason == "id_reused" and use.event_id:
        facts["copied_from_event"] = use.event_id
    return facts


_OURS = {"principal_id": FLEET, "principal_label": None, "source": "billing"}

EXAMPLES = (
    fires("a stranger unwraps", Severity.CRITICAL, kek_use(KekUseStatus.UNACCOUNTED, "foreign_principal")),
    fires(
        "a stranger is turned away",
        Severity.HIGH,
        kek_use(KekUseStatus.UNACCOUNTED, "foreign_principal", outcome="denied"),
    ),
    fires(
        "a service's identity, and all its instances had reported",
        Severity.HIGH,
        kek_use(KekUseStatus.UNACCOUNTED, "no_event", behind_ms=0, instances=37, **_OURS),
    ),
    fires(
        "a service's identity while it is behind",
        Severity.HIGH,
        kek_use(KekUseStatus.UNACCOUNTED, "no_event", final=False, behind_ms=3 * MINUTE_MS, instances=37, **_OURS),
    ),
    fires(
        "a copied id under a service's identity",
        Severity.HIGH,
        kek_use(KekUseStatus.UNACCOUNTED, "id_reused", event_id="01939f00-0000-7000-8000-000000000001", **_OURS),
    ),
    fires(
        "a storage account that encrypts with our KEK",
        Severity.MEDIUM,
        kek_use(KekUseStatus.UNACCOUNTED, "azure_service", principal_kind="azure_service"),
    ),
    fires(
        "a storage account that is not let in",
        Severity.LOW,
        kek_use(KekUseStatus.UNACCOUNTED, "azure_service", principal_kind="azure_service", outcome="denied"),
    ),
    silent("explained", kek_use(KekUseStatus.MATCHED, None, strength=Strength.EXACT, **_OURS)),
    silent("not judged yet", kek_use(KekUseStatus.PENDING, None, final=False, **_OURS)),
    silent("not evaluated: no batches were given", kek_use(KekUseStatus.NOT_EVALUATED, "no_batches")),
    silent("an event without its vault record", kek_use(KekUseStatus.UNLOGGED, "no_vault_record", **_OURS)),
)
