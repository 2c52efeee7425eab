"""Which alerts a simulated month gives: `python -m bench.detection_month [--seeds 10] [--short] [--write FOLDER]`.

Vault records and sealed batches of bench/month go through all agents over the log in memory, late, out of order, some
doubled and some lost. Every attack has to give exactly one alert, in time; ordinary work none but those that the month
names.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.month import files
from bench.month.live import Lived, live
from bench.month.plan import FULL, SHORT, Calendar
from bench.month.verdict import Verdict, judge
from bench.month.world import month
from streams.replaying.outfolder import FolderInUse


def run(calendar: Calendar, seed: int) -> tuple[Lived, Verdict]:
    """Draw a month, live through it, judge what it gave."""
    lived = asyncio.run(live(month(calendar, seed), seed))
    return lived, judge(lived)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.detection_month", description=__doc__)
    parser.add_argument("seed", nargs="*", type=int, help="a month each (1)")
    parser.add_argument("--seeds", type=int, metavar="N", help="months with the seeds 1 to N")
    parser.add_argument("--short", action="store_true", help="the short month of the tests")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the month as files for keytrail replay")
    chosen = parser.parse_args(arguments)
    seeds = list(range(1, chosen.seeds + 1)) if chosen.seeds else chosen.seed or [1]
    calendar = SHORT if chosen.short else FULL
    if chosen.write is not None:
        return _write(calendar, seeds[0], chosen.write)
    console, wrong = Console(width=None if sys.stdout.isatty() else 140), 0
    for seed in seeds:
        lived, verdict = run(calendar, seed)
        _tell(console, seed, lived, verdict)
        wrong += len(verdict.problems)
    console.print(f"{len(seeds)} months, {wrong} problems")
    return 1 if wrong else 0


def _write(calendar: Calendar, seed: int, folder: Path) -> int:
    try:
        files.write(month(calendar, seed), seed, folder)
    except FolderInUse as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


def _tell(console: Console, seed: int, lived: Lived, verdict: Verdict) -> None:
    drawn, uses = lived.month, ", ".join(f"{count:,} {status}" for status, count in lived.uses.items())
    console.print(
        f"[bold]seed {seed}[/]: {len(drawn.acts):,} accesses of {len(drawn.names)} principals, "
        f"{lived.records:,} records arrived; {lived.batches:,} batches, {lived.written['event']:,} key events; "
        f"{lived.seconds:.0f} s of one core, {(lived.records + lived.batches) / lived.seconds:,.0f} messages/s\n"
        f"KEK uses: {uses}",
        soft_wrap=True,
        highlight=False,
    )
    console.print(_attacks(verdict), _usual(verdict))
    for problem in verdict.problems:
        console.print(f"[bold red]{problem}[/]", soft_wrap=True)


def _attacks(verdict: Verdict) -> Table:
    table = Table("planted", "alert", "rule", "severity", "told after", "bound", "ok")
    for one in verdict.caught:
        alert = one.alerts[0] if one.alerts else {"number": "", "severity": ""}
        after = "" if one.after_s is None else _minutes(one.after_s)
        ok = one.problem or "yes"
        planted = one.planted
        table.add_row(
            planted.title, alert["number"], planted.told.rule, alert["severity"], after, _minutes(planted.bound_s), ok
        )
    return table


def _usual(verdict: Verdict) -> Table:
    table = Table("ordinary work", "rule", "who", "about", "expected", "seen")
    for expected, count in verdict.usual:
        told = expected.told
        span = str(expected.least) if expected.least == expected.most else f"{expected.least} to {expected.most}"
        table.add_row(expected.why, told.rule, told.principal, told.key, span, str(count))
    table.add_row("anything else", "", "", "", "0", str(len(verdict.surplus)))
    return table


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02} min"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
