"""What many pictures cost, reckoned from what one costs: time, disk, memory and money.

    python benchmarks/speed/reckon.py [--pictures 10000000] [--k 36] [--dim 256] [--width 512]
        [--seconds 0.05] [--machines 1] [--price 1.0]

SECONDS is what a picture takes on one of your MACHINES: what `cqr extract` prints as its time,
over its pictures; PRICE is that of an hour of one.  Bytes follow from the file formats: a picture
has K x D float16, and beside it 20 bytes a region and 2 D of the whole; a vector of WIDTH numbers
takes 2 bytes a number in the gallery, 1 in the HNSW graph and 4 where float32 is held.
"""

import argparse

LINKS = 144
"""Bytes of a node of the graph beside its vector: 626 MiB of a million in docs/search.md."""


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind, value in (
        ("pictures", float, 1e7), ("k", int, 36), ("dim", int, 256), ("width", int, 512),
        ("seconds", float, 0.05), ("machines", int, 1), ("price", float, 1.0),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=value)
    o = parser.parse_args()
    hours = o.pictures * o.seconds / 3600
    region = 2 * o.dim + 20  # a feature, its box and its score
    print(f"{o.pictures:,.0f} pictures, K {o.k}, D {o.dim}, vectors of {o.width} numbers")
    print(f"extraction         {hours:14,.0f} machine hours, {hours / o.machines / 24:,.1f} days")
    print(f"  money            {hours * o.price:14,.0f} at {o.price:g} an hour")
    print(f"feature file       {size(o.pictures * (o.k * region + 2 * o.dim + 12))}")
    print(f"gallery, float16   {size(o.pictures * 2 * o.width)}")
    print(f"graph, 8 bits      {size(o.pictures * (o.width + LINKS))}")
    print(f"flat, float32      {size(o.pictures * 4 * o.width)}")
    print(f"IVF-PQ, 64 bytes   {size(o.pictures * (64 + 8))}")


def size(count: float) -> str:
    return f"{count / 1e9:14,.1f} GB"


if __name__ == "__main__":
    main()
