"""The Log Analytics feed: the real client against the API's wire form, our log a real Kafka."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from azure.monitor.query.aio import LogsQueryClient
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.clock import SystemClock, rfc3339
from cryptocore.errors import ConfigurationError, Failed
from streams.feeds.answers import wait_s
from streams.feeds.durable import Cursor, load_cursor, save_cursor
from streams.feeds.log_analytics import FEED, TableFeed
from streams.feeds.publisher import Publisher
from streams.feeds.queries import FILTERS, After, page
from streams.feeds.settings import FeedSettings
from streams.settings import Settings
from streams.vaultlogs.normalise import normalise
from tests.streams.feeds.landing import accesses, deployment, landed
from tests.streams.feeds.workspace import WORKSPACE, Workspace, http_date, refused, serving, throttled
from tests.streams.vaultlogs.records import as_azkv, as_diagnostics, record

SECOND = 1_000_000
T0 = 1_794_796_867 * SECOND
AUDIT = "AZKVAuditLogs"
ACTIVITY = {
    "Type": "AzureActivity",
    "TimeGenerated": "2026-11-16T02:41:07.1234567Z",
    "OperationNameValue": "MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/DELETE",
    "CategoryValue": "Administrative",
    "ActivityStatusValue": "Success",
    "Caller": "mallory@example.com",
    "CorrelationId": "49c05377-7187-4f18-8374-0e101bba261d",
    "EventDataId": "c0ffee00-0000-4000-8000-000000000001",
    "_ResourceId": "/subscriptions/1/resourcegroups/r/providers/microsoft.keyvault/vaults/kt-prod"
    "/providers/microsoft.insights/diagnosticsettings/audit",
}


def audit_row(number: int) -> dict[str, Any]:
    return as_azkv(record() | {"correlationId": f"00000000-0000-4000-8000-{number:012d}"})


class Feeding:
    """A table's feed that can be restarted, with the time and the waits in the test's hands."""

    def __init__(self, client: LogsQueryClient, workspace: Workspace, settings: Settings, folder: Path) -> None:
        self.client = client
        self.workspace = workspace
        self.settings = settings
        self.feed = FeedSettings(state_dir=folder, workspace_id=WORKSPACE, overlap_s=60, look_back_s=600, window_s=300)
        self.waits: list[float] = []
        self.publisher = Publisher(settings, feed=FEED, clock=SystemClock())
        self.at_us = T0
        self.restart()

    def now_us(self) -> int:
        return self.at_us

    def monotonic(self) -> float:
        return self.at_us / SECOND

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def restart(self, table: str = AUDIT, **changes: Any) -> None:
        feed = self.feed.model_copy(update=changes)
        self.table = TableFeed(self.client, WORKSPACE, table, feed, self.publisher, self, self.sleep)

    async def poll(self, at_us: int) -> None:
        self.at_us = self.workspace.now_us = at_us
        await self.table.poll()

    @property
    def cursor(self) -> Cursor | None:
        return load_cursor(self.feed.state_dir / f"{WORKSPACE}.{AUDIT}.json")

    @property
    def published(self) -> int:
        return self.publisher.tally.published


@asynccontextmanager
async def feeding(kafka: str, folder: Path) -> AsyncIterator[Feeding]:
    workspace = Workspace()
    async with serving(workspace) as client:
        made = Feeding(client, workspace, await deployment(kafka, folder), folder / "positions")
        await made.publisher.open()
        try:
            yield made
        finally:
            await made.publisher.close()


async def test_rows_arrive_as_the_tables_have_them_and_as_the_normaliser_reads_them(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        run.workspace.types = {"CorrelationId": "guid", "TenantId": "guid", "EventSubmissionTimestamp": "datetime"}
        original = audit_row(1) | {"TenantId": None}
        run.workspace.add(AUDIT, original, ingested_us=T0 - 5 * SECOND)
        run.workspace.add("AzureDiagnostics", as_diagnostics(record()), ingested_us=T0 - 5 * SECOND)
        submitted = {"EventSubmissionTimestamp": "2026-11-16T02:42:00Z"}
        run.workspace.add("AzureActivity", ACTIVITY | submitted, ingested_us=T0 - 5 * SECOND)

        for table in FILTERS:
            run.restart(table)
            await run.poll(T0)

        found = await landed(run.settings, wait_for=3)
    originals = {one["original"]["Type"]: one["original"] for one in (json.loads(each.value) for each in found)}
    assert len(accesses(found)) == 3
    assert originals[AUDIT]["TimeGenerated"] == "2026-11-16T02:41:07.1234567Z"
    assert originals[AUDIT]["TenantId"] is None
    assert not any(name.startswith("keytrail") for name in originals[AUDIT])
    of_row = normalise(originals[AUDIT])
    of_envelope = normalise(record() | {"correlationId": f"00000000-0000-4000-8000-{1:012d}"})
    assert of_row.access_id == of_envelope.access_id
    assert {each.key for each in found} == {b"kt-prod/tokens-kek", b"kt-prod/"}
    assert normalise(originals["AzureActivity"]).operation == "microsoft.insights/diagnosticsettings/delete"


async def test_a_row_that_shows_up_behind_the_cursor_is_found_and_no_row_is_sent_twice(
    kafka: str, tmp_path: Path
) -> None:
    async with feeding(kafka, tmp_path) as run:
        for number in range(20):
            run.workspace.add(AUDIT, audit_row(number), ingested_us=T0 - number * SECOND)
        run.workspace.add(AUDIT, audit_row(99), ingested_us=T0 - 10 * SECOND, visible_us=T0 + 30 * SECOND)

        await run.poll(T0 + SECOND)
        before = run.published
        await run.poll(T0 + 40 * SECOND)
        await run.poll(T0 + 45 * SECOND)

        assert (before, run.published) == (20, 21)
        assert run.cursor == Cursor(AUDIT, T0 + 45 * SECOND)
        assert len(accesses(await landed(run.settings))) == 21


async def test_after_a_restart_the_overlap_is_sent_again_and_counts_once(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        for number in range(30):
            run.workspace.add(AUDIT, audit_row(number), ingested_us=T0 - number * 10 * SECOND)
        await run.poll(T0 + SECOND)
        run.restart()

        await run.poll(T0 + 2 * SECOND)

        found = await landed(run.settings)
        assert run.published == len(found) == 36  # those of the last minute came again
        assert len(accesses(found)) == 30


async def test_rows_of_one_moment_are_paged_by_their_hash(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        for number in range(25):
            run.workspace.add(AUDIT, audit_row(number), ingested_us=T0 - SECOND)
        run.restart(page_rows=10)

        await run.poll(T0)

        assert run.published == len(accesses(await landed(run.settings))) == 25
        assert sum("keytrail_row >" in query for query in run.workspace.queries) == 2


async def test_a_partial_result_moves_no_cursor_and_its_window_is_halved(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        for number in range(200):
            run.workspace.add(AUDIT, audit_row(number), ingested_us=T0 - (number + 1) * SECOND)
        run.workspace.most_rows = 40
        run.restart(look_back_s=300)
        sent_in_windows: list[int | None] = []

        await run.poll(T0)

        sent_in_windows.append(run.cursor.ingested_before_us if run.cursor else None)
        assert run.published == len(accesses(await landed(run.settings))) == 200, "a part was taken, or lost"
        assert sent_in_windows == [T0]
        assert len(run.workspace.queries) > 8


async def test_a_second_too_full_for_an_answer_is_read_in_smaller_pages(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        for number in range(100):
            run.workspace.add(AUDIT, audit_row(number), ingested_us=T0 - 500_000)
        run.workspace.most_rows = 10
        run.restart(look_back_s=2, page_rows=64)

        await run.poll(T0)

        assert run.published == len(accesses(await landed(run.settings))) == 100


async def test_where_nothing_but_partial_results_come_the_cursor_stays_and_the_feed_says_so(
    kafka: str, tmp_path: Path
) -> None:
    async with feeding(kafka, tmp_path) as run:
        run.workspace.add(AUDIT, audit_row(1), ingested_us=T0 - SECOND)
        await run.poll(T0)
        run.workspace.faults = ["partial"] * 100

        with pytest.raises(Failed, match="cannot give one row"):
            await run.poll(T0 + 10 * SECOND)

        assert run.cursor == Cursor(AUDIT, T0)


async def test_throttling_and_outages_are_waited_for_as_long_as_the_service_says(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        run.workspace.add(AUDIT, audit_row(1), ingested_us=T0 - SECOND)
        run.workspace.faults = [
            throttled("17"),
            throttled(http_date(T0 + 40 * SECOND)),
            refused(503, "ServiceUnavailable"),
            web.Response(status=500, text="no JSON"),
        ]
        run.restart(look_back_s=60)

        await run.poll(T0)

        assert run.waits == [17.0, 40.0, 4.0, 8.0]
        assert run.published == 1


async def test_a_query_that_ran_out_of_time_is_asked_again_for_less(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        run.workspace.add(AUDIT, audit_row(1), ingested_us=T0 - SECOND)
        run.workspace.faults = [refused(504, "GatewayTimeout")]
        run.restart(look_back_s=60)

        await run.poll(T0)

        assert len(run.workspace.queries) == 3
        assert run.published == 1


async def test_a_table_without_rows_does_not_exist_yet_and_is_asked_for_again(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        await run.poll(T0)
        nothing = run.cursor
        run.workspace.add(AUDIT, audit_row(1), ingested_us=T0 - 3 * SECOND)
        await run.poll(T0 + SECOND)

        assert nothing is None
        assert run.published == 1


async def test_an_empty_answer_moves_the_cursor(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        run.workspace.tables[AUDIT] = []

        await run.poll(T0)

        assert run.cursor == Cursor(AUDIT, T0)


async def test_a_missing_right_ends_the_feed_and_another_unknown_name_is_not_taken_for_a_missing_table(
    kafka: str, tmp_path: Path
) -> None:
    async with feeding(kafka, tmp_path) as run:
        inner = {"code": "SEM0100", "message": "Failed to resolve table or column expression named 'Category'"}
        for fault in (refused(403, "InsufficientAccessError"), refused(400, "BadArgumentError", innererror=inner)):
            run.workspace.faults = [fault]
            with pytest.raises(HttpResponseError):
                await run.poll(T0)

        assert run.cursor is None


async def test_the_timespan_of_the_event_itself_is_kept_wide_and_aware(kafka: str, tmp_path: Path) -> None:
    async with feeding(kafka, tmp_path) as run:
        run.workspace.tables[AUDIT] = []
        run.restart(look_back_s=60)

        await run.poll(T0)

        [timespan] = run.workspace.timespans
        since, until = timespan.split("/")
        assert since == rfc3339(T0 - 60 * SECOND - 7 * 86_400 * SECOND).replace(".000000", ".000")
        assert until > rfc3339(T0)[:19]


def test_without_an_answer_the_wait_doubles_up_to_five_minutes() -> None:
    waits = [wait_s(ServiceRequestError("no route"), attempt, SystemClock()) for attempt in (0, 1, 5, 50)]

    assert waits == [1.0, 2.0, 32.0, 300.0]


@given(
    start_us=st.integers(0, 4_000_000_000 * SECOND),
    width_us=st.integers(1, 10**12),
    rows=st.integers(1, 500_000),
    after=st.none() | st.just(After("2026-11-16T02:41:07.1234567Z", "ab" * 32)),
)
def test_a_page_asks_for_a_half_open_window_in_a_total_order(
    start_us: int, width_us: int, rows: int, after: After | None
) -> None:
    query = page(AUDIT, start_us, start_us + width_us, after=after, rows=rows)

    assert query.startswith(f"{AUDIT}\n| where ingestion_time() >= datetime({rfc3339(start_us)}) and")
    assert f"ingestion_time() < datetime({rfc3339(start_us + width_us)})" in query
    assert query.index("| order by keytrail_at asc, keytrail_row asc") < query.index(f"| take {rows}\n")
    assert ("keytrail_at >" in query) is (after is not None)


def test_a_cursor_is_replaced_as_a_whole_and_a_strange_one_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cursor.json"
    save_cursor(path, Cursor(AUDIT, 5))
    save_cursor(path, Cursor(AUDIT, 7))
    read = load_cursor(path)
    path.write_text("{}")

    assert read == Cursor(AUDIT, 7)
    assert [file.name for file in path.parent.iterdir()] == ["cursor.json"]
    with pytest.raises(ConfigurationError, match="not a cursor"):
        load_cursor(path)
    assert load_cursor(tmp_path / "absent.json") is None
