"""The page's one chart as SVG: for each day, what did not go as it should. Colours come from the page's style sheet."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup, escape

from reports.rows import DayBar

WIDTH, HEIGHT = 960, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 4, 20, 30
BAR: Final = 0.52
SERIES: Final = (("failed", "failed"), ("denied", "denied"), ("unaccounted", "KEK use not accounted for"))
"""Fields of DayBar from the bottom of a column to its top, and their names."""
_STEPS: Final = (1, 2, 3, 5, 10)
_LINES: Final = 4


def day_chart(days: Sequence[DayBar]) -> Markup:
    """Draw stacked columns with their totals; text alternatives say the same in words."""
    top = _scale(max((_total(day) for day in days), default=0))
    inner, width = HEIGHT - TOP - BOTTOM, (WIDTH - LEFT - RIGHT) / max(1, len(days))
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="chart-title chart-desc">').format(
            WIDTH, HEIGHT
        ),
        Markup('<title id="chart-title">Failed, denied and unaccounted uses by day</title>'),
        Markup('<desc id="chart-desc">{}</desc>').format("; ".join(map(_words, days))),
        *_grid(top, inner),
    ]
    for place, day in enumerate(days):
        left = LEFT + width * (place + (1 - BAR) / 2)
        bottom = float(TOP + inner)
        for field, _ in SERIES:
            height = inner * getattr(day, field) / top
            if height:
                bottom -= height
                parts.append(
                    Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                        field, left, bottom, width * BAR, height
                    )
                )
        middle = left + width * BAR / 2
        parts.append(_text("total" if _total(day) else "zero", middle, bottom - 5, f"{_total(day):,}"))
        parts.append(_text("day", middle, HEIGHT - 10, day.name))
    return Markup("").join([*parts, Markup("</svg>")])


def _grid(top: int, inner: float) -> list[Markup]:
    lines = []
    for step in range(_LINES + 1):
        y = TOP + inner * (1 - step / _LINES)
        lines.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        lines.append(_text("tick", LEFT - 8, y + 4, f"{top * step // _LINES:,}"))
    return lines


def _text(kind: str, x: float, y: float, words: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, escape(words))


def _total(day: DayBar) -> int:
    return day.failed + day.denied + day.unaccounted


def _words(day: DayBar) -> str:
    return f"{day.name}: {day.failed} failed, {day.denied} denied, {day.unaccounted} KEK uses not accounted for"


def _scale(highest: int) -> int:
    """The top of the axis: not below the highest column, and its four parts are whole and easy to read."""
    part = max(1, -(-highest // _LINES))
    power = int(10 ** (len(str(part)) - 1))
    return next(step * power for step in _STEPS if step * power >= part) * _LINES
