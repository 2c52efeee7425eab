"""SIGKILL of a process that uses keys, at random points, again and again: no event of a result handed out is lost.

    python -m tests.cryptocore.crash_campaign --kills 300

Each child is forked with a core of its own, encrypts and decrypts with eight callers, and writes the id of each result
into a pipe once it has the result in hand. It is killed at a random moment: at times while it opens its spool, mostly
in the middle of commits, unwraps and sends. On durability `volume` the spool of the dead is adopted by its successors;
on `broker` the disk is lost with the process, so its spool is deleted and the log must hold everything by itself.
"""

import argparse
import asyncio
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cryptocore import CacheLimits, CryptoCore, Signer, acting
from cryptocore.events import AuditEvent, ChainOpen, Outcome
from tests.cryptocore.services import OWNER, adopt_what_is_left, lines_in, local_core

CALLERS = 8
LONGEST_S = 0.15
FIRST_RESULT_S = 30
EARLY_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Result:
    """What a campaign counted."""

    durability: str
    kills: int
    early: int
    handed_out: int
    lost: int
    doubled: int
    chains: int
    unknown: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.durability:6}  {self.kills} kills ({self.early} before a first result), {self.chains} chains, "
            f"{self.handed_out} results handed out, {self.lost} events lost, {self.doubled} doubled, "
            f"{self.unknown} open intents ended as unknown, {self.seconds:.0f} s"
        )


def campaign(directory: Path, durability: str, kills: int, *, seed: int) -> Result:
    """Kill so many children, then look into the log."""
    signer, chance, started = Signer.generate(), random.Random(seed), time.monotonic()
    make_key(directory, signer)
    handed_out: list[str] = []
    early = 0
    for number in range(kills):
        working = chance.random() > EARLY_SHARE
        told = run_and_kill(directory, signer, durability, number, working=working, after_s=chance.random() * LONGEST_S)
        early += not told
        handed_out += told
        if durability == "broker":
            shutil.rmtree(directory / "spool", ignore_errors=True)  # killed before it was made
    asyncio.run(adopt_what_is_left(directory, signer))

    lines = lines_in(directory, signer)
    uses = Counter(line.actor for line in lines if isinstance(line, AuditEvent) and line.phase == "single")
    arrived = {actor: count for actor, count in uses.items() if actor.startswith("job:result-")}
    return Result(
        durability=durability,
        kills=kills,
        early=early,
        handed_out=len(handed_out),
        lost=sum(f"job:result-{ident}" not in arrived for ident in handed_out),
        doubled=sum(count > 1 for count in arrived.values()),
        chains=sum(isinstance(line, ChainOpen) and line.continues is None for line in lines),
        unknown=sum(isinstance(line, AuditEvent) and line.outcome is Outcome.UNKNOWN for line in lines),
        seconds=time.monotonic() - started,
    )


def make_key(directory: Path, signer: Signer) -> None:
    """Make the owner's key, so that every child finds one."""
    core = local_core(directory, signer)
    core.sync.encrypt(b"x", owner=OWNER, record="r", actor="job:first", purpose="p", create_missing=True)
    core.sync.close()


def run_and_kill(
    directory: Path, signer: Signer, durability: str, number: int, *, working: bool, after_s: float
) -> list[str]:
    """Fork a child, let it work, kill it: so long after its first result when `working`, else after the fork.

    Returns:
        The ids of the results that it had in hand.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            core = local_core(directory, signer, durability=durability, limits=CacheLimits(dek_max_uses=5))
            asyncio.run(work(core, writing, number))
        finally:
            os._exit(1)
    os.close(writing)
    if working:
        select.select([reading], [], [], FIRST_RESULT_S)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().split(b"\n")[:-1]  # what follows the last newline was not written whole
    if not os.WIFSIGNALED(status):
        sys.exit("a child ended by itself: see its traceback above")
    return [ident.decode() for ident in told]


async def work(core: CryptoCore, pipe: int, number: int) -> None:
    """Use keys until killed; every fifth use unwraps anew, so that kills also fall into calls to the vault."""

    async def caller(place: int) -> None:
        serial = 0
        stored = b""
        while True:
            ident = f"{number}-{place}-{serial}"
            with acting(actor=f"job:result-{ident}", purpose="campaign"):
                if serial % 2 == 0:
                    stored = await core.encrypt(b"token", owner=OWNER, record="r")
                else:
                    await core.decrypt(stored, owner=OWNER, record="r")
            os.write(pipe, ident.encode() + b"\n")
            serial += 1

    await asyncio.gather(*map(caller, range(CALLERS)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    lost = 0
    for durability in ("volume", "broker"):
        with tempfile.TemporaryDirectory(prefix="keytrail-crash-") as directory:
            result = campaign(Path(directory), durability, chosen.kills, seed=chosen.seed)
        sys.stdout.write(f"{result}\n")
        sys.stdout.flush()
        lost += result.lost + result.doubled
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
