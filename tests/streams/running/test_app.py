import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.index.port import DocKind
from streams.messages import FINDINGS, KEY_EVENTS
from streams.running.app import BUSY_WAIT_MS, IDLE_WAIT_MS, WorkerApp
from streams.running.process import Application
from tests.streams.counting import DictIndex, totals
from tests.streams.plain_app import PlainApp
from tests.streams.working import committed, counted, fresh, send, until, working


async def test_messages_are_applied_committed_and_indexed_and_a_restart_goes_on_where_it_stopped(
    kafka: str, tmp_path: Path
) -> None:
    settings, index, deaths = await fresh(kafka, tmp_path), DictIndex(), list[str]()
    await send(settings, KEY_EVENTS, [b"a", b"b", b"a"])
    async with working(settings, index, deaths) as worker:
        await until(lambda: counted(worker, KEY_EVENTS) == {"a": 2, "b": 1})
    await send(settings, KEY_EVENTS, [b"a", b"c"])

    async with working(settings, index, deaths) as worker:
        await until(lambda: counted(worker, KEY_EVENTS) == {"a": 3, "b": 1, "c": 1})
        assert worker.shell.owners[KEY_EVENTS, 0].skipped == 0
        await until(lambda: counted(worker, FINDINGS) == {"a=3": 1})
        await until(lambda: len(index.ids(DocKind.EVENT)) == 5)
        await until(lambda: all(owner.indexed == owner.applied for owner in worker.shell.owners.values()))

    assert deaths == []
    assert await committed(settings, FINDINGS) == [b"a=3"]
    assert index.kept[DocKind.ALERT, "a"].version == 3


async def test_what_an_absent_index_missed_is_written_by_the_next_worker(kafka: str, tmp_path: Path) -> None:
    settings, index, deaths = await fresh(kafka, tmp_path), DictIndex(), list[str]()
    index.down = True
    values = [b"v%d" % number for number in range(50)]
    await send(settings, KEY_EVENTS, values)
    settings = settings.model_copy(update={"stop_s": 4})
    async with working(settings, index, deaths) as worker:
        await until(lambda: len(counted(worker, KEY_EVENTS)) == 50)
        await until(lambda: worker.shell.owners[KEY_EVENTS, 0].cuts > 0)
    assert index.kept == {}
    index.down = False

    async with working(settings, index, deaths) as worker:
        await until(lambda: len(index.ids(DocKind.EVENT)) == 50)
        await until(lambda: worker.shell.owners[KEY_EVENTS, 0].indexed == 50)
        assert counted(worker, KEY_EVENTS) == {value.decode(): 1 for value in values}

    assert len(index.ids(DocKind.ALERT)) == 50
    assert deaths == []


async def test_fetches_that_find_nothing_are_held_shortly_while_messages_come(kafka: str, tmp_path: Path) -> None:
    """Held as long as Faust asks for, the fetch for idle partitions keeps a busy one from its messages."""
    settings, deaths, built = await fresh(kafka, tmp_path), list[str](), list[WorkerApp]()

    def application(*args: Any, **options: Any) -> WorkerApp:
        built.append(WorkerApp(*args, **options))
        return built[0]

    def wait_ms() -> int:
        consumer = built[0]._app.consumer._thread._consumer
        return 0 if consumer is None else int(consumer._fetcher._fetch_max_wait_ms)

    async with working(settings, DictIndex(), deaths, application) as worker:
        await until(lambda: wait_ms() == IDLE_WAIT_MS)
        sending = asyncio.create_task(send(settings, KEY_EVENTS, [b"a"] * 20_000))
        await until(lambda: wait_ms() == BUSY_WAIT_MS)
        await sending
        await until(lambda: counted(worker, KEY_EVENTS) == {"a": 20_000})
        await until(lambda: wait_ms() == IDLE_WAIT_MS)

    assert deaths == []


@pytest.mark.parametrize("application", [WorkerApp, PlainApp])
async def test_workers_that_come_and_go_under_load_apply_every_message_once(
    kafka: str, tmp_path: Path, application: Callable[..., Application]
) -> None:
    """Each rebalance makes every owner afresh and seeks every partition while messages flow."""
    settings, index, deaths = await fresh(kafka, tmp_path, partitions=4), DictIndex(), list[str]()
    sending = True
    sent = 0

    async def load() -> None:
        nonlocal sent
        while sending:
            for partition in range(4):
                await send(settings, KEY_EVENTS, [b"v%d" % (sent % 7)] * 30, partition)
            sent += 120
            await asyncio.sleep(0.05)

    async with working(settings, index, deaths, application) as stays:
        await until(lambda: len(stays.shell.owners) == 18)
        loading = asyncio.create_task(load())
        for number in range(3):
            own = settings.model_copy(update={"data_dir": tmp_path / f"visitor{number}"})
            async with working(own, index, deaths, application) as visitor:
                await until(lambda visitor=visitor: len(visitor.shell.owners) > 0)  # type: ignore[misc]
                await asyncio.sleep(1.5)
            await until(lambda: len(stays.shell.owners) == 18)
        sending = False
        await loading
        await until(lambda: sum(counted(stays, KEY_EVENTS).values()) == sent)
        await until(lambda: len(index.ids(DocKind.EVENT)) == sent)
        assert sum(owner.gaps for key, owner in stays.shell.owners.items() if key[0] == KEY_EVENTS) == 0
        per_owner = [totals(owner.state.dump()) for key, owner in stays.shell.owners.items() if key[0] == KEY_EVENTS]

    assert deaths == []
    assert sum(sum(owner.values()) for owner in per_owner) == sent
    expected = [
        f"{value}={number}"
        for owner in per_owner
        for value, total in owner.items()
        for number in range(3, total + 1, 3)
    ]
    found = [value.decode() for value in await committed(settings, FINDINGS)]
    assert sorted(value for value in found if value.count("=") == 1) == sorted(expected)
