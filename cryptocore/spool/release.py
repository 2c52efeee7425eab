"""Durability `broker`: who waits until the log has the rows that hold his events."""

import asyncio
from collections.abc import Mapping

from cryptocore.errors import AuditUnavailable
from cryptocore.spool.chain import Unsent


class Releases:
    """Waits for rows, by partition; rows are numbered and sent in order."""

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}
        self._waiting: dict[int, list[tuple[int, asyncio.Future[None]]]] = {}

    def sent(self, batch: Unsent) -> None:
        """Wake whoever waited for rows up to the last one of this batch."""
        self._sent[batch.partition] = batch.last_row
        still = []
        for row, future in self._waiting.pop(batch.partition, []):
            if row > batch.last_row:
                still.append((row, future))
            elif not future.done():
                future.set_result(None)
        if still:
            self._waiting[batch.partition] = still

    async def wait(self, rows: Mapping[int, int], *, timeout_s: float) -> None:
        """Return when the log has each of these rows.

        Raises:
            AuditUnavailable: not in time; the rows stay in the spool and are sent later.
        """
        futures = []
        for partition, row in rows.items():
            if self._sent.get(partition, -1) < row:
                future = asyncio.get_running_loop().create_future()
                self._waiting.setdefault(partition, []).append((row, future))
                futures.append(future)
        if not futures:
            return
        _, late = await asyncio.wait(futures, timeout=timeout_s)
        if late:
            raise AuditUnavailable("the log did not confirm the event in time", retryable=True)
