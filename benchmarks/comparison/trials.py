"""The rows of tune.sh and comparison.sh: every composer, and what is tried for each.

    python benchmarks/comparison/trials.py tried
        rows of `cqr compare --models` on development
    python benchmarks/comparison/trials.py best RUNS.parquet
    python benchmarks/comparison/trials.py plain RUNS.parquet
        rows on test B, on LBF's encoders and on plain ones, each with what did best there
    python benchmarks/comparison/trials.py few RUNS.parquet
        the rows that more seeds are for
    python benchmarks/comparison/trials.py muon RUNS.parquet
        every composer with what did best there, by two rates of Muon
    python benchmarks/comparison/trials.py few-by-muon RUNS.parquet MUON.parquet
    python benchmarks/comparison/trials.py rest-by-muon RUNS.parquet MUON.parquet
        rows on test B, on LBF's encoders, each by the better of the two: those that more seeds
        are for, and all others
    python benchmarks/comparison/trials.py table RUNS.parquet
        what was tried, and what did best

Every composer is tried with the same four settings: what `cqr train` took before, two that were
drawn once, by a fixed seed, for all, and what it takes now.  A composer stands on two encoders,
TIRG's ("plain") and LBF's ("on lbf encoder"), and is given regions on both; LBF has encoders of its
own.  What is tried is tried on LBF's, and on plain ones a composer has what did best there.
"""

import json
import random
import sys
from functools import partial

COMPOSERS = (
    *("maaf", "tirg", "combiner", "clvc-net", "concatenation", "mrn", "film", "relationship"),
    *("compose-ae", "val", "cosmo", "deepset", "parameter-hashing"),
)
ENCODERS = {
    "on lbf encoder": ("encoder=lbf", "encoder_dropout"),
    "plain": ("local=mlp", "text_dropout"),
}
"""By what a label ends in: how `cqr` is told, and the name of the dropout that is tried."""
BEFORE = {"loss": "batch-classification", "lr": "0.001", "dropout": "0.1", "together": "2"}
"""What `cqr train` took on generated scenes, when nothing was said, before this tuning."""
NOW = {"loss": "batch-classification", "lr": "0.002", "dropout": "0", "together": "4"}
"""What it takes since, which was found with LBF (defaults.sh): so every peer is given it too."""
PAPERS = "locate=0"
"""LBF without a loss of our own, which no peer has."""
LESS_AND_MORE = {
    "": PAPERS,
    " of 2 layers": f"vep_depth=2,tep_depth=2,{PAPERS}",
    " of 3 layers": f"vep_depth=3,tep_depth=3,{PAPERS}",
    " without fusion": f"fusion_depth=0,{PAPERS}",
    " of the mean": f"pool=mean,{PAPERS}",
    " that locates": "locate=1",
}
FEW = (
    *("lbf", "lbf that locates", "lbf without fusion", "tirg on lbf encoder"),
    "combiner on lbf encoder",
)
"""Rows for more seeds: LBF, with what is ours and without its fusion, the usual peer, the best on
development."""
MUON = ("0.006", "0.012")
"""Rates of Muon, of which the second was found with LBF (defaults.sh)."""
CHOICES = {
    "lr": ("0.0005", "0.001", "0.002", "0.004"),
    "loss": ("batch-classification", "soft-triplet", "soft-triplet-sampled"),
    "dropout": ("0", "0.1", "0.3"),
    "together": ("1", "2", "4"),
}


def trials():
    """The settings that are tried; the two drawn have the first two losses, in turn."""
    rng, drawn = random.Random("trials"), []
    while len(drawn) < 2:
        settings = {name: rng.choice(values) for name, values in CHOICES.items()}
        settings["loss"] = CHOICES["loss"][len(drawn)]
        if settings not in drawn:
            drawn.append(settings)
    return [BEFORE, *drawn, NOW]


def rows():
    """Label of each row: model, choices, name of its dropout."""
    found = {"lbf": ("lbf", "", "dropout")}
    for ending, (encoder, dropout) in ENCODERS.items():
        for model in COMPOSERS:
            found[f"{model} {ending}"] = (model, f"input=regions,{encoder}", dropout)
    return found


def tuned(label):
    """The row by which the settings of a row are chosen; of several of a model the same."""
    return label.replace("plain", "on lbf encoder")


def typed(label, row, settings, more=""):
    model, choices, dropout = row
    said = [choices, *(f"{dropout if n == 'dropout' else n}={v}" for n, v in settings.items())]
    return f"{label}={model}:{','.join(filter(None, [*said, more]))}"


def tried():
    """The usual settings of all rows first, so that a tuning that is cut short is fair."""
    return ",".join(
        typed(f"{label} / {number}", row, settings, PAPERS if label == "lbf" else "")
        for number, settings in enumerate(trials())
        for label, row in rows().items()
        if label == tuned(label)
    )


def finished(file):
    """The runs that did not fail, with the two parts of a row's name, LABEL / TRIED."""
    import pandas as pd

    runs = pd.read_parquet(file)
    runs = runs[runs["error"].isna()].reset_index(drop=True)
    parts = runs["row"].str.rsplit(" / ", n=1)
    return runs.assign(label=parts.str[0], tried=parts.str[1])


def top(runs):
    """The run of each label that has the highest R@1, by label."""
    return runs.loc[runs.groupby("label")["R@1"].idxmax()].set_index("label")


def best(file):
    """For each row the number of its best trial, by R@1 of development, and the trials that ran.

    Only as many trials count as every row has finished, so that all have had the same budget.
    """
    runs = finished(file)
    runs = runs.assign(number=runs["tried"].astype(int))
    done = runs.groupby("number")["label"].nunique()
    whole = [n for n in sorted(done.index) if done[n] == len({*map(tuned, rows())})]
    if not whole:
        return {}, runs
    runs = runs[runs["number"].isin(whole)].reset_index(drop=True)
    return top(runs)["number"].to_dict(), runs


def tuned_rows(file):
    """The typed rows of test B by label; beside LBF, itself of more layers and with less."""
    numbers, _ = best(file)
    settings = trials()
    found = {}
    for label, row in rows().items():
        own = settings[numbers.get(tuned(label), 0)]
        more = LESS_AND_MORE if label == "lbf" else {"": ""}
        for ending, choices in more.items():
            found[label + ending] = typed(label + ending, row, own, choices)
    return found


def chosen(file):
    return ",".join(row for label, row in tuned_rows(file).items() if not label.endswith("plain"))


def plain(file):
    return ",".join(row for label, row in tuned_rows(file).items() if label.endswith("plain"))


def few(file):
    return ",".join(tuned_rows(file)[label] for label in FEW)


def tried_by_muon(file):
    """Muon's rates with the best trial of each composer, whose losses are the papers'."""
    numbers, settings, known = best(file)[0], trials(), rows()
    return ",".join(
        typed(
            f"{label} / {rate}",
            known[label],
            settings[numbers[label]],
            f"muon_lr={rate}" + (f",{PAPERS}" if label == "lbf" else ""),
        )
        for rate in MUON
        for label in known
        if label == tuned(label)
    )


def by_muon(file, of_muon, few):
    """The better of both rates by R@1 of development; LBF's own rows have LBF's.

    But for LBF that locates, which test B has by Muon as `cqr train` does (comparison.sh).
    """
    rate = top(finished(of_muon))["tried"]
    found = []
    for label, row in tuned_rows(file).items():
        composer = "lbf" if label.startswith("lbf") else label
        if label == tuned(label) and "locates" not in label and (label in FEW) == few:
            if composer not in rate:
                sys.exit(f"{composer} was not tried by Muon: run tune.sh to its end")
            found.append(f"{label} by muon={row.partition('=')[2]},muon_lr={rate[composer]}")
    return ",".join(found)


def table(file):
    numbers, runs = best(file)
    settings = trials()
    lines = []
    for label in dict.fromkeys(map(tuned, rows())):
        own = runs[runs["label"] == label].set_index("number")["R@1"].round(2).to_dict()
        taken = json.dumps(settings[numbers[label]]) if label in numbers else "not tried"
        lines.append(f"{label}: {taken}, of {own}")
    return "\n".join(lines)


def main():
    what, *rest = sys.argv[1:]
    told = {"tried": tried, "best": chosen, "plain": plain, "few": few, "table": table}
    told["muon"] = tried_by_muon
    told |= {"few-by-muon": partial(by_muon, few=True), "rest-by-muon": partial(by_muon, few=False)}
    print(told[what](*rest))


if __name__ == "__main__":
    main()
