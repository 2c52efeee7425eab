"""The pipeline in one process over a log in memory: the shell of the demo and of replay.

Owners, cuts and ticks are those of the workers; only the log, the order and the clock differ. Everything is done in a
fixed order and the clock is an argument, so that the same input gives the same output.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from alerts.model import Notification
from streams.index.port import Document, EventIndex
from streams.index.writer import IndexWriter, OwnerKey
from streams.log.statelog import MemoryLog, MemoryPartition, MemoryStateLog, partition_of
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, REJECTED, SOURCES, VAULT_ACCESS, WHO, Message, Step
from streams.running.partition_owner import PartitionOwner

LOW_ROOM: Final = 8 * 1024 * 1024
"""Below so many bytes of room the writer's documents are written first: one message makes less."""
AGAIN_AT_ONCE: Final = 16
"""Messages that are read again between two writes."""
_TOPICS: Final = (KEY_EVENTS, VAULT_ACCESS, CORRELATE, WHO, SOURCES, FINDINGS, REJECTED)


class Notifier(Protocol):
    """Where notifications go (alerts.delivery)."""

    async def send(self, notification: Notification) -> None:
        """Deliver once; raises when it did not get through."""


class MemoryShell:
    """Every partition of every topic, owned by one process."""

    def __init__(
        self,
        *,
        steps: Mapping[str, Callable[[int], Step]],
        partitions: Mapping[str, int],
        index: EventIndex,
        notifiers: Sequence[Notifier] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = MemoryLog({**dict.fromkeys((*_TOPICS, *steps), 1), **partitions})
        self._writer = IndexWriter(index, written=self._written)
        self._notifiers = notifiers
        self._owned: list[tuple[PartitionOwner, MemoryPartition]] = [
            (
                PartitionOwner(
                    step(partition),
                    partition,
                    log=MemoryStateLog(self._log, topic, partition),
                    index=self._writer,
                    monotonic=monotonic,
                    deliver=self._deliver,
                ),
                self._log.partition(topic, partition),
            )
            for topic, step in steps.items()
            for partition in range(self._log.partitions[topic])
        ]
        self._owners = {owner.key: owner for owner, _ in self._owned}
        self._open = False

    @property
    def owners(self) -> list[PartitionOwner]:
        """All owners, in the order in which they are served."""
        return [owner for owner, _ in self._owned]

    def append(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes,
        headers: tuple[tuple[str, bytes], ...] = (),
        partition: int | None = None,
        append_ms: int,
    ) -> int:
        """Append one message, by its key where no partition is named; returns its offset. `run` lets it be applied."""
        log = self._log
        log.now_ms = max(log.now_ms, append_ms)
        if partition is None:
            partition = partition_of(key, log.partitions[topic])
        held = log.partition(topic, partition)
        offset = held.end
        held.append(Message(topic, partition, offset, append_ms, key, value, headers))
        return offset

    def messages(self, topic: str) -> list[Message]:
        """What a topic holds, partition by partition; topics with a step let go of what is applied and indexed."""
        held = (self._log.partition(topic, number) for number in range(self._log.partitions[topic]))
        return [message for part in held for message in part.read(part.start, part.end)]

    async def run(self) -> None:
        """Apply, cut and deliver until nothing is left to do, then write the documents."""
        if not self._open:
            await self._take_over()
        await self._drain()
        await self._write()

    async def tick(self, now_ms: int) -> None:
        """Let every partition know the time, and do what follows from it."""
        if not self._open:
            await self._take_over()
        self._log.now_ms = max(self._log.now_ms, now_ms)
        for owner, _ in self._owned:
            owner.tick(now_ms)
        await self._drain()
        await self._write()

    async def close(self) -> None:
        """Finish what is begun and let go."""
        await self.run()
        await self._drain()
        for owner, _ in self._owned:
            await owner.close()
        self._open = False

    async def _take_over(self) -> None:
        for owner, held in self._owned:
            await owner.open(held.start)
        self._open = True

    async def _drain(self) -> None:
        busy = True
        while busy:
            busy = False
            for owner, held in self._owned:
                if owner.applied < held.end:
                    for message in held.read(owner.applied, held.end):
                        owner.apply(message)
                        if self._writer.room() < LOW_ROOM:
                            await self._writer.flush()
                elif not owner.dirty:
                    continue
                busy = True
                await owner.cut()
                await owner.send_owed()

    async def _write(self) -> None:
        writing = self._writer.held > 0
        if writing:
            await self._writer.flush()
        for owner, held in self._owned:
            if not writing and held.start == held.end:
                continue
            while again := owner.again:
                until = min(again[0] + AGAIN_AT_ONCE, again[1])
                owner.reread(held.read(again[0], until), until)
                await self._writer.flush()
            owner.settle()
            held.trim(owner.indexed)

    def _written(self, key: OwnerKey, document: Document) -> None:
        self._owners[key].written(document)

    async def _deliver(self, notification: Notification) -> tuple[str, ...]:
        for notifier in self._notifiers:
            await notifier.send(notification)
        return ("console",)
