"""`keytrail demo`: a simulated week of a company, told as it happens.

A composition root: it may import from everywhere. One process, nothing beyond loopback, nothing written outside --out.
"""

import asyncio
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from alerts.delivery import ConsoleNotifier
from alerts.thresholds import Limits
from cryptocore.care.terms import Classification
from reports import weekly
from streams.demo.company import ADMIN, HOSTS, KEKS, SERVICES, TEAMS, TENANTS, Owned
from streams.demo.fleet import PARTITIONS, Process, Rows
from streams.demo.simclock import MINUTE_US, WEEK, WEEK_END_US, WEEK_START_US
from streams.demo.stage import Act, Stage
from streams.demo.story import STORY
from streams.demo.vaultfolder import write_vault_logs
from streams.demo.world import Post, Tape, World
from streams.index.embedded import EmbeddedIndex
from streams.messages import CORRELATE, KEY_EVENTS, VAULT_ACCESS
from streams.pipeline import steps
from streams.replaying.batchfile import write_batches
from streams.replaying.outfolder import WORK, OutFolder
from streams.replaying.outputs import Summary, Totals, write
from streams.running.memory import MemoryShell
from streams.running.meters import duplicates
from streams.simulated import NOTE

_WAVE_MINUTES = 5
_SERVICES_A_WAVE = 5
_OWNERS_A_PROCESS = 3
# Every process leaves about this many events besides its uses: unwraps, each with an intent and an outcome.
_EVENTS_BESIDE_USES = 2 * _OWNERS_A_PROCESS
_TAIL_MINUTES = 80
_ACTS_A_WAVE = 3  # the smallest week has two waves a day
INTRODUCTION = (
    f"A company's week: {len(SERVICES)} services, {len(TENANTS)} tenants, {len(HOSTS)} key vaults, one stolen identity."
    "\nThe company is simulated; the cryptography, the sealed events, the vault's protocol and the monitor are real.\n"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How big the week is: waves of processes, uses a process makes in each of its minutes."""

    waves: int
    services: int
    uses_a_minute: int

    @classmethod
    def of(cls, events: int) -> "Plan":
        """Choose a plan for about this many key events; the story itself needs some hundreds."""
        waves = min(112, max(14, events // 500 // 7 * 7))
        services = _SERVICES_A_WAVE if events >= 14 * 500 else 2
        processes = waves * services
        uses = max(0, events // processes - _EVENTS_BESIDE_USES)
        return cls(waves, services, max(1, round(uses / (_WAVE_MINUTES - 1))))


class Demo:
    """One run.

    Args:
        out: folder for everything that is written; cleared of an earlier run's results.
        seed: the same seed gives the same alerts.
        events: about how many key events the fleet leaves behind.
    """

    def __init__(self, out: OutFolder, *, seed: int, events: int, console: Console) -> None:
        self.out = out
        self.console = console
        self.plan = Plan.of(events)
        out.clear()
        self.work = out.file(WORK)
        self.work.mkdir()
        self.world = World(self.work, seed=seed)
        self.index = EmbeddedIndex(out.file("index.sqlite"), simulated=True)
        self.shell = MemoryShell(
            steps=steps(self.world.registry, Limits()),
            partitions={KEY_EVENTS: PARTITIONS, VAULT_ACCESS: PARTITIONS, CORRELATE: PARTITIONS},
            index=self.index,
            notifiers=[ConsoleNotifier(console, clock=self.world.clock)],
        )
        self.tape = Tape(self.shell, self.world.clock)
        self.post = Post(self.world.server, self.shell, self.world.clock, random.Random(seed + 3))
        self.rows = Rows()
        self.emitted = 0
        self._pending = list(STORY)
        self._ticked_us = WEEK_START_US

    async def run(self) -> Summary:
        self.console.print(INTRODUCTION, soft_wrap=True)
        await self.index.ensure()
        await self.world.server.start()
        try:
            await self._create_keys()
            with self._progress() as progress:
                task = progress.add_task("", total=self.plan.waves, day=self._day())
                for number in range(self.plan.waves):
                    await self._wave(number)
                    progress.update(task, advance=1, day=self._day())
            await self._pass_until(WEEK_END_US + _TAIL_MINUTES * MINUTE_US)
            return await self._write()
        finally:
            await self.shell.close()
            await self.index.close()
            await self.world.close()
            shutil.rmtree(self.work, ignore_errors=True)

    def _progress(self) -> Progress:
        day = TextColumn("{task.fields[day]}")
        return Progress(day, BarColumn(), TaskProgressColumn(), console=self.console, transient=True)

    async def _create_keys(self) -> None:
        """Make the KEKs, and a labelled DEK for every owner: the week's first events."""
        for host, name in KEKS.values():
            self.world.server.vault(host).keys.create(name, self.world.clock.now_us())
        admin = Process(self.world, self.tape, ADMIN)
        await admin.start()
        for owned in self.world.company.owned:
            created = await admin.core.create_key(
                owned.owner, kek_alias=owned.kek_alias, actor="user:1001", purpose="onboarding"
            )
            await admin.core.activate(created.key_id, actor="user:1001", purpose="onboarding")
            integration = owned.owner.ref().integration_id
            label = (
                (Classification.CONFIDENTIAL, TEAMS[integration]) if integration else (Classification.RESTRICTED, ADMIN)
            )
            await admin.core.label(created.key_id, *label, actor="user:1001", purpose="onboarding")
        await self._settle([admin])
        self.emitted += await admin.stop()
        await self.shell.run()

    async def _wave(self, number: int) -> None:
        """Let a few services live for some minutes, and play the next act of the story if it is due."""
        start_us = WEEK_START_US + (WEEK_END_US - WEEK_START_US) * number // self.plan.waves
        await self._pass_until(start_us + MINUTE_US)
        due = [act for act in self._pending if act.at_us <= start_us][:_ACTS_A_WAVE]
        self._pending = self._pending[len(due) :]
        processes = [Process(self.world, self.tape, service) for service in self._on_shift(number, due)]
        for process in processes:
            await process.start()
        owned = {process: self._owners(process) for process in processes}
        for minute in range(_WAVE_MINUTES):
            if minute:
                uses = self.plan.uses_a_minute
                await asyncio.gather(*(p.work(self.rows, owned[p], uses) for p in processes))
            if minute == _WAVE_MINUTES // 2:
                await self._play(due, processes)
            for _ in range(2):
                await self._settle(processes)
                self.world.clock.advance(29)
            await self._tick()
        for process in processes:
            self.emitted += await process.stop()
        await self.shell.run()

    def _on_shift(self, number: int, due: list[Act]) -> list[str]:
        """Return the services of a wave: those in turn, and those the story needs."""
        count = self.plan.services
        turn = [SERVICES[(number * count + place) % len(SERVICES)] for place in range(count)]
        return list(dict.fromkeys([*(service for act in due for service in act.services), *turn]))

    def _owners(self, process: Process) -> list[Owned]:
        mine = [each for each in self.world.company.of_service(process.service) if each.owner not in self.world.revoked]
        return self.world.draw.sample(mine, min(_OWNERS_A_PROCESS, len(mine)))

    async def _play(self, due: list[Act], processes: list[Process]) -> None:
        async def wait(seconds: float) -> None:
            self.world.clock.advance(seconds - 1)
            await self._settle(processes)

        for act in due:
            self.console.print(f"[dim]{self._day()}  {act.title}[/]")
            said = await act.play(Stage(self.world, self.tape, self.rows, processes, wait))
            if said:
                self.console.print(f"[dim]           {said}[/]", highlight=False, soft_wrap=True)

    async def _settle(self, processes: list[Process]) -> None:
        """Let the linger pass, send what is committed, bring what the vaults logged, and let the monitor work."""
        self.world.clock.advance(1)
        for process in processes:
            await process.step()
        self.post.collect()
        self.post.deliver()
        await self.shell.run()

    async def _tick(self) -> None:
        now_us = self.world.clock.now_us()
        self._ticked_us = now_us
        await self.shell.tick(now_us // 1000)

    async def _pass_until(self, us: int) -> None:
        """Let minutes pass in which no process runs; vault records still arrive."""
        while self.world.clock.now_us() < us:
            self.world.clock.advance_to(min(us, self.world.clock.now_us() + MINUTE_US))
            self.post.deliver()
            await self._tick()

    def _day(self) -> str:
        names = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
        minutes = (self.world.clock.now_us() - WEEK_START_US) // MINUTE_US
        return f"{names[min(6, minutes // 1440)]} {minutes % 1440 // 60:02d}:{minutes % 60:02d}"

    async def _write(self) -> Summary:
        self.out.file("sources.json").write_bytes(self.world.registry.encode())
        write_batches(self.out.file("batches.ndjson"), self.tape.batches)
        write_vault_logs(self.out, self.post.delivered)
        totals = Totals(emitted=self.emitted, rejected=0, **duplicates(self.shell.owners))
        results = await write(self.out, self.index, totals, notes=[NOTE])
        await weekly.write(
            self.index,
            week=WEEK,
            tz="UTC",
            out=self.out.file("report.html"),
            simulated=True,
            prepared_ms=self.world.clock.now_ms(),
        )
        return results.summary


def next_steps(out: Path, keytrail: str) -> str:
    """Return what to try after the demo; `keytrail` is how this command was called."""
    again = (
        f"{keytrail} replay --vault-logs {out}/vault-logs --batches {out}/batches.ndjson "
        f"--sources {out}/sources.json --out again"
    )
    return (
        "Next:\n"
        f"  1  open the auditor's report     {out}/report.html\n"
        f"  2  judge the same files again    {again}\n"
        f"  3  try your own vault's logs     {keytrail} replay --vault-logs logs.json --out mine\n"
    )
