"""When the machine's clock counts: not where messages of the past are still being read, nor where these lead.

A worker that comes back after an hour must not take the hour for the silence of everybody else.
"""

from collections.abc import Mapping
from typing import Final

from streams.index.writer import OwnerKey
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, SOURCES, VAULT_ACCESS, WHO

LATE_MS: Final = 5_000
"""A message appended longer ago than this is part of a backlog."""
LATE_FOR_S: Final = 3.0
"""After a takeover or a message of a backlog, the machine's clock does not count for this long."""
UPSTREAM: Final[Mapping[str, frozenset[str]]] = {
    KEY_EVENTS: frozenset({KEY_EVENTS}),
    VAULT_ACCESS: frozenset({VAULT_ACCESS}),
    CORRELATE: frozenset({KEY_EVENTS, VAULT_ACCESS, CORRELATE, SOURCES}),
    WHO: frozenset({VAULT_ACCESS, CORRELATE, WHO}),
    SOURCES: frozenset({KEY_EVENTS, SOURCES}),
    FINDINGS: frozenset({FINDINGS}),
}
"""Where silence means nothing while these inputs have a backlog."""


class Backlog:
    """Partitions of this worker that read the past. Those of other workers are not seen: a stated limit."""

    def __init__(self) -> None:
        self.blocked: set[OwnerKey] = set()
        """Their agent waits for the index, so that nothing of them is read at all."""
        self._late_until_s: dict[OwnerKey, float] = {}

    def clear(self) -> None:
        self._late_until_s.clear()

    def late(self, key: OwnerKey, now_s: float) -> None:
        """A message of the past was read, or nothing yet."""
        self._late_until_s[key] = now_s + LATE_FOR_S

    def behind(self, now_s: float) -> frozenset[str]:
        """Topics whose time is only that of their messages."""
        reading = {topic for (topic, _), until_s in self._late_until_s.items() if until_s > now_s}
        reading |= {topic for topic, _ in self.blocked}
        return frozenset(topic for topic, upstream in UPSTREAM.items() if upstream & reading)
