"""The report in a real browser: it draws, zooms, sorts and searches, in dark and light, on a phone and on paper."""

import io
import shutil
from pathlib import Path

import pytest
from report_job import SCRIPT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What a chart has drawn of its data, by its name.
DRAWN = {
    "tree": ".treemaplayer path.surface",
    "confusion": ".heatmaplayer image",
    "learning-loss": ".scatterlayer .trace path",
    "learning-accuracy": ".scatterlayer .trace path",
    "calibration-path": ".scatterlayer .trace path",
    "confidence": ".barlayer .point path",
    "times": ".barlayer .point path",
}


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of the system, driven by Playwright, whose own browsers are not asked for."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or none of the tests of the report in a browser run")
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(two_nights) -> Path:
    return (two_nights.root / "published" / "latest_report.html").resolve()


@pytest.fixture
def opened(browser, report):
    """Open the report; at the end nothing may have gone wrong, and nothing may have been asked for from outside."""
    contexts, told, asked = [], [], []

    def open_it(**options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready=true]")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert told == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()] * len(contexts)


def test_every_chart_is_drawn_and_says_in_words_what_it_shows(opened):
    page = opened()
    charts = page.locator("figure.chart")
    assert {charts.nth(k).get_attribute("id") for k in range(charts.count())} >= set(DRAWN)
    for name, marks in DRAWN.items():
        page.wait_for_selector(f"#{name} {marks}", state="attached")
    for k in range(charts.count()):
        chart = charts.nth(k)
        assert chart.locator(".main-svg").count() >= 1
        assert len(chart.locator(".plot").get_attribute("aria-label")) > 20
        assert chart.locator("details table tbody tr").count() >= 1


def test_names_that_are_code_stand_as_text(opened):
    page = opened()
    assert page.get_by_text(SCRIPT, exact=True).first.is_visible()
    labels = page.locator("#tree .slicetext").all_text_contents()
    assert any("<b>bold</b>" in label for label in labels)


def click(page, selector: str) -> None:
    """Click where something is: in a chart the text lies below what hears of the click."""
    target = page.locator(selector).first
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_a_click_zooms_into_a_label_and_out_again(opened):
    page = opened()
    level = "document.querySelector('#tree .plot')._fullData[0].level"
    click(page, "#tree text.slicetext >> text=/^comedy/")
    page.wait_for_function(f"![undefined, '', '0'].includes({level})")
    zoomed = page.evaluate(level)
    data = page.evaluate(
        "() => { const {ids, labels} = document.querySelector('#tree .plot').data[0]; return [ids, labels] }"
    )
    assert data[1][data[0].index(zoomed)] == "comedy"
    click(page, "#tree .pathbar text.slicetext")
    page.wait_for_function(f"[undefined, '', '0'].includes({level})")


def test_the_tree_shows_the_given_labels_too(opened):
    page = opened()
    page.get_by_role("button", name="by given label").click()
    assert page.get_by_role("button", name="by given label").get_attribute("aria-pressed") == "true"
    page.wait_for_function("document.querySelector('#tree .plot').data[0].labels[0].startsWith('labelled items')")


def test_tables_are_searched_and_sorted(opened):
    page = opened()
    table = page.locator(".table", has=page.get_by_role("searchbox", name="Search: Labelled items to review"))
    rows = table.locator("tbody tr")
    n = rows.count()
    assert n > 8
    words = [*rows.first.locator("b").text_content().split(), "COMEDY"]  # of its title, and one more
    table.get_by_role("searchbox").fill(" ".join(words))
    shown = table.locator("tbody tr:visible").all_text_contents()
    wanted = [text for text in rows.all_text_contents() if all(word.lower() in text.lower() for word in words)]
    assert shown == wanted and len(shown) < n
    table.get_by_role("searchbox").fill("")
    assert table.locator("tbody tr:visible").count() == n
    header = table.get_by_role("columnheader", name="sure")
    for order in ("descending", "ascending"):
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == order
        values = [float(rows.nth(k).locator("td.share").get_attribute("data-value")) for k in range(n)]
        assert values == sorted(values, reverse=order == "descending")


def lightness(png: bytes) -> tuple[float, int]:
    """Return the mean lightness of a picture, from 0 to 255, and how many colours it has."""
    from PIL import Image, ImageStat

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    return ImageStat.Stat(picture.convert("L")).mean[0], len(picture.getcolors(1 << 24))


def test_dark_and_light_are_what_the_system_has_and_a_button_changes_it(opened):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    pictures = {scheme: opened(color_scheme=scheme) for scheme in ("light", "dark")}
    (light, n_light), (dark, n_dark) = (lightness(page.screenshot()) for page in pictures.values())
    assert min(n_light, n_dark) > 100  # not blank
    assert light > 190 and dark < 90
    page = pictures["light"]
    page.get_by_role("button", name="Switch between dark and light").click()
    assert lightness(page.screenshot())[0] < 90
    assert page.evaluate("document.querySelector('#times .plot')._fullLayout.font.color") == "#e6edf3"


def test_a_phone_shows_all_of_it_without_scrolling_sideways(opened):
    page = opened(viewport={"width": 390, "height": 800}, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    width = page.locator("#learning-loss .main-svg").first.bounding_box()["width"]
    assert 250 < width <= 390


def test_on_paper_it_is_light_and_what_was_folded_away_is_open(opened):
    page = opened(color_scheme="dark")
    are_open = "[...document.querySelectorAll('details.pairs')].every((each) => each.open)"
    page.evaluate(f"window.addEventListener('beforeprint', () => {{ window.wereOpen = {are_open}; }})")
    assert len(page.pdf()) > 20_000
    assert page.evaluate("window.wereOpen")
    assert page.evaluate("document.documentElement.dataset.theme") is None  # as it was before
    assert not page.locator("details.pairs").last.evaluate("each => each.open")
