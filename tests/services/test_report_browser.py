"""The report in Chromium: accessible, quiet, sortable, filterable, printable."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tests import finished
from tunetrail.report.failures import write_failures

pytestmark = pytest.mark.services

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

DESK = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]

FAILURES = [{"stage": "train@movie-lora-1", "reason": "the loss became nan\n  fix: lower it"}]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium with a profile of its own."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "run tests/services/install.sh"
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of the pages under test."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "report.html").write_text(finished.report())
    failed = {entry["stage"]: entry["reason"] for entry in FAILURES}
    page = write_failures(folder, "sentiment", failed, ["compare", "register"])
    files = {"report": folder / "report.html", "failed": page}
    return {name: file.as_uri() for name, file in files.items()}


@pytest.fixture
def visit(browser: Any, reports: dict[str, str]) -> Iterator[Any]:
    """Open a page; at the end nothing was said on the console and nothing asked of a network."""
    contexts, said, asked = [], [], []

    def open_page(name: str = "report", hash: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(**({"viewport": DESK} | options)))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(reports[name] + hash)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert {url.split("#")[0] for url in asked} - {"data:,"} <= set(reports.values())


def column(page: Any, place: int = 0, board: str = "board-movie") -> list[str]:
    """Texts of a column of a leaderboard from above, as far as they are shown."""
    cells = page.locator(f"#{board} tbody tr:visible > :nth-child({place + 1})")
    return [text.split("\n")[0].strip() for text in cells.all_inner_texts()]


def until(page: Any, condition: str) -> None:
    """Wait for it; Playwright's own way is to evaluate in the page, which the policy forbids."""
    for _ in range(150):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"never true: {condition}")


def sort_button(page: Any, name: str) -> Any:
    return page.locator("#board-movie").get_by_role("button", name=name, exact=True)


def marked(page: Any) -> list[str]:
    """Headings that say they are sorted by, with the order."""
    return page.locator("#board-movie th[aria-sort]").evaluate_all(
        "all => all.map((th) => `${th.textContent} ${th.getAttribute('aria-sort')}`)"
    )


# Accessibility ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report", "failed"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(visit: Any, name: str, scheme: str, size: dict[str, int]) -> None:
    page = visit(name, color_scheme=scheme, viewport=size)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("name", ["report", "failed"])
def test_a_phone_scrolls_down_only(visit: Any, name: str) -> None:
    page = visit(name, viewport=PHONE)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.evaluate("window.scrollTo(500, 0)")
    assert page.evaluate("window.scrollX") == 0


def test_on_a_phone_the_method_stays_beside_its_scores(visit: Any) -> None:
    page = visit(viewport=PHONE)
    region = page.locator(".scroll:has(#board-movie)")
    assert region.evaluate("e => e.scrollWidth > e.clientWidth")
    region.focus()
    before = page.locator("#board-movie tbody th").first.bounding_box()["x"]
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.scroll').scrollLeft > 200")
    assert page.locator("#board-movie tbody th").first.bounding_box()["x"] == before


def test_first_tab_leads_to_the_content_and_focus_is_seen(visit: Any) -> None:
    page = visit()
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("e => e === document.activeElement")
    assert skip.bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(12):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("document.activeElement.outerHTML")


# Sorting ---------------------------------------------------------------------------------------


def test_a_click_sorts_numbers_as_numbers_and_a_second_turns_them(visit: Any) -> None:
    page = visit()
    assert marked(page) == ["accuracy descending"]
    sort_button(page, "trainable parameters").click()
    sizes = column(page, 7)
    assert sizes == ["22,566,531", "606,339", "74,883", "19,587", "–"]
    assert marked(page) == ["trainable parameters descending"]
    sort_button(page, "trainable parameters").click()
    # What was not measured stays last.
    assert column(page, 7) == ["19,587", "74,883", "606,339", "22,566,531", "–"]
    assert marked(page) == ["trainable parameters ascending"]
    assert page.locator("#board-movie tfoot").inner_text().startswith("majority class")
    assert column(page, board="board-own")[0] == "full fine-tuning", "the other table is as it was"


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts(visit: Any, key: str) -> None:
    page = visit()
    sort_button(page, "Method").focus()
    page.keyboard.press(key)
    names = column(page)
    assert names == sorted(names, key=str.lower)
    assert names[0] == "full fine-tuning"
    assert marked(page) == ["Method ascending"]
    assert sort_button(page, "Method").evaluate("e => e === document.activeElement")


# Filter and address ----------------------------------------------------------------------------


def test_words_hide_rows_everywhere_and_say_how_many(visit: Any) -> None:
    page = visit()
    state = page.locator("#state")
    assert state.inner_text() == "All 10 results shown"
    page.get_by_label("Find", exact=True).fill("movie lora")
    assert column(page) == ["LoRA", "LoRA (lora-r2)"]
    assert state.inner_text() == "8 of 10 results hidden"
    assert page.locator("#task-movie .left-out").inner_text() == (
        "Hidden by the filter: 3 of 5 methods."
    )
    assert not page.locator("#task-own").is_visible()
    assert page.locator(".tile:visible").count() == 1
    assert page.locator("nav li:visible").count() == 3  # all tasks, and provenance
    drawn = page.locator("#task-movie figure [data-method=full]")
    assert drawn.count() > 4
    assert all(not mark.is_visible() for mark in drawn.all())
    page.get_by_role("button", name="Show everything").click()
    assert state.inner_text() == "All 10 results shown"
    assert page.locator("#task-own").is_visible()
    assert "?" not in page.url


def test_nothing_found_is_said(visit: Any) -> None:
    page = visit()
    page.get_by_label("Find", exact=True).fill("no such thing")
    assert page.locator("#state").inner_text() == "10 of 10 results hidden"
    assert page.locator("section.task:visible").count() == 0


def test_the_address_holds_the_view_for_someone_else(visit: Any) -> None:
    page = visit()
    page.get_by_role("checkbox", name="LoRA", exact=True).uncheck()
    page.get_by_role("checkbox", name='Own <b>"rows"</b> & more').uncheck()
    sort_button(page, "time of a run").click()
    expected = column(page)
    assert len(expected) == 4
    assert "LoRA" not in expected
    # A link within the page keeps what is set.
    page.get_by_role("link", name="Movie reviews").click()
    until(page, "location.hash.startsWith('#task-movie?')")
    address = page.url
    other = visit(hash=address[address.index("#") :])
    assert column(other) == expected
    assert marked(other) == ["time of a run descending"]
    assert not other.get_by_role("checkbox", name="LoRA", exact=True).is_checked()
    assert not other.locator("#task-own").is_visible()
    assert other.locator("#state").inner_text() == "6 of 10 results hidden"
    assert abs(other.locator("#task-movie").bounding_box()["y"]) < 40, "it opens at the section"


def test_without_script_everything_is_there(visit: Any) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator(".board tbody tr:visible").count() == 10
    assert page.locator("button:visible, input:visible:not([type=radio])").count() == 0
    page.locator("#task-movie summary", has_text="Every run").click()
    assert page.locator("#task-movie details table tbody tr:visible").count() == 60  # every budget
    assert page.locator("figure [tabindex='-1']").count() == 0


# Figures ----------------------------------------------------------------------------------------


def views(page: Any) -> list[str]:
    """Titles of the horizontal axes of the views of costs that are seen."""
    seen = page.locator("#task-movie figure.views .view:visible svg")
    return [str(svg.get_attribute("aria-label")).split(" over ")[1] for svg in seen.all()]


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_one_cost_at_a_time_is_seen_and_the_keyboard_takes_the_next(
    visit: Any, script: bool
) -> None:
    page = visit(java_script_enabled=script)
    assert views(page) == ["trainable parameters"]
    page.get_by_role("radio", name="Trainable parameters").first.focus()
    page.keyboard.press("ArrowRight")
    assert views(page) == ["training seconds of one run"]
    page.locator("#task-movie").get_by_role("radio", name="Latency").click()
    assert views(page) == ["p50 latency of the ONNX model, ms"]
    note = page.locator("#task-movie figure.views .view:visible .note").inner_text()
    assert note.startswith("Not dominated: ")
    assert page.locator("#task-own figure.views .view:visible").count() == 1


def test_what_is_under_the_pointer_is_told_and_its_method_stands_out(visit: Any) -> None:
    page = visit()
    tip = page.locator("#tip")
    assert not tip.is_visible()
    figure = page.locator("#task-movie figure").first
    figure.scroll_into_view_if_needed()
    figure.locator("use[data-tip^='LoRA, seed 2']").hover()
    assert tip.inner_text().startswith("LoRA, seed 2: 0.7")
    faint = "e => getComputedStyle(e).opacity"
    assert float(figure.locator("[data-method=full]").first.evaluate(faint)) < 0.5
    assert float(figure.locator("[data-method=lora]").first.evaluate(faint)) == 1
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    assert float(figure.locator("[data-method=full]").first.evaluate(faint)) == 1
    # A row of a table does the same.
    row = page.locator("#board-movie tbody tr[data-method=head] th")
    row.scroll_into_view_if_needed()
    row.hover()
    assert float(figure.locator("[data-method=full]").first.evaluate(faint)) < 0.5
    assert not tip.is_visible()


def told(page: Any) -> str:
    """What is told at the moment; a hidden element has its text still."""
    tip = page.locator("#tip")
    return str(tip.inner_text()) if tip.is_visible() else ""


def test_the_keyboard_moves_between_marks_and_what_they_say_is_told(visit: Any) -> None:
    page = visit()
    figure = page.locator("#task-movie figure").first
    focused = "document.activeElement"
    expected = [f"full fine-tuning, seed {seed}: " for seed in (1, 2, 3)]
    expected += ["full fine-tuning: 0.780 ± 0.011 [", "LoRA, seed 1: "]
    # One stop a figure: what comes after it is in another one.
    page.locator(".scroll:has(#board-movie)").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate(f"!!{focused}.closest('figure')"):
            break
    for number, said in enumerate(expected):
        if number:
            page.keyboard.press("ArrowRight" if number % 2 else "ArrowDown")
        label = page.evaluate(f"{focused}.getAttribute('aria-label')")
        assert label.startswith(said)
        assert told(page) == label
        assert page.evaluate(f"{focused}.getAttribute('role')") == "img"
        assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
        assert figure.locator("[tabindex='0']").count() == 1
    faint = "e => getComputedStyle(e).opacity"
    assert float(figure.locator("[data-method=full]").first.evaluate(faint)) < 0.5
    place = page.evaluate("scrollY")
    page.keyboard.press("Escape")
    assert told(page) == ""
    assert page.evaluate(f"{focused}.getAttribute('aria-label')").startswith(expected[-1])
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("head only: 0.700")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    assert told(page).startswith(expected[0])
    assert page.evaluate("scrollY") == place
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.closest('figure') === document.querySelectorAll('figure')[1]")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(f"{focused}.getAttribute('aria-label')").startswith(expected[1])


def test_the_keyboard_skips_what_the_filter_hides(visit: Any) -> None:
    page = visit()
    figure = page.locator("#task-movie figure").first
    figure.locator("[tabindex='0']").focus()
    page.get_by_label("Find", exact=True).fill("movie lora")
    stop = figure.locator("[tabindex='0']")
    assert stop.count() == 1
    stop.focus()
    page.keyboard.press("End")
    assert told(page).startswith("LoRA (lora-r2): 0.740")
    page.get_by_label("Find", exact=True).fill("no such thing")
    assert figure.locator("[tabindex]").count() == 0


def test_a_finger_reads_the_mark_beside_it(visit: Any) -> None:
    page = visit(viewport=PHONE, has_touch=True)
    figure = page.locator("#task-movie figure").first
    figure.scroll_into_view_if_needed()
    for above in (15, 8):  # the second is near enough for Chromium to focus the mark by itself
        for said in ("head only: 0.700", "full fine-tuning: 0.780"):
            box = figure.locator(f"[data-tip^='{said}']").last.bounding_box()
            middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.touchscreen.tap(middle[0], middle[1] - above)
            assert told(page).startswith(said), "it stays when the finger is lifted"
    tip = page.locator("#tip").bounding_box()
    assert tip["x"] + tip["width"] <= PHONE["width"]
    page.touchscreen.tap(20, 20)
    assert told(page) == ""


def test_paper_cuts_nothing(visit: Any) -> None:
    page = visit(viewport={"width": 1040, "height": 720})  # A4 across, less its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    cut = page.evaluate(
        "[...document.querySelectorAll('.scroll, figure, pre')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth"
        " || e.scrollWidth > e.clientWidth + 1)"
        ".map((e) => e.getAttribute('aria-label') || e.textContent.slice(0, 60))"
    )
    assert cut == []


# Theme, clipboard, print -----------------------------------------------------------------------


def ground(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_theme_follows_the_system_until_the_reader_chooses(visit: Any) -> None:
    page = visit(color_scheme="light")
    light = ground(page)
    page.emulate_media(color_scheme="dark")
    until(page, "document.documentElement.dataset.theme === 'dark'")
    dark = ground(page)
    assert dark != light
    toggle = page.get_by_role("button", name="Dark theme")
    assert toggle.get_attribute("aria-pressed") == "true"
    toggle.click()
    assert (ground(page), toggle.get_attribute("aria-pressed")) == (light, "false")
    page.reload()
    assert ground(page) == light, "the choice is remembered"
    ink = page.locator("#task-movie figure text").first
    assert ink.evaluate("e => getComputedStyle(e).fill") == "rgb(27, 32, 38)"
    page.get_by_role("button", name="Dark theme").click()
    assert ground(page) == dark
    assert ink.evaluate("e => getComputedStyle(e).fill") == "rgb(230, 233, 237)"


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "fallback"])
def test_copy_buttons_work_from_a_file(visit: Any, clipboard: bool) -> None:
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('something older')")
    if not clipboard:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    button = page.get_by_role("button", name="Copy the commands to reproduce")
    button.click()
    until(page, "document.getElementById('told').textContent === 'Copied'")
    assert button.inner_text() == "Copied"
    assert button.evaluate("e => e === document.activeElement")
    field = page.get_by_label("Find", exact=True)
    field.focus()
    page.keyboard.press("Control+V")
    assert field.input_value() == f"git checkout {'0f' * 20} make run"


def test_paper_is_light_unfolded_and_without_controls(visit: Any, tmp_path: Path) -> None:
    page = visit(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("body").evaluate("e => getComputedStyle(e).color") == "rgb(27, 32, 38)"
    for hidden in ("nav", "#filter", "#theme", ".copy", ".skip"):
        assert page.locator(f"{hidden}:visible").count() == 0, hidden
    # Runs, options and pairs; below figures two curves of budgets and learning rates.
    assert page.locator("details table:visible").count() == 6 * len(finished.TASKS)
    headings = page.locator("#board-movie thead th:visible")
    assert "time of a run" in headings.all_inner_texts()
    breaks = "e => getComputedStyle(e).breakBefore"
    assert page.locator("#task-own").evaluate(breaks) == "page"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    paper = tmp_path / "report.pdf"
    page.pdf(path=paper, prefer_css_page_size=True)
    assert paper.read_bytes().startswith(b"%PDF")
