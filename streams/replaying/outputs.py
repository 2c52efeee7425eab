"""The files that demo and replay leave behind: documents of the index as NDJSON, and the summary.

Contracts are issue A's: one line a document, RFC 3339 times, null where a vault record says nothing.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alerts.model import Severity
from streams.index.port import DocKind, EventIndex
from streams.replaying.outfolder import OutFolder

_SHOWN = 20
_ACCESS_FIELDS = (
    "time",
    "operation",
    "class",
    "outcome",
    "denial",
    "http_status",
    "vault",
    "object_kind",
    "object_name",
    "object_version",
    "principal",
    "address",
    "network",
    "tls_version",
    "correlation_id",
    "shape",
    "key_change",
    "audit_log",
    "access_id",
    "resource_id",
)
_ALERT_FIELDS = (
    "alert_id",
    "number",
    "rule_id",
    "severity",
    "status",
    "title",
    "tenant",
    "principal",
    "key",
    "count",
    "first_at",
    "last_at",
    "summary",
    "text",
)


class Totals(Struct, frozen=True, kw_only=True):
    """What only the run itself knows: events committed by services, duplicates dropped, records not read."""

    emitted: int
    duplicate_batches: int
    duplicate_vault: int
    rejected: int


class Summary(Struct, frozen=True, kw_only=True):
    """summary.json; `intents` of the indexed events announce another: the report counts the act, once."""

    emitted: int
    indexed: int
    intents: int
    accesses: int
    duplicates: dict[str, int]
    rejected: int
    kek_use: dict[str, int]
    alerts: dict[str, int]
    notes: list[str] = []


class Results(Struct, frozen=True):
    """What was written: the summary, and the documents of the alerts."""

    summary: Summary
    alerts: list[dict[str, Any]]


async def write(out: OutFolder, index: EventIndex, totals: Totals, *, notes: list[str]) -> Results:
    """Write vault-access, kek-use and alerts as NDJSON, and summary.json."""
    accesses = await index.find(DocKind.VAULT_ACCESS)
    uses = await index.find(DocKind.KEK_USE)
    alerts = await index.find(DocKind.ALERT)
    write_lines(
        out.file("vault-access.ndjson"), ({name: each.get(name) for name in _ACCESS_FIELDS} for each in accesses)
    )
    write_lines(out.file("kek-use.ndjson"), ({k: v for k, v in use.items() if k != "@timestamp"} for use in uses))
    write_lines(out.file("alerts.ndjson"), map(_alert_line, alerts))
    phases = {phase: count for (phase,), count in (await index.count_by(DocKind.EVENT, ["keytrail.phase"])).items()}
    by_status = Counter(use["status"] for use in uses)
    statuses = ("matched", "unaccounted", "unlogged", "pending", "not_evaluated")
    summary = Summary(
        emitted=totals.emitted,
        indexed=sum(phases.values()),
        intents=phases.get("intent", 0),
        accesses=len(accesses),
        duplicates={"batches": totals.duplicate_batches, "vault": totals.duplicate_vault},
        rejected=totals.rejected,
        kek_use={status: by_status[status] for status in statuses} | _where_any("allowed", by_status),
        alerts=dict(sorted(Counter(alert["rule_id"] for alert in alerts).items())),
        notes=notes,
    )
    encoded = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    out.file("summary.json").write_bytes(encoded + b"\n")
    return Results(summary, alerts)


def _where_any(status: str, counts: Counter[str]) -> dict[str, int]:
    """A status that needs a file of its own is named only where that file let something pass."""
    return {status: counts[status]} if counts[status] else {}


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def _alert_line(alert: dict[str, Any]) -> dict[str, Any]:
    first = {name: alert.get(name) for name in _ALERT_FIELDS}
    return first | {name: value for name, value in alert.items() if name not in first and name != "@timestamp"}


def tell(summary: Summary, out: Path, console: Console) -> None:
    """Print what was found, and in which files."""
    uses = summary.kek_use
    intents = f" ({summary.intents:,} of them intents, which the report counts with their outcomes)"
    dropped = f"{summary.duplicates['batches']:,} batches, {summary.duplicates['vault']:,} vault records"
    console.print(
        f"{summary.accesses:,} vault records; {summary.emitted:,} key events emitted, {summary.indexed:,} indexed"
        f"{intents if summary.intents else ''}; "
        f"dropped as duplicates: {dropped}.",
        soft_wrap=True,
    )
    counted = ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in uses.items() if count)
    console.print(f"KEK uses: {counted or 'none in the logs'}.")
    found = ", ".join(f"{rule} {count}" for rule, count in summary.alerts.items())
    console.print(f"Alerts: {found or 'none'}.", soft_wrap=True)
    if summary.rejected:
        console.print(f"Rejected: {summary.rejected:,}, each with its reason in {out / 'rejected.ndjson'}.")
    for note in summary.notes:
        console.print(note, markup=False, soft_wrap=True)
    console.print(f"Results: {out}", markup=False, soft_wrap=True)


def tell_alerts(alerts: list[dict[str, Any]], console: Console) -> None:
    """Print the gravest alerts, as security on call would have read them."""
    gravest = sorted(alerts, key=lambda alert: (-Severity(alert["severity"]).rank, alert["first_at"]))
    for alert in gravest[:_SHOWN]:
        console.print(alert["text"], markup=False, soft_wrap=True)
        console.print()
    if len(alerts) > _SHOWN:
        console.print(f"… and {len(alerts) - _SHOWN} more in alerts.ndjson\n")


async def tell_uses(index: EventIndex, console: Console) -> None:
    """Print who used which KEK, and what is known of it."""
    counts = await index.count_by(DocKind.KEK_USE, ["principal_id", "vault", "name", "operation", "status"])
    if not counts:
        return
    table = Table(title="Who used your KEKs", title_justify="left")
    for head in ("principal", "KEK", "operation", "status", "uses"):
        table.add_column(head, overflow="fold")
    ranked = sorted(counts.items(), key=lambda each: -each[1])
    for (principal, vault, name, operation, status), count in ranked[:_SHOWN]:
        cells = (principal or "(a service's word only)", f"{vault}/{name}", operation, status.replace("_", " "))
        table.add_row(*map(Text, cells), f"{count:,}")
    console.print(table)
    if len(ranked) > _SHOWN:
        console.print(f"… and {len(ranked) - _SHOWN} more rows in kek-use.ndjson")
