from hypothesis import given
from hypothesis import strategies as st

from cqr.trainer.text import Vocabulary, words_of


def test_words_keep_hyphens_and_apostrophes():
    text = "Make the Middle-Left small, gray object LARGE; isn't it?"
    assert words_of(text) == [
        "make", "the", "middle-left", "small", "gray", "object", "large", "isn't", "it",
    ]  # fmt: skip


def test_ids_pad_and_unknown():
    vocabulary = Vocabulary.of(["make it red", "make it"])
    assert vocabulary.words == ("it", "make", "red")
    assert vocabulary.encode(["make it red", "blue", "?!"]).tolist() == [
        [3, 2, 4], [1, 0, 0], [1, 0, 0],
    ]  # fmt: skip
    assert len(vocabulary) == 5
    assert vocabulary.unknown(["make it blue", "blue green"]) == {"blue": 2, "green": 1}


def test_long_texts_are_cut():
    assert Vocabulary.of(["a b c"], max_words=2).encode(["c b a"]).tolist() == [[4, 3]]


@given(st.lists(st.text(), min_size=1))
def test_every_text_has_a_word_and_known_words_have_ids(texts):
    vocabulary = Vocabulary.of(texts)
    ids = vocabulary.encode(texts)
    assert (ids[:, 0] != 0).all()
    for text, row in zip(texts, ids.tolist(), strict=True):
        words = words_of(text)[:32]
        assert [vocabulary.words[i - 2] for i in row if i > 1] == words
