"""`keytrail vault-feed log-analytics`: the tables of a workspace into `vault-access`, by ingestion time.

1. A cursor says up to which ingestion time everything was taken; each poll looks back behind it, because a row shows
   up some time after its ingestion time. What was sent already is remembered and not sent again.
2. A window is read page by page in the order (ingestion time, hash of the row), so a result that is cut goes on there.
3. A partial result counts as none: its window is halved, down to a second; then its pages are.
4. The cursor moves when all of a window was acknowledged by our log. A crash repeats rows and never loses one.
5. 429 and outages are waited for; a table that does not exist yet is asked for again at the next poll.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import structlog
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.identity.aio import DefaultAzureCredential
from azure.monitor.query import LogsQueryResult
from azure.monitor.query.aio import LogsQueryClient

from cryptocore.clock import EPOCH, Clock, SystemClock
from cryptocore.errors import ConfigurationError, Failed
from streams.feeds.answers import is_absent, wait_s
from streams.feeds.durable import Cursor, load_cursor, save_cursor
from streams.feeds.publisher import Publisher
from streams.feeds.queries import AT, ROW, After, page, row_of
from streams.feeds.running import run
from streams.feeds.settings import FeedSettings
from streams.settings import Settings

FEED: Final = "log-analytics"
SECOND_US: Final = 1_000_000
NARROWEST_US: Final = SECOND_US
"""Windows are not halved below this; one second of ingestion is paged instead."""
LATE: Final = timedelta(days=7)
"""How long before its ingestion a record may have happened: the API's timespan filters TimeGenerated."""
REMEMBERED: Final = 1_000_000
"""Rows of the overlap that are remembered as sent; beyond this they are sent again, which the vault agent notices."""
SERVER_TIMEOUT_S: Final = 180
_GATEWAY_TIMEOUT: Final = 504
_log = structlog.get_logger(__name__)
Sleep = Callable[[float], Awaitable[None]]


class PartialResult(Exception):
    """The service could not give all of a result."""


def run_log_analytics(settings: Settings, feed: FeedSettings) -> int:
    """Poll the workspace until told to stop; returns how many items were refused.

    Raises:
        ConfigurationError: a setting is missing.
        HttpResponseError: the workspace refused for good, for lack of a right above all.
    """
    workspace = feed.needed("workspace_id")

    async def work(publisher: Publisher) -> None:
        endpoint = str(feed.log_analytics_endpoint).rstrip("/")
        async with (
            DefaultAzureCredential() as credential,
            LogsQueryClient(credential, endpoint=endpoint, retry_total=0) as client,
        ):
            tables = [TableFeed(client, workspace, table, feed, publisher, SystemClock()) for table in feed.tables]
            while True:
                for table in tables:
                    await table.poll()
                await asyncio.sleep(feed.poll_s)

    return run(settings, FEED, feed.log_level, work)


class TableFeed:
    """One table of one workspace."""

    def __init__(  # noqa: PLR0917 - what it reads, what it is told, where it writes
        self,
        client: LogsQueryClient,
        workspace: str,
        table: str,
        feed: FeedSettings,
        publisher: Publisher,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client = client
        self._workspace = workspace
        self._table = table
        self._feed = feed
        self._publisher = publisher
        self._clock = clock
        self._sleep = sleep
        self._path = Path(feed.state_dir, f"{workspace}.{table}.json")
        self._rows = feed.page_rows
        self._sent: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def poll(self) -> None:
        """Take everything from behind the cursor up to now, window by window.

        Raises:
            HttpResponseError: the workspace refused for good.
            KafkaError: our log did.
        """
        now_us = self._clock.now_us()
        cursor = load_cursor(self._path)
        if cursor is None:
            start_us = now_us - self._feed.look_back_s * SECOND_US
        else:
            start_us = min(cursor.ingested_before_us, now_us) - self._feed.overlap_s * SECOND_US
        reached_us = 0 if cursor is None else cursor.ingested_before_us
        width_us = self._feed.window_s * SECOND_US
        windows = [(at, min(at + width_us, now_us)) for at in range(start_us, now_us, width_us)][::-1]
        while windows:
            start_us, end_us = windows.pop()
            try:
                taken = await self._take(start_us, end_us)
            except PartialResult:
                windows += self._narrower(start_us, end_us)
                continue
            if not taken:
                return
            if end_us > reached_us:
                reached_us = end_us
                save_cursor(self._path, Cursor(self._table, reached_us))
                self._forget(reached_us)
        self._rows = self._feed.page_rows

    async def _take(self, start_us: int, end_us: int) -> bool:
        """Take all pages of a window; False where the table does not exist."""
        after = None
        while True:
            found = await self._ask(page(self._table, start_us, end_us, after=after, rows=self._rows), start_us)
            if found is None:
                return False
            keys = [After(row.pop(AT), row.pop(ROW)) for row in found]
            fresh = [row for key, row in zip(keys, found, strict=True) if key not in self._sent]
            await self._publisher.publish(fresh, place=f"{self._table} {start_us}-{end_us}")
            self._sent.update(dict.fromkeys(keys))
            if len(found) < self._rows:
                return True
            after = keys[-1]

    def _narrower(self, start_us: int, end_us: int) -> list[tuple[int, int]]:
        """Halve a window; one that is narrow enough is tried again with half the rows a page."""
        if end_us - start_us > NARROWEST_US:
            middle_us = (start_us + end_us) // 2
            return [(middle_us, end_us), (start_us, middle_us)]
        if self._rows == 1:
            raise Failed(f"{self._table}: the service cannot give one row ingested at {start_us}", retryable=True)
        self._rows = max(1, self._rows // 2)
        return [(start_us, end_us)]

    async def _ask(self, query: str, start_us: int) -> list[dict[str, Any]] | None:
        """Ask until there is an answer; None where the table does not exist.

        Raises:
            PartialResult: the answer is not whole.
            HttpResponseError: the service refused for good.
        """
        since = EPOCH + timedelta(microseconds=start_us) - LATE
        until = EPOCH + timedelta(microseconds=self._clock.now_us()) + timedelta(days=1)
        attempt = 0
        while True:
            try:
                result = await self._client.query_workspace(
                    self._workspace, query, timespan=(since, until), server_timeout=SERVER_TIMEOUT_S
                )
            except (HttpResponseError, ServiceRequestError, ServiceResponseError, ValueError) as problem:
                if is_absent(problem, self._table):
                    _log.info("table is not there (yet)", table=self._table)
                    return None
                seconds = wait_s(problem, attempt, self._clock)
                if seconds is None:
                    raise
                attempt += 1
                _log.warning("waiting", table=self._table, seconds=seconds, problem=type(problem).__name__)
                await self._sleep(seconds)
                if isinstance(problem, HttpResponseError) and problem.status_code == _GATEWAY_TIMEOUT:
                    raise PartialResult from problem  # the query took too long: ask for less
                continue
            if not isinstance(result, LogsQueryResult):
                error = result.partial_error
                _log.warning("partial result", table=self._table, code=getattr(error, "code", None))
                raise PartialResult
            return self._rows_of(result)

    def _rows_of(self, result: LogsQueryResult) -> list[dict[str, Any]]:
        if not result.tables:
            return []
        table = result.tables[0]
        if AT not in table.columns or ROW not in table.columns:
            raise ConfigurationError(f"{self._table}: the answer lacks the columns that the query adds")
        return [row_of(table.columns, table.columns_types, list(row)) for row in table.rows]

    def _forget(self, reached_us: int) -> None:
        """Forget rows that no later poll can see again, and the oldest beyond the bound."""
        behind = EPOCH + timedelta(microseconds=reached_us - self._feed.overlap_s * SECOND_US)
        oldest = behind.strftime("%Y-%m-%dT%H:%M:%S")
        for key in [key for key in self._sent if key[0] < oldest]:
            del self._sent[key]
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
