"""Mixed requests by many callers at once: how many are answered, and how long they wait.

    python benchmarks/campaigns/serve_load.py [--run RUN] [--requests 5000] [--threads 24]
        [--asking N ...]

Without --run, a small gallery of drawings is made and a model trained on it for an epoch.  The
callers never pause, not even where they are told to come again.  Of 20 requests 9 are searches, 3
uploads, 2 attention, 3 pictures, one each a list of the gallery, a row that is not there and a body
that is not JSON.  Each value of --asking is a service of its own, that takes so many requests for
work at a time; without it, one with the limits that `cqr serve` has.  Exits with 1 where anything
was answered with 500, or less than half with success.
"""

import argparse
import collections
import http.client
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = ("make it red", "add small blue circle to top-left", "remove large object", "make it large")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=24)
    parser.add_argument("--asking", type=int, nargs="*", default=[])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.run, options.asking)
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or drawn(Path(folder))
        print(f"{'asking':>7}{'200':>7}{'4xx':>7}{'503':>7}{'500':>7}{'s':>8}", end="")
        print(f"{'p50 ms':>9}{'p99 ms':>9}  of those with success, uploads apart")
        good = [
            measure(run, asking, options.requests, options.threads)
            for asking in ([[n] for n in options.asking] or [[]])
        ]
    sys.exit(not all(good))


def drawn(folder: Path) -> Path:
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "shared"))
    from drawn_gallery import make

    return make(folder)


def serve(run: Path, asking: list[int]) -> None:
    from cqr.search.command import index
    from cqr.search.engine import Engine
    from cqr.search.server import serve as serving
    from cqr.search.server.limits import Limits
    from cqr.search.server.suggestions import Suggestions

    index(run, None, None, None, "cpu", lambda *_: None)
    limits = Limits(asking=asking[0]) if asking else Limits()
    print(limits.asking)
    engine = Engine.open(run, device="cpu")
    serving.serve(engine, Suggestions(), "127.0.0.1", 0, limits=limits)


def measure(run: Path, asking: list[int], requests: int, threads: int) -> bool:
    command = [sys.executable, __file__, "--serve", "--run", str(run), "--asking"]
    service = subprocess.Popen([*command, *map(str, asking)], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    limit = service.stdout.readline().strip()
    line = next(line for line in service.stdout if line.startswith("Open "))
    address = line.split()[1].removeprefix("http://").rstrip("/")
    try:
        callers = Callers(address, requests)
        began = time.perf_counter()
        running = [threading.Thread(target=callers.ask, args=(i,)) for i in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        seconds = time.perf_counter() - began
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    count = collections.Counter(callers.codes)
    success = sum(n for code, n in count.items() if code < 300)
    mistaken = sum(n for code, n in count.items() if 400 <= code < 500)
    low, high = (np.percentile(1000 * np.array(callers.waited or [0]), at) for at in (50, 99))
    print(f"{limit:>7}{success:>7}{mistaken:>7}{count[503]:>7}{count[500]:>7}", end="")
    print(f"{seconds:>8.1f}{low:>9.0f}{high:>9.0f}", flush=True)
    return not count[500] and 2 * success >= requests


class Callers:
    """What all callers share: what is left to ask, and what was answered."""

    def __init__(self, address: str, requests: int) -> None:
        self.address = address
        self.left = iter(range(requests))
        self.codes: list[int] = []
        self.waited: list[float] = []
        connection = http.client.HTTPConnection(address, timeout=120)
        self.rows = said(connection, "GET", "/api/info")[1]["pictures"]
        connection.request("GET", "/api/images/0")
        self.picture = connection.getresponse().read()
        while (first := said(connection, "POST", "/api/uploads", self.picture))[0] == 503:
            time.sleep(0.1)  # the detector is being loaded
        self.uploaded = [first[1]["id"]]

    def ask(self, caller: int) -> None:
        rng = random.Random(caller)
        connection = http.client.HTTPConnection(self.address, timeout=120)
        for number in self.left:
            method, path, body = self.request(number % 20, rng)
            began = time.perf_counter()
            code, answer = said(connection, method, path, body)
            if code < 300 and path != "/api/uploads":
                self.waited.append(time.perf_counter() - began)
            if code == 201:
                self.uploaded.append(answer["id"])
            self.codes.append(code)

    def request(self, kind: int, rng: random.Random) -> tuple[str, str, bytes | None]:
        row, text = rng.randrange(self.rows), rng.choice(TEXTS)
        image = rng.choice([row, row, self.uploaded[-1]])
        if kind < 9:
            asked: Any = {"images": [image], "texts": [{"text": text}]}
            return "POST", "/api/search", json.dumps(asked).encode()
        if kind < 12:
            return "POST", "/api/uploads", self.picture
        if kind < 14:
            return "POST", "/api/attention", json.dumps({"image": image, "text": text}).encode()
        if kind < 17:
            return "GET", f"/api/images/{row}/thumb", None
        if kind == 17:
            return "GET", "/api/gallery?count=40", None
        if kind == 18:
            return "GET", f"/api/images/{self.rows + row}", None
        return "POST", "/api/search", b"{"


def said(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, Any]:
    """A status and, where it is JSON, the answer."""
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    kind = answer.headers.get("content-type", "")
    return answer.status, json.loads(content) if "json" in kind else content


if __name__ == "__main__":
    main()
