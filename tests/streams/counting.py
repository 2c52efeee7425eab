"""A small step that counts, and an index in memory that can be switched off: for the engine's own tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from streams.index.port import DocKind, Document, IndexUnavailable, Refused
from streams.messages import FINDINGS, KEY_EVENTS, Effects, Message
from streams.state import Kind, State, decode

encode = msgspec.json.encode


class Count(Struct, kw_only=True):
    total: int = 0
    revision: int = 0
    doc_indexed: int = 0
    ticked_ms: int = 0


class CountingStep:
    """Counts messages by value; each third of a value is a finding; every tick that is a whole minute is noted."""

    def __init__(self, topic: str = KEY_EVENTS) -> None:
        self.topic = topic
        self.restored = 0
        self._minute = -1

    def restore(self, state: State) -> None:
        self.restored += 1

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        count = state.get(Kind.KEY, message.value, Count) or Count()
        count.total += 1
        count.revision += 1
        state.put(Kind.KEY, message.value, count)
        if count.total % 3 == 0:
            effects.send(FINDINGS, message.value, b"%s=%d" % (message.value, count.total))
        self.reindex(message, effects)
        effects.document(self._total(message.value, count))

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        minute = now_ms // 60_000
        if minute == self._minute:
            return
        self._minute = minute
        for ident in state.idents(Kind.KEY):
            count = state.get(Kind.KEY, ident, Count)
            if count is not None and count.total and count.ticked_ms == 0:
                count.ticked_ms = now_ms
                state.put(Kind.KEY, ident, count)

    def reindex(self, message: Message, effects: Effects) -> None:
        if self.topic != KEY_EVENTS:  # its own findings come back to it: their offsets would be told as events
            return
        place = f"{message.partition}/{message.offset}"
        effects.document(Document(DocKind.EVENT, place, encode({"value": message.value.decode()}), None))

    def redocument(self, state: State, effects: Effects) -> None:
        for ident in state.idents(Kind.KEY):
            count = state.get(Kind.KEY, ident, Count)
            if count is not None and count.revision != count.doc_indexed:
                effects.document(self._total(ident, count))

    def indexed(self, document: Document, state: State) -> None:
        assert document.state_key is not None
        count = state.get(Kind.KEY, document.state_key[1:], Count)
        if count is not None and document.version > count.doc_indexed:
            count.doc_indexed = document.version
            state.put(Kind.KEY, document.state_key[1:], count)

    def _total(self, ident: bytes, count: Count) -> Document:
        body = encode({"value": ident.decode(), "total": count.total})
        return Document(DocKind.ALERT, ident.decode(), body, None, count.revision, bytes((Kind.KEY,)) + ident)


class DictIndex:
    """Documents by kind and id, with the rules of the port; down = IndexUnavailable; refuses the ids it is told to."""

    def __init__(self) -> None:
        self.down = False
        self.refusing: set[str] = set()
        self.kept: dict[tuple[DocKind, str], Document] = {}
        self.writes = 0

    async def ensure(self) -> None:
        return

    async def write(self, documents: Sequence[Document]) -> list[Refused]:
        if self.down:
            raise IndexUnavailable("switched off")
        self.writes += 1
        refused = [Refused(document, "told to") for document in documents if document.id in self.refusing]
        for document in documents:
            held = self.kept.get((document.kind, document.id))
            if document.id not in self.refusing and (held is None or document.version > held.version):
                self.kept[document.kind, document.id] = document
        return refused

    async def find(self, kind: DocKind, **_: Any) -> list[dict[str, Any]]:
        return [msgspec.json.decode(document.body) for (of, _), document in self.kept.items() if of is kind]

    async def count_by(self, kind: DocKind, fields: Sequence[str], **_: Any) -> dict[tuple[str, ...], int]:
        raise NotImplementedError

    async def close(self) -> None:
        return

    def ids(self, kind: DocKind) -> list[str]:
        return sorted(ident for of, ident in self.kept if of is kind)


def totals(state: Mapping[bytes, bytes]) -> dict[str, int]:
    """What a dumped state has counted."""
    return {key[1:].decode(): decode(value, Count).total for key, value in state.items() if key[0] == Kind.KEY}
