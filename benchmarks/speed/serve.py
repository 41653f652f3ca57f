"""A question through `cqr serve`, end to end, split into its parts.

    OMP_NUM_THREADS=1 python benchmarks/speed/serve.py --run RUN [--vectors 100000] [--queries 200]
        [--index exact|hnsw]

The service runs over a run and its own pictures, whose gallery is filled up to --vectors with
clustered random ones, which are searched like any; the questions come from another process, one
after the other, over one connection to 127.0.0.1.  First come --queries / 10 uploads of pictures
of the gallery, then --queries searches, each of an uploaded picture with a text.

The service says what each part took it; "the rest" is what the caller waited beside: HTTP, JSON,
checks and, for an upload, making the small picture.
"""

import argparse
import dataclasses
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import uvicorn

from cqr.search import gallery as galleries
from cqr.search.engine import Engine
from cqr.search.indexes import build_index, open_index
from cqr.search.server.application import application
from cqr.search.server.limits import Limits
from cqr.search.server.serve import listening
from cqr.search.server.suggestions import Suggestions

TEXTS = ("make it red", "add small blue circle to top-left", "remove large object", "make it large")
UPLOAD, SEARCH = ("decode", "detect"), ("encode", "search")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--index", default="exact")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        return ask(*options.ask.split(" ", 1), options.queries)
    with tempfile.TemporaryDirectory() as folder:
        engine = enlarged(
            Engine.open(options.run, device="cpu"), options.vectors, options.index, Path(folder)
        )
        pictures = json.dumps([str(engine.file(row)) for row in range(20)])
        with listening("127.0.0.1", 0) as listener:
            limits = Limits(seconds=300)  # the first upload loads the detector
            app = application(engine, Suggestions(), limits, hosts=None)
            server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            command = [sys.executable, __file__, "--queries", str(options.queries)]
            caller = subprocess.Popen([*command, "--ask", f"{address} {pictures}"])
            threading.Thread(target=end_with, args=(caller, server)).start()
            print(f"{len(engine.gallery):,} vectors, {engine.index.name} index")
            server.run(sockets=[listener])
    sys.exit(caller.returncode)


def enlarged(engine: Engine, size: int, index: str, folder: Path) -> Engine:
    """The engine over its gallery and as many made-up vectors as are missing of `size`."""
    held = engine.gallery
    more = max(0, size - len(held))
    rng = np.random.default_rng(0)
    width = held.vectors.shape[1]
    centres = rng.normal(size=(max(1, more // 100), width)).astype(np.float32)
    made = centres[rng.integers(0, len(centres), more)]
    made += 0.5 * rng.normal(size=made.shape).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    paths = [*held.paths, *(f"made-up/{i}" for i in range(more))]
    vectors = np.concatenate([held.vectors, made.astype(np.float16)])
    gallery = galleries.write(
        folder / galleries.NAME, held.source, pd.DataFrame({"path": paths}), vectors
    )
    build_index(index, gallery, lambda *_: None)
    return dataclasses.replace(engine, gallery=gallery, index=open_index(index, gallery))


def end_with(caller: subprocess.Popen[bytes], server: uvicorn.Server) -> None:
    caller.wait()
    server.should_exit = True


def ask(address: str, pictures: str, queries: int) -> None:
    """Upload and search, and print what that took."""
    connection = http.client.HTTPConnection(address)
    files = [Path(path).read_bytes() for path in json.loads(pictures)]
    names: list[str] = []

    def upload(number: int) -> Any:
        answer = post(connection, "/api/uploads", files[number % len(files)], "image/png")
        names.append(answer["id"])
        return answer

    def search(number: int) -> Any:
        asked = {
            "images": [names[number % len(names)]],
            "texts": [{"text": TEXTS[number % len(TEXTS)]}],
        }
        body = json.dumps(asked).encode()
        answer = post(connection, "/api/search", body, "application/json")
        assert len(answer["hits"]) == 50
        return answer

    uploads = measured(upload, max(5, queries // 10), UPLOAD)
    searches = measured(search, queries, SEARCH)
    print(f"{'ms':22}{'p50':>9}{'p99':>9}")
    for title, rows in (("an upload", uploads), ("a search, best 50", searches)):
        print(title)
        for part, values in rows.items():
            low, high = np.percentile(1000 * np.array(values), (50, 99))
            print(f"  {part:20}{low:9.2f}{high:9.2f}")


def measured(way: Any, times: int, parts: tuple[str, ...]) -> dict[str, list[float]]:
    """Seconds by part, of calls after a few that warm up."""
    rows: dict[str, list[float]] = {name: [] for name in (*parts, "the rest", "all")}
    searched = "search" in parts
    if searched:
        rows["search and the rest"] = []
    for number in range(times + 3):
        began = time.perf_counter()
        said = way(number)["seconds"]
        whole = time.perf_counter() - began
        if number < 3:
            continue
        spent = [said[part] for part in parts]
        for part, value in zip(parts, spent, strict=True):
            rows[part].append(value)
        rows["the rest"].append(whole - sum(spent))
        rows["all"].append(whole)
        if searched:
            rows["search and the rest"].append(whole - said["encode"])
    return rows


def post(connection: http.client.HTTPConnection, address: str, body: bytes, kind: str) -> Any:
    connection.request("POST", address, body, {"Content-Type": kind})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status < 300, content
    return json.loads(content)


if __name__ == "__main__":
    main()
