"""The log that a partition's state lives in: a port, its record formats, and the twin in memory.

`commit` is one transaction: changed records, the position and the messages for other topics, all or nothing. Whoever
opened the log last owns it; a predecessor's commit is refused (`Fenced`). The Kafka twin is `statelog_kafka`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, Protocol
from zlib import crc32

import msgspec
from msgspec import Struct

from streams.messages import Message, Out
from streams.state import State

POSITION_KEY: Final = b"\x00"
MAX_RECORD: Final = 512 * 1024
"""Bytes of one state record; a larger one is a fault of its step (design: state topic)."""

Change = tuple[bytes, bytes | None]


class Position(Struct, frozen=True, kw_only=True):
    """How far a partition is: messages below `applied` are in the state.

    Documents of messages below `indexed` are in the index, and those of the offsets in `skip` need no second look:
    the index refused them.
    """

    v: Literal[1] = 1
    applied: int
    indexed: int
    skip: tuple[int, ...] = ()
    now_ms: int


encode_position = msgspec.json.Encoder().encode
decode_position = msgspec.json.Decoder(Position).decode


class Fenced(Exception):
    """Another worker has taken this partition over; nothing of the commit was done."""


class StateRecordTooLarge(Exception):
    """A record beyond MAX_RECORD; the text names it."""


class StateLog(Protocol):
    """The state log of one input partition."""

    async def open(self, state: State) -> Position | None:
        """Fence the predecessor and load its last commit into `state`; None where nothing was ever committed.

        A later `open` of the same partition, here or elsewhere, ends this one's right to commit.
        """

    async def commit(self, changes: Sequence[Change], position: Position, outs: Sequence[Out]) -> None:
        """Commit all or nothing.

        Raises:
            Fenced: somebody else owns the partition.
        """

    async def close(self) -> None:
        """Let go of connections; commits nothing."""


def check_sizes(changes: Sequence[Change]) -> None:
    """Refuse a record that is too large, by name.

    Raises:
        StateRecordTooLarge: and which.
    """
    for key, value in changes:
        if value is not None and len(value) > MAX_RECORD:
            raise StateRecordTooLarge(f"state record {key.hex()}: {len(value)} bytes, at most {MAX_RECORD}")


def partition_of(key: bytes | None, partitions: int) -> int:
    """Partition of a message of ours by its key; a message without a key goes to partition 0."""
    return 0 if key is None else crc32(key) % partitions


def placed(outs: Sequence[Out], partitions: Mapping[str, int]) -> Iterator[tuple[int, Out]]:
    """Say for each message which partition it goes to; one `to_all` goes to each."""
    for out in outs:
        count = partitions[out.topic]
        if out.to_all:
            for partition in range(count):
                yield partition, out
        else:
            yield partition_of(out.key, count), out


class MemoryPartition:
    """The messages of one partition; what is no longer needed can be let go, offsets stay."""

    __slots__ = ("_messages", "start")

    def __init__(self) -> None:
        self.start = 0
        self._messages: list[Message] = []

    @property
    def end(self) -> int:
        """The offset that the next message will get."""
        return self.start + len(self._messages)

    def append(self, message: Message) -> None:
        self._messages.append(message)

    def read(self, since: int, until: int) -> list[Message]:
        """Messages of the offsets [since, until) that are still held."""
        return self._messages[max(0, since - self.start) : max(0, until - self.start)]

    def trim(self, before: int) -> None:
        """Let go of messages below an offset."""
        if before > self.start:
            del self._messages[: before - self.start]
            self.start = before


class MemoryLog:
    """Topics and state topics in one process, in place of Kafka."""

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self.partitions = dict(partitions)
        self.now_ms = 0
        self._topics = {topic: [MemoryPartition() for _ in range(n)] for topic, n in partitions.items()}
        self._states: dict[tuple[str, int], dict[bytes, bytes]] = {}
        self._owners: dict[tuple[str, int], object] = {}

    def partition(self, topic: str, partition: int) -> MemoryPartition:
        return self._topics[topic][partition]

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> int:
        """Append at the log's own time; returns the offset."""
        held = self._topics[topic][partition]
        offset = held.end
        held.append(Message(topic, partition, offset, self.now_ms, key, value, headers))
        return offset

    def take_over(self, owner: object, topic: str, partition: int) -> dict[bytes, bytes]:
        """Make `owner` the only one who may commit, and return the records as they were committed last."""
        self._owners[topic, partition] = owner
        return self._states.setdefault((topic, partition), {})

    def owned_by(self, owner: object, topic: str, partition: int) -> bool:
        return self._owners.get((topic, partition)) is owner


class MemoryStateLog:
    """The state log of one partition of a MemoryLog."""

    def __init__(self, log: MemoryLog, topic: str, partition: int) -> None:
        self._log = log
        self._topic = topic
        self._partition = partition
        self._records: dict[bytes, bytes] = {}

    async def open(self, state: State) -> Position | None:
        self._records = self._log.take_over(self, self._topic, self._partition)
        position = None
        for key, value in self._records.items():
            if key == POSITION_KEY:
                position = decode_position(value)
            else:
                state.load(key, value)
        return position

    async def commit(self, changes: Sequence[Change], position: Position, outs: Sequence[Out]) -> None:
        if not self._log.owned_by(self, self._topic, self._partition):
            raise Fenced(f"{self._topic}/{self._partition}")
        check_sizes(changes)
        records = self._records
        for key, value in changes:
            if value is None:
                records.pop(key, None)
            else:
                records[key] = value
        records[POSITION_KEY] = encode_position(position)
        for partition, out in placed(outs, self._log.partitions):
            self._log.append(out.topic, partition, out.key, out.value)

    async def close(self) -> None:
        return
