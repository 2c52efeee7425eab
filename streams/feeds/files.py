"""`keytrail vault-feed files`: folders of log exports into `vault-access`, once or watched.

A position per file says how far it was sent; it is kept after our log acknowledged everything before it. A crash
repeats at most the last part of a file and never loses a record.
"""

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import structlog
from msgspec.structs import replace

from cryptocore.clock import Clock, SystemClock
from streams.feeds.durable import Position, Positions
from streams.feeds.publisher import Publisher
from streams.feeds.running import run
from streams.feeds.settings import FeedSettings
from streams.feeds.tail import Part, follow, is_unchanged
from streams.settings import Settings
from streams.vaultlogs.files import SUFFIXES, FileReason, FileRejected, below

FEED: Final = "files"
POSITIONS: Final = "files.sqlite"
SETTLED_US: Final = 60 * 1_000_000
"""A document that does not parse is refused when nobody wrote to it for this long; until then it is being written."""
CUT_FOR_US: Final = 3_600 * 1_000_000
"""A last line that stays cut short this long is said to be so: Azure begins a new blob every hour."""
_TABULAR: Final = frozenset({".csv", ".tsv", ".xlsx"})
_log = structlog.get_logger(__name__)


def run_files(settings: Settings, feed: FeedSettings, paths: list[Path], *, watch: bool) -> int:
    """Read files and folders, once or until told to stop; returns how many items were refused.

    Raises:
        ConfigurationError, KafkaError: the log cannot be used as configured.
    """

    async def work(publisher: Publisher) -> None:
        positions = Positions(feed.state_dir / POSITIONS)
        try:
            reader = FolderFeed(paths, positions, publisher, SystemClock(), watch=watch)
            await reader.once()
            while watch:
                await asyncio.sleep(feed.files_poll_s)
                await reader.once()
        finally:
            positions.close()

    return run(settings, FEED, feed.log_level, work)


class FolderFeed:
    """Files and folders, looked through again and again."""

    def __init__(
        self, paths: Iterable[Path], positions: Positions, publisher: Publisher, clock: Clock, *, watch: bool
    ) -> None:
        self._paths = list(paths)
        self._positions = positions
        self._publisher = publisher
        self._clock = clock
        self._watch = watch
        self._unsupported: set[Path] = set()
        self._unreadable: set[Path] = set()

    async def once(self) -> None:
        """Send what is new in all files.

        Raises:
            KafkaError: our log refused for good.
        """
        for path in self._files():
            try:
                await self._read(path)
            except OSError as problem:
                if path not in self._unreadable:
                    self._unreadable.add(path)
                    self._publisher.tally.refuse(f"{path}", f"{FileReason.UNREADABLE}: {problem.strerror}")
            else:
                self._unreadable.discard(path)

    async def _read(self, path: Path) -> None:
        known = self._positions.get(path)
        status = path.stat()
        age_us = self._clock.now_us() - status.st_mtime_ns // 1000
        if known is not None and is_unchanged(known, status):
            if known.cut and not known.told and (age_us >= CUT_FOR_US or not self._watch):
                self._tell_cut(path, known)
            return
        for part in follow(path, known, settled=not self._watch or age_us >= SETTLED_US):
            await self._take(path, part)

    async def _take(self, path: Path, part: Part) -> None:
        if part.replaced:
            _log.info("file was replaced, reading it from its start", path=str(path))
        for item in part.found:
            if isinstance(item, FileRejected):
                place = f"{path}" + ("" if item.line is None else f" line {item.line}")
                self._publisher.tally.refuse(place, item.reason)
        records = (item.original for item in part.found if not isinstance(item, FileRejected))
        await self._publisher.publish(records, place=str(path))
        if part.position is not None:
            self._positions.save(path, part.position)
            if part.position.cut and not self._watch:
                self._tell_cut(path, part.position)

    def _tell_cut(self, path: Path, position: Position) -> None:
        self._publisher.tally.refuse(f"{path} line {position.lines + 1}", FileReason.CUT_SHORT)
        self._positions.save(path, replace(position, told=True))

    def _files(self) -> Iterator[Path]:
        """List files in the order of their names: a blob export's folders are named by the hour."""
        for path in self._paths:
            if not path.is_dir():
                yield path
                continue
            files, closed = below(path)
            yield from closed  # reading one says why it cannot be
            for file in files:
                suffix = (Path(file.stem).suffix if file.suffix.lower() == ".gz" else file.suffix).lower()
                if suffix in SUFFIXES:
                    yield file
                elif suffix in _TABULAR and file not in self._unsupported:
                    self._unsupported.add(file)
                    self._publisher.tally.refuse(str(file), FileReason.UNSUPPORTED_FILE)
