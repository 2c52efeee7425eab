"""How long a revocation took to reach this process: from the change of state to the drop of the DEK in its memory."""

import logging
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptocore.clock import Clock
from cryptocore.keys import KeyState
from cryptocore.records import KeyRecord

KEPT: Final = 1_000
"""The last ones; each is logged as well."""

_log = logging.getLogger(__name__)


class Heard(StrEnum):
    """How a process came to know."""

    OWN = "own"
    TOPIC = "topic"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One DEK dropped because its key version may not be used any more.

    Attributes:
        key_id: lower-case hex.
        version: of the key.
        revision: that took the use away.
        state: suspended, revoked, archived or destroyed.
        changed_at_ms: the record's, by the clock of whoever changed it.
        dropped_at_ms: by the clock of this process.
        heard: by an act of its own, from the key-state topic, or at the next look into the store.
    """

    key_id: str
    version: int
    revision: int
    state: KeyState
    changed_at_ms: int
    dropped_at_ms: int
    heard: Heard

    @property
    def after_ms(self) -> int:
        """The measured revocation window; as good as the two clocks agree."""
        return self.dropped_at_ms - self.changed_at_ms


class Revocations:
    """What one process measured."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: deque[Revocation] = deque(maxlen=KEPT)

    def dropped(self, record: KeyRecord, heard: Heard) -> None:
        """Note that the DEK of a version was dropped because of this record."""
        made = Revocation(
            key_id=record.key_id.hex(),
            version=record.key_version,
            revision=record.revision,
            state=record.state,
            changed_at_ms=record.changed_at_ms,
            dropped_at_ms=self._clock.now_us() // 1000,
            heard=heard,
        )
        self._last.append(made)
        _log.info(
            "key %s version %d is %s: DEK dropped after %d ms, heard from %s",
            made.key_id,
            made.version,
            made.state.value,
            made.after_ms,
            heard.value,
        )

    def last(self) -> list[Revocation]:
        """List them, oldest first."""
        return list(self._last)
