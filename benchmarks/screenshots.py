"""Pictures of a report for docs: at 1440 and 390 pixels, light and dark, in Debian's Chromium.

python -m benchmarks.screenshots comparison/report.html --out docs --part top --part phone
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

_DESK = {"width": 1440, "height": 900}
_PHONE = {"width": 390, "height": 844}
_COLOURS = 200
_GAP = 20


def _crop(page: Any, top: float, bottom: float) -> Image.Image:
    width = page.viewport_size["width"]
    clip = {"x": 0, "y": top, "width": width, "height": bottom - top}
    return Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB")


def _figure(page: Any, number: int) -> tuple[float, float]:
    box = page.locator("section.task").first.locator("figure").nth(number).bounding_box()
    return box["y"], box["y"] + box["height"]


def top(page: Any) -> Image.Image:
    """From the heading to the first two figures of the first task."""
    return _crop(page, 0, _figure(page, 1)[1] + _GAP)


def task(page: Any) -> Image.Image:
    """All of the first task down to its figures, training time as the cost."""
    found = page.locator("section.task").first
    found.get_by_role("radio", name="Training time").check()
    page.evaluate("scrollTo(0, 0)")  # it scrolls, and places are counted from what is seen
    last = found.locator("figure").count() - 1
    return _crop(page, found.bounding_box()["y"] - _GAP, _figure(page, last)[1] + _GAP)


def phone(page: Any) -> Image.Image:
    """The first screens, side by side."""
    height = 1500
    whole = Image.new("RGB", (3 * _PHONE["width"] + 2 * _GAP, height), "#888888")
    for place in range(3):
        part = _crop(page, place * height, (place + 1) * height)
        whole.paste(part, (place * (_PHONE["width"] + _GAP), 0))
    return whole


#: Part → what draws it, viewport, theme, name of the file.
PARTS: dict[str, tuple[Any, Any, Any, str]] = {
    "top": (top, _DESK, "light", "report.png"),
    "task": (task, _DESK, "dark", "report-dark.png"),
    "phone": (phone, _PHONE, "light", "report-phone.png"),
    "phone-dark": (phone, _PHONE, "dark", "report-phone-dark.png"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--part", choices=PARTS, action="append")
    options = parser.parse_args()
    with sync_playwright() as driver:
        chromium = shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for part in options.part or PARTS:
            draw, size, scheme, name = PARTS[part]
            page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
            page.goto(options.report.absolute().as_uri())
            picture = draw(page).quantize(_COLOURS, dither=Image.Dither.NONE)
            picture.save(options.out / name, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
