"""How fast one partition may fill the topic `rejected`: above that its agent stops until the minute is over.

Whoever floods an input with what nobody can read gets a slow agent and an alert (`rejected_rate`, from its step), not a
topic full of his bytes. Nothing is lost: the messages wait in the log.
"""

from typing import Final

from streams.index.writer import OwnerKey

MOST_A_MINUTE: Final = 1_000
"""Ten times what alerts (alerts.thresholds.Limits.rejected_per_minute)."""
WINDOW_S: Final = 60.0


class Gate:
    """Counts rejections of each partition by the machine's monotonic clock."""

    def __init__(self) -> None:
        self.holds = 0
        """How often a partition was stopped."""
        self._windows: dict[OwnerKey, tuple[float, int]] = {}  # since when, and the count then

    def clear(self) -> None:
        self._windows.clear()

    def opens_s(self, key: OwnerKey, rejections: int, now_s: float) -> float:
        """Say when the next message of a partition may be taken.

        Args:
            key: the partition.
            rejections: of its owner, so far.
            now_s: the monotonic clock.

        Returns:
            A time of the monotonic clock; not after `now_s` where nothing is to be waited for.
        """
        since_s, before = self._windows.get(key, (now_s, 0))
        if now_s - since_s >= WINDOW_S or rejections < before:
            since_s, before = now_s, rejections
        self._windows[key] = since_s, before
        if rejections - before <= MOST_A_MINUTE:
            return now_s
        self.holds += 1
        return since_s + WINDOW_S
