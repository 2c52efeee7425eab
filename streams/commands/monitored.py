"""The monitor's index beside a core: where a command may ask it, and what it then knows of keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.indexed import opened

if TYPE_CHECKING:
    from streams.index.port import EventIndex

Monitor = Annotated[
    bool,
    typer.Option("--monitor", help="Ask the monitor's index, Elasticsearch as KEYTRAIL_* says.", show_default=False),
]
IndexCopy = Annotated[
    Path | None, typer.Option("--index", help="Ask index.sqlite of a demo or a replay.", show_default=False)
]


@asynccontextmanager
async def monitored(file: Path | None, *, monitor: bool) -> "AsyncIterator[EventIndex | None]":
    """Open the index that was named; None when none was."""
    if file is None and not monitor:
        yield None
        return
    async with opened(file) as index:
        yield index
