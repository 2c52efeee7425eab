"""Keys by state, told by the acts of their life cycle. Pure.

Services tell these acts in sealed events; whether the signed key records agree is not judged here.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from reports.facts import Document, moment_ms

STATE_AFTER: Final = {
    "activate": "active",
    "suspend": "suspended",
    "resume": "active",
    "revoke": "revoked",
    "archive": "archived",
    "destroy": "destroyed",
}
"""The state that an act leads to, whatever else its event says; other acts name the state in the event."""
SUPERSEDED: Final = "active, superseded"
ORDER: Final = ("pre-activation", "active", SUPERSEDED, "suspended", "revoked", "archived", "destroyed")


@dataclass(slots=True)
class Version:
    """One version of a key; `since_ms` is its first act that is known."""

    revision: int
    state: str
    since_ms: int


def versions(life_cycle: Iterable[Document]) -> dict[tuple[str, int], Version]:
    """Follow each key version through its acts; the highest revision says its state, suspect events say nothing."""
    found: dict[tuple[str, int], Version] = {}
    for document in life_cycle:
        told = document["keytrail"]
        key = told.get("key", {})
        if told["suspect"] or "version" not in key:
            continue
        at_ms = moment_ms(document["@timestamp"])
        state = STATE_AFTER.get(document["event"]["action"]) or key.get("state", "")
        revision = key.get("revision", 0)
        version = found.setdefault((key["id"], key["version"]), Version(-1, "", at_ms))
        version.since_ms = min(version.since_ms, at_ms)
        if state and revision > version.revision:
            version.revision, version.state = revision, state
    return {name: version for name, version in found.items() if version.state}


def by_state(found: dict[tuple[str, int], Version]) -> Counter[str]:
    """Count versions by state; of the active versions of one key only the newest is not superseded."""
    newest: dict[str, int] = {}
    for (key_id, number), version in found.items():
        if version.state == "active":
            newest[key_id] = max(number, newest.get(key_id, 0))
    counts: Counter[str] = Counter()
    for (key_id, number), version in found.items():
        superseded = version.state == "active" and number < newest[key_id]
        counts[SUPERSEDED if superseded else version.state] += 1
    return counts


def oldest_active_ms(found: dict[tuple[str, int], Version]) -> int | None:
    """When the oldest version that still encrypts was made; None without one."""
    newest: dict[str, tuple[int, int]] = {}
    for (key_id, number), version in found.items():
        if version.state == "active":
            newest[key_id] = max(newest.get(key_id, (0, 0)), (number, version.since_ms))
    return min((since_ms for _, since_ms in newest.values()), default=None)


def open_rotations(life_cycle: Iterable[Document]) -> set[tuple[str, int]]:
    """Old versions that were superseded, or made so, and are not destroyed."""
    begun: set[tuple[str, int]] = set()
    gone: set[tuple[str, int]] = set()
    for document in life_cycle:
        key = document["keytrail"].get("key", {})
        if document["keytrail"]["suspect"] or "version" not in key or "revision" not in key:
            continue  # one without a revision is the owner's report on rows left
        act, name = document["event"]["action"], (key["id"], key["version"])
        if act == "rotate" or (act == "create" and key.get("state") == "active"):
            begun.add(name)
        elif act == "destroy":
            gone.add(name)
    return begun - gone


def awaiting_destruction(life_cycle: Iterable[Document]) -> set[str]:
    """Keys whose destruction was asked for, not called off, and of which nothing was destroyed since.

    A request and its calling off name the key and no version; what is destroyed names its version.
    """
    waiting: set[str] = set()
    for document in life_cycle:
        key, act = document["keytrail"].get("key", {}), document["event"]["action"]
        if document["keytrail"]["suspect"] or key.get("kind") != "dek":
            continue
        if act == "destroy" and "version" not in key:
            waiting.add(key["id"])
        elif act == "destroy" or (act == "resume" and "version" not in key):
            waiting.discard(key["id"])
    return waiting
