"""Reading a data set of full size and drawing an epoch of its training pairs.

    python benchmarks/speed/readers.py [--torch]

Writes a Fashion-200k (201,838 label lines, 33,480 test queries) and an MIT-States
(1,962 folders, 53,753 empty files) to a temporary folder, of generated names in the
sizes and shares of the real ones; then reads each in a process of its own, as
`cqr train` does, and prints the seconds of each step and the process's largest
resident memory, the interpreter, numpy, pandas and the list of picture paths
included.  torch is no part of reading and is not imported, unless asked for.

  import   numpy, pandas and the readers
  read     recognise the data set, read it, find the picture of each image
  build    the source of training pairs, and the texts for the vocabulary
  draw     one epoch of pairs
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate, chain, cycle, islice
from pathlib import Path
from random import Random

FILES = {
    "train": {"dress": 52_990, "jacket": 22_000, "pants": 26_301, "skirt": 29_423, "top": 41_335},
    "test": {"dress": 6_114, "jacket": 4_462, "pants": 5_343, "skirt": 5_706, "top": 8_164},
}
"""Lines of the real label files; how jacket and top share their 63,335 is a guess."""
CAPTIONS = {"train": 53_099, "test": 10_000}  # distinct; the test split's is a guess
QUERIES = 33_480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", action="store_true", help="import torch first")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.torch)))
        return
    with tempfile.TemporaryDirectory() as place:
        for make in (fashion_200k, mit_states):
            root = Path(place) / make.__name__
            make(root)
            command = [sys.executable, __file__, "--measure", str(root)]
            command += ["--torch"] * options.torch
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            show(json.loads(done.stdout))


def show(result: dict) -> None:
    steps = "  ".join(f"{name} {seconds:.2f} s" for name, seconds in result["seconds"].items())
    print(f"{result['name']}: {steps}  largest {result['largest'] / 2**20:.0f} MiB")
    print("  " + ", ".join(f"{name} {number:,}" for name, number in result["counts"].items()))


def measure(root: Path, with_torch: bool) -> dict:
    """Read what is in a folder, in this process."""
    if with_torch:
        import torch  # noqa: F401
    paths = root.with_suffix(".paths").read_text().splitlines()
    clock = Clock()
    import numpy as np

    from cqr.trainer.datasets.layout import Pictures
    from cqr.trainer.datasets.recognise import find, read

    clock.ends("import")
    pictures = Pictures(root, paths)
    found = find(pictures)
    dataset = read(found, pictures)
    clock.ends("read")
    source = dataset.pairs(dataset.split("train"), dataset.images_of("train"))
    for _ in source.texts():
        pass
    clock.ends("build")
    pairs = source.draw(np.random.default_rng(0))
    clock.ends("draw")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "name": dataset.name,
        "seconds": clock.seconds,
        "largest": largest,
        "counts": found.reader.counts(dataset) | {"pairs": len(pairs)},
    }


class Clock:
    """The seconds of one step after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.began = time.perf_counter()

    def ends(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self.began = now - self.began, now


def fashion_200k(root: Path) -> None:
    """Label files and test queries; the paths of the pictures beside the folder."""
    (root / "labels").mkdir(parents=True)
    random = Random(0)
    paths = []
    for product, (split, files) in zip((1, 50_000_000), FILES.items(), strict=True):
        images = photographed(random, descriptions(random, CAPTIONS[split]), product)
        for name, lines in files.items():
            text = []
            for number, picture, caption in islice(images, lines):
                path = f"women/{name}/style/{number}/{number}_{picture}.jpeg"
                text.append(f"{path}\t{random.uniform(-7, 5):.6f}\t{caption}\n")
                paths.append(path)
            (root / "labels" / f"{name}_{split}_detect_all.txt").write_text("".join(text))
    root.with_suffix(".paths").write_text("\n".join(paths))
    tests = paths[-sum(FILES["test"].values()) :]
    text = "".join(f"{a} {b}\n" for a, b in (random.sample(tests, 2) for _ in range(QUERIES)))
    (root / "test_queries.txt").write_text(text)


def descriptions(random: Random, number: int) -> list[str]:
    """Distinct, the likely first: a colour, up to five details and a garment.

    The shares of words and lengths are such that, as of the real release's training
    images, about 62 % have a caption that differs from another in one word.
    """
    vocabulary = words(random, 5000)
    parts = vocabulary[:30], vocabulary[30:60], vocabulary[60:]
    colours, garments, details = (
        (part, list(accumulate((rank + 10) ** -power for rank in range(len(part)))))
        for part, power in zip(parts, (1.0, 1.0, 1.4), strict=True)
    )
    found: dict[str, None] = {}
    while len(found) < number:
        [length] = random.choices(range(6), (4, 34, 42, 15, 4, 1))
        some = random.choices(details[0], cum_weights=details[1], k=length)
        [colour], [garment] = (random.choices(w, cum_weights=c) for w, c in (colours, garments))
        found[" ".join([colour, *some, garment])] = None
    return list(found)


def words(random: Random, number: int) -> list[str]:
    """Distinct, of one to four syllables."""
    found: dict[str, None] = {}
    while len(found) < number:
        syllables = (
            random.choice("bcdfglmnprst") + random.choice("aeiou")
            for _ in range(random.choice((1, 2, 2, 3, 3, 4)))
        )
        found["".join(syllables)] = None
    return list(found)


def photographed(
    random: Random, captions: list[str], product: int
) -> Iterator[tuple[int, int, str]]:
    """Products of one to four pictures, numbered on from `product`, the first one a caption.

    Yields:
        Product, picture, caption.
    """
    for caption in chain(random.sample(captions, len(captions)), cycle(captions)):
        for picture in range(random.randint(1, 4)):
            yield product, picture, caption
        product += random.randint(1, 999)


def mit_states(root: Path) -> None:
    """Empty files in folders; the paths of the pictures beside the folder."""
    from cqr.trainer.datasets.readers.mit_states import TEST_NOUNS

    random = Random(0)
    tests = sorted(TEST_NOUNS)
    others = [word for word in words(random, 400) if word not in TEST_NOUNS][: 245 - len(tests)]
    adjectives = [f"{word}ed" for word in words(random, 115)]
    paths = []
    for nouns, folders, images in ((tests, 395, 10_546), (others, 1_567, 43_207)):
        # adjectives of a noun spread so that there are about as many queries as in the real one
        states = [
            f"{adjective} {noun}"
            for noun, number in zip(nouns, shares(random, len(nouns), folders, 4, 12), strict=True)
            for adjective in random.sample(adjectives, number)
        ]
        for state, number in zip(states, shares(random, len(states), images, 1, 50), strict=True):
            (root / "images" / state).mkdir(parents=True)
            paths += [f"images/{state}/{random.getrandbits(64):016x}.jpg" for _ in range(number)]
    for path in paths:
        (root / path).touch()
    root.with_suffix(".paths").write_text("\n".join(paths))


def shares(random: Random, parts: int, total: int, least: int, most: int) -> list[int]:
    """Random whole numbers of a sum, none out of bounds."""
    numbers = [random.randint(least, most) for _ in range(parts)]
    while step := (total > sum(numbers)) - (total < sum(numbers)):
        part = random.randrange(parts)
        numbers[part] = min(max(numbers[part] + step, least), most)
    return numbers


if __name__ == "__main__":
    main()
