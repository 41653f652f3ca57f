import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.text import words
from cqr.trainer.text.vocabulary import PAD, TextSpec, Vocabulary, WordBatch
from cqr.trainer.text.words import segmented, splitter_for
from cqr.trainer.text.words import spaced as words_of


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
        words = (segmented if vocabulary.splitter == "segmented" else words_of)(text)[:32]
        assert [vocabulary.words[i - 2] for i in row if i > 1] == words


@given(st.data())
def test_two_neighbouring_runs_of_words_change_places(data):
    texts = data.draw(st.lists(st.lists(st.integers(2, 99), min_size=1, max_size=6), min_size=1))
    parts = [
        sorted(data.draw(st.lists(st.integers(0, len(t)), min_size=3, max_size=3))) for t in texts
    ]
    longest = max(map(len, texts))
    tokens = torch.tensor([text + [PAD] * (longest - len(text)) for text in texts])
    cuts = torch.tensor(
        [[(at + 0.5) / (len(t) + 1) for at in cut] for t, cut in zip(texts, parts, strict=True)]
    )
    vectors = torch.rand(len(texts), 4)
    for batch in (
        WordBatch(tokens, tokens != PAD, vectors),
        WordBatch(tokens[..., None], tokens != PAD),
    ):
        said = batch.reordered(cuts)
        for row, text, (first, second, end) in zip(said.tokens, texts, parts, strict=True):
            other = text[:first] + text[second:end] + text[first:second] + text[end:]
            assert row.flatten().tolist() == other + [PAD] * (longest - len(text))
        assert said.mask is batch.mask
        assert said.vector is batch.vector


def test_words_without_spaces_are_told_apart():
    pytest.importorskip("icu4py", reason="pip install icu4py")
    assert segmented("把它变成红色的大圆, OK") == [
        "把",
        "它",
        "变成",
        "红色",
        "的",
        "大",
        "圆",
        "ok",
    ]
    assert segmented("赤い円を追加") == ["赤い", "円", "を", "追加"]
    assert segmented("เป็นสีแดง") == ["เป็น", "สี", "แดง"]
    texts = ["把它变成红色", "把它变成大圆"]
    vocabulary = Vocabulary.of(texts)
    assert vocabulary.splitter == "segmented"
    assert {"把", "它", "变成", "红色"} <= set(vocabulary.words)
    assert vocabulary.encode(texts).mask.sum() == sum(len(segmented(text)) for text in texts)


def test_combining_marks_are_parts_of_words():
    assert words_of("हिन्दी") == ["ह", "न", "द"]  # as runs from before read it
    assert segmented("हिन्दी में") == ["हिन्दी", "में"]
    assert segmented("cafe\u0301") == segmented("caf\u00e9") == ["caf\u00e9"]


def test_texts_that_spaces_part_are_read_as_ever():
    texts = ["Make top-left it isn't red?", "a_b 3.5 x", "größer", "красный", ""]
    assert splitter_for(texts) == "spaced"
    assert [segmented(text) for text in texts] == [words_of(text) for text in texts]
    assert splitter_for([f"text {i}" for i in range(200)] + ["把它"]) == "spaced"
    assert splitter_for([f"text {i}" for i in range(20)] + ["把它"]) == "segmented"
    assert Vocabulary(("a",), 4) == Vocabulary(("a",), 4, "spaced")  # a run from before


def test_without_icu_it_is_said_what_is_missing(monkeypatch):
    def none(name):
        raise ImportError(name)

    words._icu.cache_clear()
    monkeypatch.setattr(words, "import_module", none)
    with pytest.raises(UserError, match=r"pip install 'cqr\[words\]', or .*--text-encoder NAME"):
        Vocabulary.of(["把它变成红色"])
    words._icu.cache_clear()


def test_words_that_occur_once_are_counted():
    texts = ["a b", "a c", "a c", "d"]
    assert Vocabulary.of(texts).once(texts) == 3  # b, c in one text, d
