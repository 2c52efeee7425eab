"""What must hold after a storm; each check says what it looked at, for the table."""

import asyncio
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cryptocore.batch import OpenedBatch
from cryptocore.clock import SystemClock
from cryptocore.store.key_store import KeyStore, KeyVersion
from streams.index.elastic import ElasticIndex
from streams.index.embedded import EmbeddedIndex
from streams.index.port import DocKind, EventIndex
from streams.messages import KEY_EVENTS, REJECTED, VAULT_ACCESS
from tests.faults.calm import Calm, comparable, miscounted
from tests.faults.deployment import STOP_S
from tests.faults.logs import ends_of, events_of, honest, messages_of, state_of
from tests.faults.storm import IN_TIME_S, Storm

HOUR_AND_MORE_MS = 70 * 60_000
SETTLED_S = 280
"""Until everything is in the index and told; a copied call id has its first word after two minutes."""
FIRST_WORD_S = (110, 140)
"""When a theft is told, by its age: workers that are stopped about then and a calm run to that moment may differ."""
ON_ITS_WAY_MS = 5_000
"""What was sent so shortly before the end may not have been taken."""
QUIET_S = 6
"""What the last lines set off goes through two more topics, a second each."""
MOST_KEYS = 10_000
USES = frozenset({"encrypt", "decrypt"})
"""Of a key that is in the store; a DEK that was wrapped while the store died is in none."""
_STORM_ONLY = frozenset({"index_unavailable"})
Places = list[tuple[str, int, int]]


@dataclass(slots=True)
class Results:
    """What was looked at, in words."""

    said: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    emitted: int = 0

    def hold(self, what: str, holds: object, words: str) -> None:
        self.said[what] = words if holds else f"DOES NOT HOLD: {words}"
        if not holds:
            self.differences.append(f"{what}: {words}")


async def check(storm: Storm, results: Results) -> None:
    """Wait for the monitor to come to rest, stop it, and hold what it left against the log and a calm run."""
    deployment, processes = storm.deployment, storm.processes
    settings = deployment.settings
    address = deployment.servers.elasticsearch.address
    index = ElasticIndex.connect([address], prefix=settings.index_prefix, replicas=0)
    log = await messages_of(settings, KEY_EVENTS)
    opened = [batch for _, batch in honest(log, deployment.registry)]
    emitted = {line["id"]: line for line in events_of(opened)}
    results.emitted = len(emitted)
    await _rest(storm, index, len(emitted))
    end_ms = SystemClock().now_us() // 1000
    ended = await asyncio.to_thread(processes.stop_workers, STOP_S + 5)
    results.hold("workers end when told to", set(ended.values()) <= {0}, f"exit codes {sorted(ended.values())}")

    documents = await index.find(DocKind.EVENT)
    _check_events(storm, results, documents, emitted)
    if results.differences:
        results.said["Elasticsearch says of itself"] = await asyncio.to_thread(_health, address)
    _check_order(storm, results, opened)
    await _check_keys(storm, results, emitted)
    alerts = await index.find(DocKind.ALERT)
    _check_planted(storm, results, alerts)

    inputs = log + await messages_of(settings, VAULT_ACCESS)
    calm_index = EmbeddedIndex(deployment.folder / "calm.sqlite")
    await calm_index.ensure()
    calm = Calm(deployment.registry, calm_index, settings.topic_partitions)
    states = await calm.live(inputs, end_ms)
    await _check_calm(results, index, calm_index, alerts)
    _check_rejected(results, [one.value for one in await messages_of(settings, REJECTED)], calm.rejected())
    await _check_states(storm, results, states, end_ms)
    await _check_lost(results, deployment.vault.lost, emitted, calm, calm_index)
    await calm.close()
    await calm_index.close()
    await index.close()


async def _rest(storm: Storm, index: ElasticIndex, emitted: int) -> None:
    """Wait until everything is there; what is not after a while is said by the checks."""
    deadline = time.monotonic() + SETTLED_S
    wanted = set(storm.planted)
    while time.monotonic() < deadline:
        storm.processes.tend()
        counted = sum((await index.count_by(DocKind.EVENT, ["event.outcome"])).values())
        unseen = wanted - _found(storm, await index.find(DocKind.ALERT))
        if counted >= emitted and not unseen and not _theft_is_told_now(storm):
            break
        await asyncio.sleep(1)
    settings, ends, since_s = storm.deployment.settings, None, time.monotonic()
    while time.monotonic() < deadline + QUIET_S and time.monotonic() - since_s < QUIET_S:
        await storm.processes.calmly(1)
        now = await ends_of(settings)
        if now != ends or len(storm.processes.begun()) < len(storm.processes.workers):
            ends, since_s = now, time.monotonic()


def _health(address: str) -> str:
    """What helps to tell an index that cannot write from workers that do not ask it to."""
    said = []
    for what in ("health", "pending_tasks", "allocation/explain"):
        with suppress(OSError), urllib.request.urlopen(f"{address}/_cluster/{what}", timeout=10) as answer:
            said.append(answer.read(2000).decode())
    return " ".join(said) or "nothing"


def _theft_is_told_now(storm: Storm) -> bool:
    """Whether one is that has no alert of its own to wait for: all tell of the same principals."""
    first, last = FIRST_WORD_S
    return any(first < time.monotonic() - theft_s < last for theft_s in storm.thefts_s[1:])


def _found(storm: Storm, alerts: list[dict[str, Any]]) -> set[Any]:
    """Which of the planted attacks have an alert."""
    told = [(alert["rule_id"], alert.get("key") or "", alert.get("principal") or "") for alert in alerts]
    return {
        one
        for one in storm.planted
        if any(
            rule == one.rule and one.key in {"", key} and one.principal in {"", principal}
            for rule, key, principal in told
        )
    }


def _check_events(
    storm: Storm, results: Results, documents: list[dict[str, Any]], emitted: dict[str, dict[str, Any]]
) -> None:
    counted = Counter(document["event"]["id"] for document in documents)
    missing, more = set(emitted) - set(counted), set(counted) - set(emitted)
    twice = [ident for ident, count in counted.items() if count > 1]
    results.hold(
        "index = emitted, exactly once",
        not missing and not more and not twice,
        f"{len(emitted)} events emitted, {len(documents)} documents; {len(missing)} missing, {len(more)} unknown, "
        f"{len(twice)} twice",
    )
    by_actor = Counter(document["user"]["id"] for document in documents)
    folder = storm.deployment.folder
    acknowledged = [line for path in folder.glob("*.acknowledged") for line in path.read_text().split()]
    absent = {actor for actor in acknowledged if by_actor[actor] < 1}
    withheld = {actor for actors in storm.withheld.values() for actor in actors}
    results.hold(
        "every result that a caller was handed has its event",
        acknowledged and absent <= withheld,  # an actor of a withheld batch may have an event in another
        f"{len(acknowledged)} results, {len(absent - withheld)} without; {len(withheld)} of withheld batches",
    )


def _check_order(storm: Storm, results: Results, opened: list[OpenedBatch]) -> None:
    """All events of a key are in one partition, and each process's batches there in their order."""
    partitions: dict[str, set[int]] = {}
    highest: dict[tuple[bytes, int], int] = {}
    jumps = 0
    for batch in opened:
        place = batch.seal.instance, batch.seal.partition
        jumps += batch.seal.sequence > highest.get(place, -1) + 1
        highest[place] = max(highest.get(place, -1), batch.seal.sequence)
        for line in events_of([batch]):
            if "key" not in line:  # a failure before there was one
                continue
            partitions.setdefault(line["key"]["id"], set()).add(batch.seal.partition)
    parted = [key for key, places in partitions.items() if len(places) > 1]
    results.hold(
        "order per key kept",
        jumps <= len(storm.withheld) and not parted,  # a chain whose last batch was withheld does not jump
        f"{len(partitions)} keys in one partition each, {len(highest)} chains in their order; "
        f"{len(parted)} keys parted, {jumps} jumps over {len(storm.withheld)} withheld batches",
    )


async def _check_keys(storm: Storm, results: Results, emitted: dict[str, dict[str, Any]]) -> None:
    """Every key that a service was able to use is in the store, and believed."""
    store = KeyStore(storm.deployment.servers.postgres.address, registry=storm.deployment.registry)
    kept = await asyncio.to_thread(store.listed, None, MOST_KEYS)
    await asyncio.to_thread(store.close)
    believed = {name[0].hex() for name, version in kept if isinstance(version, KeyVersion)}
    used = {line["key"]["id"] for line in emitted.values() if line["operation"] in USES and "key" in line}
    results.hold(
        "every key in the store, and believed",
        used and used <= believed and len(kept) < MOST_KEYS,
        f"{len(used)} keys used, {len(used - believed)} of them missing",
    )


def _check_planted(storm: Storm, results: Results, alerts: list[dict[str, Any]]) -> None:
    planted = set(storm.planted)
    missed = planted - _found(storm, alerts)
    results.hold(
        "every planted attack found", planted and not missed, f"{len(planted)} planted; missed: {sorted(missed)}"
    )
    delays = {when: max(delays, default=0.0) for when, delays in storm.delays_s.items()}
    results.hold(
        "told in its usual time, index or not, marked without",
        storm.delays_s["no index"] and delays["no index"] <= IN_TIME_S,
        ", ".join(
            f"{when}: {len(storm.delays_s[when])} attacks, {longest:.1f} s at most" for when, longest in delays.items()
        ),
    )
    results.hold(
        "index_unavailable within 2 minutes",
        storm.unavailable_s is not None and storm.unavailable_s <= 120,
        f"after {storm.unavailable_s or 0:.0f} s",
    )
    _check_withheld(storm, results, alerts)
    if storm.filled:
        results.hold("a full spool refuses, and goes on", all(storm.filled), f"{sum(storm.filled)} refused")


def _check_withheld(storm: Storm, results: Results, alerts: list[dict[str, Any]]) -> None:
    """Each batch that never came has one alert and one notification."""
    indexed = Counter(alert.get("key") for alert in alerts if alert["rule_id"] == "audit_gap")
    told = Counter(one.key for one in storm.deployment.webhook.told.values() if one.rule == "audit_gap")
    results.hold(
        "a batch that never arrives is told, once",
        storm.withheld and all(indexed[one] == told[one] == 1 for one in storm.withheld),
        f"{len(storm.withheld)} withheld; {sum(indexed[one] for one in storm.withheld)} alerts, "
        f"{sum(told[one] for one in storm.withheld)} notifications",
    )


async def _check_calm(
    results: Results, index: EventIndex, calm_index: EventIndex, alerts: list[dict[str, Any]]
) -> None:
    stormy, calm = _names(alerts), _names(await calm_index.find(DocKind.ALERT))
    results.hold(
        "alerts as in a calm run, each once",
        stormy == calm,
        f"{len(stormy)}; only here {sorted((stormy - calm).items())}, only calm {sorted((calm - stormy).items())}",
    )
    for kind, fields in (
        (DocKind.KEK_USE, ("id", "status", "reason", "event_id")),
        (DocKind.VAULT_ACCESS, ("access_id",)),
        (DocKind.CONTROL, ("event.id",)),
    ):
        here, there = _rows(await index.find(kind), fields), _rows(await calm_index.find(kind), fields)
        results.hold(
            f"{kind} as in a calm run",
            here == there,
            f"{here.total()} documents; only here {list(here - there)[:5]}, only calm {list(there - here)[:5]}",
        )


def _names(alerts: list[dict[str, Any]]) -> Counter[tuple[str, str, str]]:
    return Counter(
        (alert["rule_id"], alert.get("key") or "", alert.get("principal") or "")
        for alert in alerts
        if alert["rule_id"] not in _STORM_ONLY
    )


def _rows(documents: list[dict[str, Any]], fields: tuple[str, ...]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(str(_at(document, name)) for name in fields) for document in documents)


def _at(document: dict[str, Any], dotted: str) -> Any:
    found: Any = document
    for name in dotted.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _check_rejected(results: Results, stormy: list[bytes], calm: list[bytes]) -> None:
    here, there = _places(stormy), _places(calm)
    results.hold(
        "what cannot be read is rejected, once",
        here == there,
        f"{len(here)} messages; only here {[one for one in here if one not in there]}, "
        f"only calm {[one for one in there if one not in here]}",
    )


def _places(values: list[bytes]) -> Places:
    read = (msgspec.json.decode(value) for value in values)
    return sorted((one["topic"], one["partition"], one["offset"]) for one in read)


async def _check_states(
    storm: Storm, results: Results, states: dict[tuple[str, int], dict[bytes, bytes]], end_ms: int
) -> None:
    records, differing = 0, []
    storms = {key: await state_of(storm.deployment.settings, *key) for key in states}
    for (topic, partition), calm in sorted(states.items()):
        stormy, wanted = _but_the_storm(comparable(storms[topic, partition])), comparable(calm)
        records += len(wanted)
        differing += [
            f"{topic}/{partition} {key}: {stormy.get(key)} != {wanted.get(key)}"
            for key in sorted({*stormy, *wanted})
            if stormy.get(key) != wanted.get(key)
        ]
    results.hold(
        "state as in a calm run",
        records and not differing,
        f"{records} records in {len(states)} partitions; {len(differing)} differ"
        + "".join(f"\n    {one[:3000]}" for one in differing[:10]),
    )
    wrong = miscounted(storms.values(), end_ms - ON_ITS_WAY_MS)
    results.hold("alerts count what was sent", not wrong, f"{len(wrong)} do not {wrong[:3]}")


def _but_the_storm(state: dict[str, Any]) -> dict[str, Any]:
    """Without the alert that only a storm gives, and what is known of its fingerprint."""
    own = {
        key
        for key, one in state.items()
        if isinstance(one, dict) and (one.get("finding") or {}).get("rule_id") in _STORM_ONLY
    }
    prints = {state[key]["fingerprint"] for key in own if "fingerprint" in state[key]}
    return {key: one for key, one in state.items() if key not in own and key.rpartition("/")[2] not in prints}


async def _check_lost(
    results: Results,
    lost: list[str],
    emitted: dict[str, dict[str, Any]],
    calm: Calm,
    calm_index: EventIndex,
) -> None:
    """An hour later, in the calm run, whose state is that of the workers, every lost record is known to be lost."""
    await calm.wait(HOUR_AND_MORE_MS)
    uses = await calm_index.find(DocKind.KEK_USE)
    unlogged = {use["id"]: use["time"][:4] for use in uses if use["status"] == "unlogged"}
    told = {
        ident
        for ident, event in emitted.items()
        if any(attempt["call_id"] in lost for attempt in event.get("vault_attempts", ()))
    }
    more = [year for ident, year in unlogged.items() if ident not in told]
    results.hold(
        "every lost record of the vault known an hour later",
        told and told <= set(unlogged) and set(more) <= {"1970", "2099"},
        f"{len(lost)} lost, {len(told)} of them of calls that a service told of: {len(told & set(unlogged))} known; "
        f"{len(more)} more calls told under a wrong year",
    )
