"""`keytrail reindex`: the index built again from the log."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.terminal import NOT_ALL_WELL, UNREACHABLE, console, fail, needs, plainly, settings

if TYPE_CHECKING:
    from streams.settings import Settings
    from streams.upkeep.reindex import Rebuilt


def reindex(
    into: Annotated[
        str | None, typer.Option(help="Prefix of the index to build; without it that of KEYTRAIL_INDEX_PREFIX.")
    ] = None,
) -> None:
    """Build the index again from the topics, for as far back as they go. Safe to repeat, and beside running workers."""
    needs("aiokafka", "elasticsearch", extra="monitor")
    from cryptocore.errors import FormatError
    from streams.index.port import IndexUnavailable

    chosen = settings()
    if into is not None:
        chosen = settings(index_prefix=into)
    try:
        with plainly(kafka=chosen.kafka_bootstrap):
            rebuilt = asyncio.run(_rebuild(chosen))
    except FormatError as problem:
        raise fail(str(problem)) from None
    except IndexUnavailable as problem:
        raise fail(f"{problem}; run it again: what is written stays", UNREACHABLE) from None
    console.print(f"{rebuilt.messages} messages read, {rebuilt.documents} documents written or there already")
    if rebuilt.left_out:
        console.print(
            f"{rebuilt.left_out} revisions left out: the log begins too close before them (docs/operations.md)"
        )
    if rebuilt.refused:
        console.print(f"{rebuilt.refused} documents refused by the index", style="bold red")
    raise typer.Exit(NOT_ALL_WELL if rebuilt.refused else 0)


async def _rebuild(chosen: "Settings") -> "Rebuilt":
    from streams.index.writer import OwnerKey
    from streams.running.worker import open_index, pipeline_of
    from streams.upkeep.reindex import rebuild

    def tell(key: "OwnerKey", so_far: "Rebuilt") -> None:
        console.print(f"{key[0]}/{key[1]}: {so_far.documents} documents so far", markup=False)

    index = open_index(chosen)
    try:
        await index.ensure()
        return await rebuild(chosen, pipeline_of(chosen), index, progress=tell)
    finally:
        await index.close()
