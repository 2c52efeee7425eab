"""The emitter: events in, sealed batches out, and in between nothing that a crash could take away.

It owns the process's spool, tells the monitor that the process lives (chain.open, heartbeats, chain.close), and adopts
the spools of processes of the same service that are gone.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cryptocore import forking
from cryptocore.batch import ID_SIZE
from cryptocore.clock import Clock, SystemClock, rfc3339
from cryptocore.errors import AuditUnavailable, ConfigurationError
from cryptocore.events import AuditEvent, ChainOpen, Heartbeat
from cryptocore.lines.vocabulary import Durability, Operation, Outcome
from cryptocore.partitions import MAX_PARTITIONS, partition_of
from cryptocore.signing import Signer
from cryptocore.spool.adoption import close_chain
from cryptocore.spool.committer import Committer
from cryptocore.spool.entries import Entry, Form, control_entry, entry_of, new_id
from cryptocore.spool.file import Identity, Spool
from cryptocore.spool.lock import SpoolLock, spool_path
from cryptocore.spool.orphans import Orphans
from cryptocore.spool.release import Releases
from cryptocore.spool.sender import Sender, Sent, Transport

__all__ = ["Emitter", "Transport"]

_log = logging.getLogger(__name__)

LINGER_MS: Final = 250
HEARTBEAT_S: Final = 30
QUOTA_BYTES: Final = 512 * 1024 * 1024
ADOPT_EVERY_S: Final = 60
CLOSE_TIMEOUT_S: Final = 10.0
RELEASE_TIMEOUT_S: Final = 10.0
"""How long a caller waits for the broker under durability `broker` before `AuditUnavailable`."""
_BACKOFF_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
_US: Final = 1_000_000
_LOCK_TRIES: Final = 50


class Emitter:
    """One per process; a forked child that has it from its parent opens it anew, as another instance.

    Args:
        spool_dir: on a disk; made when missing.
        signer: of the service, with the role `events`.
        deployment: the registry's.
        service: the source that the signer speaks for.
        transport: where batches go; the emitter closes it.
        partitions: of the topic's generation.
        durability: `volume` releases a result when its event is on the disk, `broker` when the log has it.
        linger_ms: how long a row waits for others before it is sealed.
        heartbeat_s: between heartbeats.
        quota_bytes: lines and batches that may wait; a tenth is kept for outcomes, denials and the life cycle.
        background: False leaves everything that is due by the clock to whoever calls `step`, and uses no thread.
        host: named in events that carry none.
    """

    def __init__(
        self,
        *,
        spool_dir: Path,
        signer: Signer,
        deployment: bytes,
        service: str,
        transport: Transport,
        partitions: int,
        generation: int = 1,
        clock: Clock | None = None,
        ids: Callable[[int], bytes] = os.urandom,
        durability: str = Durability.VOLUME,
        linger_ms: int = LINGER_MS,
        heartbeat_s: float = HEARTBEAT_S,
        quota_bytes: int = QUOTA_BYTES,
        background: bool = True,
        host: str | None = None,
    ) -> None:
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise ConfigurationError(
                f"partitions: 1 to {MAX_PARTITIONS}, since a heartbeat names every chain in a line"
            )
        self._dir = spool_dir
        self._signer = signer
        self._transport = transport
        self._clock = clock or SystemClock()
        self._ids = ids
        self._linger_ms = linger_ms if durability == Durability.VOLUME else 0
        self._heartbeat_us = round(heartbeat_s * _US)
        self._quota = quota_bytes
        self._background = background
        self.host = host if host is not None or not background else socket.gethostname()
        self.identity = Identity(service, deployment, ids(ID_SIZE), generation, partitions, Durability(durability))
        self._orphans = Orphans(
            spool_dir,
            identity=lambda: self.identity,
            signer=signer,
            transport=transport,
            clock=self._clock,
            ids=ids,
            threads=background,
        )
        self._start_afresh()
        forking.renew_in_child(self)

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._releases = Releases() if self.identity.durability is Durability.BROKER else None
        self._spool: Spool | None = None
        self._committer: Committer | None = None
        self._sender: Sender | None = None
        self.sent = Sent()
        self.failures = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._next_beat_us = self._next_adoption_us = 0
        self._beat_sequence = -1
        self._rows = asyncio.Event()
        self._sealed = asyncio.Event()

    def after_fork(self) -> None:
        """Become another instance, not open yet; the parent's spool is neither used nor closed here."""
        forking.keep(self._spool, self._committer, self._sender, self._releases, self._tasks, self._orphans.abandon())
        self.identity = replace(self.identity, instance=self._ids(ID_SIZE))
        self._start_afresh()

    @property
    def background(self) -> bool:
        """Whether it works by itself; else whoever made it calls `step`."""
        return self._background

    @property
    def is_open(self) -> bool:
        return self._committer is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop on which it is open; no other may use it."""
        return None if self._committer is None else self._committer.loop

    @property
    def service(self) -> str:
        return self.identity.service

    @property
    def instance(self) -> bytes:
        return self.identity.instance

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def committed(self) -> Counter[tuple[Operation, Outcome]]:
        """How many single and outcome events this process has committed."""
        return Counter() if self._spool is None else self._spool.counted()

    @property
    def quota_bytes(self) -> int:
        return self._quota

    @property
    def spool_bytes(self) -> int:
        """How much waits for the log, in lines and batches of this process."""
        return 0 if self._spool is None else self._spool.used

    def oldest_unsent_at(self) -> str | None:
        """Say since about when something waits for the log; None when it has all."""
        return None if self._spool is None else self._spool.waits_since()

    def form(self, event: AuditEvent) -> Form:
        """Prepare a single event that will be written many times with another id and time.

        Raises:
            EventInvalid: a receiver would refuse it.
        """
        return Form(event, instance=self.identity.instance, partitions=self.identity.partitions)

    # --- recording -------------------------------------------------------------------------------------------------

    async def record(self, *events: AuditEvent) -> None:
        """Make events durable; together, in one transaction.

        Raises:
            EventInvalid: a receiver would refuse one of them; none was written.
            AuditUnavailable: none of them may be counted as durable.
        """
        identity = self.identity
        entries = [entry_of(event, instance=identity.instance, partitions=identity.partitions) for event in events]
        await self.commit(entries)

    def commit(self, entries: Sequence[Entry]) -> Awaitable[None]:
        """Make lines durable that are already written; the hot path, so no coroutine of its own.

        Raises:
            AuditUnavailable: none of them may be counted as durable; at once, or when awaited.
        """
        committer = self._committer
        if committer is None:
            raise AuditUnavailable("the emitter is not open", retryable=False)
        if os.getpid() != self._pid:
            raise AuditUnavailable("the emitter was opened before this process was forked", retryable=False)
        durable = committer.submit(entries)
        return durable if self._releases is None else self._released(durable, entries)

    async def _released(self, durable: Awaitable[None], entries: Sequence[Entry]) -> None:
        await durable
        assert self._spool is not None
        assert self._releases is not None
        rows = {entry.partition: self._spool.next_row(entry.partition) - 1 for entry in entries}
        if self._background:
            try:
                await self._releases.wait(rows, timeout_s=RELEASE_TIMEOUT_S)
            except AuditUnavailable:
                self._on_failed(1)
                raise
            return
        try:
            await self._send()
        except Exception as err:
            self._on_failed(1)
            raise AuditUnavailable("the log did not take the event", retryable=True) from err

    def _on_committed(self, _: Sequence[Entry]) -> None:
        assert self._spool is not None
        if self._spool.any_unsent():
            self._sealed.set()
        self._rows.set()

    def _on_failed(self, callers: int) -> None:
        self.failures += callers

    # --- life ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the spool, write `chain.open` into it, adopt what is orphaned, and start to send.

        Raises:
            AuditUnavailable: the spool cannot be written.
        """
        if self._spool is not None:
            raise ConfigurationError("an emitter is opened once")
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = await self._take_lock()
        self._spool = Spool(lock, signer=self._signer, identity=self.identity, linger_ms=self._linger_ms)
        self._committer = Committer(
            self._spool,
            clock=self._clock,
            quota_bytes=self._quota,
            threaded=self._background,
            committed=self._on_committed,
            failed=self._on_failed,
        )
        self._sender = Sender(
            self._spool,
            self._transport,
            call=self._committer.call,
            concurrent=self._background,
            sent=lambda unsent: None if self._releases is None else self._releases.sent(unsent),
            count=self.sent,
        )
        now_us = self._clock.now_us()
        opened = ChainOpen(
            id=new_id(self._ids), at=rfc3339(now_us), service=self.service, durability=self.identity.durability
        )
        await self._committer.submit([self._control(opened, now_us)])
        self._next_beat_us = now_us + self._heartbeat_us
        await self._adopt(now_us)
        if self._background:
            self._tasks = [self._start(self._pace()), self._start(self._keep_sending())]

    async def _take_lock(self) -> SpoolLock:
        """Lock the new spool; an adopter that looks for orphans may hold its lock for a moment."""
        path = spool_path(self._dir, self.service, self.instance)
        for _ in range(_LOCK_TRIES):
            lock = SpoolLock.take(path)
            if lock is not None:
                return lock
            await asyncio.sleep(0.01)
        raise AuditUnavailable("another process holds the spool of this instance", retryable=False)

    async def step(self) -> None:
        """Do what is due by the clock: seal, beat, adopt, and send everything that is sealed.

        Raises:
            Exception: what the transport raised; what was not sent stays and is sent by a later step.
        """
        await self._seal_and_beat()
        if self._sealed.is_set():
            self._sealed.clear()
            try:
                await self._send()
            except BaseException:
                self._sealed.set()
                raise

    async def close(self) -> None:
        """Send what is left, end the chain with `chain.close`, and remove the spool; what cannot be sent stays."""
        if self._committer is None or self._spool is None or os.getpid() != self._pid:
            return
        await self._committer.drain()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        try:
            await self._finish(self._spool, self._committer)
        finally:
            self._committer = None
            self._orphans.let_go()
            await self._transport.close()

    async def _finish(self, spool: Spool, committer: Committer) -> None:
        now_us = self._clock.now_us()
        await committer.call(spool.seal_due, now_ms=now_us // 1000, everything=True)
        await self._send_in_time()
        await committer.call(close_chain, spool, now_us=self._clock.now_us(), ids=self._ids)
        sent = await self._send_in_time()
        if not sent:
            _log.warning("spool %s stays for the next process of %s", spool.path.name, self.service)
        await committer.stop()
        spool.close(remove=sent)

    async def _send_in_time(self) -> bool:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._send()
        except Exception as err:  # noqa: BLE001 - closing ends in order, whatever the transport raised
            _log.warning("the log does not take what is left: %s", type(err).__name__)
            return False
        return True

    # --- what is due -----------------------------------------------------------------------------------------------

    async def _seal_and_beat(self) -> None:
        assert self._spool is not None
        assert self._committer is not None
        now_us = self._clock.now_us()
        due_ms = self._spool.next_due_ms()
        if due_ms is not None and due_ms <= now_us // 1000:
            await self._committer.call(self._spool.seal_due, now_ms=now_us // 1000)
        if now_us >= self._next_beat_us:
            self._next_beat_us = now_us + self._heartbeat_us
            await self._committer.call(self._beat, self._spool, now_us)
        if now_us >= self._next_adoption_us:
            await self._adopt(now_us)
        if self._orphans.waiting or self._spool.any_unsent():
            self._sealed.set()

    def _beat(self, spool: Spool, now_us: int) -> None:
        """Write a heartbeat, unless the last one is still on its way: one that waits says all that two would."""
        control = partition_of(self.instance, self.identity.partitions)
        waiting = spool.next_unsent(control)
        if waiting is not None and waiting.sequence <= self._beat_sequence:
            return
        beat = Heartbeat(
            id=new_id(self._ids),
            at=rfc3339(now_us),
            service=self.service,
            heads=spool.heads(),
            tallies=spool.tallies(),
            oldest_unsent_at=spool.oldest_unsent_at(),
        )
        spool.commit([self._control(beat, now_us)], now_ms=now_us // 1000)
        self._beat_sequence = spool.last_sequence(control)

    def _control(self, line: ChainOpen | Heartbeat, now_us: int) -> Entry:
        return control_entry(line, rfc3339(now_us), instance=self.instance, partitions=self.identity.partitions)

    async def _adopt(self, now_us: int) -> None:
        self._next_adoption_us = now_us + ADOPT_EVERY_S * _US
        await self._orphans.adopt(now_us)
        if self._orphans.waiting:
            self._sealed.set()

    async def _send(self) -> None:
        assert self._sender is not None
        await self._sender.send()
        await self._orphans.send()

    # --- background ------------------------------------------------------------------------------------------------

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(coroutine)

    async def _pace(self) -> None:
        """Seal after the linger, beat and adopt in time, whatever the transport does."""
        while True:
            rest_s = max(0.0, (self._next_beat_us - self._clock.now_us()) / _US)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):  # not wait_for, which on 3.11 may swallow a cancellation
                    await self._rows.wait()
                self._rows.clear()
                await asyncio.sleep(self._linger_ms / 1000)
            try:
                await self._seal_and_beat()
            except AuditUnavailable:
                _log.exception("nothing could be sealed")
                await asyncio.sleep(1)

    async def _keep_sending(self) -> None:
        failures = 0
        while True:
            await self._sealed.wait()
            self._sealed.clear()
            try:
                await self._send()
                failures = 0
            except Exception as err:  # noqa: BLE001 - whatever the transport raised, the batches stay and are sent again
                _log.warning("batches wait in the spool: %s: %s", type(err).__name__, err)
                self._sealed.set()
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
