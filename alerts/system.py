"""Findings that no rule makes: what the monitor says about its own sight and about what it was sent.

One table for their titles, severities, clauses and first steps; whoever notices the thing brings the words for it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from alerts.model import Evidence, Finding, Severity


class SystemKind(Struct, frozen=True, kw_only=True):
    """A system finding's metadata; `policy` is the clause that it serves."""

    title: str
    severity: Severity
    policy: str
    first_step: str

    def runbook(self, finding: str) -> str:
        return f"docs/runbooks/{finding}.md"


def _kind(title: str, severity: Severity, policy: str, first_step: str) -> SystemKind:
    return SystemKind(title=title, severity=severity, policy=policy, first_step=first_step)


SYSTEM: Final[Mapping[str, SystemKind]] = {
    "seal_invalid": _kind(
        "Audit batch with an invalid seal",
        Severity.HIGH,
        "8.2",
        "find who can write to key-events besides the services; treat that credential as stolen",
    ),
    "signer_unknown": _kind(
        "Audit batch from an unknown signer",
        Severity.HIGH,
        "8.2",
        "compare the signer id with the reviewed registry file; a forgotten entry and a forgery look alike",
    ),
    "signer_compromised": _kind(
        "Audit batch from a signer marked as compromised",
        Severity.HIGH,
        "10a",
        "rotate the signer of that service; its events count as no evidence until then",
    ),
    "deployment_mismatch": _kind(
        "Audit batch of another deployment",
        Severity.HIGH,
        "8.2",
        "find which service of the other deployment points at this broker",
    ),
    "source_mismatch": _kind(
        "A service speaks for another",
        Severity.CRITICAL,
        "8.2",
        "isolate the service whose signer sealed the batch, then rotate that signer",
    ),
    "chain_fork": _kind(
        "Two different audit batches under one number",
        Severity.CRITICAL,
        "8.2",
        "keep both batches as evidence; find the second process that holds this signer and spool",
    ),
    "audit_gap": _kind(
        "Audit batches are missing",
        Severity.HIGH,
        "8.2",
        "look for the instance's spool file before its disk is gone; then for retention and lost brokers",
    ),
    "chain_unclosed": _kind(
        "A process ended without closing its audit trail",
        Severity.LOW,
        "8.2",
        "let a live process of the service adopt the spool, or run the drain on its disk",
    ),
    "silent_source": _kind(
        "A service stopped reporting",
        Severity.HIGH,
        "9.1d",
        "ask whether the instance still serves; silence is not safety",
    ),
    "key_record_invalid": _kind(
        "A key record whose signature does not hold",
        Severity.CRITICAL,
        "7.2",
        "find who wrote to the key table; stop using the key until its record is explained",
    ),
    "key_state_regression": _kind(
        "A key's state went back or skipped a revision",
        Severity.CRITICAL,
        "9.6a",
        "compare the key's signed history with the trail; a restored backup and a database writer look alike",
    ),
    "rotation_unfinished": _kind(
        "A rotation is late",
        Severity.MEDIUM,
        "9.1d",
        "ask the key store which step it waits for and who has to move rows; until it ends the old DEK opens data",
    ),
    "index_unavailable": _kind(
        "The index does not answer",
        Severity.MEDIUM,
        "9.1c",
        "restore the index; detection goes on, and what it missed is written when it answers",
    ),
    "rejected_rate": _kind(
        "Too many messages cannot be read",
        Severity.HIGH,
        "8.2",
        "open the rejected topic: one reason for all means a broken producer, many mean somebody probes",
    ),
    "document_refused": _kind(
        "The index refused a document",
        Severity.MEDIUM,
        "9.1c",
        "compare the index's mappings with this version; the document is kept in the rejected topic",
    ),
    "out_of_range": _kind(
        "Events dated outside the days we keep",
        Severity.MEDIUM,
        "9.1b",
        "check the sender's clock; the events are kept in an index of their own",
    ),
    "clock_untrusted": _kind(
        "A sender's clock is not believed",
        Severity.LOW,
        "9.6a",
        "set the clock of the host; until then its events are judged by the broker's time",
    ),
    "unknown_operation": _kind(
        "The vault logged an operation we do not know",
        Severity.LOW,
        "8.1",
        "read what the operation does and say which class it belongs to",
    ),
    "rule_error": _kind(
        "A rule failed and judged nothing",
        Severity.HIGH,
        "9.1d",
        "fix the rule, then replay the time since this alert opened",
    ),
    "pending_source": _kind(
        "KEK uses wait for a service that is behind",
        Severity.MEDIUM,
        "9.1d",
        "find out why the service does not reach Kafka; until it has caught up nobody can tell its KEK uses from theft",
    ),
    "match_ratio_low": _kind(
        "A vault's log misses calls of our services",
        Severity.MEDIUM,
        "8.1",
        "check the feed's position and the vault's diagnostic settings; nobody else's calls are seen for sure either",
    ),
    "join_overflow": _kind(
        "More uses of a KEK than can be joined",
        Severity.HIGH,
        "9.1d",
        "find who makes so many calls or events about this KEK; until it ends, theft among them is not told apart",
    ),
    "vault_silent": _kind(
        "A vault's log fell silent",
        Severity.HIGH,
        "9.1d",
        "check the vault's diagnostic settings, then the feed; until it speaks again nobody sees who uses its keys",
    ),
    "vault_undeclared": _kind(
        "A vault that nobody declared",
        Severity.MEDIUM,
        "8.1",
        "find who owns the vault; declare it in vaults.toml, or stop sending its log here",
    ),
    "kek_drift": _kind(
        "A KEK's state contradicts its use",
        Severity.MEDIUM,
        "9.4b",
        "compare the KEK in the vault with what the services use; the change that parted them is in the evidence",
    ),
    "audit_coverage": _kind(
        "KEK uses that the vault's log does not show",
        Severity.MEDIUM,
        "8.1",
        "check the vault's diagnostic settings and the feed; then whether the service invents its events",
    ),
}


def system_finding(
    id: str,  # noqa: A002 - the name under which formats and documents know it
    *,
    summary: str,
    effective_ms: int,
    severity: Severity | None = None,
    tenant: str = "",
    key: str = "",
    principal: str = "",
    who: str = "",
    sure: str = "",
    evidence: Sequence[Evidence] = (),
    facts: Mapping[str, str] | None = None,
) -> Finding:
    """Build a finding that no rule makes.

    Raises:
        KeyError: the table has no such finding.
    """
    kind = SYSTEM[id]
    return Finding(
        rule_id=id,
        title=kind.title,
        severity=severity or kind.severity,
        summary=summary,
        effective_ms=effective_ms,
        tenant=tenant,
        key=key,
        principal=principal,
        who=who,
        sure=sure,
        first_step=kind.first_step,
        evidence=tuple(evidence),
        facts=dict(facts or {}),
    )
