"""The index that a command reads: a file of a demo or a replay, or Elasticsearch as the settings say."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.terminal import UNREACHABLE, fail, needs, settings

if TYPE_CHECKING:
    from streams.index.port import EventIndex

IndexFile = Annotated[
    Path | None,
    typer.Option("--index", help="index.sqlite of a demo or replay; without it, Elasticsearch by KEYTRAIL_*."),
]


@contextmanager
def index_answers(file: Path | None) -> Iterator[None]:
    """Turn an index that is not there into a sentence."""
    from streams.index.port import IndexUnavailable

    if file is not None and not file.is_file():
        raise fail(f"no such file: {file}")
    try:
        yield
    except IndexUnavailable as problem:
        raise fail(f"the index does not answer: {problem}", UNREACHABLE) from None
    except sqlite3.DatabaseError as problem:
        raise fail(f"{file} is no index of a demo or replay: {problem}") from None


@asynccontextmanager
async def opened(file: Path | None) -> "AsyncIterator[EventIndex]":
    """Open the index and let it go in the end."""
    index: EventIndex
    if file is None:
        needs("elasticsearch", "pydantic_settings", extra="monitor")
        from streams.running.worker import open_index

        index = open_index(settings())
    else:
        from streams.index.embedded import EmbeddedIndex

        index = EmbeddedIndex(file)
    try:
        yield index
    finally:
        await index.close()
