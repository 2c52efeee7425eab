"""The page: one file that asks nobody for anything. Every value is escaped; no script, nor may there be one."""

import base64
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib import metadata
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from reports.charts import SERIES, day_chart
from reports.controls import Standing
from reports.summary import Answer, Summary
from reports.week import Week

HEADLINES: Final[Mapping[Answer, str]] = {
    Answer.NOTHING_MISSING: "Nothing is known to be missing.",
    Answer.NO: "No.",
    Answer.NOT_ESTABLISHED: "Not established.",
}
STANDINGS: Final = {
    Standing.OBSERVED: "observed",
    Standing.EXCEPTIONS: "exceptions",
    Standing.NOT_EVALUATED: "unknown",
}
"""Words for the style sheet."""


def render(summary: Summary, *, week: Week, prepared_ms: int, simulated: bool, oldest_key: str | None) -> str:
    """Write the page."""
    style = _template("weekly.css").render()
    return _template("weekly.html.j2").render(
        summary=summary,
        week=week,
        prepared=week.local(prepared_ms),
        simulated=simulated,
        oldest_key=oldest_key,
        version=_version(),
        style=Markup(style),  # noqa: S704 - our own file, without a value in it
        style_sha256=base64.b64encode(sha256(style.encode()).digest()).decode(),
        chart=day_chart(summary.days),
        series=SERIES,
        headline=HEADLINES[summary.answer],
        standings=STANDINGS,
    )


def visible(text: Any) -> str:
    """Show characters that print nothing, or turn the direction of writing, by their numbers."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in str(text))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.filters["n"] = "{:,}".format
    return environment


def _template(name: str) -> Template:
    return _environment().get_template(name)


def _version() -> str:
    """The version that is installed; nothing where the page is written from a source tree."""
    try:
        return metadata.version("keytrail")
    except metadata.PackageNotFoundError:
        return ""
