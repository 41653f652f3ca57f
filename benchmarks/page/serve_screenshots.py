"""Draw the pictures of docs/serve.md: the page of a running `cqr serve`, in headless Chromium.

    cqr serve --port 8000                       # in another window, after `make demo`
    python benchmarks/page/serve_screenshots.py [http://127.0.0.1:8000/] [--image ROW] [--text TEXT]

Writes docs/page-*.webp.  Needs chromium and the package playwright.
"""

import argparse
import io
from pathlib import Path

from browsing import chromium, told
from PIL import Image
from playwright.sync_api import Page

DOCS = Path(__file__).parents[2] / "docs"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8000/")
    parser.add_argument("--image", default="0")
    parser.add_argument("--text", default=None, help="the first that the page suggests if absent")
    options = parser.parse_args()
    with chromium() as browser:
        for name, view, scheme, draw in (
            ("gallery", DESKTOP, "light", gallery),
            ("results", DESKTOP, "light", results),
            ("dark", DESKTOP, "dark", steps),
            ("large", DESKTOP, "light", large),
            ("phone", PHONE, "light", results),
        ):
            scale = 1 + (view is PHONE)
            page = told(
                browser.new_page(viewport=view, color_scheme=scheme, device_scale_factor=scale)
            )
            draw(page, options)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(600)  # what moves has come to rest
            save(page.screenshot(), DOCS / f"page-{name}.webp")
            page.close()


def gallery(page: Page, options: argparse.Namespace) -> None:
    page.goto(options.address)
    page.wait_for_selector("#grid img.here")


def results(page: Page, options: argparse.Namespace) -> None:
    """One query, and the word whose region is lit."""
    page.goto(f"{options.address}?image={options.image}&text=")
    if options.text is None:
        page.locator("#tries button").first.click()
    else:
        page.fill("#text", options.text)
        page.press("#text", "Enter")
    page.wait_for_selector("#words button")
    page.locator("#words button").first.click()


def large(page: Page, options: argparse.Namespace) -> None:
    """A result, and what its regions add to its score."""
    results(page, options)
    page.locator("#grid a").first.click()
    page.locator("#large-why button").first.click()


def steps(page: Page, options: argparse.Namespace) -> None:
    """A query from what another one found."""
    results(page, options)
    page.locator("#grid a").first.focus()
    page.keyboard.press("Enter")
    page.locator("#tries button").nth(1).click()
    page.wait_for_selector("#words button")
    page.locator("#words button").last.hover()


def save(png: bytes, path: Path) -> None:
    Image.open(io.BytesIO(png)).convert("RGB").save(path, "WEBP", quality=82, method=6)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
