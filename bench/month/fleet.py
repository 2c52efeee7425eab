"""The services that use KEKs: jobs that start, work for some minutes and stop; a ledger by day; keys made and rotated.

Each is told twice, by sealed batches and by the vault's records. Administration is drawn first, because all others use
the keys as it left them.
"""

import random
from collections.abc import Iterator
from typing import Final

from bench.month.acts import Act, us
from bench.month.calls import Caller, Made, address_of
from bench.month.chain import Log, Process
from bench.month.keytable import ACTIVE_REVISION, OWNERS, KekVersions, Key, Standing, draw_keys
from bench.month.plan import DAY_S, HOUR_S, KEKS, OUTAGE_S, OWN_ROTATION, Calendar
from cryptocore.events import KeyRef, Operation, Reason
from cryptocore.keys import KeyState
from cryptocore.signing import Signer

ADMIN: Final = "key-admin"
SERVICES: Final = (ADMIN, *OWNERS)
BY_DAY: Final = "ledger"
WEEKLY: Final = "archiver"
_ROTATED: Final = 5
_RETURNS_S: Final = 50


class Fleet:
    """What the services of ours do in the month."""

    def __init__(self, calendar: Calendar, seed: int) -> None:
        self._calendar = calendar
        self.draw = random.Random(f"fleet {seed}")
        self.signers = {name: Signer.from_private_bytes(self.draw.randbytes(32)) for name in SERVICES}
        self.log = Log()
        self.acts: list[Act] = []
        self.caller = Caller(self.draw, self.acts.append)
        self.keys = draw_keys(self.draw)
        self.keks = KekVersions(calendar, self.draw)

    def process(self, service: str, at_s: float, *, adopts: Process | None = None) -> Process:
        """Start a process; its first request to each vault is answered with a challenge."""
        way_us = us(self.draw.uniform(0.05, 2))
        outage_us = us(self._calendar.outage_at * DAY_S), us(self._calendar.outage_at * DAY_S + OUTAGE_S)
        process = Process(
            service,
            self.signers[service],
            self.draw,
            self.log,
            way_us=way_us,
            outage_us=outage_us if service == BY_DAY else (0, 0),
        )
        process.open(us(at_s), adopts=adopts)
        vaults = {KEKS[alias][0] for _, alias, _ in [OWNERS[service]]} if service in OWNERS else {"kv-prod"}
        for vault in sorted(vaults):
            self.acts.append(
                Act(
                    at_us=us(at_s + 1),
                    principal="",
                    vault=vault,
                    operation="Authentication",
                    status=401,
                    address=address_of(service),
                )
            )
        return process

    def of(self, service: str) -> list[Key]:
        return [key for key in self.keys if key.service == service]

    # Keys are made and rotated

    def administer(self) -> None:
        """Make all keys in the first minutes; give some of them new versions later."""
        process = self.process(ADMIN, 60)
        at_s = 70.0
        for key in self.keys:
            at_s = self._make(process, at_s, key, 1)
        process.close(us(at_s + 2))
        for day in self._calendar.dek_rotations:
            at_s = day * DAY_S + 6 * HOUR_S
            process = self.process(ADMIN, at_s)
            at_s += 5
            for key in self.draw.sample(self._rotated(), _ROTATED):
                at_s = self._rotate(process, at_s, key)
            process.close(us(at_s + 2))
        at_s = self._calendar.kek_through_keytrail * DAY_S + 11 * HOUR_S
        process = self.process(ADMIN, at_s)
        process.close(self.caller.rotate_kek(process, us(at_s + 4), OWN_ROTATION) + us(3))

    def _rotated(self) -> list[Key]:
        """All but the first key of each service: one of those will be revoked."""
        return [key for key in self.keys if key.service != WEEKLY and key != self.of(key.service)[0]]

    def wrap_new(self, process: Process, at_s: float, key: Key, standing: Standing) -> float:
        """Wrap a DEK and unwrap it again, as every new version is."""
        end_us = self.caller.call(process, us(at_s), Operation.WRAP, key, standing)
        end_us = self.caller.call(process, end_us + 20_000, Operation.UNWRAP, key, standing)
        return end_us / 1_000_000 + 0.05

    def _make(self, process: Process, at_s: float, key: Key, version: int) -> float:
        kek_version = self.keks.at(key.alias, at_s)
        fresh = Standing(version, 1, kek_version, KeyState.PRE_ACTIVATION)
        at_s = self.wrap_new(process, at_s, key, fresh)
        active = Standing(version, ACTIVE_REVISION, kek_version, KeyState.ACTIVE)
        self.tell(process, at_s, Operation.CREATE, key, fresh)
        self.tell(process, at_s, Operation.ACTIVATE, key, active)
        key.history.append((at_s, active))
        return at_s + 0.5

    def _rotate(self, process: Process, at_s: float, key: Key) -> float:
        old = key.at(at_s)
        superseded = Standing(old.version, old.revision + 1, old.kek_version, KeyState.ACTIVE)
        self.tell(process, at_s, Operation.ROTATE, key, superseded, reason=Reason.SCHEDULED)
        return self._make(process, at_s + 0.1, key, old.version + 1)

    def tell(
        self,
        process: Process,
        at_s: float,
        operation: Operation,
        key: Key,
        standing: Standing,
        *,
        reason: Reason | None = None,
    ) -> None:
        """Write a life-cycle event."""
        event = self.caller.event(process, us(at_s), operation, key, key.ref(standing), reason=reason)
        process.say(us(at_s), [event])

    # Keys are used

    def work(self) -> None:
        """All jobs of the month, and the ledger's days."""
        for service in OWNERS:
            for at_s in self._starts(service):
                process = self.process(service, at_s)
                process.close(us(self._use(process, at_s + 2, self.draw.randint(1, 3)) + 1))
        for day in range(self._calendar.days):
            self._ledger_day(day)

    def _starts(self, service: str) -> Iterator[float]:
        days = range(self._calendar.days)
        if service == BY_DAY:
            return
        if service == WEEKLY:
            yield from (day * DAY_S + 1.2 * HOUR_S for day in days if day % 7 == 0)
            return
        each_s = DAY_S / self._calendar.jobs_a_day
        for day in days:
            for number in range(self._calendar.jobs_a_day):
                yield day * DAY_S + 900 + number * each_s + self.draw.uniform(0, each_s - 900)

    def _use(self, process: Process, at_s: float, count: int) -> float:
        """Take some DEKs out of the vault and decrypt rows with them; returns when it is done."""
        for key in self.draw.sample(self.of(process.service), count):
            standing = key.at(at_s)
            if standing.state is not KeyState.ACTIVE:
                continue
            at_s = self.caller.call(process, us(at_s), Operation.UNWRAP, key, standing) / 1_000_000
            ref = key.ref(standing)
            for _ in range(self.draw.randint(2, 6)):
                at_s += self.draw.uniform(0.05, 25)
                self._decrypt(process, at_s, key, ref)
        return at_s

    def _decrypt(self, process: Process, at_s: float, key: Key, ref: KeyRef) -> None:
        process.say(us(at_s), [self.caller.event(process, us(at_s), Operation.DECRYPT, key, ref)])

    def _ledger_day(self, day: int) -> None:
        """One process in the morning, one in the afternoon; on one day the afternoon's dies and another takes over."""
        opens_s, changes_s, shuts_s = (day * DAY_S + hours * HOUR_S for hours in self._calendar.ledger_hours)
        morning = self.process(BY_DAY, opens_s)
        self._serve(morning, opens_s + 10, changes_s)
        afternoon = self.process(BY_DAY, changes_s - 20)
        morning.close(us(changes_s))
        at_s = float(changes_s)
        if day == self._calendar.crash:
            at_s = self._serve(afternoon, at_s, (changes_s + shuts_s) / 2)
            key = self.of(BY_DAY)[0]
            self.caller.call(afternoon, us(at_s + 10), Operation.UNWRAP, key, key.at(at_s), crashes=True)
            at_s += _RETURNS_S
            afternoon = self.process(BY_DAY, at_s, adopts=afternoon)
            at_s += 5
        self._serve(afternoon, at_s, shuts_s)
        afternoon.close(us(shuts_s))

    def _serve(self, process: Process, at_s: float, until_s: float) -> float:
        while True:
            pause_s = self.draw.uniform(300, 2_400)
            if at_s + pause_s > until_s - 300:
                return at_s
            at_s = self._use(process, at_s + pause_s, 1)

    def last_made(self, service: str, at_s: float, count: int) -> list[Made]:
        """The calls of a service that a reader of the log saw last before a moment."""
        mine = [made for made in self.caller.made if made.process.service == service and made.at_us <= us(at_s)]
        return sorted(mine, key=lambda made: made.at_us)[-count:]
