"""How soon does LBF learn what a phrase of a crowd means, if it learns nothing else?

    python benchmarks/quality/grounding.py [--phrases plain=1,nearest=2] [--steps 500]
        [--set relations=true ...]

Trains the map that says where a text acts (`--set where`), and what comes before it, on phrases
that are drawn anew for every step, with their things as labels.  LBF has the settings of crowds but
for three fusions and what `--set` says.  Every 50 steps it prints how often the map points at the
thing meant on scenes of their own, of each kind of phrase.  (One of two or more things that "the
sphere" fits, drawn at random, is the nearest in 37 of 100.)  Nothing is read or written: 2,000
scenes are made first, in a minute.
"""

import argparse
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

from cqr.scenes import crowd, crowd_phrases
from cqr.scenes.protocol import COLORS, SIZES, picture_rng
from cqr.trainer.datasets.readers.css import CROWDED
from cqr.trainer.features import RegionBatch
from cqr.trainer.models import build
from cqr.trainer.text.vocabulary import Vocabulary
from cqr.trainer.training.optimizers import optimizer_of
from cqr.trainer.training.settings import settle

SCENES, TEST, HELD_OUT = 2000, 200, 1
BATCH, ASKED, EVERY, WARMUP = 128, 600, 50, 100
K = 36
SEEN = 0.05
KNOWN = [("color", one) for one in COLORS]
KNOWN += [("shape", one) for one in crowd.SHAPES] + [("size", one) for one in SIZES]
KINDS = {way: way for way in ("plain", "negation", "ordinal")}
KINDS |= {"beside": "relation", "nearest": "relation"}
"""Kinds of phrase, and how each is drawn."""


def looks(number, rng):
    """What is seen of so many scenes."""
    allowed = crowd.pairs("train", HELD_OUT)
    for at in range(number):
        scene = crowd.reference(allowed, rng)
        yield crowd.sights(crowd.arrange(scene, picture_rng(4242, "train", at)))


def phrase(kind, sights, rng):
    """Words of that kind and the thing that they mean, or None where chance found none."""
    target = rng.choice([one for one in sights if one.visible >= crowd.SHOWN])
    words = crowd_phrases.WAYS[KINDS[kind]](target, sights, "seen", rng)
    if words is None or ("nearest" in words) != (kind == "nearest"):
        return None
    return words, target


def asked(number, kinds, scenes, rng):
    """So many questions: the regions of a scene, the phrase, and which of the regions it means."""
    found = []
    while len(found) < number:
        sights = rng.choice(scenes)
        said = phrase(rng.choices(list(kinds), list(kinds.values()))[0], sights, rng)
        regions = sorted(
            (one for one in sights if one.visible >= SEEN),
            key=lambda one: -one.visible * (one.box[2] - one.box[0]) * (one.box[3] - one.box[1]),
        )[:K]
        if said and said[1] in regions:
            found.append((regions, said[0], regions.index(said[1])))
    return found


def batch(questions):
    width = max(len(regions) for regions, *_ in questions)
    features = np.zeros((len(questions), width, len(KNOWN)), np.float32)
    boxes = np.zeros((len(questions), width, 4), np.float32)
    for row, (regions, *_) in enumerate(questions):
        for i, one in enumerate(regions):
            features[row, i] = [getattr(one.thing, name) == value for name, value in KNOWN]
            boxes[row, i] = np.array(one.box) / (crowd.SIZE * 2)
    counts = np.array([len(regions) for regions, *_ in questions])
    mask = np.arange(width) < counts[:, None]
    return RegionBatch(*map(torch.from_numpy, (features, boxes, mask)))


class Pointer:
    """LBF and its words."""

    def __init__(self, texts, options):
        chosen = settle(CROWDED, {}, ["fusion_depth=3", "where=1", *options])
        self.words = Vocabulary.of(texts)
        torch.manual_seed(chosen.seed)
        self.model = build("lbf", chosen.options, region_dim=len(KNOWN), text=self.words.spec)
        self.optimizer = optimizer_of(self.model, chosen, True)
        self.all = chosen.options["where_layers"] == "all"

    def scores(self, questions):
        """B x K of each layer that is taught, the last one last."""
        regions, read = batch(questions), self.words.encode([text for _, text, _ in questions])
        states = self.model.reference_states(regions), self.model.word_states(read)
        layers = self.model.fuse(states[0], regions, states[1], read)[1:]
        maps = [self.model.where(seen)[..., 0] for seen, _ in layers[0 if self.all else -1 :]]
        return [one.masked_fill(~regions.mask, -1e4) for one in maps]

    def step(self, questions, rate):
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["initial_lr"]
        meant = torch.tensor([place for *_, place in questions])
        losses = [F.cross_entropy(scores, meant) for scores in self.scores(questions)]
        self.optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def right(self, questions):
        found = self.scores(questions)[-1].argmax(1).tolist()
        return np.mean([place == one for (*_, place), one in zip(questions, found, strict=True)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--phrases", default="plain=1,nearest=2")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--set", action="append", default=[], dest="options")
    o = parser.parse_args()
    kinds = {kind: float(n) for kind, n in (one.split("=") for one in o.phrases.split(","))}
    torch.set_num_threads(1)
    rng = random.Random(0)
    scenes = list(looks(SCENES, rng))
    scenes, others = scenes[:-TEST], scenes[-TEST:]
    test = {kind: asked(ASKED, {kind: 1}, others, random.Random(1)) for kind in kinds}
    pointer = Pointer([text for _, text, _ in asked(3000, kinds, scenes, rng)], o.options)
    print("steps  " + "  ".join(f"{kind:>8}" for kind in test) + "  CPU s")
    began = time.process_time()
    for step in range(1, o.steps + 1):
        pointer.step(asked(BATCH, kinds, scenes, rng), min(1, step / WARMUP))
        if step % EVERY == 0:
            shares = [100 * pointer.right(questions) for questions in test.values()]
            spent = time.process_time() - began
            print(
                f"{step:5}  " + "  ".join(f"{one:8.1f}" for one in shares) + f"  {spent:5.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
