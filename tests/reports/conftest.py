"""The page of the story, and Chromium to look at it."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from reports import weekly
from streams.index.embedded import EmbeddedIndex
from tests.reports.scenario import PREPARED_MS, WEEK
from tests.reports.story import story


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on the story, as a file."""
    folder = tmp_path_factory.mktemp("report")

    async def run() -> Path:
        index = EmbeddedIndex(folder / "index.sqlite")
        await index.ensure()
        await index.write(story())
        out = folder / "report.html"
        path = await weekly.write(index, week=WEEK, tz="UTC", out=out, simulated=True, prepared_ms=PREPARED_MS)
        await index.close()
        return path

    return asyncio.run(run())


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Headless Chromium with a profile of its own."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("not tested without a browser: chromium and chromedriver are not installed")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()
