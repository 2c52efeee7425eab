"""Who used a key lately, from the monitor's index: what a blast radius asks (cryptocore.care.impact.UseHistory)."""

from collections.abc import Mapping
from typing import Final

from alerts.thresholds import DAY_MS, HOUR_MS
from cryptocore.care.impact import ServiceUse
from cryptocore.clock import Clock, SystemClock
from cryptocore.lines.vocabulary import DATA_USES, VAULT_CALLS, Operation, Phase
from streams.index.port import DocKind, EventIndex

WINDOWS_MS: Final = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
"""Looked at in this order; a use is told with the first that shows it. The index keeps no longer than the last."""
_OF_KEY: Final = DATA_USES | {Operation.UNWRAP, Operation.TOKEN_USE}


class IndexHistory:
    """Reads an index; it knows what was indexed, so the last minutes may be missing.

    Args:
        clock: whose now the windows end at.
    """

    def __init__(self, index: EventIndex, clock: Clock | None = None) -> None:
        self._index = index
        self._clock = clock or SystemClock()

    async def of_key(self, key_id: str) -> tuple[ServiceUse, ...]:
        """Tell the last uses of a DEK by each service and operation.

        Raises:
            IndexUnavailable: the index does not answer.
        """
        return await self._last({"keytrail.key.id": key_id}, _OF_KEY)

    async def of_kek(self, vault: str, name: str) -> tuple[ServiceUse, ...]:
        """Tell the last wraps and unwraps under a KEK; raises as `of_key`."""
        return await self._last({"keytrail.kek.vault": vault.lower(), "keytrail.kek.name": name.lower()}, VAULT_CALLS)

    async def _last(self, where: Mapping[str, str], operations: frozenset[Operation]) -> tuple[ServiceUse, ...]:
        now_ms = self._clock.now_us() // 1000
        found: dict[tuple[str, str], ServiceUse] = {}
        for within_ms in WINDOWS_MS:
            counts = await self._index.count_by(
                DocKind.EVENT,
                ("service.name", "event.action", "keytrail.phase"),
                where=where,
                since_ms=now_ms - within_ms,
                until_ms=now_ms + 1,
            )
            for (service, operation, phase), count in counts.items():
                if operation in operations and phase != Phase.INTENT:
                    found.setdefault((service, operation), ServiceUse(service, operation, count, within_ms))
        return tuple(found[name] for name in sorted(found))
