import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.index.documents import kek_use_document
from streams.index.embedded import EmbeddedIndex
from streams.index.port import DocKind, Document, IndexUnavailable, Refused
from streams.index.writer import IndexWriter, OwnerKey
from tests.streams.index.test_documents import kek_use
from tests.streams.index.test_index_contract import event, ids

KEYS = ("key-events", 0)
OTHER = ("key-events", 1)


class MoodyIndex:
    """The embedded index, which can be away, slow, particular about ids, and remembers the size of each write."""

    def __init__(self, path: Path) -> None:
        self.inner = EmbeddedIndex(path)
        self.away = False
        self.fault: Exception | None = None
        self.dislikes: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.sizes: list[int] = []
        self.at_once = 0
        self.most_at_once = 0

    async def ensure(self) -> None:
        await self.inner.ensure()

    async def write(self, documents: Sequence[Document]) -> list[Refused]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            if self.fault is not None:
                raise self.fault
            if self.away:
                raise IndexUnavailable("away")
            self.sizes.append(len(documents))
            wanted = [document for document in documents if document.id not in self.dislikes]
            refused = await self.inner.write(wanted)
            return refused + [Refused(document, "disliked") for document in documents if document.id in self.dislikes]
        finally:
            self.at_once -= 1

    async def find(
        self,
        kind: DocKind,
        *,
        where: Mapping[str, str | int | bool] | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        return await self.inner.find(kind, where=where, since_ms=since_ms, until_ms=until_ms, limit=limit)

    async def count_by(
        self,
        kind: DocKind,
        fields: Sequence[str],
        *,
        where: Mapping[str, str | int | bool] | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> dict[tuple[str, ...], int]:
        return await self.inner.count_by(kind, fields, where=where, since_ms=since_ms, until_ms=until_ms)

    async def close(self) -> None:
        await self.inner.close()


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[MoodyIndex]:
    made = MoodyIndex(tmp_path / "index.sqlite")
    await made.ensure()
    yield made
    await made.close()


def writer(index: MoodyIndex, **options: Any) -> IndexWriter:
    return IndexWriter(index, **{"linger_s": 0.01, "first_pause_s": 0.001, "longest_pause_s": 0.004} | options)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)


async def until_tried(made: IndexWriter) -> None:
    await until(lambda: made.retries > 0)


async def test_an_owner_that_added_nothing_is_not_known(index: MoodyIndex) -> None:
    made = writer(index)

    assert made.confirmed(KEYS) is None
    assert made.refused(KEYS) == []
    made.forget(KEYS)
    await made.flush()


async def test_an_offset_is_confirmed_when_all_below_it_is_written(index: MoodyIndex) -> None:
    made = writer(index)
    made.add(KEYS, 7, [event("a"), event("b")])
    made.add(KEYS, 8, [])
    made.add(OTHER, 70, [event("c")])

    assert made.confirmed(KEYS) == 7
    assert made.confirmed(OTHER) == 70
    await made.flush()

    assert made.confirmed(KEYS) == 9
    assert made.confirmed(OTHER) == 71
    assert made.held == 0
    assert ids(await index.find(DocKind.EVENT)) == ["a", "b", "c"]


async def test_messages_without_documents_are_confirmed_at_once(index: MoodyIndex) -> None:
    made = writer(index)
    made.add(KEYS, 3, [])

    assert made.confirmed(KEYS) == 4


async def test_documents_of_many_messages_and_partitions_share_bulks(index: MoodyIndex) -> None:
    made = writer(index, max_documents=100, linger_s=60)
    for offset in range(50):
        made.add((f"t{offset % 2}", 0), offset, [event(f"{offset}-{place}") for place in range(5)])

    await made.flush()

    assert sum(index.sizes) == 250
    assert len(index.sizes) == 3
    assert max(index.sizes) <= 100


async def test_a_bulk_that_is_not_full_goes_after_the_linger(index: MoodyIndex) -> None:
    made = writer(index, linger_s=0.02)
    made.add(KEYS, 0, [event("a")])

    await until(lambda: made.confirmed(KEYS) == 1)


async def test_a_full_bulk_does_not_wait(index: MoodyIndex) -> None:
    made = writer(index, max_documents=10, linger_s=60)
    made.add(KEYS, 0, [event(f"{place}") for place in range(10)])

    await until(lambda: made.confirmed(KEYS) == 1)


async def test_a_message_larger_than_a_bulk_is_cut_and_confirmed_only_as_a_whole(index: MoodyIndex) -> None:
    made = writer(index, max_documents=10, in_flight=1)
    index.dislikes = {"24"}
    made.add(KEYS, 0, [event(f"{place}") for place in range(25)])
    index.gate.clear()
    await until(lambda: index.at_once > 0)

    assert made.confirmed(KEYS) == 0
    index.gate.set()
    await made.flush()

    assert index.sizes == [10, 10, 5]
    assert made.confirmed(KEYS) == 1
    assert [(item.offset, item.document.id) for item in made.refused(KEYS)] == [(0, "24")]


async def test_bulks_keep_to_their_bytes(index: MoodyIndex) -> None:
    size = len(event("000", purpose="x" * 1_000).body)
    made = writer(index, max_bytes=4 * size)
    made.add(KEYS, 0, [event(f"{place:03}", purpose="x" * 1_000) for place in range(10)])
    made.add(KEYS, 1, [event("999", purpose="x" * 9_000)])
    await made.flush()

    assert index.sizes == [4, 4, 2, 1]


async def test_no_more_than_two_bulks_are_under_way(index: MoodyIndex) -> None:
    index.gate.clear()
    made = writer(index, max_documents=1)
    for offset in range(8):
        made.add(KEYS, offset, [event(f"{offset}")])
    for _ in range(50):
        await asyncio.sleep(0)
    index.gate.set()
    await made.flush()

    assert index.most_at_once == 2
    assert len(index.sizes) == 8


async def test_an_index_that_is_away_delays_nobody_and_loses_nothing(index: MoodyIndex) -> None:
    def away() -> bool:
        return made.unavailable_since is not None

    index.away = True
    made = writer(index)
    made.add(KEYS, 0, [event("a")])
    await until_tried(made)

    assert away()
    assert made.add(KEYS, 1, [event("b")])
    assert made.confirmed(KEYS) == 0

    index.away = False
    await made.flush()
    assert made.retries > 0
    assert not away()
    assert made.confirmed(KEYS) == 2
    assert ids(await index.find(DocKind.EVENT)) == ["a", "b"]


async def test_without_memory_documents_are_not_taken_until_those_missed_come_again(index: MoodyIndex) -> None:
    index.away = True
    made = writer(index, held_bytes=3 * len(event("0").body))
    taken = [made.add(KEYS, offset, [event(f"{offset}")]) for offset in range(6)]
    await until_tried(made)

    assert taken == [True, True, True, False, False, False]
    assert made.behind(KEYS)
    assert made.room() == 0

    index.away = False
    await made.flush()
    assert made.confirmed(KEYS) == 3
    assert not made.add(KEYS, 6, [event("6")])  # in its turn, but those before it are missing
    assert [made.add(KEYS, offset, [event(f"{offset}")]) for offset in (3, 4, 5)] == [True] * 3
    await made.flush()
    assert made.confirmed(KEYS) == 6
    assert made.add(KEYS, 6, [event("6")])
    assert not made.behind(KEYS)
    await made.flush()
    assert made.confirmed(KEYS) == 7
    assert ids(await index.find(DocKind.EVENT)) == [f"{offset}" for offset in range(7)]


async def test_one_document_larger_than_the_memory_still_gets_through(index: MoodyIndex) -> None:
    made = writer(index, held_bytes=10)

    assert made.add(KEYS, 0, [event("a")])
    assert not made.add(KEYS, 1, [event("b")])
    await made.flush()


async def test_refused_documents_are_told_once_with_their_offset_and_hold_nothing_up(index: MoodyIndex) -> None:
    index.dislikes = {"b"}
    made = writer(index)
    made.add(KEYS, 4, [event("a")])
    made.add(KEYS, 5, [event("b"), event("c")])
    await made.flush()

    assert made.confirmed(KEYS) == 6
    assert [(item.offset, item.document.id, item.reason) for item in made.refused(KEYS)] == [(5, "b", "disliked")]
    assert made.refused(KEYS) == []
    assert made.refusals == 1


async def test_the_owner_is_told_of_versioned_documents_that_are_written_and_does_not_wait_for_them(
    index: MoodyIndex,
) -> None:
    told: list[tuple[OwnerKey, str, int]] = []
    index.dislikes = {"no"}
    index.gate.clear()
    made = writer(index, written=lambda owner, document: told.append((owner, document.id, document.version)))
    made.add(OTHER, 9, [kek_use_document(kek_use(id=ident), 3, b"k") for ident in ("yes", "no")])
    made.add(KEYS, 0, [event("a")])

    assert made.confirmed(OTHER) == 10
    assert told == []
    index.gate.set()
    await made.flush()
    assert told == [(OTHER, "yes", 3)]


async def test_what_is_forgotten_is_neither_sent_nor_told(index: MoodyIndex) -> None:
    told: list[Document] = []
    index.away = True
    made = writer(index, written=lambda _, document: told.append(document), in_flight=1, max_documents=1)
    made.add(KEYS, 0, [kek_use_document(kek_use(), 1, b"k")])
    await until_tried(made)
    made.add(KEYS, 1, [event("a")])
    made.add(OTHER, 0, [event("b")])

    made.forget(KEYS)
    index.away = False
    await made.flush()

    assert made.confirmed(KEYS) is None
    assert told == []
    assert made.held == 0
    assert ids(await index.find(DocKind.EVENT)) == ["b"]
    made.add(KEYS, 5, [])
    assert made.confirmed(KEYS) == 6


async def test_a_fault_that_is_no_outage_reaches_whoever_adds_or_waits(index: MoodyIndex) -> None:
    index.fault = ZeroDivisionError("a bug")
    made = writer(index)
    made.add(KEYS, 0, [event("a")])

    with pytest.raises(ZeroDivisionError):
        await made.flush()
    with pytest.raises(ZeroDivisionError):
        made.add(KEYS, 1, [event("b")])
    assert made.confirmed(KEYS) == 0


async def test_closing_stops_what_waits_for_an_index_that_is_away(index: MoodyIndex) -> None:
    index.away = True
    made = writer(index, longest_pause_s=60, first_pause_s=60)
    made.add(KEYS, 0, [event("a")])
    await until_tried(made)

    async with asyncio.timeout(5):
        await made.close()
    assert made.held == 0
    assert made.confirmed(KEYS) == 0


@settings(max_examples=60, deadline=None)
@given(
    acts=st.lists(
        st.one_of(st.integers(0, 3), st.sampled_from(["away", "back", "pause", "reread"])),
        max_size=40,
    ),
)
def test_whatever_happens_nothing_below_the_confirmed_offset_is_missing(
    acts: list[int | str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An owner that reads again what was not taken, from the confirmed offset, ends with everything written."""

    async def run() -> None:
        index = MoodyIndex(tmp_path_factory.mktemp("index") / "index.sqlite")
        await index.ensure()
        made = writer(index, held_bytes=6 * len(event("00-0").body), linger_s=0, max_documents=4)
        log: list[list[Document]] = []

        async def check() -> None:
            confirmed = made.confirmed(KEYS) or 0
            there = set(ids(await index.find(DocKind.EVENT)))
            assert {document.id for documents in log[:confirmed] for document in documents} <= there

        def reread() -> None:
            for offset in range(made.confirmed(KEYS) or 0, len(log)):
                if not made.add(KEYS, offset, log[offset]):
                    return

        for act in acts:
            if isinstance(act, int):
                log.append([event(f"{len(log):02}-{place}") for place in range(act)])
                made.add(KEYS, len(log) - 1, log[-1])
            elif act == "pause":
                await asyncio.sleep(0.002)
            elif act == "reread":
                reread()
            else:
                index.away = act == "away"
            await check()
        index.away = False
        for _ in range(len(log) + 1):
            await made.flush()
            reread()
        await made.flush()
        await check()
        assert (made.confirmed(KEYS) or 0) == len(log)
        await index.close()

    asyncio.run(run())
