"""One partition's documents on their way to the index: given to the writer, read again where it had no room."""

from collections.abc import Iterator, Sequence

from streams.index.port import DocKind, Document
from streams.index.writer import IndexWriter, OwnerKey
from streams.log.statelog import Position
from streams.messages import Effects, Message, Step
from streams.running.offsets import IndexProgress


class DocumentsOut:
    """What the writer was given for one owner, and how far it is."""

    def __init__(self, key: OwnerKey, writer: IndexWriter) -> None:
        self.progress = IndexProgress(0, 0)
        self._key = key
        self._writer = writer
        self._closed = False
        self.generation = 1
        """Of the topic that documents are made from; a message brings it."""

    def open(self, position: Position) -> None:
        """Begin where the last owner's cut was; what it had under way is dropped and read again."""
        self._writer.forget(self._key)
        self.progress = IndexProgress(position.indexed, position.applied, position.skip)

    def close(self) -> None:
        self._closed = True
        self._writer.forget(self._key)

    def give(self, offset: int, documents: list[Document]) -> None:
        """Hand documents over with the last message applied; what the writer has no room for is read again later."""
        if not self._closed and not self._writer.add(self._key, offset, documents) and offset >= 0:
            self.progress.lost(offset)

    def advance(self, applied: int) -> None:
        """Take the writer's word for how far everything is written."""
        self.progress.advance(applied, self._writer.confirmed(self._key))

    def refused(self, now_ms: int) -> Iterator[tuple[Message, DocKind, str]]:
        """Documents that the index will never take, each as the message that `rejected` keeps, its kind and why.

        A refused document about a rejected message ends here: its message is in the topic already.
        """
        topic, partition = self._key
        for offset, document, reason in self._writer.refused(self._key):
            self.progress.skip.add(offset)
            if document.kind is not DocKind.REJECTED:
                yield (
                    Message(
                        topic,
                        partition,
                        offset,
                        now_ms,
                        document.id.encode(),
                        document.body,
                        generation=self.generation,
                    ),
                    document.kind,
                    reason,
                )

    def reread(self, step: Step, messages: Sequence[Message], until: int) -> bool:
        """Give the writer the documents of messages once more; False when it has no room."""
        progress = self.progress
        for message in messages:
            again = progress.again
            if again is None or not again[0] <= message.offset < again[1]:
                continue
            if message.offset not in progress.skip:
                self.generation = message.generation
                effects = Effects()
                step.reindex(message, effects)
                if effects.documents and not self._writer.add(self._key, message.offset, effects.documents):
                    return False
            progress.read_again(message.offset + 1)
        progress.read_again(until)
        return True
