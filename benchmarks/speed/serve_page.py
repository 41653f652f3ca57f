"""The first answer of the page, on its own clock, over a gallery of 100,000.

    OMP_NUM_THREADS=1 python benchmarks/speed/serve_page.py --run RUN [--vectors 100000]
        [--index hnsw]

From Enter in the text to the last thumbnail that can be seen, in headless Chromium at 1440 x 900,
another process; each question is another, so no answer is known, but pictures may be.  The gallery
is that of benchmarks/speed/serve.py: a run's own pictures, filled up with clustered random vectors.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import uvicorn
from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).parents[1] / "page"))
from browsing import chromium
from serve import end_with, enlarged

from cqr.search.engine import Engine
from cqr.search.server.application import application
from cqr.search.server.limits import Limits
from cqr.search.server.serve import listening
from cqr.search.server.suggestions import Suggestions

TEXTS = ("make it red", "add small blue circle to top-left", "remove large object", "make it large")

ASK = """async ([text]) => {
  const field = document.getElementById("text");
  field.value = text;
  const began = performance.now();
  document.getElementById("form").requestSubmit();
  const seen = () => [...document.querySelectorAll("#grid li")].filter((tile) => {
    const { top, bottom } = tile.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  });
  const there = () => document.getElementById("heading").textContent === text &&
    document.querySelector("#grid .caption") &&
    seen().every((tile) => tile.querySelector("img.here") || tile.querySelector(".gone"));
  let answered = 0;
  while (!there()) {
    if (!answered && document.querySelector("#grid .caption")) answered = performance.now() - began;
    await new Promise(requestAnimationFrame);
  }
  return [answered || performance.now() - began, performance.now() - began, seen().length];
}"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--index", default="hnsw")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--walk", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.walk:
        address, own = options.walk.split()
        return walk(address, options.questions, int(own))
    with tempfile.TemporaryDirectory() as folder, listening("127.0.0.1", 0) as listener:
        engine = Engine.open(options.run, device="cpu")
        own = len(engine.gallery)
        engine = enlarged(engine, options.vectors, options.index, Path(folder))
        app = application(engine, Suggestions(), Limits(), hosts=None)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        command = [sys.executable, __file__, "--questions", str(options.questions)]
        walking = subprocess.Popen([*command, "--walk", f"{address} {own}"])
        threading.Thread(target=end_with, args=(walking, server)).start()
        server.run(sockets=[listener])
    sys.exit(walking.returncode)


def walk(address: str, questions: int, own: int) -> None:
    """Ask of so many of the run's own pictures, after two that warm up."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        rows = [7 * number % own for number in range(questions + 2)]
        spent = [ask(page, address, row, TEXTS[i % len(TEXTS)]) for i, row in enumerate(rows)][2:]
    answered, seen, shown = np.array(spent).T
    print(f"{'ms':24}{'first':>8}{'p50':>8}{'least':>8}")
    for title, values in (("results are there", answered), ("thumbnails are seen", seen)):
        print(f"{title:24}{values[0]:8.0f}{np.median(values):8.0f}{values.min():8.0f}")
    print(f"{shown[0]:.0f} thumbnails, {questions} questions")


def ask(page: Page, address: str, row: int, text: str) -> list[float]:
    page.goto(f"{address}?image={row}&text=")
    page.wait_for_selector("#grid .caption")
    page.wait_for_load_state("networkidle")
    spent: list[float] = page.evaluate(ASK, [text])
    return spent


if __name__ == "__main__":
    main()
