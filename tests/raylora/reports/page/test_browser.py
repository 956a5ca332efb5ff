"""Pages in Chromium: what is drawn, what a click does, and that nobody is asked for anything.

RAYLORA_CHROMIUM names a browser; default: Debian's `chromium`.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raylora.reports.page.page import write_page
from raylora.reports.page.serve import PageServer
from trainables.journal import Journal

pytestmark = pytest.mark.real

RUNS = Path(__file__).resolve().parents[3] / "assets" / "runs"
WIDTHS = {"wide": 1280, "narrow": 420}
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-dev-shm-usage"),
)
# Words of plots that lie outside of what is drawn.
CUT = """[...document.querySelectorAll('.chart svg.marks')].flatMap((svg) => {
  const [low, high] = [svg.getBoundingClientRect().left - 1, svg.getBoundingClientRect().right + 1];
  return [...svg.querySelectorAll('text')].filter((text) => {
    const { left, right } = text.getBoundingClientRect();
    return left < low || right > high;
  }).map((text) => text.textContent);
})"""
DRAWN = "document.documentElement.dataset.drawn === '1'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which(os.environ.get("RAYLORA_CHROMIUM") or "chromium")
    if program is None:
        pytest.skip("chromium is missing: install the Debian package of that name")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, headless=True, args=list(OPTIONS))
        yield started
        started.close()


class Visit:
    """A page that was opened, and what it asked for and complained of meanwhile."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, **how: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **how)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda told: self.complaints.append(told.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def drawn(self) -> Any:
        self.page.wait_for_function(DRAWN, timeout=120_000)
        return self.page


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def go(url: str | Path, **how: Any) -> Visit:
        opened.append(Visit(browser, url.as_uri() if isinstance(url, Path) else url, **how))
        return opened[-1]

    yield go
    for one in opened:
        one.context.close()


@pytest.fixture(scope="module")
def pages(long_run, make_run, tmp_path_factory) -> dict[str, Path]:
    """Pages of the kinds of runs that there are."""
    folder = tmp_path_factory.mktemp("pages")
    believed = make_run("believed", trials=60, searcher="gp", seed=1)
    runs = {
        "long": [long_run],
        "recorded": [RUNS / "finished"],
        "interrupted": [make_run("interrupted", trials=24, finished=False)],
        "compared": [long_run, believed],
    }
    return {name: write_page(given, folder / f"{name}.html") for name, given in runs.items()}


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("kind", ["long", "recorded", "interrupted", "compared"])
def test_every_plot_is_drawn_without_a_request_or_a_complaint(pages, visit, tmp_path, kind, width) -> None:
    opened = visit(pages[kind], width=width)
    page = opened.drawn()
    assert opened.asked == [pages[kind].as_uri()]
    assert opened.complaints == []
    charts = page.locator(".chart").count()
    assert charts > 0 and page.locator(".chart svg.marks").count() == charts
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CUT) == []
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_all_views_of_all_plots_are_drawn(pages, visit) -> None:
    opened = visit(pages["long"])
    page = opened.drawn()
    for select in page.locator(".views select").all():
        for view in select.locator("option").all_inner_texts()[:8]:
            select.select_option(view)
            page.wait_for_timeout(50)
    page.wait_for_timeout(1000)
    assert opened.complaints == []


def test_a_click_on_a_point_marks_its_trial_everywhere(pages, visit) -> None:
    page = visit(pages["long"]).drawn()
    point = page.locator("[data-chart=slices] .mark-symbol path[aria-roledescription=point]").first
    point.scroll_into_view_if_needed()
    point.click(force=True)
    page.wait_for_selector("#chosen:not([hidden])")
    marked = page.locator("tr.is-chosen")
    assert marked.count() == 1
    assert page.locator("#chosen h3").inner_text() == f"Trial {marked.locator('td').first.inner_text()} of long"
    page.keyboard.press("Escape")
    assert page.locator("#chosen").is_hidden() and page.locator("tr.is-chosen").count() == 0


def test_a_click_on_a_row_marks_the_trial_in_the_plots(pages, visit) -> None:
    page = visit(pages["long"]).drawn()
    faint = "[...document.querySelectorAll('[data-chart=slices] path[opacity=\"0.1\"]')].length"
    assert page.evaluate(faint) == 0
    page.locator("table.trials tbody tr").first.click()
    page.wait_for_function(f"{faint} > 100")


def test_the_filter_takes_trials_out_of_plots_and_table(pages, visit) -> None:
    page = visit(pages["long"]).drawn()
    points = "document.querySelectorAll('[data-chart=slices] path[aria-roledescription=point]').length"
    before = page.evaluate(points)
    page.locator("#filter input[value=pissa]").uncheck()
    page.wait_for_function(f"{points} < {before}")
    shown = page.locator("table.trials tbody tr:visible")
    assert 0 < shown.count() < 200 and not any("pissa" in row for row in shown.all_inner_texts())
    assert page.locator("#counted").inner_text() == f"{shown.count()} of 200 trials"


def test_rows_are_searched(pages, visit) -> None:
    page = visit(pages["long"]).drawn()
    rows = page.locator("table.answers tbody tr:visible")
    before = rows.count()
    page.locator("input.search").fill("What is 7 + 10?")
    assert rows.count() <= 1 < before


def test_without_javascript_there_are_tables(pages, visit) -> None:
    page = visit(pages["long"], java_script_enabled=False).page
    assert page.locator(".chart:visible").count() == 0
    assert page.locator("figure table:visible").count() >= 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_as_light_or_dark_as_the_system(pages, visit, scheme) -> None:
    page = visit(pages["interrupted"], color_scheme=scheme).drawn()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in paper[4:-1].split(",")) / 3
    assert (brightness > 200) == (scheme == "light")


def test_the_page_prints(pages, visit, tmp_path) -> None:
    page = visit(pages["interrupted"]).drawn()
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_texts_of_people_run_no_program(make_run, visit, tmp_path) -> None:
    evil = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    opened = visit(write_page([make_run("evil", trials=40, prompt=evil, message=evil)], tmp_path / "evil.html"))
    page = opened.drawn()
    assert page.title() == "evil | raylora" and len(opened.asked) == 1 and opened.complaints == []


def test_a_watched_page_follows_its_run(make_run, visit) -> None:
    run = make_run("watched", trials=12, finished=False)
    with PageServer([run], every_s=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        opened = visit(server.url)
        page = opened.drawn()
        journal = Journal(run)
        key = next(iter(set(journal.started()) - set(journal.concluded())))
        journal.fail(key, journal.started()[key].config, "the disk is full")
        page.wait_for_function("document.body.textContent.includes('the disk is full')", timeout=120_000)
        assert all(asked.startswith(server.url) for asked in opened.asked)
        server.shutdown()
        thread.join()
