"""From the index to the facts of one week. Only reads; a week is asked for day by day, so no answer is large.

Where events are counted they are those of phase single and outcome: an intent says only that something was tried.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from reports.facts import Facts, Instance, InstanceState, Judged, Revocation, UseKind, WeekFacts, moment_ms
from reports.week import Week
from streams.index.port import DocKind, EventIndex

LIFE_CYCLE: Final = ("create", "activate", "rotate", "rewrap", "suspend", "resume", "revoke", "archive", "destroy")
SIGHT_RULES: Final = frozenset(
    {
        "audit_coverage",
        "audit_gap",
        "chain_fork",
        "chain_unclosed",
        "deployment_mismatch",
        "document_refused",
        "index_unavailable",
        "join_overflow",
        "match_ratio_low",
        "out_of_range",
        "pending_source",
        "rejected_rate",
        "rule_error",
        "seal_invalid",
        "signer_compromised",
        "signer_unknown",
        "silent_source",
        "source_mismatch",
        "vault_logging_cut",
        "vault_silent",
    },
)
"""Findings that say the monitor may not have seen everything, or not from whom it should."""

Line = dict[str, Any]

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
LOOK_BACK_MS: Final = (0, 2 * MINUTE_MS, 20 * MINUTE_MS, 3 * HOUR_MS, 2 * DAY_MS, 35 * DAY_MS)
"""Where the last control line before a moment is looked for: near first; one comes every 30 s."""
SILENT_MS: Final = 90_000
"""A process that said nothing for three heartbeats and did not close is not known to be alive."""
CLOCKS_MS: Final = HOUR_MS
"""How far before a revocation its uses are looked at: an event's own clock may be behind."""
SHOWN: Final = 500
"""Unaccounted KEK uses that are read one by one; all are counted."""


async def collect(index: EventIndex, week: Week, prepared_ms: int) -> Facts:
    """Ask the index for everything that the report on this week says."""
    life_cycle = await _life_cycle(index, week)
    revocations = _revocations(life_cycle)
    this = await _week_facts(index, week, revocations)
    last = await _week_facts(index, week.previous, revocations)
    span = week.span
    tenants = await index.count_by(DocKind.EVENT, ["keytrail.tenant_id"], **span)
    parts = await index.count_by(DocKind.EVENT, _STANDING, **span)
    stored: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    for (instance, phase, suspect, out_of_range), count in parts.items():
        stored[instance] += count * (phase != "intent")
        marks["suspect"] += count * (suspect == "true")
        marks["out_of_range"] += count * (out_of_range == "true")
    instances = await _instances(index, week, prepared_ms, stored)
    alerts = await index.find(DocKind.ALERT, until_ms=week.until_ms)
    said = {each.instance for each in instances}
    return Facts(
        this=this,
        last=last,
        prepared_ms=prepared_ms,
        instances=instances,
        unsaid=sum(count for instance, count in stored.items() if instance not in said),
        suspect=marks["suspect"],
        out_of_range=marks["out_of_range"],
        services=len(await index.count_by(DocKind.EVENT, ["service.name"], **span)),
        tenants=len([tenant for (tenant,) in tenants if tenant]),
        open_alerts=[alert for alert in alerts if alert.get("status") != "resolved"],
        sight_alerts=[
            alert
            for alert in alerts
            if alert.get("rule_id") in SIGHT_RULES and moment_ms(alert["last_at"]) >= week.since_ms
        ],
        life_cycle=life_cycle,
        unaccounted=await index.find(DocKind.KEK_USE, where={"status": "unaccounted"}, limit=SHOWN, **span),
        rejected=Counter(
            {
                finding: count
                for (finding,), count in (await index.count_by(DocKind.REJECTED, ["finding"], **span)).items()
            }
        ),
    )


_STANDING: Final = (
    "keytrail.batch.instance",
    "keytrail.phase",
    "keytrail.suspect",
    "keytrail.out_of_range",
)


async def _week_facts(index: EventIndex, week: Week, revocations: Sequence[Revocation]) -> WeekFacts:
    events: list[Counter[UseKind]] = []
    kek_uses: list[Counter[Judged]] = []
    for day in week.days:
        fields = ["event.action", "keytrail.outcome", "keytrail.reason"]
        found = await index.count_by(DocKind.EVENT, fields, **day.span)
        events.append(Counter({UseKind(*values): count for values, count in found.items() if values[1]}))
        judged = await index.count_by(DocKind.KEK_USE, ["status", "strength", "reason"], **day.span)
        kek_uses.append(Counter({Judged(*values): count for values, count in judged.items()}))
    records = await index.count_by(DocKind.VAULT_ACCESS, ["vault", "class"], **week.span)
    return WeekFacts(
        week=week,
        events=events,
        kek_uses=kek_uses,
        vault_records=Counter({(vault, kind): count for (vault, kind), count in records.items()}),
        alerts=await index.find(DocKind.ALERT, **week.span),
        revoked_decrypts=await _revoked_decrypts(index, week, revocations),
    )


async def _life_cycle(index: EventIndex, week: Week) -> list[dict[str, Any]]:
    found = []
    acts = await index.count_by(DocKind.EVENT, ["event.action"], until_ms=week.until_ms)
    for act in LIFE_CYCLE:
        if (act,) in acts:
            where = {"event.action": act, "keytrail.outcome": "succeeded"}
            found += await index.find(DocKind.EVENT, where=where, until_ms=week.until_ms)
    return sorted(found, key=lambda document: (document["@timestamp"], document["event"]["id"]))


def _revocations(life_cycle: Sequence[dict[str, Any]]) -> list[Revocation]:
    """The first revocation of each key version; what a compromised signer says is no evidence."""
    found: dict[tuple[str, int], Revocation] = {}
    for document in life_cycle:
        told = document["keytrail"]
        key = told.get("key", {})
        if document["event"]["action"] == "revoke" and not told["suspect"] and "version" in key:
            revoked = Revocation(key["id"], key["version"], key.get("revision", 0), moment_ms(document["@timestamp"]))
            found.setdefault((revoked.key_id, revoked.version), revoked)
    return list(found.values())


async def _revoked_decrypts(
    index: EventIndex, week: Week, revocations: Sequence[Revocation]
) -> list[tuple[Revocation, dict[str, Any]]]:
    """Read each decrypt of a revoked key version and judge it by the words of the rule revoked_key_decrypt."""
    found = []
    for revoked in revocations:
        since_ms = max(week.since_ms, revoked.at_ms - CLOCKS_MS)
        if since_ms >= week.until_ms:
            continue
        where: dict[str, str | int | bool] = {
            "event.action": "decrypt",
            "keytrail.key.id": revoked.key_id,
            "keytrail.key.version": revoked.version,
        }
        for document in await index.find(DocKind.EVENT, where=where, since_ms=since_ms, until_ms=week.until_ms):
            at_ms = moment_ms(document["@timestamp"])
            knew = document["keytrail"]["key"].get("revision", 0) >= revoked.revision > 0
            if at_ms > revoked.at_ms or knew:
                found.append((revoked, document))
    return found


async def _instances(index: EventIndex, week: Week, prepared_ms: int, stored: Counter[str]) -> list[Instance]:
    """Compare what each process said with what is stored, from its last word before the week to its last one in it."""
    fields = ["keytrail.batch.instance", "service.name"]
    seen = await index.count_by(DocKind.CONTROL, fields, since_ms=week.since_ms, until_ms=week.until_ms)
    found = []
    for instance, service in sorted(seen, key=lambda names: (names[1], names[0])):
        last = await _last_word(index, instance, week.since_ms, week.until_ms)
        if last is None:
            continue
        base = await _last_word(index, instance, None, week.since_ms)
        as_of_ms = moment_ms(last["@timestamp"])
        state = await _state(index, week, prepared_ms, last)
        if base is None and state is InstanceState.CLOSED and await _began(index, instance, week):
            there = stored[instance]  # its whole life lies in the week
        else:
            there = await _stored(index, instance, None if base is None else moment_ms(base["@timestamp"]), as_of_ms)
        sent = _said(last) - (0 if base is None else _said(base))
        found.append(Instance(instance, service, state, as_of_ms, sent, there))
    return found


async def _began(index: EventIndex, instance: str, week: Week) -> bool:
    where: dict[str, str | int | bool] = {"keytrail.batch.instance": instance, "keytrail.type": "chain.open"}
    opened = await index.find(DocKind.CONTROL, where=where, limit=1, **week.span)
    return bool(opened) and "continues" not in opened[0]["keytrail"]["line"]


async def _last_word(index: EventIndex, instance: str, since_ms: int | None, until_ms: int) -> Line | None:
    """The last line with tallies before a moment: the end of the chain, else the nearest heartbeat."""
    where: dict[str, str | int | bool] = {"keytrail.batch.instance": instance}
    closed = {**where, "keytrail.type": "chain.close"}
    ends = await index.find(DocKind.CONTROL, where=closed, since_ms=since_ms, until_ms=until_ms)
    if ends:
        return ends[-1]
    where["keytrail.type"] = "heartbeat"
    for near_ms, far_ms in pairwise(LOOK_BACK_MS):
        start_ms = max(0 if since_ms is None else since_ms, until_ms - far_ms)
        lines = await index.find(DocKind.CONTROL, where=where, since_ms=start_ms, until_ms=until_ms - near_ms)
        if lines:
            return lines[-1]
    return None


async def _state(index: EventIndex, week: Week, prepared_ms: int, last: Line) -> InstanceState:
    if last["keytrail"]["type"] == "chain.close":
        return InstanceState.CLOSED
    if min(week.until_ms, prepared_ms) - moment_ms(last["@timestamp"]) <= SILENT_MS:
        return InstanceState.RUNNING
    where = {"keytrail.batch.instance": last["keytrail"]["batch"]["instance"]}
    later = await index.find(DocKind.CONTROL, where=where, since_ms=week.until_ms, limit=1)
    return InstanceState.RUNNING if later else InstanceState.UNCLOSED


async def _stored(index: EventIndex, instance: str, after_ms: int | None, as_of_ms: int) -> int:
    phases = await index.count_by(
        DocKind.EVENT,
        ["keytrail.phase"],
        where={"keytrail.batch.instance": instance},
        since_ms=None if after_ms is None else after_ms + 1,
        until_ms=as_of_ms + 1,
    )
    return sum(count for (phase,), count in phases.items() if phase != "intent")


def _said(line: Line) -> int:
    return sum(tally["count"] for tally in line["keytrail"]["line"]["tallies"])
