"""What decoding a large JPEG at a fraction of its size saves, and what it changes.

    OMP_NUM_THREADS=1 python benchmarks/speed/scaled_jpegs.py --images photos [--pictures 4]

Makes pictures of 4032 x 3024, as phones do, out of those in the folder: in turn a mosaic of them at
their own size, and one of them enlarged, both with a little noise, quality 92.  For each fraction
libjpeg has: milliseconds of CPU time to decode and to resize, and the cosine of each region's
feature (K = 36, `grid`) to that of the picture decoded whole.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cqr.listing import find
from cqr.pipeline import images
from cqr.pipeline.compute import one_thread
from cqr.pipeline.detectors import DetectorSpec

K, WIDTH, HEIGHT = 36, 4032, 3024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=4)
    given = parser.parse_args()
    files = [file for path in find(given.images)[0] if readable(file := given.images / path)]
    with tempfile.TemporaryDirectory() as scratch, one_thread():
        large = [made(files, i, Path(scratch, f"{i}.jpg")) for i in range(given.pictures)]
        compare(large)


def readable(file: Path) -> bool:
    try:
        images.decode(file)
    except images.Refused:
        return False
    return True


def made(files: list[Path], number: int, out: Path) -> Path:
    rng = np.random.default_rng(number)
    if number % 2:
        picture = Image.fromarray(images.decode(files[number % len(files)])).resize((WIDTH, HEIGHT))
    else:
        picture = Image.new("RGB", (WIDTH, HEIGHT))
        x = y = high = 0
        while y < HEIGHT:
            part = Image.fromarray(images.decode(files[rng.integers(len(files))]))
            picture.paste(part, (x, y))
            x, high = x + part.width, max(high, part.height)
            if x >= WIDTH:
                x, y, high = 0, y + high, 0
    noise = rng.normal(0, 4, (HEIGHT, WIDTH, 3))
    pixels = (np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(out, quality=92)
    return out


def compare(files: list[Path]) -> None:
    detector = DetectorSpec("grid", device="cpu").load()
    whole: list[NDArray[np.float32]] = []
    print(f"{len(files)} pictures of {WIDTH} x {HEIGHT}")
    for divisor in (1, *reversed(images.DIVISORS)):
        decoding = resizing = 0.0
        cosines = []
        for i, file in enumerate(files):
            began = time.process_time()
            pixels = images.decoded(file, fraction=lambda *_, n=divisor: n).pixels
            decoded = time.process_time()
            seen = detector.network_size(pixels.shape[1], pixels.shape[0])
            Image.fromarray(pixels).resize(seen, Image.Resampling.BILINEAR)
            resizing += time.process_time() - decoded
            decoding += decoded - began
            [regions] = detector([pixels], K)
            features = regions.features / np.linalg.norm(regions.features, axis=1, keepdims=True)
            if divisor == 1:
                whole.append(features)
            cosines.append((features * whole[i]).sum(1))
        of = np.concatenate(cosines)
        each = [f"{1000 * s / len(files):.0f} ms" for s in (decoding, resizing)]
        print(
            f"1/{divisor}: decode {each[0]}, resize {each[1]}, cosine {of.mean():.4f} on average,"
            f" {of.min():.4f} at least"
        )


if __name__ == "__main__":
    main()
