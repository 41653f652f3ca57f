"""Rows of a comparison as they are typed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.comparing.rows import Spec, settled, specs, vary
from cqr.trainer.training.settings import settle


def test_every_form():
    assert specs(["lbf,lbf:fusion_depth=1,input=whole", "no VEP=lbf:vep_depth=0,paper=lbf:"]) == [
        Spec("lbf", "lbf"),
        Spec("lbf:fusion_depth=1,input=whole", "lbf", ("fusion_depth=1", "input=whole")),
        Spec("no VEP", "lbf", ("vep_depth=0",)),
        Spec("paper", "lbf"),
    ]


words = st.text("abcxyz_. -", min_size=1, max_size=6).map(str.strip).filter(bool)
choices = st.lists(st.tuples(words, words).map("=".join), max_size=3)
typed = st.lists(st.tuples(words, choices), min_size=1, max_size=4, unique_by=lambda row: row[0])


@given(typed)
def test_labelled_rows_are_read_as_they_were_written(rows):
    text = ",".join(f"{label}=lbf:{','.join(given)}" for label, given in rows)
    assert specs([text]) == [Spec(label, "lbf", tuple(given)) for label, given in rows]


def test_settings_and_options_and_what_wins():
    shared = ["epochs=3", "lr=0.01", "lbf.width=64", "lbf.lr=0.02", "lbf.heads=2"]
    recommended = {"width": 128, "batch": 7}
    found = settled(Spec("x", "lbf", ("heads=8", "k=4", "features=a.h5")), shared, recommended)
    assert found == settle(
        {}, {"epochs": 3, "lr": 0.02, "k": 4, "batch": 7}, ["width=64", "heads=8"]
    )


def test_a_feature_file_of_its_own():
    [spec] = specs(["lbf:features=a/b.h5,k=2"])
    assert spec.features == Path("a/b.h5")
    assert Spec("lbf", "lbf").features is None


def test_a_variation_says_its_value():
    name, values = vary(Spec("lbf:heads=2", "lbf", ("heads=2",)), "k=1,4")
    assert name == "k"
    assert values == [
        ("1", Spec("lbf:heads=2,k=1", "lbf", ("heads=2", "k=1"))),
        ("4", Spec("lbf:heads=2,k=4", "lbf", ("heads=2", "k=4"))),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lbf,tirgg", "no model is called 'tirgg'; there are lbf"),
        ("lbf,lbf", "--models names the row 'lbf' twice: give one of them a label"),
        ("lbf,depth=1", r"--models 'lbf,depth=1' is not \[LABEL=\]MODEL\[:NAME=VALUE,...\]"),
        ("lbf,,lbf:k=1", r"--models '' is not"),
    ],
)
def test_what_makes_no_rows(text, message):
    with pytest.raises(UserError, match=message):
        specs([text])


@pytest.mark.parametrize(
    ("given", "shared", "message"),
    [
        (("depth=1",), (), r"the row x: depth=1 is not NAME=VALUE with a NAME of lbf \(or a set"),
        (("k=many",), (), "the row x: k=many: 'many' is not int"),
        (("input=all",), (), "the row x: input=all: choose one of regions, whole"),
        (("epochs=2",), (), "epochs=2: it is the same for every row; give --set epochs=2"),
        ((), ("lbf.batch=2",), "--set lbf. batch=2: it is the same for every row; give --set ba"),
        (("seed=2",), (), "the row x: seed=2: it is the same for every row; give --seeds N"),
        (("model=lbf",), (), "the row x: model=lbf: the rows are its values; give --models"),
        ((), ("width=64",), r"--set width=64 is not \[MODEL.\]NAME=VALUE with a NAME of: batch, "),
        ((), ("epochs",), r"--set epochs is not \[MODEL.\]NAME=VALUE"),
        ((), ("tirgg.k=1",), "no model is called 'tirgg'; there are lbf"),
        ((), ("epochs=0",), "--epochs 0 is less than 1"),
    ],
)
def test_choices_that_are_refused(given, shared, message):
    with pytest.raises(UserError, match=message):
        settled(Spec("x", "lbf", given), shared, {})


@pytest.mark.parametrize("text", ["k", "k=", "=1", "k=1,,2"])
def test_a_variation_without_values(text):
    with pytest.raises(UserError, match=r"is not NAME=VALUE,VALUE,..."):
        vary(Spec("lbf", "lbf"), text)


def test_a_variation_with_a_value_twice():
    with pytest.raises(UserError, match="--vary k=1,1 has a value twice"):
        vary(Spec("lbf", "lbf"), "k=1,1")
