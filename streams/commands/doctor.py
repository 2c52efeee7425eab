"""`keytrail doctor`: is this deployment what it must be?"""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from streams.commands.terminal import NOT_ALL_WELL, console, needs, now_ms, print_json, print_table, settings

if TYPE_CHECKING:
    from streams.doctor.findings import Finding
    from streams.settings import Settings

_MARKS: Final = {"ok": "ok", "warning": "WARNING", "wrong": "WRONG", "skipped": "skipped"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,  # noqa: FBT002 - a switch
) -> None:
    """Look at files, log, index and service settings; say what is wrong and what to do. Ends with 1 if anything is."""
    needs("aiokafka", "elasticsearch", extra="monitor")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what the clients complain of is in the findings
    found = asyncio.run(_examine(settings()))
    if as_json:
        print_json([{name: getattr(finding, name) for name in finding.__struct_fields__} for finding in found])
    else:
        rows = [[_MARKS[one.verdict], one.area, one.subject, one.says, one.do] for one in found]
        print_table(("", "area", "what", "says", "do"), rows)
        counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in _MARKS}
        console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    raise typer.Exit(NOT_ALL_WELL if any(one.verdict == "wrong" for one in found) else 0)


async def _examine(chosen: "Settings") -> "list[Finding]":
    from cryptocore.clock import SystemClock
    from streams.doctor import files, index, log, monitor, service
    from streams.doctor.findings import examine
    from streams.running.worker import open_index

    clock = SystemClock()
    return await examine(
        [
            ("files", partial(files.look, chosen, now_ms())),
            ("log", partial(log.look, chosen, clock)),
            ("index", lambda: index.look(chosen, open_index(chosen), clock)),
            ("service", service.look),
            ("monitor", partial(monitor.look, chosen)),
        ]
    )
