"""The worker's application over plain aiokafka in place of Faust: the seam between shell and consumer, kept real."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from streams.index.writer import OwnerKey
from streams.log.topics import INPUTS
from streams.running.rereading import message_of
from streams.running.shell import KafkaShell
from streams.settings import Settings

READ_MS = 100


class PlainApp:
    """What `streams.running.app.WorkerApp` is, without Faust."""

    def __init__(self, settings: Settings, shell: KafkaShell, *, die: Callable[[str], NoReturn]) -> None:
        self.crashed: BaseException | None = None
        self._shell = shell
        self._die = die
        self._settings = settings
        self._names = {settings.topic(name): name for name in INPUTS}
        self._consumer = AIOKafkaConsumer(
            **settings.kafka_connection(),
            group_id=settings.app_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=round(settings.kafka_session_timeout_s * 1000),
            heartbeat_interval_ms=round(settings.kafka_session_timeout_s * 200),
        )
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._consumer.subscribe(list(self._names), listener=_Listener(self))
        await self._consumer.start()
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        await self._consumer.stop()

    async def ends(self, keys: Iterable[OwnerKey]) -> dict[OwnerKey, int]:
        places = {self._place(key): key for key in keys}
        return {places[place]: end for place, end in (await self._consumer.end_offsets(list(places))).items()}

    async def take_over(self, assigned: Iterable[TopicPartition]) -> None:
        """Own what is assigned, and read on from where each owner is."""
        places = set(assigned)
        starts = await self._consumer.beginning_offsets(list(places)) if places else {}
        keys = {self._key(place): start for place, start in starts.items()}
        await self._shell.take_over(keys, keys)
        for key, owner in self._shell.owners.items():
            self._consumer.seek(self._place(key), owner.applied)

    def let_go(self) -> None:
        self._shell.let_go()

    async def _read(self) -> None:
        try:
            while True:
                for place, records in (await self._consumer.getmany(timeout_ms=READ_MS)).items():
                    for record in records:
                        await self._take(place, record)
        except Exception as problem:  # noqa: BLE001 - a worker that cannot read ends
            self.crashed = problem
            self._die(f"{type(problem).__name__}: {problem}")

    async def _take(self, place: TopicPartition, record: Any) -> None:
        missing = await self._shell.take(message_of(self._names[place.topic], record))
        if missing is not None and place in self._consumer.assignment():
            self._consumer.seek(place, missing)

    def _place(self, key: OwnerKey) -> TopicPartition:
        return TopicPartition(self._settings.topic(key[0]), key[1])

    def _key(self, place: TopicPartition) -> OwnerKey:
        return self._names[place.topic], place.partition


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, app: PlainApp) -> None:
        self._app = app

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self._app.let_go()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._app.take_over(assigned)
