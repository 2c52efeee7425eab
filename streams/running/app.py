"""The Faust application: it brings messages and assignments to the shell. The only file that imports Faust.

Faust commits over holes, loses events on exceptions and drops what it re-reads (docs/decisions), so its offsets carry
no meaning here: topics are read without acknowledgements, positions are those of the owners, and each assignment seeks
to them twice, while partitions are paused and again where Faust would seek to the group's offsets.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, cast

import faust
import structlog
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import CrashingSupervisor

from streams.index.writer import OwnerKey
from streams.log.topics import INPUTS
from streams.messages import Message, generation_in
from streams.running.shell import KafkaShell
from streams.settings import Settings

LARGEST_MESSAGE: Final = 1024 * 1024
"""What one message is reckoned at in the memory budget; a sealed batch has 900 KiB at most."""
FETCH_BYTES: Final = 4 * 1024 * 1024
BUSY_WAIT_MS: Final = 25
IDLE_WAIT_MS: Final = 200
"""How long a broker may hold a fetch that finds nothing, when the last one brought messages and when it did not.

A client has one fetch under way per broker, for the partitions that it holds nothing of: while the idle ones wait for
news, a busy one that has just been read empty gets nothing. With Faust's 1,500 ms a worker that catches up stood still
for a third of its time; below 25 ms, the fetches themselves cost what many small messages need.
"""
FEWEST_BUFFERED: Final = 16

_log = structlog.get_logger(__name__)


class _Unfiltered(dict[TP, int | None]):
    """Faust's read offsets, never remembered: it drops messages below them, which a seek back wants to see."""

    def __missing__(self, key: TP) -> int | None:
        return None

    def __setitem__(self, key: TP, offset: int | None) -> None:
        return

    def update(self, *_: Any, **__: Any) -> None:
        return


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Reads committed messages only (Faust asks for that in its own transactions), and waits for more as it should."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = False

    async def _fetch_records(self, consumer: Any, *args: Any, **options: Any) -> Any:
        records = await super()._fetch_records(consumer, *args, **options)
        fetcher = consumer._fetcher  # noqa: SLF001 - Faust sets the wait once, and has no setting for it
        assert hasattr(fetcher, "_fetch_max_wait_ms"), "aiokafka keeps the wait elsewhere now"
        fetcher._fetch_max_wait_ms = BUSY_WAIT_MS if records else IDLE_WAIT_MS  # noqa: SLF001
        return records


class _Consumer(driver.Consumer):
    """Seeks to the owners' positions wherever Faust seeks to the group's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _Unfiltered()

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        assigned = self.assignment()
        positions = {tp: offset for tp, offset in self.transport.positions().items() if tp in assigned}
        if positions:
            await self.seek_wait(positions)
        return positions


class _Transport(driver.Transport):
    Consumer = _Consumer
    positions: Callable[[], Mapping[Any, int]]


class WorkerApp:
    """One Faust application over a shell; build it inside the running loop."""

    def __init__(self, settings: Settings, shell: KafkaShell, *, die: Callable[[str], NoReturn]) -> None:
        self._settings = settings
        self._shell = shell
        self._die = die
        self._names = {settings.topic(name): name for name in INPUTS}
        self._app = _faust_app(settings)
        transport = _Transport(self._app.conf.broker, self._app)
        transport.positions = self._positions
        self._app.transport = transport
        for full_name in self._names:
            self._add_agent(full_name)
        self._app.on_partitions_revoked.connect(self._on_partitions_revoked, weak=False)
        self._app.on_rebalance_complete.connect(self._on_rebalance_complete, weak=False)

    async def start(self) -> None:
        self._app.finalize()
        await self._app.start()

    async def stop(self) -> None:
        await self._app.stop()

    @property
    def crashed(self) -> BaseException | None:
        """What ended the application, if something did."""
        return cast("BaseException | None", self._app.crash_reason)

    async def ends(self, keys: Iterable[OwnerKey]) -> dict[OwnerKey, int]:
        """Offsets that the next committed messages of partitions will get."""
        places = {self._place(key): key for key in keys}
        ends = await self._app.consumer.highwaters(*places)
        return {places[place]: end for place, end in ends.items() if place in places}

    def _place(self, key: OwnerKey) -> Any:
        return TP(self._settings.topic(key[0]), key[1])

    def _positions(self) -> dict[Any, int]:
        return {self._place(key): owner.applied for key, owner in self._shell.owners.items()}

    def _add_agent(self, full_name: str) -> None:
        app, name, shell = self._app, self._names[full_name], self._shell
        topic = app.topic(
            full_name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
        )

        @app.agent(topic, name=f"{app.conf.id}.{name}", concurrency=1, supervisor_strategy=CrashingSupervisor)
        async def agent(stream: Any) -> None:
            async for event in stream.noack().events():
                message = _message(name, event.message)
                try:
                    missing = await shell.take(message)
                    if missing is not None:
                        await self._seek(event.message.tp, missing)
                except Exception:  # noqa: BLE001 - Faust would lose this message and go on with the next
                    _log.exception("agent failed", topic=name, partition=message.partition, offset=message.offset)
                    self._die(f"{name}/{message.partition}@{message.offset} could not be applied")

    async def _seek(self, place: Any, offset: int) -> None:
        _log.info("seek", topic=place.topic, partition=place.partition, offset=offset)
        try:
            await self._app.consumer.seek_wait({place: offset})
        except IllegalStateError:  # the partition went to somebody else meanwhile
            _log.info("seek came too late", topic=place.topic, partition=place.partition)

    async def _on_partitions_revoked(self, *_: Any, **__: Any) -> None:
        """Give up ownership, and nothing else: the group waits for the return of this call."""
        self._shell.let_go()

    async def _on_rebalance_complete(self, *_: Any, **__: Any) -> None:
        """Take over what is assigned, while its partitions are paused.

        Faust swallows an exception here and goes on as a worker without partitions, so nothing may leave it.
        """
        consumer = self._app.consumer
        assigned = {place for place in consumer.assignment() if place.topic in self._names}
        try:
            starts = await consumer.earliest_offsets(*assigned) if assigned else {}
            await self._shell.take_over(
                [self._key(place) for place in assigned], {self._key(place): start for place, start in starts.items()}
            )
            await consumer.seek_to_committed()
        except asyncio.CancelledError:
            raise
        except BaseException as problem:  # noqa: BLE001 - see above
            if isinstance(problem, IllegalStateError) and consumer.assignment() != assigned:
                _log.info("rebalanced again during the takeover")
                return
            _log.exception("takeover failed")
            self._die(f"takeover failed: {type(problem).__name__}")

    def _key(self, place: Any) -> OwnerKey:
        return self._names[place.topic], place.partition


def _message(name: str, raw: Any) -> Message:
    return Message(
        name,
        raw.partition,
        raw.offset,
        round(raw.timestamp * 1000),
        raw.key,
        raw.value if raw.value is not None else b"",
        tuple(raw.headers or ()),
        generation_in(raw.topic, name),
    )


def _faust_app(settings: Settings) -> Any:
    session_s = settings.kafka_session_timeout_s
    return faust.App(
        settings.app_id,
        broker=[f"kafka://{address.strip()}" for address in settings.kafka_bootstrap.split(",")],
        broker_credentials=_credentials(settings),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 5,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        producer_max_request_size=2 * LARGEST_MESSAGE,
        producer_threaded=False,
        stream_buffer_maxsize=max(FEWEST_BUFFERED, settings.buffer_bytes // LARGEST_MESSAGE),
        stream_wait_empty=False,
        store="memory://",
        table_standby_replicas=0,
        topic_partitions=settings.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        datadir=str(settings.data_dir),
    )


def _credentials(settings: Settings) -> Any:
    """Credentials with their TLS context: without one, Faust would quietly speak plaintext."""
    context = settings.tls()
    if settings.kafka_security_protocol.startswith("SASL"):
        assert settings.kafka_password is not None
        credentials = faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=context,
            mechanism=settings.kafka_sasl_mechanism,
        )
        if context is None:
            credentials.protocol = faust.types.auth.AuthProtocol.SASL_PLAINTEXT
        return credentials
    return faust.SSLCredentials(context) if context is not None else None
