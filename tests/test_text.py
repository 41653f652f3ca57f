from hypothesis import given
from hypothesis import strategies as st

from cqr.trainer.text.vocabulary import TextSpec, Vocabulary, words_of


def test_words_keep_hyphens_and_apostrophes():
    text = "Make the Middle-Left small, gray object LARGE; isn't it?"
    assert words_of(text) == [
        "make", "the", "middle-left", "small", "gray", "object", "large", "isn't", "it",
    ]  # fmt: skip


def test_ids_pad_and_unknown():
    vocabulary = Vocabulary.of(["make it red", "make it"])
    assert vocabulary.words == ("it", "make", "red")
    batch = vocabulary.encode(["make it red", "blue", "?!"])
    assert batch.tokens.tolist() == [[3, 2, 4], [1, 0, 0], [1, 0, 0]]
    assert batch.mask.tolist() == [[True] * 3, [True, False, False], [True, False, False]]
    assert vocabulary.spec == TextSpec(max_words=32, words=5)
    assert vocabulary.unknown(["make it blue", "blue green"]) == {"blue": 2, "green": 1}


def test_long_texts_are_cut_and_counted():
    vocabulary = Vocabulary.of(["a b c"], max_words=2)
    assert vocabulary.encode(["c b a"]).tokens.tolist() == [[4, 3]]
    assert vocabulary.cut(["c b a", "a b", "a - b!", "", "b a c a"]) == 2


def test_tokens_are_the_words_that_are_read():
    vocabulary = Vocabulary.of(["a b c"], max_words=2)
    assert vocabulary.tokens("C, b a") == ["c", "b"]
    assert vocabulary.tokens("?!") == ["?!"]


@given(st.lists(st.text(), min_size=1))
def test_every_text_has_a_word_and_known_words_have_ids(texts):
    vocabulary = Vocabulary.of(texts)
    batch = vocabulary.encode(texts)
    assert batch.mask[:, 0].all()
    assert len(batch) == len(texts)
    for text, row in zip(texts, batch.tokens.tolist(), strict=True):
        words = words_of(text)[:32]
        assert [vocabulary.words[i - 2] for i in row if i > 1] == words
