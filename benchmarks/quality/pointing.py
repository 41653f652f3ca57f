"""Other ways of pointing at the object that is meant than those that `cqr evaluate` measures.

    python benchmarks/quality/pointing.py RUN [--split train] [--queries 600]

For a run of LBF on generated scenes.  Two questions are asked of each way:

phrase   does it point at the object meant, by the words of the referring phrase together?
word     does each of these words by itself?

Ways of a word: what it attends to; by how much a region's change follows the word (the gradient by
the word's state, its norm, or times the state); what changes where the word is left out (its state
replaced by the mean of all); what a region reads of the word; and some of these times the change.
Ways of the sentence, whose words all point alike: `change` (LBF.changed), the same relative to what
the region was, to the mean over other texts, or to their spread.

The default split is the training's, so that a way may be chosen here and measured elsewhere.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from cqr.trainer.evaluation.pointing import OVERLAP, known, overlaps, referring_words
from cqr.trainer.training.material import Wanted, collect_for
from cqr.trainer.training.runs import Run

BATCH = 128
OTHERS = 24
"""Texts that the change by one is held against."""


class Ways:
    """Every way of one model, B x N x K: how much each word points at each region."""

    def __init__(self, model, words, others):
        self.model, self.words, self.others = model, words, others

    def of(self, regions, texts):
        model = self.model
        read = self.words.encode(texts)
        with torch.no_grad():
            before = model.reference_states(regions)
            states = model.word_states(read)
        after = self._after(before, regions, states, read)
        mapped = model.out_regions(before).detach()
        change = (after - mapped).norm(dim=-1)
        by_word = {
            "attention": model.attention(regions, read),
            "left out": self._left_out(before, regions, states, read),
            "reads": self._read(before, regions, states, read),
            **self._gradients(before, regions, states, read, mapped),
        }
        found = dict(by_word)
        for name in ("attention", "left out", "gradient", "reads"):
            found[f"{name} x change"] = by_word[name] * change[:, None]
        for name, way in self._of_sentence(before, regions, after, mapped, change).items():
            found[name] = way[:, None].expand_as(by_word["attention"])
        return read, found

    def _after(self, before, regions, states, read):
        with torch.no_grad():
            *_, (after, _) = self.model.fuse(before, regions, states, read)
            return self.model.out_regions(after)

    def _of_sentence(self, before, regions, after, mapped, change):
        others = []
        for text in self.others:
            read = self.words.encode([text] * len(regions))
            with torch.no_grad():
                states = self.model.word_states(read)
            others.append(self._after(before, regions, states, read))
        others = torch.stack(others)
        usual = (others - mapped).norm(dim=-1)
        return {
            "change": change,
            "change, relative": change / mapped.norm(dim=-1),
            "change, beside other texts": (after - others.mean(0)).norm(dim=-1),
            "change, in their spread": (change - usual.mean(0)) / usual.std(0),
        }

    def _gradients(self, before, regions, states, read, mapped):
        states = states.clone().requires_grad_()
        *_, (after, _) = self.model.fuse(before, regions, states, read)
        change = (self.model.out_regions(after) - mapped).norm(dim=-1)
        each = [
            torch.autograd.grad(change[:, k].sum(), states, retain_graph=True)[0]
            for k in range(change.shape[1])
        ]
        gradient = torch.stack(each, 2)
        return {
            "gradient": gradient.norm(dim=-1),
            "gradient x state": (gradient * states.detach()[:, :, None]).sum(-1),
        }

    def _left_out(self, before, regions, states, read):
        whole = self._after(before, regions, states, read)
        mean = states[read.mask].mean(0)
        moved = []
        for word in range(states.shape[1]):
            without = states.clone()
            without[:, word] = mean
            moved.append((self._after(before, regions, without, read) - whole).norm(dim=-1))
        return torch.stack(moved, 1)

    def _read(self, before, regions, states, read):
        """B x N x K: what a region's attention gives to a word, in the last layer."""
        with torch.no_grad():
            *_, (visual, language), _ = self.model.fuse(before, regions, states, read)
            attention = self.model.see[-1].cross_attention
            _, weights = attention.explain(visual, language, read.mask)
        return weights.mean(1).transpose(1, 2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--queries", type=int, default=600)
    o = parser.parse_args()
    run = Run.load(o.run)
    material = collect_for(run, None, Wanted(), split=None, max_missing=0)
    reader, model = material.seen_by(run.settings).reader, run.trained_model().eval()
    words = run.words(torch.device("cpu"))
    texts = sorted(set(material.dataset.split("train")["text"]))
    others = np.random.default_rng(0).choice(texts, OTHERS, replace=False).tolist()
    ways = Ways(model, words, others)
    asked = known(material.dataset.split(o.split), reader)
    queries, rows, meant = (each[: o.queries] for each in asked)
    phrase, word, chance = defaultdict(list), defaultdict(list), []
    for first in range(0, len(queries), BATCH):
        part = slice(first, first + BATCH)
        some, regions = queries.iloc[part], reader.gather(rows[part])
        right = overlaps(regions, meant[part], np.asarray(reader.file.sizes)[rows[part]]) >= OVERLAP
        chance += (right.sum(1) / regions.mask.sum(1)).tolist()
        read, found = ways.of(regions, some["text"].tolist())
        refers = referring_words(words, read, some)
        for name, way in found.items():
            way = way.masked_fill(~regions.mask[:, None], -torch.inf)
            together = way.masked_fill(~refers[..., None], 0).sum(1)
            together = together.masked_fill(~regions.mask, -torch.inf)
            phrase[name] += right[torch.arange(len(right)), together.argmax(1)].tolist()
            word[name] += right.gather(1, way.argmax(2))[refers].tolist()
    print(f"{len(queries)} queries of {o.split}, chance {100 * np.mean(chance):.1f}")
    print("phrase   word")
    for name in sorted(word, key=lambda name: -np.mean(word[name])):
        print(f"{100 * np.mean(phrase[name]):6.1f} {100 * np.mean(word[name]):6.1f}  {name}")


if __name__ == "__main__":
    main()
