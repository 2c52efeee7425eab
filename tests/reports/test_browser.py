"""How the page looks: in a real browser, wide and narrow, light and dark, and without a request to anybody."""

import json
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

pytestmark = pytest.mark.browser

SIZES = {"desktop": 1200, "phone": 390, "small phone": 320}


def show(browser: Chrome, page: Path, *, width: int, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get(page.as_uri())


def colour(browser: Chrome, what: str) -> list[int]:
    found = browser.find_element(By.TAG_NAME, "body").value_of_css_property(what)
    return [int(part) for part in found.replace("rgba(", "").replace("rgb(", "").rstrip(")").split(",")[:3]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window_and_follows_the_readers_colours(
    browser: Chrome, page: Path, tmp_path: Path, size: str, scheme: str
) -> None:
    show(browser, page, width=SIZES[size], scheme=scheme)
    shot = tmp_path / f"{size}-{scheme}.png"
    browser.save_screenshot(str(shot))

    width = browser.execute_script("return document.documentElement.scrollWidth")
    days = browser.execute_script(
        "const box = document.querySelector('.days'); return [box.scrollWidth, box.clientWidth, box.textContent]"
    )
    paper, ink = sum(colour(browser, "background-color")), sum(colour(browser, "color"))
    assert width <= SIZES[size]
    assert days[0] <= days[1]
    assert "KEK use not accounted for" in days[2]
    assert (paper > 600 > ink) if scheme == "light" else (paper < 150 < ink)
    assert shot.stat().st_size > 20_000


def test_the_browser_finds_nothing_to_complain_about_and_loads_one_file(browser: Chrome, page: Path) -> None:
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # type: ignore[no-untyped-call]
    show(browser, page, width=1200)

    complaints = browser.get_log("browser")  # type: ignore[no-untyped-call]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]  # type: ignore[no-untyped-call]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert complaints == []
    assert asked == [page.as_uri()]


def test_the_answer_and_the_banner_are_on_the_first_screens(browser: Chrome, page: Path) -> None:
    show(browser, page, width=1200)

    banner = browser.find_element(By.CLASS_NAME, "banner")
    answer = browser.find_element(By.CLASS_NAME, "answer")
    assert banner.rect["y"] == 0
    assert answer.rect["y"] < 900
    assert browser.find_element(By.CSS_SELECTOR, "svg.chart").size["height"] > 150


def test_what_is_folded_away_opens_without_a_script(browser: Chrome, page: Path) -> None:
    show(browser, page, width=1200)
    details = browser.find_element(By.TAG_NAME, "details")

    details.find_element(By.TAG_NAME, "summary").click()

    assert details.get_attribute("open") is not None
    assert details.find_element(By.TAG_NAME, "code").is_displayed()
