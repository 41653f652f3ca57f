"""Make a small archive of every kind of file that a later version must read.

    python benchmarks/campaigns/archive.py tests/data/vN

It is made once for a version of the formats, and never again:
`tests/project/test_archive.py` reads it.
"""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES, K, D = 24, 3, 12
COLORS = ("red", "green", "blue")


PLACE = Path("/tmp/cqr-archive")
"""Where it is made: files hold absolute paths, and these say nothing of whose machine it was."""


def main(out: Path) -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    make(PLACE)
    for lock in PLACE.rglob(".lock"):
        lock.unlink()
    shutil.move(PLACE, out)


def make(folder: Path) -> None:
    pictures, arrays = folder / "pictures", folder / "arrays"
    pictures.mkdir(parents=True)
    arrays.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{'sub/' if i % 5 == 0 else ''}{i:02d}.png" for i in range(PICTURES)]
    features = np.zeros((PICTURES, K, D), np.float32)
    for i, name in enumerate(names):
        color = np.eye(3)[i % 3]
        (pictures / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 255 * color, np.uint8)).save(pictures / name)
        features[i] = np.tile(color, D // 3) + 0.1 * rng.normal(size=(K, D))
    (arrays / "paths.txt").write_text("\n".join(names) + "\n")
    np.save(arrays / "features.npy", features)
    np.save(arrays / "boxes.npy", np.tile(np.array([0, 0, 8, 8], np.float32), (PICTURES, K, 1)))
    np.save(arrays / "scores.npy", np.tile(np.float32([0.9, 0.5, 0.1]), (PICTURES, 1)))
    np.save(arrays / "classes.npy", np.tile(np.arange(K), (PICTURES, 1)))
    with (pictures / "queries.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("reference", "text", "target", "split"))
        for i, name in enumerate(names):
            for step in (1, 2):
                other = (i + step) % PICTURES
                split = "test" if i % 4 == 0 else "train"
                writer.writerow((name, f"make it {COLORS[other % 3]}", names[other], split))
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "colour", "price"))
        writer.writerows((name, COLORS[i % 3], i) for i, name in enumerate(names))
    data = "--data pictures/queries.csv"
    cqr(folder, "import arrays --images pictures --out artifacts/photos.h5")
    small = "--model tirg --set embed_dim=8 --epochs 2 --batch 8"
    cqr(folder, f"train --features artifacts/photos.h5 {data} {small}")
    cqr(folder, "evaluate")
    cqr(folder, "index --index hnsw --metadata metadata.csv")
    rows = "--models image-only:embed_dim=8,text-only:embed_dim=8 --seeds 2 --examples 1"
    cqr(
        folder,
        f"compare --features artifacts/photos.h5 {data} {rows} --set epochs=1 --out comparison",
    )


def cqr(folder: Path, arguments: str) -> None:
    command = [Path(sys.executable).with_name("cqr"), *arguments.split()]
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
