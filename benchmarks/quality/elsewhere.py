"""Are pictures from elsewhere told from those of a gallery's world?  See `cqr.search.world`.

    python benchmarks/quality/elsewhere.py artifacts/fashion.h5 FOLDER...

Prints for each folder how many of its pictures are said to be unlike the gallery, and between
what their similarities to the nearest lie.
"""

import argparse
from pathlib import Path

from cqr.pipeline import images
from cqr.search.pictures import detector
from cqr.search.world import World
from cqr.trainer.features import RegionReader


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("features", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    reader = RegionReader(options.features)
    world = World.of(reader)
    detect = detector(reader.file)
    print(f"{options.features}: {len(reader):,} pictures, usual {world.usual:.4f}")
    for folder in options.folders:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        seen = [world.sight(detect([images.decode(file)], reader.file.k)[0]) for file in files]
        nearest, objects = [s.nearest for s in seen], [s.objects for s in seen]
        print(
            f"{folder}: {sum(s.outside for s in seen)} of {len(seen)} from elsewhere, nearest "
            f"{min(nearest):.4f} to {max(nearest):.4f}, objects {min(objects)} to {max(objects)}"
        )


if __name__ == "__main__":
    main()
