"""A service that records events until it is killed, and writes down which of them it was told are durable."""

import asyncio
import sys
from pathlib import Path

from cryptocore.emitter import Emitter
from cryptocore.signing import Signer
from cryptocore.testing import CountedIds
from tests.cryptocore.filelog import FileTransport
from tests.cryptocore.spooling import DEPLOYMENT, SERVICE, used


async def main(directory: Path, seed: str) -> None:
    """Eight callers; each appends an event's id to `durable` after `record` returned."""
    emitter = Emitter(
        spool_dir=directory / "spool",
        signer=Signer.from_file(directory / "signer"),
        deployment=DEPLOYMENT,
        service=SERVICE,
        transport=FileTransport(directory / "log"),
        partitions=3,
        linger_ms=10,
        heartbeat_s=0.05,
    )
    await emitter.open()
    ids = CountedIds(seed)
    with (directory / "durable").open("a", buffering=1) as durable:

        async def caller(number: int) -> None:
            while True:
                event = used(number, ids)
                await emitter.record(event)
                durable.write(event.id + "\n")

        await asyncio.gather(*map(caller, range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
