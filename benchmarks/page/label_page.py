"""What a row of the labelling page costs in keystrokes, and the page's own part of its time.

    cqr serve --collect answers.csv --port 8000         # in another window
    python benchmarks/page/label_page.py [http://127.0.0.1:8000/] [--rows 100]

Headless Chromium is driven by its keyboard alone: a text, Enter, and the picture that is so, which
is drawn by chance from the first 18, a number among the first nine, and arrows beyond.  A script
types at once, so its time is no person's: it is the page's part of a row.
"""

import argparse
import random
import time

import numpy as np
from browsing import chromium, told
from playwright.sync_api import Page, expect

TEXTS = (
    "in red", "in dark blue", "larger", "without the hat", "same shape, shiny", "longer sleeves",
    "two of them", "seen from above", "add a small cube", "in wood", "striped", "much older",
)  # fmt: skip
FIRST = 18
"""Pictures among which the right one is."""


class Keys:
    """A keyboard that counts."""

    def __init__(self, page: Page) -> None:
        self.page, self.pressed = page, 0

    def press(self, key: str) -> None:
        self.pressed += 1
        self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        for letter in text:
            self.press(letter)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8000/")
    parser.add_argument("--rows", type=int, default=100)
    options = parser.parse_args()
    chance = random.Random(0)
    with chromium() as browser:
        page = told(browser.new_page(viewport={"width": 1440, "height": 900}))
        page.goto(f"{options.address}?show=label")
        page.locator("#label-grid .caption").first.wait_for(timeout=60_000)
        before = rows(page)
        keys = Keys(page)
        letters, seconds = [], []
        for number in range(options.rows):
            text = TEXTS[number % len(TEXTS)]
            began = time.perf_counter()
            label(keys, text, chance.randrange(FIRST))
            expect(page.locator("#label-said")).to_have_text(f"Kept: {text}", timeout=60_000)
            expect(page.locator("#label-text")).to_have_value("")
            page.locator("#label-grid li[data-index='0'] img.here").wait_for(timeout=60_000)
            seconds.append(time.perf_counter() - began)
            letters.append(len(text))
        kept = rows(page) - before
    each = keys.pressed / options.rows
    print(f"{kept} rows kept of {options.rows}, by keys alone")
    print(f"{each:.1f} keystrokes a row, {np.mean(letters):.1f} of them letters of the text")
    print(f"100 rows in ten minutes: {100 * each / 600:.1f} keystrokes a second, thinking included")
    print(
        f"a row took this script {np.median(seconds):.2f} s (median; {max(seconds):.2f} s at most)"
    )


def rows(page: Page) -> int:
    """Of the table that is kept."""
    page.wait_for_function("document.getElementById('label-count').textContent.includes('rows')")
    return int(page.locator("#label-count").inner_text().split()[0].replace(",", ""))


def label(keys: Keys, text: str, place: int) -> None:
    """One row: its text, and the picture at a place."""
    keys.type(text)
    keys.press("Enter")
    if place < 9:
        keys.press(str(place + 1))
        return
    tiles = keys.page.locator("#label-grid li")
    columns = len({round(tile.bounding_box()["x"]) for tile in tiles.all()})  # type: ignore[index]
    for key, times in (("ArrowDown", place // columns), ("ArrowRight", place % columns)):
        for _ in range(times):
            keys.press(key)
    keys.press("Enter")


if __name__ == "__main__":
    main()
