"""What a worker does about its index: reads again what it missed, and tells people when it does not answer."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from alerts.model import Notification
from alerts.system import system_finding
from alerts.text import unindexed
from streams.index.writer import IndexWriter, OwnerKey
from streams.messages import KEY_EVENTS
from streams.running.partition_owner import PartitionOwner
from streams.running.rereading import Rereader

UNAVAILABLE_AFTER_S: Final = 30.0
REPORT_EVERY_S: Final = 60.0


class IndexWatch:
    """Looks once a tick; detection goes on meanwhile."""

    def __init__(self, writer: IndexWriter, rereader: Rereader, *, monotonic: Callable[[], float]) -> None:
        self._writer = writer
        self._rereader = rereader
        self._monotonic = monotonic
        self._was_unavailable = False
        self._reported_s = float("-inf")

    def look(
        self,
        owners: Mapping[OwnerKey, PartitionOwner],
        now_ms: int,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """Write again what is missing when the index answers, report it when it has not for a while.

        Args:
            owners: of this worker.
            now_ms: the machine's time.
            spawn: runs what takes time.
        """
        if self._writer.unavailable_since is None:
            for owner in owners.values():
                if self._was_unavailable:
                    owner.redocument()
                if owner.again is not None and not self._rereader.busy:
                    spawn(self._rereader.read(owner, self._writer))
            self._was_unavailable = False
            return
        self._was_unavailable = True
        now_s = self._monotonic()
        if self._silent_s() >= UNAVAILABLE_AFTER_S and now_s - self._reported_s >= REPORT_EVERY_S:
            self._report(owners, now_s, now_ms)

    def marked(self, notification: Notification, now_ms: int) -> Notification:
        """Say in a notification that its evidence is not in the index yet, when that is so."""
        silent_s = self._silent_s()
        if silent_s < UNAVAILABLE_AFTER_S:
            return notification
        return unindexed(notification, since_ms=now_ms - round(silent_s * 1000))

    def _silent_s(self) -> float:
        since_s = self._writer.unavailable_since
        return 0.0 if since_s is None else self._monotonic() - since_s

    def _report(self, owners: Mapping[OwnerKey, PartitionOwner], now_s: float, now_ms: int) -> None:
        owner = next((owner for key, owner in sorted(owners.items()) if key[0] == KEY_EVENTS), None)
        if owner is not None:
            self._reported_s = now_s
            owner.report(
                system_finding(
                    "index_unavailable",
                    summary="The index does not answer; detection goes on, evidence is not indexed yet",
                    effective_ms=now_ms,
                )
            )
