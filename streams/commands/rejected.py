"""`keytrail rejected`: what no agent could take, why, and sending it back once the cause is gone."""

import asyncio
import base64
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.terminal import (
    NOT_ALL_WELL,
    console,
    fail,
    needs,
    plainly,
    print_json,
    print_table,
    said_ms,
    settings,
)

if TYPE_CHECKING:
    from streams.rejected import Rejected
    from streams.settings import Settings

rejected = typer.Typer(help="Messages that no agent could take.", no_args_is_help=True)

Since = Annotated[str, typer.Option(help="Rejected since: a date, an RFC 3339 time, or how long ago (36h).")]
Finding = Annotated[str | None, typer.Option(help="Only those of this finding, for example signer_unknown.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Number = Annotated[int, typer.Argument(min=0, help="Its number, from `rejected list`.")]


@rejected.command("list")
def list_(since: Since = "7d", finding: Finding = None, as_json: AsJson = False) -> None:  # noqa: FBT002 - a switch
    """List them, oldest first: number, when, where it came from, and the reason."""
    found = [(number, kept) for number, kept in _read(since) if finding is None or kept.finding == finding]
    if as_json:
        print_json([_told(number, kept) for number, kept in found])
        return
    if not found:
        console.print("Nothing was rejected in that time.")
        return
    rows = [_row(_told(number, kept)) for number, kept in found]
    print_table(("number", "rejected at", "from", "finding", "field", "problem", "bytes"), rows)


@rejected.command()
def show(number: Number) -> None:
    """Print one as JSON with what was kept of its bytes (base64): a file for whoever looks into it."""
    kept = _one(number)
    told = _told(number, kept)
    headers = [[name, base64.b64encode(value).decode()] for name, value in kept.headers]
    key = None if kept.key is None else base64.b64encode(kept.key).decode()
    print_json(told | {"key": key, "headers": headers, "value": base64.b64encode(kept.value).decode(), "cut": kept.cut})


@rejected.command()
def requeue(
    numbers: Annotated[list[int], typer.Argument(min=0, help="Numbers from `rejected list`.")] = [],  # noqa: B006 - typer's way to say "none"
    finding: Finding = None,
    since: Since = "7d",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002 - a switch
) -> None:
    """Send messages back to the topic and partition they came from, once what was wrong is mended."""
    if bool(numbers) == (finding is not None):
        raise fail("name the numbers to send back, or a --finding whose messages all go")
    wanted = set(numbers)
    found = [
        (number, kept)
        for number, kept in _read("1970-01-01" if numbers else since)
        if number in wanted or kept.finding == finding
    ]
    missing = wanted - {number for number, _ in found}
    if missing:
        raise fail(f"not in the topic: {', '.join(map(str, sorted(missing)))}")
    if not found:
        console.print("Nothing to send back.")
        return
    if not yes and not typer.confirm(f"Send {len(found)} messages back?"):
        raise typer.Exit(NOT_ALL_WELL)
    chosen = settings()
    with plainly(kafka=chosen.kafka_bootstrap):
        refused = asyncio.run(_requeue(chosen, found))
    raise typer.Exit(NOT_ALL_WELL if refused else 0)


async def _requeue(chosen: "Settings", found: "list[tuple[int, Rejected]]") -> int:
    from streams.log.rejects import requeue as send_back

    refused = 0
    async for number, kept, became in send_back(chosen, found):
        if isinstance(became, int):
            console.print(f"{number} is {kept.topic}/{kept.partition}@{became}", markup=False)
        else:
            refused += 1
            console.print(f"{number} {became}", markup=False)
    return refused


def _read(since: str) -> "list[tuple[int, Rejected]]":
    needs("aiokafka", extra="monitor")
    from streams.log.rejects import read

    since_ms = said_ms(since, otherwise=f"--since {since}: not a date, an RFC 3339 time or how long ago (36h)")
    chosen = settings()

    async def everything() -> "list[tuple[int, Rejected]]":
        return [found async for found in read(chosen, since_ms=since_ms)]

    with plainly(kafka=chosen.kafka_bootstrap):
        return asyncio.run(everything())


def _one(number: int) -> "Rejected":
    found = dict(_read("1970-01-01")).get(number)
    if found is None:
        raise fail(f"not in the topic: {number}")
    return found


def _told(number: int, kept: "Rejected") -> dict[str, Any]:
    from cryptocore.clock import rfc3339_ms

    return {
        "number": number,
        "rejected_at": rfc3339_ms(kept.rejected_ms),
        "from": f"{kept.topic}/{kept.partition}@{kept.offset}",
        "finding": kept.finding,
        "field": kept.field,
        "problem": kept.problem,
        "value_bytes": kept.value_bytes,
        "value_sha256": kept.value_sha256,
    }


def _row(told: dict[str, Any]) -> list[str]:
    order = ("number", "rejected_at", "from", "finding", "field", "problem", "value_bytes")
    return [str(told[name]) for name in order]
