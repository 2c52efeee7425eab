"""`make faults`: a monitor and its services at work while everything under them breaks, by a seeded schedule.

Started as `python -m tests.faults.campaign --seed 1 --minutes 8`. Ends with 1 when a guarantee did not hold.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.checks import Results, check
from tests.faults.deployment import Servers, deployment, servers
from tests.faults.processes import Processes
from tests.faults.storm import FAULTS, Storm
from tests.faults.worker import Over

MOST_MINUTES = 20.0
AWAY = "Elasticsearch: away, an attack meanwhile"
SHORT_S, LONG_S = 45.0, 150.0
LONG_FROM_MIN = 5.0
_NAMES = {Over.FAUST: "Faust", Over.PLAIN: "plain aiokafka"}
_FIRST = ("stolen key table: stranger, copied call id", "sealed batch that never arrives")
"""What takes a minute or two until it is told."""
_QUIET = ("poison in both inputs", "batches delivered twice", "changed line, forked chain")


async def campaign(
    own: Servers,
    folder: Path,
    *,
    seed: int,
    minutes: float,
    chosen: Sequence[str] = tuple(FAULTS),
    over: Over = Over.FAUST,
    chatty: bool = False,
) -> "Report":
    """Break things for so many minutes, each at least once, then look at what is left."""
    draw = random.Random(seed)
    began = time.monotonic()

    def say(name: str) -> None:
        if chatty:
            print(f"{time.monotonic() - began:6.1f} s  {name}", file=sys.stderr, flush=True)  # noqa: T201

    async with deployment(own, folder, draw) as made:
        with Processes(folder, made.environment(), over) as processes:
            storm = Storm(made, processes)
            report = Report(seed, storm)
            await storm.begin()
            for name in _FIRST:
                say(name)
                await FAULTS[name](storm)
                report.count(name)
            await storm.attack()
            say(AWAY)
            await _away(storm, report, SHORT_S if minutes < LONG_FROM_MIN else LONG_S)
            for name in schedule(chosen, draw):
                enough = time.monotonic() - began > minutes * 60
                if enough and not set(chosen) - set(report.faults):
                    break
                if enough and report.faults[name]:
                    continue
                say(name)
                await FAULTS[name](storm)
                report.count(name)
            say("the end")
            await storm.attack()
            await storm.end()
            say("looking")
            await check(storm, report.results)
            report.seconds = time.monotonic() - began
    return report


def schedule(chosen: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Every fault in some order, again and again in another."""
    while True:
        yield from draw.sample(chosen, len(chosen))


async def _away(storm: Storm, report: "Report", seconds: float) -> None:
    async def meanwhile() -> None:
        for name in _QUIET:
            await FAULTS[name](storm)
            report.count(name)

    await storm.index_away(seconds, meanwhile)
    report.count(AWAY)


class Report:
    """What was survived, and what was looked at."""

    def __init__(self, seed: int, storm: Storm) -> None:
        self.seed = seed
        self.storm = storm
        self.faults: Counter[str] = Counter()
        self.results = Results()
        self.seconds = 0.0

    def count(self, fault: str) -> None:
        self.faults[fault] += 1

    def table(self) -> str:
        """Two tables of Markdown."""
        vault, processes = self.storm.deployment.vault, self.storm.processes
        rows = [f"| {name} | {self.faults[name]} |" for name in (*FAULTS, AWAY) if self.faults[name]]
        rows += [
            f"| vault records late, twice, never, all out of order | {vault.late}, {vault.twice}, {len(vault.lost)} |",
            f"| batches sent again, messages of poison | {self.storm.repeated}, {self.storm.poisoned} |",
            f"| workers that gave up by themselves and were started again | {processes.given_up.total()} |",
        ]
        looked = [f"| {what} | {words} |" for what, words in self.results.said.items()]
        return "\n".join(
            [
                f"seed {self.seed}, {self.seconds:.0f} s, workers over {_NAMES[self.storm.processes.over]}",
                "",
                "| fault | times |",
                "|---|---|",
                *rows,
                "",
                "| looked at afterwards | |",
                "|---|---|",
                *looked,
            ]
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=(__doc__ or "").strip())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=8.0, help=f"of faults, {MOST_MINUTES:.0f} at most")
    parser.add_argument("--only", default="", help="faults whose name has this in it, beside those of every campaign")
    parser.add_argument("--plain", action="store_true", help="workers over plain aiokafka in place of Faust")
    parser.add_argument("--keep", type=Path, help="an empty folder for what processes leave behind, to look at")
    asked = parser.parse_args()
    if not 0 < asked.minutes <= MOST_MINUTES:
        parser.error(f"--minutes is more than 0 and at most {MOST_MINUTES:.0f}")
    with tempfile.TemporaryDirectory(prefix="keytrail-faults-") as temporary, servers() as own:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(
            campaign(
                own,
                folder,
                seed=asked.seed,
                minutes=asked.minutes,
                chosen=[name for name in FAULTS if asked.only in name],
                over=Over.PLAIN if asked.plain else Over.FAUST,
                chatty=True,
            )
        )
    print(report.table())  # noqa: T201
    return 1 if report.results.differences else 0


if __name__ == "__main__":
    sys.exit(main())
