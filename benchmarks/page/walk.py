"""Record the moving picture of README.md: a walk over the page of a running `cqr serve`.

    cqr serve --port 8000                       # in another window, after `make demo`
    python benchmarks/page/walk.py [http://127.0.0.1:8000/] [--image ROW] [--text TEXT]
        [--other FILE]

Headless Chromium does what a reader would: pick a picture, type a text (or take the first that the
page suggests), point at its words, look at results large and start from one, ask with a word that
the model never saw, drop a picture from elsewhere.  Writes docs/walk.webp, under 1 MB.
Needs chromium and the package playwright.
"""

import argparse
import io
import re
from pathlib import Path

from browsing import chromium, told
from PIL import Image, ImageChops
from playwright.sync_api import Locator, Page

OUT = Path(__file__).parents[2] / "docs" / "walk.webp"
VIEW = {"width": 1120, "height": 700}
SHOWN = (896, 560)
MOST = 1_000_000
"""Bytes: READMEs are read over slow lines too."""

POINTER = """
const dot = document.createElement('div');
dot.id = 'pointer';
dot.style.cssText = 'position:fixed;z-index:99;width:18px;height:18px;margin:-9px;'
  + 'border-radius:50%;background:#f2a93b99;border:2px solid #b36b00;'
  + 'pointer-events:none;left:50%;top:50%';
document.body.append(dot);
addEventListener('mousemove', ({ clientX, clientY }) => {
  [dot.style.left, dot.style.top] = [clientX + 'px', clientY + 'px'];
});
"""


class Film:
    """Frames, each with how long it stays; one that shows nothing new lengthens the last."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.stay: list[int] = []

    def take(self, milliseconds: int) -> None:
        self.page.wait_for_timeout(150)  # what moves has come to rest
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        image = image.resize(SHOWN, Image.Resampling.LANCZOS)
        if self.frames and ImageChops.difference(image, self.frames[-1]).getbbox() is None:
            self.stay[-1] += milliseconds
            return
        self.frames.append(image)
        self.stay.append(milliseconds)

    def point(self, at: Locator, milliseconds: int = 600) -> None:
        at.hover()
        self.take(milliseconds)

    def click(self, at: Locator) -> None:
        self.point(at)
        at.click()

    def type(self, text: str) -> None:
        field = self.page.locator("#text")
        field.fill("")
        for start in range(0, len(text), 5):
            field.fill(text[: start + 5])
            self.take(120)
        field.press("Enter")

    def save(self) -> None:
        for quality in (70, 55, 40, 30):
            self.frames[0].save(
                OUT, "WEBP", save_all=True, append_images=self.frames[1:], duration=self.stay,
                loop=0, quality=quality, method=5, minimize_size=True, kmax=9,
            )  # fmt: skip
            if OUT.stat().st_size < MOST:
                break
        size, seconds = OUT.stat().st_size, sum(self.stay) / 1000
        print(f"{OUT}: {len(self.frames)} frames, {seconds:.0f} s, {size / 1000:.0f} kB")
        if size >= MOST:
            raise SystemExit("it is too large: leave steps out")


def walk(page: Page, address: str, row: int, text: str | None, other: Path | None) -> Film:
    film = Film(page)
    page.goto(address)
    settled(page)
    page.evaluate(POINTER)
    film.take(1500)
    film.click(page.locator("#grid a").nth(row))
    settled(page)
    page.wait_for_selector("#tries button")
    film.take(1800)
    if text is None:
        film.click(page.locator("#tries button").first)
    else:
        film.type(text)
    settled(page)
    film.take(1800)
    words = page.locator("#words button")
    for number in range(min(words.count(), 5)):
        film.point(words.nth(number), 900)
    film.click(page.locator("#grid a").first)
    page.wait_for_load_state("networkidle")
    film.take(1500)
    page.keyboard.press("ArrowRight")
    page.wait_for_load_state("networkidle")
    film.take(1200)
    film.click(page.get_by_role("button", name="Start from this").last)
    settled(page)
    film.take(1500)
    film.type("make the zebra red, please")
    settled(page)
    film.take(3000)
    if other is not None:
        page.set_input_files("#file", other)
        page.wait_for_url(re.compile("image=[0-9a-f]{32}"))
        settled(page)
        film.take(3500)
    return film


def settled(page: Page) -> None:
    """Wait until pictures are there and nobody is asked any more."""
    page.wait_for_load_state("networkidle")
    page.wait_for_selector("#grid img.here")
    page.locator("#grid[aria-busy]").wait_for(state="detached")
    page.wait_for_timeout(700)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8000/")
    parser.add_argument("--image", type=int, default=0, help="among the first that are shown")
    parser.add_argument("--text", help="the first that the page suggests if absent")
    parser.add_argument("--other", type=Path, help="a picture from elsewhere, to be dropped")
    options = parser.parse_args()
    with chromium() as browser:
        page = told(browser.new_page(viewport=VIEW, color_scheme="light", reduced_motion="reduce"))
        page.set_default_timeout(120_000)
        walk(page, options.address, options.image, options.text, options.other).save()


if __name__ == "__main__":
    main()
