"""The page itself: its structure, that it asks nobody for anything, and that no value becomes markup."""

import asyncio
import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.model import KekUseStatus
from cryptocore.events import Operation, Outcome
from reports import weekly
from reports.charts import day_chart
from reports.render import visible
from reports.rows import DayBar
from streams.index.elastic import ElasticIndex
from streams.index.embedded import EmbeddedIndex
from streams.index.port import Document, EventIndex
from tests.reports.scenario import PREPARED_MS, WEEK, Trail, alert, at, kek_documents, key, use
from tests.reports.story import story

OUTLINE = """\
h1 Week 47, 2026 (Mon 16 Nov \u2013 Sun 22 Nov, UTC)
h2 Needs a decision (3)
h2 Could we see everything?
h3 Findings about what the monitor could see
h3 KEK uses not accounted for
h2 The week
h3 Failed, denied and unaccounted, day by day
h2 Data keys at the week's end
h2 Controls"""
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\u202egnp.exe"
NEVER_CLOSED = {"meta", "br", "line", "rect", "link", "img"}


class Outline(HTMLParser):
    """What a page is made of: headings, elements, attributes, text; and that elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.problems: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in NEVER_CLOSED:
            self._open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(f"{tag} ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data
        if any(re.fullmatch(r"h\d", tag) for tag in self._open):
            self.headings[-1] += data


def write(index: EventIndex, documents: list[Document], out: Path, *, simulated: bool = False, tz: str = "UTC") -> Path:
    async def run() -> Path:
        await index.ensure()
        assert await index.write(documents) == []
        path = await weekly.write(index, week=WEEK, tz=tz, out=out, simulated=simulated, prepared_ms=PREPARED_MS)
        await index.close()
        return path

    return asyncio.run(run())


def test_the_page_has_its_sections_in_the_order_of_what_matters(page: Path) -> None:
    outline = Outline(page.read_text(encoding="utf-8"))

    assert "\n".join(outline.headings) == OUTLINE
    assert outline.problems == []


def test_the_figures_of_the_first_screen_are_on_the_page(page: Path) -> None:
    text = re.sub(r"\s+", " ", Outline(page.read_text(encoding="utf-8")).text)

    assert "596 sent = 596 stored · 0 missing" in text
    assert "70 in vault logs: 56 explained · 14 unaccounted" in text
    assert "1 process closed, 1 running, 1 ended unclosed; an intent is counted with its outcome, as one" in text
    assert "Prepared 2026-11-23 06:00" in text
    assert "Not reviewed" in text


def test_made_up_data_says_so_first_and_real_data_does_not(page: Path, tmp_path: Path) -> None:
    simulated = page.read_text(encoding="utf-8")
    real = write(EmbeddedIndex(tmp_path / "index.sqlite"), story(), tmp_path / "out").read_text(encoding="utf-8")

    assert "<title>Simulated: " in simulated
    assert simulated.index("Simulated data.") < simulated.index("<header>")
    assert "imulated" not in real


def test_the_page_asks_nobody_for_anything(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)

    assert not outline.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "audio", "video"}
    assert not [name for _, name, _ in outline.attributes if name in {"src", "href", "srcset", "style", "action"}]
    assert not [name for _, name, _ in outline.attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text


def test_the_policy_allows_the_pages_own_style_and_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    policy = next(value for tag, name, value in Outline(text).attributes if tag == "meta" and "default-src" in value)

    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert len(style) == 1
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_values_stay_text_wherever_they_come_from(tmp_path: Path) -> None:
    trail = Trail()
    trail.opened(at(0, 1))
    trail.event(Operation.ACTIVATE, Outcome.SUCCEEDED, at(1), key=key(), actor="user:<b>x</b>")
    trail.decrypt(at(2), key=key(), lost=True)
    trail.closed(at(3))
    named = dict.fromkeys(("title", "summary", "who", "first_step", "runbook", "number", "tenant"), EVIL)
    stranger = {"principal_label": EVIL, "vault": EVIL, "name": EVIL, "operation": EVIL, "address": EVIL}
    documents = [
        *trail.documents,
        alert(1, "unaccounted_kek_access", evidence=[{"kind": EVIL, "id": EVIL, "at_ms": 1}], **named),
        alert(2, "audit_gap", **named),
        *kek_documents([use(1, at(1), KekUseStatus.UNACCOUNTED, reason=EVIL, **stranger)]),
    ]

    text = write(EmbeddedIndex(tmp_path / "index.sqlite"), documents, tmp_path).read_text(encoding="utf-8")
    outline = Outline(text)

    assert not outline.tags & {"script", "img"}
    assert not [name for _, name, _ in outline.attributes if name.startswith("on")]
    assert outline.problems == []
    assert outline.text.count("<script>alert(1)</script>") >= 10
    assert "\u202e" not in text
    assert "\\u202egnp.exe" in outline.text


def test_a_folder_gets_a_file_named_by_the_week(tmp_path: Path) -> None:
    path = write(EmbeddedIndex(tmp_path / "index.sqlite"), [], tmp_path / "a" / "b")

    assert path == tmp_path / "a" / "b" / "keytrail-2026-W47.html"
    assert "No alert is open." in path.read_text(encoding="utf-8")


def test_reports_of_one_week_in_two_zones_stand_side_by_side(tmp_path: Path) -> None:
    paths = [
        write(EmbeddedIndex(tmp_path / f"{tz[:3]}.sqlite"), [], tmp_path, tz=tz) for tz in ("UTC", "America/New_York")
    ]

    assert [path.name for path in paths] == ["keytrail-2026-W47.html", "keytrail-2026-W47-America-New_York.html"]
    assert all(path.exists() for path in paths)


def test_times_are_those_of_the_asked_zone(tmp_path: Path) -> None:
    path = write(EmbeddedIndex(tmp_path / "index.sqlite"), story(), tmp_path, tz="Asia/Kolkata")

    assert "2026-11-19 08:11 to 08:13" in path.read_text(encoding="utf-8")


@pytest.mark.servers
def test_elasticsearch_and_sqlite_give_the_same_page(elasticsearch_url: str, page: Path, tmp_path: Path) -> None:
    async def run() -> Path:
        index = ElasticIndex.connect([elasticsearch_url], prefix=f"test-{uuid4().hex}", replicas=0)
        await index.ensure()
        assert await index.write(story()) == []
        out = tmp_path / "report.html"
        path = await weekly.write(index, week=WEEK, tz="UTC", out=out, simulated=True, prepared_ms=PREPARED_MS)
        await index.close()
        return path

    assert asyncio.run(run()).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


@given(st.text())
def test_no_character_that_prints_nothing_reaches_the_page(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(text) == text or not text.isprintable()


@given(
    st.lists(
        st.builds(
            DayBar,
            name=st.text(),
            failed=st.integers(0, 10**7),
            denied=st.integers(0, 10**7),
            unaccounted=st.integers(0, 10**7),
        ),
        min_size=1,
        max_size=7,
    ),
)
def test_columns_are_as_high_as_their_numbers_and_stay_inside(days: list[DayBar]) -> None:
    drawn = str(day_chart(days))
    bars = re.findall(r'<rect class="bar (\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawn)

    wanted = [(name, getattr(day, name)) for day in days for name in ("failed", "denied", "unaccounted")]
    assert [name for name, *_ in bars] == [name for name, count in wanted if count]
    assert all(float(y) >= 19.9 and float(y) + float(height) <= 200.2 for *_, y, _, height in bars)
    highest = max(day.failed + day.denied + day.unaccounted for day in days)
    ticks = [int(tick.replace(",", "")) for tick in re.findall(r'class="tick"[^>]*>([\d,]+)<', drawn)]
    assert ticks == [ticks[1] * step for step in range(5)]
    assert highest <= ticks[-1] <= max(4, 4 * highest)
    assert Outline(drawn).problems == []
