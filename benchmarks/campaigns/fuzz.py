"""Damaged files of every format that is read: each ends in a value or in one sentence.

    python benchmarks/campaigns/fuzz.py --inputs 20000            make fuzz
    python benchmarks/campaigns/fuzz.py --only tsv --seed 7       one of them again
    python benchmarks/campaigns/fuzz.py --kept FILE               goes on after what FILE holds

For each format a whole file is made first, and must be read: the control.  Then bits are turned,
parts cut out, doubled, filled with one byte or replaced by extreme numbers, by a seed that is
printed.  A process reads them, one after the other, with SECONDS of CPU and MEMORY more than it
began with for each.  What fails is kept under tests/cases/ as FORMAT-SEED.bin.
"""

import argparse
import json
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from PIL import Image

from cqr.errors import UserError

CASES = Path(__file__).parents[2] / "tests" / "cases"
SECONDS = 10
WAIT = 300
"""Seconds that may pass, whoever else uses the machine."""

MEMORY = 2 << 30
"""Bytes of address space; a decoder takes a few copies of the largest picture that is let in."""

rng = np.random.default_rng(0)


# --- the formats: a function makes a whole file in a folder, another reads it --------------------


def make_features(folder: Path) -> Path:
    from cqr.pipeline import feature_file, shards

    path = folder / "f.h5"
    header = shards.Header("s", "2026", 2, 8, {"name": "drawn"}, "/p", "cqr extract", "0")
    rows = shards.Rows.empty(2, 8, 20)
    rows.paths[:] = [f"{i:02d}.png" for i in range(20)]
    rows.arrays["regions/features"][:] = rng.normal(size=(20, 2, 8))
    rows.arrays["regions/count"][:] = 2
    rows.arrays["images/size"][:] = 30
    shards.write_shard(feature_file.shards_folder(path) / "00000.h5", header, rows)
    feature_file.join(path, header, [feature_file.shards_folder(path) / "00000.h5"])
    return path


def make_shard(folder: Path) -> Path:
    make_features(folder)
    return folder / "f.shards" / "00000.h5"


def make_old(folder: Path) -> Path:
    """As version 1, without checksums."""
    path = make_features(folder)
    with h5py.File(path, "a") as file:  # HDF5 cuts off what follows its end
        file.attrs["version"] = 1
    return path


def read_features(path: Path) -> None:
    from cqr.pipeline.examine import examine
    from cqr.pipeline.feature_file import open_features

    whole = path.parent.parent / "f.h5" if path.parent.suffix == ".shards" else path
    examine(open_features(whole))


def picture(format: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pixels = rng.integers(0, 255, (24, 31, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "a", format)
        return folder / "a"

    return make


def make_grey(folder: Path) -> Path:
    Image.fromarray(rng.integers(0, 4096, (24, 31)).astype(np.uint16)).save(folder / "a", "TIFF")
    return folder / "a"


def read_picture(path: Path) -> None:
    from cqr.pipeline import images

    images.size(path)
    images.decode(path)


def make_arrays(folder: Path) -> Path:
    (folder / "paths.txt").write_text("a\nb\n")
    np.save(folder / "boxes.npy", np.tile(np.float32([0, 0, 5, 5]), (2, 3, 1)))
    np.save(folder / "sizes.npy", np.full((2, 2), 9))
    np.save(folder / "features.npy", rng.normal(size=(2, 3, 4)))
    return folder / "features.npy"


def info() -> dict[str, object]:
    columns = {name: np.arange(3) for name in ("objects_id", "attrs_id")}
    confidences = {name: np.float32([0.9, 0.5, 0.1]) for name in ("objects_conf", "attrs_conf")}
    return {**columns, **confidences, "bbox": np.tile([0, 0, 5, 5], (3, 1))}


def make_npz(folder: Path) -> Path:
    x, box = rng.normal(size=(3, 4)).astype(np.float32), np.tile(np.float32([0, 0, 5, 5]), (3, 1))
    more = {"num_bbox": 3, "image_h": 9, "image_w": 9, "info": info()}
    np.savez(folder / "a.npz", x=x, bbox=box, **more)
    return folder / "a.npz"


def make_mmf(folder: Path) -> Path:
    np.save(folder / "a.npy", rng.normal(size=(3, 4)))
    about = info() | {"image_width": 9, "image_height": 9, "num_boxes": 3}
    np.save(folder / "a_info.npy", np.array(about, object), allow_pickle=True)
    return folder / "a_info.npy"


def make_tsv(folder: Path) -> Path:
    from base64 import b64encode

    box = b64encode(np.tile(np.float32([0, 0, 5, 5]), (3, 1)).tobytes()).decode()
    x = b64encode(rng.normal(size=(3, 4)).astype(np.float32).tobytes()).decode()
    lines = ["\t".join([str(i), "9", "9", "3", box, x]) for i in range(5)]
    (folder / "a.tsv").write_text("\n".join(lines) + "\n")
    return folder / "a.tsv"


def read_source(path: Path) -> None:
    from cqr.pipeline.imports import ImportJob, import_features

    source = path if path.suffix == ".tsv" else path.parent
    with tempfile.TemporaryDirectory() as out:
        import_features(ImportJob(source, Path(out) / "o.h5"))


def make_pickle(folder: Path) -> Path:
    model = {f"{i}.w": rng.normal(size=(3, 4)).astype(np.float32) for i in range(4)}
    (folder / "w.pkl").write_bytes(pickle.dumps({"model": model}, 2))
    return folder / "w.pkl"


def make_torch(folder: Path) -> Path:
    import torch

    torch.save({"model": {"w": torch.zeros(3, 4)}}, folder / "w.pth")
    return folder / "w.pth"


def make_safetensors(folder: Path) -> Path:
    import safetensors.numpy

    safetensors.numpy.save_file({"w": np.zeros((3, 4))}, folder / "w.safetensors")
    return folder / "w.safetensors"


def read_weights(path: Path) -> None:
    from cqr.pipeline.detectors import weights

    weights.read(path)


def make_css(folder: Path) -> Path:
    mods = [{"from": [0], "to": [1], "to_str": "make it red"}]
    part = {"objects_img": [[], []], "labels": ["a", "b"], "mods": mods}
    file = folder / "css_toy_dataset_novel2_small.dup.npy"
    np.save(file, np.array({"train": part, "test": part}, object), allow_pickle=True)
    return file


def read_css(path: Path) -> None:
    from cqr.trainer.datasets.readers import css_original

    css_original.read(path.parent)


TABLE = pd.DataFrame({"path": ["a.png", "b.png"], "colour": ["red", "blue"], "price": ["1", "2.5"]})


def make_csv(folder: Path) -> Path:
    TABLE.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def make_parquet(folder: Path) -> Path:
    TABLE.to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def read_table(path: Path) -> None:
    from cqr.search.metadata import matching, read_metadata

    table, _ = read_metadata(path, ["a.png", "b.png", "c.png"])
    for name in table.columns[:3]:
        value = '"red"' if table[name].dtype == "string" else "1"
        matching(f"{name} != {value} or {name} in [{value}]", table)


def make_list(folder: Path) -> Path:
    (folder / "list").write_text("\ufeffa.png\r\nsub/b.png\n\n./c.png")
    return folder / "list"


def read_list(path: Path) -> None:
    from cqr.listing import listed

    listed(path.parent, path)


def make_plan(folder: Path) -> Path:
    from cqr.pipeline.plan import Plan
    from cqr.pipeline.shards import Header

    header = Header("s", "2026", 2, 8, {"name": "drawn"}, "/p", "cqr extract", "0")
    Plan(header, (("a", "b"), ("c",))).save(folder)
    return folder / "plan.json"


def read_plan(path: Path) -> None:
    from cqr.pipeline.assembly import unfinished
    from cqr.pipeline.plan import Plan

    plan = Plan.load(path.parent)
    if plan is not None:
        unfinished(path.parent / "f.h5", plan)


def make_gallery(folder: Path) -> Path:
    from cqr.search import gallery

    vectors = rng.normal(size=(300, 8)).astype(np.float16)
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(300)]})
    gallery.write(folder / gallery.NAME, {}, table, vectors)
    return folder / gallery.NAME


def read_gallery(path: Path) -> None:
    from cqr.search import gallery

    gallery.read(path)


def make_graph(folder: Path) -> Path:
    from cqr.search import gallery
    from cqr.search.indexes import hnsw

    make_gallery(folder)
    return hnsw.build(gallery.open_gallery(folder), lambda done, total: None)


def read_graph(path: Path) -> None:
    from cqr.search import gallery
    from cqr.search.indexes import open_index

    of = gallery.open_gallery(path.parent)
    rows, _ = open_index("hnsw", of).search(np.ones((4, 8), np.float32), 5, [np.zeros(0, int)] * 4)
    if rows.max() >= len(of):
        raise AssertionError("a row that is not there")


FORMATS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None]]] = {
    "features": (make_features, read_features),
    "shard": (make_shard, read_features),
    "features-v1": (make_old, read_features),
    **{name.lower(): (picture(name), read_picture) for name in ("PNG", "JPEG", "WEBP", "GIF")},
    **{name.lower(): (picture(name), read_picture) for name in ("BMP", "TIFF", "PPM", "JPEG2000")},
    "avif": (picture("AVIF"), read_picture),
    "grey": (make_grey, read_picture),
    "npy": (make_arrays, read_source),
    "npz": (make_npz, read_source),
    "mmf": (make_mmf, read_source),
    "tsv": (make_tsv, read_source),
    "pkl": (make_pickle, read_weights),
    "pth": (make_torch, read_weights),
    "safetensors": (make_safetensors, read_weights),
    "css": (make_css, read_css),
    "csv": (make_csv, read_table),
    "parquet": (make_parquet, read_table),
    "list": (make_list, read_list),
    "plan": (make_plan, read_plan),
    "gallery": (make_gallery, read_gallery),
    "graph": (make_graph, read_graph),
}


def made(name: str, folder: Path) -> Path:
    """A whole file of a format, equal each time but for ids that are drawn anew."""
    global rng
    rng = np.random.default_rng(0)
    return FORMATS[name][0](folder)


SLOW = {"features-v1": 20}
"""Another process opens each of these: so many times fewer are tried."""


# --- damage --------------------------------------------------------------------------------------


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Another content, by a few kinds of damage."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = draw.randrange(len(data) + 1)
        length = min(draw.choice((1, 2, 4, 8, 64)), len(data) - at)
        match draw.randrange(7):
            case 0 if length:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + length] = draw.randbytes(length)
            case 2:
                data[at : at + length] = bytes([draw.choice((0, 255, 127, 128))]) * length
            case 3:
                number = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
                data[at : at + 8] = number.to_bytes(8, draw.choice(("little", "big")))
            case 4:
                del data[at:]
            case 5:
                del data[at : at + length]
            case _:
                data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
    return bytes(data)


def outcome(read: Callable[[Path], None], path: Path) -> str:
    """ "value", "sentence", or what went wrong."""
    from cqr.pipeline.images import Refused

    try:
        read(path)
    except (UserError, Refused) as error:
        return "sentence" if str(error) and "Traceback" not in str(error) else f"says {error!r}"
    except BaseException as error:
        return f"raises {type(error).__name__}: {str(error)[:100]}"
    return "value"


def work(name: str, first: int, end: int) -> None:
    """Read the inputs of the seeds from `first` on, and print a line of JSON for each."""
    read = FORMATS[name][1]
    with tempfile.TemporaryDirectory() as folder:
        path = made(name, Path(folder))
        whole = path.read_bytes()
        control = outcome(read, path)
        if control != "value":
            print(json.dumps([-1, f"the control {control}"]), flush=True)
            return
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))
        for seed in range(first, end):
            path.write_bytes(damaged(whole, random.Random(f"{name} {seed}")))
            used = resource.getrusage(resource.RUSAGE_SELF)
            limit = int(used.ru_utime + used.ru_stime) + SECONDS + 1
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            signal.alarm(WAIT)
            print(json.dumps([seed, outcome(read, path)]), flush=True)


def campaign(
    name: str, first: int, end: int, outcomes: dict[int, str], note: Callable[[int, str], None]
) -> None:
    """Fill in what became of each seed that is not known yet; -1 is that of the control."""
    at = first
    while at < end:
        if at in outcomes:
            at += 1
            continue
        command = [sys.executable, __file__, "--work", name, str(at), str(end)]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as worker,
        ):
            assert worker.stdout is not None
            for line in worker.stdout:
                seed, said = json.loads(line)
                note(seed, said)
                at = seed + 1
            worker.wait()
            errors.seek(0)
            last = errors.read()[-300:]
        if -1 in outcomes:
            return
        if at < end and worker.returncode >= 0:
            note(-1, f"the reading process ended: {last}")
            return
        if at < end:
            note(at, f"ends the process by signal {-worker.returncode}")


def known(kept: Path | None, name: str) -> dict[int, str]:
    """What became of the seeds of a format that were tried before."""
    lines = kept.read_text().splitlines() if kept and kept.exists() else []
    return {seed: said for of, seed, said in map(json.loads, lines) if of == name}


def keep(name: str, seed: int) -> Path:
    """Write the input of a seed under tests/cases/."""
    with tempfile.TemporaryDirectory() as folder:
        whole = made(name, Path(folder)).read_bytes()
    CASES.mkdir(exist_ok=True)
    file = CASES / f"{name}-{seed}.bin"
    file.write_bytes(damaged(whole, random.Random(f"{name} {seed}")))
    return file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--only", choices=FORMATS)
    parser.add_argument("--kept", type=Path, help="what became of each, a line each")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        name, first, end = options.work
        work(name, int(first), int(end))
        return 0
    names = [options.only] if options.only else list(FORMATS)
    share = sum(1 / SLOW.get(name, 1) for name in names)
    failed = 0
    for name in names:
        each = max(1, round(options.inputs / share / SLOW.get(name, 1)))
        first, end = options.seed, options.seed + each
        outcomes = known(options.kept, name)
        start, before = time.monotonic(), len(outcomes)

        def note(seed: int, said: str, name: str = name, outcomes: Any = outcomes) -> None:
            outcomes[seed] = said
            if options.kept:
                with options.kept.open("a") as file:
                    file.write(json.dumps([name, seed, said]) + "\n")

        campaign(name, first, end, outcomes, note)
        tried = {seed: said for seed, said in outcomes.items() if first <= seed < end or seed < 0}
        counted = Counter(tried.values())
        wrong = {k: said for k, said in tried.items() if said not in ("value", "sentence")}
        print(
            f"{name:12} seeds {first} to {end - 1}: {counted['value']:,} read,"
            f" {counted['sentence']:,} refused in a sentence, {len(wrong)} failed;"
            f" {len(outcomes) - before:,} of them now, {time.monotonic() - start:.0f} s",
            flush=True,
        )
        for seed, said in sorted(wrong.items())[:5]:
            where = keep(name, seed) if seed >= 0 else ""
            print(f"    seed {seed}: {said} {where}", flush=True)
        failed += len(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
