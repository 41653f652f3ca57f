"""A real `cqr serve`, and its page in a browser, for the tests of the page."""

import re
import subprocess
import sys
from contextlib import contextmanager

CQR = [sys.executable, "-m", "cqr.cli"]


@contextmanager
def serving(*options):
    """The address of a service that is given these options."""
    command = [*CQR, "serve", *map(str, options), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if match := re.match(r"Open (http://127\.0\.0\.1:\d+/)", line):
                    yield match[1]
                    break
            else:
                raise AssertionError("the service said no address")
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def pages(browser, service):
    """A function that opens an address of a service; no script may fail, no rule be broken.

    It takes the size of the window, a context to open it in, or what else makes a new one.
    """
    contexts, wrong = [], []

    def make(address="", width=1280, height=800, context=None, **options):
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            context.set_default_timeout(30_000)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda said: wrong.append(said.text) if "Content Security" in said.text else None,
        )
        page.goto(service + address)
        return page

    try:
        yield make
    finally:
        for context in contexts:
            context.close()
    assert wrong == []


def shown(page, grid="#grid"):
    """The addresses of the small pictures in a grid, in order, once they are results."""
    page.locator(f"{grid} .caption").first.wait_for()
    tiles = page.locator(f"{grid} li").all()
    tiles.sort(key=lambda tile: int(tile.get_attribute("data-index")))
    return [tile.get_attribute("data-src") for tile in tiles]
