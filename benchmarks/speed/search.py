"""Asking a gallery one question at a time, on one core: ours beside faiss.

    pip install '.[index]'
    OMP_NUM_THREADS=1 python benchmarks/speed/search.py [--sizes 10000,100000] [--queries 1000]
        [--ways exact,hnsw,faiss-flat,faiss-hnsw,faiss-hnsw:80] [--rounds 1] [--seed 0]
        [--folder DIR]

Vectors are synthetic, seeded and clustered: centres are random directions of 512 numbers, one
for each 100 vectors, and a vector is its centre plus noise of the same length, made unit length;
a query is drawn in the same way and asks for the best 10.  The HNSW graphs have the same
parameters, but `hnsw:80` and `faiss-hnsw:80` are searched with 80 candidates.  faiss holds float32;
what it is given is what the gallery's float16 says.  SEED draws other queries of the same gallery.

Each way builds, and then searches, in a process of its own that is bound to one core; what a build
takes is CPU time.  All are built before the first is searched; they are searched in turn, ROUNDS
times, and each figure is the median of its rounds.  Latencies are those of single queries after 50
to warm up; recall@10 is against faiss' exact search; memory is what the resident memory has grown
by from before opening to after the last query, file pages that are mapped included.  What a FOLDER
has already is not made again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIM, EACH, TOP, WARM = 512, 100, 10, 50
WAYS = ("exact", "hnsw", "faiss-flat", "faiss-hnsw")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the files go; kept if it is named")
    parser.add_argument("--do", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.do:
        print(json.dumps(STEPS[options.do[0]](options.folder, options.do[1])))
        return
    print(f"{options.queries} queries, {DIM} numbers a vector, one core")
    print(f"{'vectors':>9}  {'way':14} {'p50 ms':>8} {'p99 ms':>8} {'recall@10':>9} ", end="")
    print(f"{'build s':>8} {'memory MiB':>10} {'disk MiB':>9}")
    with tempfile.TemporaryDirectory() as temporary:
        for size in map(int, options.sizes.split(",")):
            folder = (options.folder or Path(temporary)) / str(size)
            draw(folder, size, options.queries, options.seed)
            run("truth", "", folder)
            ways = options.ways.split(",")
            kinds = dict.fromkeys(way.split(":")[0] for way in ways)
            built = {kind: run("build", kind, folder) for kind in kinds}
            rounds = [[run("search", w, folder) for w in ways] for _ in range(options.rounds)]
            for way, found in zip(ways, zip(*rounds, strict=True), strict=True):
                p50, p99, recall, memory = (
                    median(one[figure] for one in found)
                    for figure in ("p50", "p99", "recall", "memory")
                )
                cost = built[way.split(":")[0]]
                print(
                    f"{size:>9,}  {way:14} {p50:8.3f} {p99:8.3f} {recall:9.4f}"
                    f" {cost['seconds']:8.1f} {memory:10.0f} {cost['disk']:9.0f}",
                    flush=True,
                )


def run(step: str, way: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--do", step, way, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def draw(folder: Path, size: int, queries: int, seed: int) -> None:
    """A gallery, the same for the same size, and queries."""
    import pandas as pd

    from cqr.search import gallery

    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((max(1, size // EACH), DIM), np.float32))

    def some(number: int, rng: np.random.Generator) -> NDArray[np.float32]:
        noise = rng.standard_normal((number, DIM), np.float32) / np.sqrt(np.float32(DIM))
        return unit(centres[rng.integers(0, len(centres), number)] + noise)

    if not (folder / gallery.NAME).exists():
        vectors = np.empty((size, DIM), np.float16)
        for first in range(0, size, 10_000):
            part = vectors[first : first + 10_000]
            part[:] = some(len(part), rng)
        table = pd.DataFrame({"path": [f"{row}.jpg" for row in range(size)]})
        gallery.write(folder / gallery.NAME, {}, table, vectors)
    np.save(folder / "queries.npy", some(queries, np.random.default_rng([seed, size])))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def opened(folder: Path) -> tuple[Any, NDArray[np.float32]]:
    from cqr.search import gallery

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return gallery.open_gallery(folder), np.load(folder / "queries.npy")


def truth(folder: Path, way: str) -> dict[str, float]:
    import faiss

    faiss.omp_set_num_threads(1)
    gallery, queries = opened(folder)
    index = faiss.IndexFlatIP(DIM)
    index.add(gallery.vectors.astype(np.float32))
    np.save(folder / "truth.npy", index.search(queries, TOP)[1])
    return {}


def build(folder: Path, way: str) -> dict[str, float]:
    gallery, _ = opened(folder)
    began = time.process_time()
    file = folder / f"{way}.faiss"
    if way == "hnsw":
        from cqr.search.indexes import hnsw

        file = hnsw.build(gallery, lambda done, total: None)
    elif way == "exact":
        file = folder / "gallery.safetensors"
    elif not file.exists():
        import faiss

        from cqr.search.indexes import hnsw

        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatIP(DIM)
        if way == "faiss-hnsw":
            index = faiss.IndexHNSWFlat(DIM, hnsw.CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = hnsw.BUILD_WIDTH
        for first in range(0, len(gallery), 10_000):
            index.add(gallery.vectors[first : first + 10_000].astype(np.float32))
        faiss.write_index(index, str(file))
    return {"seconds": time.process_time() - began, "disk": file.stat().st_size / 2**20}


def search(folder: Path, way: str) -> dict[str, float]:
    # libraries are no memory of an index
    import faiss

    import cqr.search.indexes.exact
    from cqr.search.indexes import hnsw

    faiss.omp_set_num_threads(1)
    before = resident()
    gallery, queries = opened(folder)
    name, _, width = way.partition(":")
    if way.startswith("faiss"):
        index = faiss.read_index(str(folder / f"{name}.faiss"))
        if name == "faiss-hnsw":
            index.hnsw.efSearch = int(width or hnsw.search_width(len(gallery)))

        def ask(query: NDArray[np.float32]) -> NDArray[np.int64]:
            return index.search(query, TOP)[1][0]
    else:
        ours = cqr.search.indexes.open_index(name, gallery)
        if width:
            ours._how.efSearch = int(width)
        nothing = np.empty(0, np.int64)

        def ask(query: NDArray[np.float32]) -> NDArray[np.int64]:
            return ours.search(query, TOP, [nothing])[0][0]

    for query in queries[:WARM]:
        ask(query[None])
    seconds, found = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(ask(query[None]))
        seconds.append(time.perf_counter() - began)
    right = np.load(folder / "truth.npy")
    hits = [len(np.intersect1d(*pair)) / TOP for pair in zip(found, right, strict=True)]
    p50, p99 = np.percentile(np.array(seconds) * 1000, (50, 99))
    memory = (resident() - before) / 2**20
    return {"p50": p50, "p99": p99, "recall": float(np.mean(hits)), "memory": memory}


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


STEPS = {"truth": truth, "build": build, "search": search}

if __name__ == "__main__":
    main()
