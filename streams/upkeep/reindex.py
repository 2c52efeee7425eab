"""Builds the index again from the log: the same documents, from what the topics and the state topics still hold.

Append-only documents are a function of their message. Documents that change are those of the state where it still holds
their record; the others are made once more by a fresh step that reads its whole topic with the log's own times. Nothing
is sent and no state is written, so workers may run meanwhile; documents that are there already stay as they are.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from msgspec import Struct

from streams.index.port import Document, EventIndex
from streams.index.writer import IndexWriter, OwnerKey
from streams.log.statelog_kafka import read
from streams.log.topics import INPUTS
from streams.messages import CORRELATE, FINDINGS, Effects, Message, Step
from streams.running.rereading import committed, message_of
from streams.settings import Settings
from streams.state import State, decode, encode

RUN_AGAIN: Final = frozenset({CORRELATE, FINDINGS})
"""Inputs whose documents change with what comes later: their steps run again."""
BLIND_MS: Final = 75 * 60_000
"""Where the log no longer begins at its first message, uses so close to its beginning may lack what explained them."""
TICK_MS: Final = 1_000
_ROOM: Final = 8 * 1024 * 1024


class Rebuilt(Struct):
    """What was read and written.

    Attributes:
        messages: read from the input topics.
        documents: given to the index, new or not.
        refused: that the index will never take.
        left_out: documents too close to where the log now begins to be made again.
    """

    messages: int = 0
    documents: int = 0
    refused: int = 0
    left_out: int = 0


async def rebuild(
    settings: Settings,
    steps: Mapping[str, Callable[[int], Step]],
    index: EventIndex,
    *,
    progress: Callable[[OwnerKey, Rebuilt], None] = lambda _key, _so_far: None,
) -> Rebuilt:
    """Write every document that the log still gives.

    Args:
        settings: where the log is.
        steps: the pipeline, over the registry as it is now.
        index: where to; its templates are there.
        progress: told after each partition.

    Raises:
        KafkaError: the log did not answer.
    """
    rebuilt = Rebuilt()
    writer = IndexWriter(index)
    for topic in INPUTS:
        for partition in range(settings.topic_partitions[topic]):
            await _Partition(settings, steps[topic], (topic, partition), writer, rebuilt).run()
            await writer.flush()
            progress((topic, partition), rebuilt)
    rebuilt.refused = writer.refusals
    await writer.close()
    return rebuilt


class _Partition:
    """One partition's documents."""

    def __init__(
        self,
        settings: Settings,
        make: Callable[[int], Step],
        key: OwnerKey,
        writer: IndexWriter,
        rebuilt: Rebuilt,
    ) -> None:
        self._settings = settings
        self._make = make
        self._key = key
        self._writer = writer
        self._rebuilt = rebuilt
        self._kept: set[tuple[str, str]] = set()
        self._believed_from_ms = 0

    async def run(self) -> None:
        """Write what the state holds, then what the messages give."""
        topic, partition = self._key
        state = State()
        connection = self._settings.kafka_connection()
        position = await read(self._settings.state_topic(topic), partition, state, connection=connection)
        if position is None:
            return
        await self._write_kept(state)
        if topic in RUN_AGAIN:
            await self._run_again(position.applied, position.now_ms)
        else:
            await self._read_again(position.applied)

    async def _write_kept(self, state: State) -> None:
        unwritten = State()
        for key, raw in state.dump().items():
            unwritten.load(key, _never_written(raw))
        step, effects = self._make(self._key[1]), Effects()
        step.restore(unwritten)
        step.redocument(unwritten, effects)
        self._kept = {(document.kind, document.id) for document in effects.documents}
        await self._write(effects.documents)

    async def _read_again(self, end: int) -> None:
        step = self._make(self._key[1])
        async for message in self._messages(end):
            effects = Effects()
            step.reindex(message, effects)
            await self._write(effects.documents)

    async def _run_again(self, end: int, until_ms: int) -> None:
        """Let a fresh step see every message and every second of the log's time."""
        step, state, now_ms = self._make(self._key[1]), State(), 0
        step.restore(state)
        async for message in self._messages(end):
            if not now_ms:
                now_ms = message.append_ms
                self._believed_from_ms = message.append_ms + BLIND_MS if message.offset else 0
            now_ms = await self._tick(step, state, now_ms, message.append_ms)
            effects = Effects()
            step.apply(message, now_ms, state, effects)
            await self._take(step, state, effects, now_ms)
        if now_ms:
            await self._tick(step, state, now_ms, until_ms)

    async def _tick(self, step: Step, state: State, now_ms: int, until_ms: int) -> int:
        while now_ms + TICK_MS <= until_ms:
            now_ms += TICK_MS
            effects = Effects()
            step.tick(now_ms, state, effects)
            await self._take(step, state, effects, now_ms)
        return max(now_ms, until_ms)

    async def _take(self, step: Step, state: State, effects: Effects, now_ms: int) -> None:
        """Write what the state did not have; an index that has a document lets the step forget its record."""
        mine = []
        for document in effects.documents:
            if document.version:
                step.indexed(document, state)
            if (document.kind, document.id) in self._kept:
                continue
            if document.version and now_ms < self._believed_from_ms:
                self._rebuilt.left_out += 1
                continue
            mine.append(document)
        await self._write(mine)

    async def _write(self, documents: list[Document]) -> None:
        self._rebuilt.documents += len(documents)
        while documents and not self._writer.add(self._key, 0, documents):
            await self._writer.flush()
        if self._writer.room() < _ROOM:
            await self._writer.flush()

    async def _messages(self, end: int) -> AsyncIterator[Message]:
        """Every committed message below `end`, in the order of the log."""
        topic, partition = self._key
        connection, full_name = self._settings.kafka_connection(), self._settings.topic(topic)
        async for record in committed(connection, full_name, partition, end=end):
            self._rebuilt.messages += 1
            yield message_of(topic, record)


def _never_written(raw: bytes) -> bytes:
    """A record as it would be if the index had confirmed nothing of it."""
    record = decode(raw)
    if isinstance(record, dict) and record.pop("doc_indexed", None) is not None:
        return encode(record)
    return raw
