"""Photograph a part of a page: python benchmarks/page/screenshot.py REPORT.html OUT.webp [NUMBER]

Takes the NUMBERth example (from 1), its third word chosen, all unfolded, in a window 1,100 pixels
wide, light above dark.  Needs playwright and a Chromium.
"""

import io
import sys
from pathlib import Path

from browsing import chromium
from PIL import Image


def main(page: Path, out: Path, number: int = 1) -> None:
    shots = []
    with chromium() as browser:
        for scheme in ("light", "dark"):
            tab = browser.new_page(
                viewport={"width": 1100, "height": 900}, color_scheme=scheme, device_scale_factor=1
            )
            tab.goto(page.resolve().as_uri())
            example = tab.locator(".example").nth(number - 1)
            if (words := example.locator("button.word")).count():
                words.nth(min(2, words.count() - 1)).click()
            for summary in example.locator("summary").all():
                summary.click()
            tab.wait_for_timeout(300)
            shots.append(Image.open(io.BytesIO(example.screenshot())))
    sheet = Image.new("RGB", (shots[0].width, sum(shot.height for shot in shots)))
    for i, shot in enumerate(shots):
        sheet.paste(shot, (0, i * shots[0].height))
    sheet.save(out, quality=80)
    print(f"{out}: {sheet.width} x {sheet.height}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
