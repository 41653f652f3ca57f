"""What a question means in the space of vectors, and conditions on metadata."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.search.metadata import expression, matching
from cqr.search.question import Question, Reference, WeightedText, weighted
from cqr.search.vector import AWAY, vector_of
from cqr.trainer.features import RegionBatch
from cqr.trainer.models import build
from cqr.trainer.text.vocabulary import Vocabulary

CPU = torch.device("cpu")
WORDS = Vocabulary(("make", "it", "red", "blue", "large"), 8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    small = {"width": 16, "heads": 2, "embed_dim": 24}
    return build("lbf", small, region_dim=5, text=WORDS.spec).eval()


def reference(seed, k=4):
    rng = torch.Generator().manual_seed(seed)
    boxes = torch.rand(1, k, 4, generator=rng).sort(-1).values
    features = torch.randn(1, k, 5, generator=rng).half()
    return Reference(f"{seed}.png", RegionBatch(features, boxes, torch.ones(1, k, dtype=bool)))


def asked(model, references=(1,), texts=(), nots=(), sizes=()):
    references = tuple(reference(seed, *sizes) for seed in references)
    question = Question(references, tuple(map(weighted, texts)), tuple(nots))
    return vector_of(model, WORDS, question, CPU).numpy()


def unit(vector):
    return vector / np.linalg.norm(vector)


@torch.inference_mode()
def query(model, seed, text):
    return model.encode_query(reference(seed).regions, WORDS.encode([text])).numpy()[0]


@torch.inference_mode()
def image(model, seed):
    return model.encode_image(reference(seed).regions).numpy()[0]


def same(a, b):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_one_picture_and_one_text_are_the_models_query(model):
    same(asked(model, (1,), ["make it red"]), query(model, 1, "make it red"))


def test_a_search_keeps_as_much_of_the_picture_as_an_evaluation(model, monkeypatch):
    monkeypatch.setattr(model, "reference_weight", 0.5)
    same(asked(model, texts=["red"]), unit(query(model, 1, "red") + 0.5 * image(model, 1)))


def test_a_picture_without_a_text_is_its_own_vector(model):
    same(asked(model, (1,)), image(model, 1))
    same(asked(model, (1, 2)), unit(image(model, 1) + image(model, 2)))


def test_texts_and_pictures_are_summed_by_weight(model):
    texts = ["2:make it red", "large", "0.5:blue"]
    by_hand = sum(
        weight * query(model, seed, text)
        for seed in (1, 2)
        for weight, text in ((2, "make it red"), (1, "large"), (0.5, "blue"))
    )
    same(asked(model, (1, 2), texts), unit(by_hand))


def test_weights_are_relative_and_a_great_one_is_as_if_alone(model):
    same(asked(model, texts=["2:red", "2:blue"]), asked(model, texts=["red", "blue"]))
    same(asked(model, texts=["2:red", "blue"]), asked(model, texts=["red", "blue", "red"]))
    same(asked(model, texts=["7:red"]), asked(model, texts=["red"]))
    same(asked(model, texts=["1000000:red", "blue"]), asked(model, texts=["red"]))


def test_what_is_not_wanted_is_taken_away_relative_to_the_references(model):
    toward = unit(query(model, 1, "red") + query(model, 2, "red"))
    change = {
        text: np.mean([query(model, s, text) - image(model, s) for s in (1, 2)], axis=0)
        for text in ("blue", "large")
    }
    by_hand = unit(toward - AWAY * (change["blue"] + change["large"]))
    same(asked(model, (1, 2), ["red"], ["blue", "large"]), by_hand)


@pytest.mark.parametrize("texts", [(), ("red",)])
def test_of_two_pictures_that_fit_alike_the_one_that_not_would_make_loses(model, texts):
    before, after = asked(model, texts=texts), asked(model, texts=texts, nots=["blue"])
    change = query(model, 1, "blue") - image(model, 1)
    change -= (change @ before) * before  # a direction in which `before` does not look
    like, unlike = unit(before + change), unit(before - change)
    assert like @ before == pytest.approx(unlike @ before, abs=1e-5)
    assert like @ after < unlike @ after - 0.01


@pytest.mark.parametrize(
    ("typed", "text", "weight"),
    [
        ("make it red", "make it red", 1),
        ("2:red", "red", 2),
        (" 0.5 : red ", "red", 0.5),
        (".5:red", "red", 0.5),
        ("1:10:30 clock", "10:30 clock", 1),
        ("size: 2", "size: 2", 1),
        ("-1:red", "-1:red", 1),
        ("2:", "", 2),
    ],
)
def test_a_weight_is_a_number_and_a_colon_in_front(typed, text, weight):
    assert weighted(typed) == WeightedText(text, weight)


@given(st.text(), st.floats(0.001, 1e6))
def test_any_text_can_be_given_any_weight(text, weight):
    found = weighted(f"{weight:.3f}:{text}")
    assert found.text == text.strip()
    assert found.weight == pytest.approx(weight, abs=0.001)


def test_what_is_not_said_of_a_question_is_as_documented():
    question = Question((reference(1),))
    assert (question.texts, question.nots, question.where) == ((), (), None)
    assert (question.k, question.keep_references) == (10, False)
    assert WeightedText("red").weight == 1
    one, other = reference(1), reference(2)
    assert (one.row, one.seconds) == (None, {})
    assert one.seconds is not other.seconds


def test_a_question_may_have_from_one_to_ten_thousand_results():
    here = (reference(1),)
    assert [Question(here, k=k).k for k in (1, 10_000)] == [1, 10_000]
    with pytest.raises(UserError, match="--k 10001 is not between 1 and 10,000"):
        Question(here, k=10_001)


def test_a_question_that_asks_nothing_is_refused():
    here = (reference(1),)
    for make, sentence in (
        (lambda: Question(()), "needs a picture to start from"),
        (lambda: Question(here, k=0), "--k 0 is not between 1 and 10,000"),
        (lambda: Question(here, (weighted("2: "),)), "a text is blank"),
        (lambda: Question(here, nots=("",)), "a text is blank"),
        (lambda: weighted("0:red"), "the weight must be above 0"),
        (lambda: weighted(f"{'9' * 400}:red"), "the weight must be above 0"),
    ):
        with pytest.raises(UserError, match=sentence):
            make()


TABLE = pd.DataFrame(
    {
        "colour": ["red", "blue", None, "red"],
        "price": [1, None, 3, 4],
        "new": [True, False, None, False],
    }
).convert_dtypes()


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ('colour == "red"', [0, 3]),
        ("colour != 'red'", [1]),  # what is not known is neither
        ("not colour == 'red'", [1]),
        ("price < 4 and price >= 1", [0, 2]),
        ("price > 3 or colour == 'blue'", [1, 3]),
        ("price > -1.5", [0, 2, 3]),
        ("price in [1, 3]", [0, 2]),
        ("price not in [1, 3]", [3]),
        ("not price in [1]", [2, 3]),
        ("new == True", [0]),
        ("not (new == True) and not (colour in ['blue'] or price == 9)", [3]),
        ("  price == 1  ", [0]),
    ],
)
def test_a_condition_is_met_by(where, rows):
    assert np.flatnonzero(matching(where, TABLE)).tolist() == rows
    assert np.flatnonzero(matching(expression(where, list(TABLE)), TABLE)).tolist() == rows


@pytest.mark.parametrize(
    "where",
    [
        "", "colour", "colour ==", "'red' == colour", "colour == price", "1 < price < 3",
        "__import__('os').system('true')", "colour.upper() == 'RED'", "price + 1 == 2",
        "price == (lambda: 1)()", "[p for p in price]", "price in []", "price in 'red'",
        "price is None", "price == None", "price == 1; colour", "(" * 500 + "price == 1",
        "price == 1 if new else 2", "price == b'a'", "price == 1j", "price := 1", "\0",
        "price == f'{price}'", "price in [[1]]", "price[0] == 1", "@price == 1", "`price` == 1",
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused_and_not_run(where):
    with pytest.raises(UserError, match="cannot be read: write comparisons such as"):
        matching(where, TABLE)


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("price < 99999999999999999999", "has a number beyond 64 bits"),
        ("price == -9223372036854775809", "has a number beyond 64 bits"),
        ("price in [1, 99999999999999999999]", "has a number beyond 64 bits"),
        ("price < 1e999", "has a number beyond 64 bits"),
        ("not " * 60 + "price < 1", "nests more than 50 deep"),
        ("not " * 500 + "price < 1", "nests more than 50 deep"),
        ("(" * 300 + "price < 1" + ")" * 300, "cannot be read"),
    ],
)
def test_what_no_column_and_no_stack_holds_is_refused(where, why):
    with pytest.raises(UserError, match=why) as error:
        matching(where, TABLE)
    assert len(str(error.value)) < 500


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_is_refused(where):
    try:
        met = matching(where, TABLE)
    except UserError:
        return
    assert met.shape == (4,)


def test_a_column_that_is_not_there_and_values_of_another_kind_are_said():
    with pytest.raises(UserError, match="no column 'size'; there are colour, price, new"):
        matching("size == 1", TABLE)
    with pytest.raises(UserError, match="there are none: give `cqr index` a table"):
        matching("size == 1", TABLE[[]])
    with pytest.raises(UserError, match="compares what cannot be compared"):
        matching("colour < 3", TABLE)
