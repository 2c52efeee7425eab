"""The weekly report: collect, do the arithmetic, write one HTML file."""

from pathlib import Path

from reports.collect import collect
from reports.render import render
from reports.summary import oldest_active, summarise
from reports.week import Week, parse_week
from streams.index.port import EventIndex


async def write(
    index: EventIndex,
    *,
    week: str,
    tz: str,
    out: Path,
    prepared_ms: int,
    simulated: bool = False,
) -> Path:
    """Write the report on one week.

    Args:
        index: where the documents are; only read.
        week: an ISO week, `2026-W47`.
        tz: the zone of the week's borders, `Europe/Berlin` for instance.
        out: a file that ends in .html, or a folder, made when it is not there, in which one named by the week, and by
            the zone unless it is UTC, goes.
        prepared_ms: when it is written, by the caller's clock.
        simulated: whether the data is made up; the page then says so above everything else.

    Returns:
        The file.

    Raises:
        ValueError: no such week, or no such zone.
        IndexUnavailable: the index does not answer.
    """
    asked = parse_week(week, tz)
    facts = await collect(index, asked, prepared_ms)
    page = render(
        summarise(facts),
        week=asked,
        prepared_ms=prepared_ms,
        simulated=simulated,
        oldest_key=oldest_active(facts),
    )
    path = out if out.suffix == ".html" else out / _name(asked)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", newline="\n")
    return path


def _name(week: Week) -> str:
    """Name the file so that two zones, whose weeks have other borders, do not take each other's place."""
    zone = "" if week.tz == "UTC" else f"-{week.tz.replace('/', '-')}"
    return f"keytrail-{week.label}{zone}.html"
