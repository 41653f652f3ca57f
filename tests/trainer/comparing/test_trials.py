"""The rows of benchmarks/comparison/tune.sh and comparison.sh: equal budgets, the best of them."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from cqr.trainer.comparing import rows as typed

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "comparison" / "trials.py"


@pytest.fixture(scope="module")
def trials():
    spec = importlib.util.spec_from_file_location("trials", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs(trials, file, scores, missing=()):
    """A runs.parquet: R@1 by (row, number), 10 where nothing is said; `missing` have failed."""
    cells = [
        {"row": f"{label} / {number}", "R@1": scores.get((label, number), 10.0), "error": None}
        for number in range(3)
        for label in trials.rows()
        if "plain" not in label
    ]
    for cell in cells:
        if cell["row"] in missing:
            cell.update({"R@1": None, "error": "not done yet"})
    pd.DataFrame(cells).to_parquet(file)
    return file


def test_every_row_is_tried_with_the_same_settings_of_its_own_names(trials):
    specs = typed.specs([trials.tried()])
    assert len(specs) == 4 * (1 + 13)
    of_numbers = {}
    for spec in specs:
        settings = typed.settled(spec, [], {"together": 2})
        dropouts = ("encoder_dropout" if settings.options.get("encoder") == "lbf" else
                    "dropout" if spec.model == "lbf" else "text_dropout")  # fmt: skip
        said = (settings.lr, settings.loss, settings.together, settings.options[dropouts])
        of_numbers.setdefault(spec.label.rsplit(" / ")[1], set()).add(said)
        assert settings.input == "regions"
    assert of_numbers["0"] == {(0.001, "batch-classification", 2, 0.1)}
    assert all(len(said) == 1 for said in of_numbers.values())
    assert len(set.union(*of_numbers.values())) == 4
    losses = {loss for said in of_numbers.values() for _, loss, _, _ in said}
    assert losses == {"batch-classification", "soft-triplet"}
    assert of_numbers["3"] == {(0.002, "batch-classification", 4, 0.0)}  # what `cqr train` takes


def test_the_best_trial_of_each_goes_to_the_test(trials, tmp_path):
    file = runs(trials, tmp_path / "r", {("maaf on lbf encoder", 2): 50.0, ("lbf", 1): 60.0})
    both = typed.specs([trials.chosen(file), trials.plain(file)])
    specs = {spec.label: spec for spec in both}
    drawn = trials.trials()
    assert f"lr={drawn[2]['lr']}" in specs["maaf plain"].given
    assert f"loss={drawn[1]['loss']}" in specs["lbf of 3 layers"].given
    assert f"lr={drawn[0]['lr']}" in specs["tirg plain"].given
    assert len(specs) == len(both) == 27 + 5
    assert {label for label in specs if label.endswith("plain")} == {
        spec.label for spec in typed.specs([trials.plain(file)])
    }
    few = [spec.label for spec in typed.specs([trials.few(file)])]
    assert few == [
        *("lbf", "lbf that locates", "lbf without fusion", "tirg on lbf encoder"),
        "combiner on lbf encoder",
    ]
    located = {spec.label for spec in both if "locate=1" in spec.given}
    assert located == {"lbf that locates"}  # which no paper has, nor any peer
    assert "locate=0" in specs["lbf"].given
    assert "maaf on lbf encoder" in trials.table(file)


def test_the_better_of_two_rates_of_muon_goes_to_the_test(trials, tmp_path):
    file = runs(trials, tmp_path / "r", {("combiner on lbf encoder", 2): 50.0})
    tried = typed.specs([trials.tried_by_muon(file)])
    labels = [spec.label for spec in tried]
    composers = ["lbf", *(f"{composer} on lbf encoder" for composer in trials.COMPOSERS)]
    assert sorted(labels) == sorted(f"{c} / {rate}" for rate in trials.MUON for c in composers)
    combiner = next(spec for spec in tried if spec.label == "combiner on lbf encoder / 0.006")
    assert {"muon_lr=0.006", f"lr={trials.trials()[2]['lr']}"} <= set(combiner.given)
    scores = [{"row": label, "R@1": 10.0 + ("/ 0.006" in label), "error": None} for label in labels]
    scores[labels.index("tirg on lbf encoder / 0.012")]["R@1"] = 90.0
    scores.append({"row": "lbf / 0.012", "R@1": None, "error": "killed"})
    pd.DataFrame(scores).to_parquet(tmp_path / "muon")
    few, rest = (
        {s.label: s.given for s in typed.specs([trials.by_muon(file, tmp_path / "muon", few=few)])}
        for few in (True, False)
    )
    labels = [label for label in trials.FEW if label != "lbf that locates"]
    assert list(few) == [f"{label} by muon" for label in labels]
    assert len(rest) == len(composers) + 4 - len(few)  # LBF of more layers and of less
    assert "lbf of 3 layers by muon" in rest
    assert "fusion_depth=0" in few["lbf without fusion by muon"]
    by_muon = few | rest
    assert len(by_muon) == len(few) + len(rest)
    faster = {label for label, given in by_muon.items() if "muon_lr=0.012" in given}
    assert faster == {"tirg on lbf encoder by muon"}
    assert all("muon_lr=0.006" in by_muon[label] for label in by_muon.keys() - faster)
    pd.DataFrame(scores[:1]).to_parquet(tmp_path / "cut short")
    with pytest.raises(SystemExit, match="was not tried by Muon"):
        trials.by_muon(file, tmp_path / "cut short", few=True)


def test_a_trial_that_not_every_row_has_finished_counts_for_none(trials, tmp_path):
    file = runs(trials, tmp_path / "r", {("lbf", 2): 60.0}, missing=["val on lbf encoder / 2"])
    numbers, _ = trials.best(file)
    assert set(numbers) == {trials.tuned(label) for label in trials.rows()}
    assert 2 not in numbers.values()
