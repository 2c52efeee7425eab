"""The files feed: growing, cut, replaced and broken files, each record once, on a real Kafka."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptocore.clock import SystemClock
from streams.feeds.durable import Position, Positions
from streams.feeds.files import CUT_FOR_US, FEED, SETTLED_US, FolderFeed
from streams.feeds.publisher import Publisher
from streams.feeds.tail import PART, follow
from streams.settings import Settings
from streams.vaultlogs.files import FileReason, FileRecord
from tests.streams.feeds.landing import accesses, deployment, landed
from tests.streams.vaultlogs.records import record


def numbered(number: int) -> dict[str, Any]:
    return record() | {"correlationId": f"00000000-0000-4000-8000-{number:012d}"}


def line(number: int) -> bytes:
    return json.dumps(numbered(number)).encode() + b"\n"


class Feeding:
    """A folder's feed that can be restarted."""

    def __init__(self, deployment_settings: Settings, folder: Path) -> None:
        self.settings = deployment_settings
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.publisher = Publisher(deployment_settings, feed=FEED, clock=SystemClock())
        self._positions = Positions(folder / "state" / "files.sqlite")
        self._folder = folder
        self.ahead_us = 0
        self.restart()

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self.ahead_us

    def monotonic(self) -> float:
        return time.monotonic()

    def restart(self, *, watch: bool = True) -> None:
        self._positions.close()
        self._positions = Positions(self._folder / "state" / "files.sqlite")
        self.feed = FolderFeed([self.logs], self._positions, self.publisher, self, watch=watch)

    async def once(self) -> int:
        """How many records this look sent."""
        before = self.publisher.tally.published
        await self.feed.once()
        return self.publisher.tally.published - before

    @property
    def refused(self) -> dict[str, int]:
        return dict(self.publisher.tally.refused)

    def close(self) -> None:
        self._positions.close()


@asynccontextmanager
async def feeding(kafka: str, folder: Path) -> AsyncIterator[Feeding]:
    made = Feeding(await deployment(kafka, folder), folder)
    await made.publisher.open()
    try:
        yield made
    finally:
        await made.publisher.close()
        made.close()


async def test_a_growing_blob_is_read_from_where_it_was_and_a_cut_line_once_it_is_whole(
    kafka: str, tmp_path: Path
) -> None:
    async with feeding(kafka, tmp_path) as run:
        blob = run.logs / "y=2026" / "m=11" / "d=16" / "h=02" / "m=00" / "PT1H.json"
        blob.parent.mkdir(parents=True)
        blob.write_bytes(line(0) + line(1)[:50])
        sent = [await run.once(), await run.once()]
        with blob.open("ab") as file:
            file.write(line(1)[50:] + line(2).rstrip(b"\n"))
        sent.append(await run.once())
        run.restart()
        with blob.open("ab") as file:
            file.write(b"\n" + line(3))
        sent += [await run.once(), await run.once()]

        assert sent == [1, 0, 2, 1, 0]
        assert run.refused == {}
        assert len(accesses(await landed(run.settings))) == 4


async def test_a_file_that_was_replaced_or_cut_back_is_read_from_its_start(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        log = run.logs / "PT1H.json"
        log.write_bytes(line(0) + line(1))
        first = await run.once()
        log.write_bytes(line(2) + line(3) + line(4))
        second = await run.once()
        log.write_bytes(line(5))
        third = await run.once()
        again = run.logs / "new"
        again.write_bytes(line(5) + line(6))
        again.replace(log)
        fourth = await run.once()

        assert (first, second, third, fourth) == (2, 3, 1, 1)
        assert len(accesses(await landed(run.settings))) == 7


async def test_documents_and_packed_files_are_waited_for_and_taken_whole(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        document = json.dumps({"records": [numbered(0), numbered(1)]}, indent=1).encode()
        packed = gzip.compress(line(2) + line(3))
        (run.logs / "export.json").write_bytes(document[:300])
        (run.logs / "old.json.gz").write_bytes(packed[:100])
        early = await run.once()
        early_refused = run.refused
        (run.logs / "export.json").write_bytes(document)
        (run.logs / "old.json.gz").write_bytes(packed)
        whole = await run.once()
        (run.logs / "broken.json").write_bytes(document[:300])
        run.ahead_us = SETTLED_US + 60_000_000
        late = [await run.once(), await run.once()]

        assert (early, early_refused, whole, late) == (0, {}, 4, [0, 0])
        assert run.refused == {"not_json": 1}


async def test_what_was_taken_for_a_document_may_turn_out_to_be_lines(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        log = run.logs / "PT1H.json"
        at = line(0).index(b",") + 1
        log.write_bytes(line(0)[:at])
        run.restart(watch=False)
        cut = await run.once()
        log.write_bytes(line(0) + line(1))

        assert (cut, await run.once()) == (0, 2)


async def test_bad_lines_are_counted_by_reason_and_the_rest_goes_on(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        lines = [line(0), b"{broken}\n", b"\n", b"[1]\n", b'{"pad":"' + b"x" * 5_000_000 + b'"}\n', line(1)]
        (run.logs / "a.json").write_bytes(b"".join(lines))
        (run.logs / "b.json").write_bytes("{}".encode("utf-16"))
        (run.logs / "c.csv").write_bytes(b"a,b\n")
        (run.logs / ".hidden.json").write_bytes(line(9))
        (run.logs / "d.json").symlink_to("nowhere")

        sent = [await run.once(), await run.once()]

        assert sent == [2, 0]
        assert run.refused == {
            "not_json": 1,
            "not_an_object": 1,
            "line_too_long": 1,
            "not_utf8": 1,
            "unsupported_file": 1,
        }


async def test_a_line_that_stays_cut_is_said_after_an_hour_or_at_once_where_nobody_watches(
    kafka: str, tmp_path: Path
) -> None:
    async with feeding(kafka, tmp_path) as run:
        (run.logs / "a.json").write_bytes(line(0) + line(1)[:40])
        await run.once()
        early = run.refused
        run.ahead_us = CUT_FOR_US + 60_000_000
        for _ in range(3):
            await run.once()
        late = run.refused
        run.restart(watch=False)
        (run.logs / "b.json").write_bytes(line(2)[:45])
        await run.once()

        assert (early, late, run.refused) == ({}, {"cut_short": 1}, {"cut_short": 2})


async def test_a_path_that_is_not_there_is_said_once_until_it_is(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        run.logs.rmdir()
        await run.once()
        await run.once()
        run.logs.mkdir()
        (run.logs / "a.json").write_bytes(line(0))

        assert sum(run.refused.values()) == 1
        assert await run.once() == 1


async def test_a_killed_feed_repeats_at_most_a_part_and_each_access_counts_once(kafka: str, tmp_path: Path) -> None:
    settings = await deployment(kafka, tmp_path)
    logs = tmp_path / "logs"
    logs.mkdir()
    for hour in range(6):
        (logs / f"PT{hour}H.json").write_bytes(b"".join(line(hour * 2_500 + at) for at in range(2_500)))
    environment = {
        **os.environ,
        "KEYTRAIL_KAFKA_BOOTSTRAP": kafka,
        "KEYTRAIL_TOPIC_PREFIX": settings.topic_prefix,
        "KEYTRAIL_PARTITIONS": str(settings.partitions),
        "KEYTRAIL_FEED_STATE_DIR": str(tmp_path / "state"),
    }
    code = (
        "import sys; from pathlib import Path; from streams.feeds.files import run_files; "
        "from streams.feeds.settings import FeedSettings; from streams.settings import Settings; "
        "sys.exit(run_files(Settings(), FeedSettings(), [Path(sys.argv[1])], watch=False))"
    )
    command = [sys.executable, "-c", code, str(logs)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as first:  # noqa: ASYNC220 - a test
        await landed(settings, wait_for=1)
        first.send_signal(signal.SIGKILL)
    at_kill = len(await landed(settings))

    ended = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)  # noqa: ASYNC221
    found = await landed(settings)

    assert ended.returncode == 0, ended.stderr
    assert 0 < at_kill < 15_000, "the kill came too late to show anything"
    assert len(accesses(found)) == len(set(accesses(found))) == 15_000
    assert len(found) <= 15_000 + PART


@settings(max_examples=60)
@given(st.data())
def test_however_a_file_grows_and_whenever_it_is_read_each_record_is_found_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("grow") / "PT1H.json"
    count = data.draw(st.integers(1, 12))
    separator = data.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
    written = separator.join(
        json.dumps({"n": number, "t": "é,[{"}, ensure_ascii=False).encode() for number in range(count)
    )
    written += data.draw(st.sampled_from([b"", separator]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=6)))
    known: Position | None = None
    found: list[int] = []

    for stamp, end in enumerate([*cuts, len(written)], start=1):
        path.write_bytes(written[:end])
        os.utime(path, ns=(stamp, stamp))
        for part in follow(path, known, settled=False):
            known = part.position or known
            found += [each.original["n"] for each in part.found if isinstance(each, FileRecord)]
            assert not part.replaced
            assert all(isinstance(each, FileRecord) for each in part.found)

    assert found == list(range(count))


def test_a_crash_between_two_parts_reads_on_after_the_first(tmp_path: Path) -> None:
    path = tmp_path / "PT1H.json"
    path.write_bytes(b"".join(line(number) for number in range(PART + 10)))
    parts = follow(path, None, settled=False)
    first = next(parts)
    parts.close()  # type: ignore[attr-defined]

    rest = [each for part in follow(path, first.position, settled=False) for each in part.found]

    assert len(first.found) == PART
    assert [each.line for each in rest] == list(range(PART + 1, PART + 11))


def test_positions_outlive_the_process_and_keep_names_that_are_no_text(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"caf\xe9.json")
    positions = Positions(tmp_path / "files.sqlite")
    positions.save(strange, Position(offset=7, lines=1))
    positions.close()
    again = Positions(tmp_path / "files.sqlite")

    assert again.get(strange) == Position(offset=7, lines=1)
    assert again.get(tmp_path / "other.json") is None
    again.close()


def test_utf16_is_refused_once(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"a":1}\n'.encode("utf-16"))
    [part] = follow(path, None, settled=True)

    assert [each.reason for each in part.found if not isinstance(each, FileRecord)] == [FileReason.NOT_UTF8]
    assert list(follow(path, part.position, settled=True)) == []
