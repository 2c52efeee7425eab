"""The key-state topic: a revocation reaches every process within milliseconds, not at its next look into the store.

Whoever relays the event of a transition publishes its signed record after it. Every process follows the topic; a
message can only take a use away or cause another look into the store, so nobody who writes the topic makes a key
usable. When the topic is away nothing is lost but time: `state_recheck` and `state_max_age` hold without it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn, Protocol

from cryptocore.cache import KeyCache
from cryptocore.clock import Clock
from cryptocore.errors import ConfigurationError, Failed, RecordInvalid
from cryptocore.records import KeyRecord, SignedRecord, verify_record
from cryptocore.registry import Registry
from cryptocore.revocations import Heard

_log = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
AGAIN_MAX_S: Final = 30.0
WAITING: Final = 10_000
"""Records kept for a topic that is away; beyond, the oldest go: every process looks into the store anyway."""
LAST_WORD_S: Final = 3.0
"""How long a process that ends still tries to publish."""
MAX_VALUE: Final = 4_096
_COMPLAIN_EVERY_S: Final = 60.0

Take = Callable[[bytes | None, bytes | None, int | None], None]
"""Takes a message: key, value, and the broker's append time in ms where the broker set it."""


class KeyStateTopic(Protocol):
    """Where records are published and followed."""

    async def publish(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Send keys and values, in this order.

        Raises:
            Failed: not all of them were taken.
        """

    async def follow(self, ready: Callable[[], None], take: Take) -> NoReturn:
        """Hand over every message from now on; call `ready` once nothing published later can be missed.

        Raises:
            Failed: the topic does not answer.
        """

    async def close(self) -> None:
        """Let go of connections."""


class KeyStates:
    """What one process tells of transitions, and what it hears.

    Args:
        topic: None for a process that works without.
        registry: whose signers with role `keys` are believed.
        cache: of this process.
    """

    def __init__(self, topic: KeyStateTopic | None, *, registry: Registry, cache: KeyCache, clock: Clock) -> None:
        self._topic = topic
        self._registry = registry
        self._cache = cache
        self._clock = clock
        self._waiting: dict[bytes, KeyRecord] = {}
        self._values: dict[bytes, bytes] = {}
        self._told = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._complained_at = float("-inf")
        self.rejected = 0
        """Messages that were not to be believed."""
        self.following = False
        """Whether what is published now is heard here."""

    def tell(self, records: Iterable[SignedRecord]) -> None:
        """Publish records by and by; never waits, never fails."""
        if self._topic is None:
            return
        for signed in records:
            record = KeyRecord.decode(signed.record)
            key = record.topic_key()
            known = self._waiting.get(key)
            if known is None or known.revision < record.revision:
                self._waiting.pop(key, None)
                self._waiting[key], self._values[key] = record, signed.encode()
            if len(self._waiting) > WAITING:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest], self._values[oldest]
        self._told.set()

    def take(self, key: bytes | None, value: bytes | None, append_ms: int | None) -> None:
        """Judge one message of the topic."""
        try:
            record = self._believed(key, value, append_ms)
        except RecordInvalid as error:
            self.rejected += 1
            self._complain("a message of the key-state topic is not believed: %s: %s", error.field, error.problem)
            return
        if record is not None:
            self._cache.restrict(record, Heard.TOPIC, self._clock.monotonic())

    def start(self) -> None:
        """Follow and publish in the background."""
        if self._topic is not None and not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._follow(self._topic)), loop.create_task(self._publish(self._topic))]

    async def stop(self) -> None:
        """End the background work; publish what waits, as far as it goes."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._topic is not None:
            with contextlib.suppress(TimeoutError, Failed, ConfigurationError):
                async with asyncio.timeout(LAST_WORD_S):
                    await self._publish_waiting(self._topic)
            await self._topic.close()

    def _believed(self, key: bytes | None, value: bytes | None, append_ms: int | None) -> KeyRecord | None:
        """Verify a message; None for a tombstone, which says nothing.

        Raises:
            RecordInvalid: names the field.
        """
        if value is None:
            return None
        if len(value) > MAX_VALUE:
            raise RecordInvalid("record", "too long")
        signed = SignedRecord.decode(value)
        at_ms = KeyRecord.decode(signed.record).changed_at_ms if append_ms is None else append_ms
        record = verify_record(signed, self._registry, at_ms=at_ms)
        if key != record.topic_key():
            raise RecordInvalid("key_id", "the message has another key")
        return record

    def _ready(self) -> None:
        """Look into the store anew for whatever was read before the topic was followed."""
        self.following = True
        self._cache.recheck(self._clock.monotonic())

    async def _follow(self, topic: KeyStateTopic) -> None:
        pause = AGAIN_S
        while True:
            try:
                await topic.follow(self._ready, self.take)
            except (Failed, ConfigurationError) as error:
                pause = AGAIN_S if self.following else min(2 * pause, AGAIN_MAX_S)
                self.following = False
                self._complain("the key-state topic is not followed, states are looked up in the store: %s", error)
                await asyncio.sleep(pause)

    async def _publish(self, topic: KeyStateTopic) -> None:
        pause = AGAIN_S
        while True:
            await self._told.wait()
            try:
                await self._publish_waiting(topic)
            except (Failed, ConfigurationError) as error:
                self._complain("states of keys wait for the key-state topic: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, AGAIN_MAX_S)
            else:
                pause = AGAIN_S

    async def _publish_waiting(self, topic: KeyStateTopic) -> None:
        self._told.clear()
        sending = dict(self._waiting)
        try:
            if sending:
                await topic.publish([(key, self._values[key]) for key in sending])
        except BaseException:
            self._told.set()
            raise
        for key, record in sending.items():
            if self._waiting.get(key) is record:
                del self._waiting[key], self._values[key]

    def _complain(self, message: str, *values: object) -> None:
        """Log a warning, once a minute at most."""
        now = self._clock.monotonic()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            _log.warning(message, *values)
