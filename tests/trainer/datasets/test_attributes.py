"""A user's table of pictures: which pairs and questions come of columns and of captions."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cqr
from cqr.errors import UserError
from cqr.trainer.datasets.families import Families
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.queries import tasks
from cqr.trainer.datasets.readers import attributes_texts
from cqr.trainer.datasets.readers.attributes_pairs import FewestWords, OneColumn, Pairs
from cqr.trainer.datasets.readers.attributes_texts import Change, Templates
from cqr.trainer.datasets.readers.fashion200k_pairs import Siblings
from cqr.trainer.datasets.readers.mit_states_pairs import Changes
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.datasets.survey import survey
from cqr.trainer.training.material import Wanted, collect
from small_datasets import TINY, write

COLOURS, KINDS, WEARERS = ["red", "blue", "navy blue"], ["shirt", "dress"], ["women", "men"]


def catalogue(number=60, seed=0, splits=None):
    """A table of pictures with three attributes and a column of another sort."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(number)],
            "colour": rng.choice(COLOURS, number),
            "articleType": rng.choice(KINDS, number),
            "wearer": rng.choice(WEARERS, number),
            "name": [f"number {i}" for i in range(number)],
        }
    )
    return frame if splits is None else frame.assign(split=rng.choice(splits, number))


def table(frame, *given, paths=None):
    """The data set of a table beside a folder of its pictures."""
    if paths is None:
        paths = [f"images/{name}.jpg" for name in frame.iloc[:, 0] if str(name).strip()]
    frame.to_csv("photos.csv", index=False)
    pictures = Pictures(Path("photos"), list(dict.fromkeys(paths)))
    return read(find(pictures), pictures, given=given)


CHOSEN = ["colour", "articleType", "wearer"]


def reachable(source, draws=60):
    """Every reference, text, target that some epochs have."""
    drawn = [source.draw(np.random.default_rng(seed)) for seed in range(draws)]
    return {t for d in drawn for t in zip(d.reference, d.text, d.target, strict=True)}


def test_a_pair_changes_one_column_and_says_which_value_it_gets():
    frame = catalogue(24, splits=["train", "test"])
    data = table(frame, "columns=" + ",".join(CHOSEN))
    rows = frame.assign(path="images/" + frame["id"] + ".jpg").set_index("path")
    train = rows[rows["split"] == "train"]
    wanted = set()
    for one, other in itertools.permutations(train.index, 2):
        differ = [c for c in CHOSEN if train.loc[one, c] != train.loc[other, c]]
        if len(differ) == 1:
            old, new = train.loc[one, differ[0]], train.loc[other, differ[0]]
            spoken = {"articleType": "article type"}.get(differ[0], differ[0])
            for text in (f"in {new}", f"make it {new}", f"{new} instead of {old}",
                         f"change {spoken} to {new}"):  # fmt: skip
                wanted.add((one, text, other))
    source = data.pairs(data.split("train"), data.images_of("train"))
    assert reachable(source, 400) == wanted
    drawn = source.draw(np.random.default_rng(0))
    assert sorted(drawn.reference) == sorted({one for one, _, _ in wanted})  # each once
    words = {word for text in source.texts() for word in text.lower().split()}
    assert {word for _, text, _ in wanted for word in text.lower().split()} <= words


def test_the_test_asks_each_picture_once_for_each_column_that_can_change():
    frame = catalogue(60, splits=["train", "test", "val"])
    data = table(frame, "columns=" + ",".join(CHOSEN))
    rows = frame.assign(path="images/" + frame["id"] + ".jpg").set_index("path")
    assert data.breakdown == ("column",)
    for split in ("test", "val"):
        own = rows[rows["split"] == split]
        asked = data.split(split)
        wanted = {
            (one, column)
            for one, other in itertools.permutations(own.index, 2)
            for column in CHOSEN
            if [c for c in CHOSEN if own.loc[one, c] != own.loc[other, c]] == [column]
        }
        found = list(zip(asked["reference"], asked["column"], strict=True))
        assert len(found) == len(set(found))
        assert set(found) == wanted
        assert data.gallery(split) == list(own.index)
        [work] = tasks(data, split)
        for query, right in zip(work.queries.itertuples(), work.correct, strict=True):
            assert query.text == f"in {own.loc[query.target, query.column]}"
            alike = own.index[(own[CHOSEN] == own.loc[query.target, CHOSEN]).all(axis=1)]
            assert [work.gallery[place] for place in right] == list(alike)
            changed = own.loc[query.reference, CHOSEN] != own.loc[query.target, CHOSEN]
            assert list(changed[changed].index) == [query.column]
    sentence = data.protocol.sentence()
    assert "every gallery image with the target's colour, articleType and wearer" in sentence
    assert 'a text is "in {new}", filled in' in sentence


def test_without_a_split_column_the_test_is_chosen_by_name_and_never_trained_on():
    frame = catalogue(300)
    data = table(frame)
    assert data.notes == (
        ("the attributes are colour, articleType, wearer, every column of photos.csv that can be: "
         "choose some with --protocol columns=A,B"),
        "name (300 values) cannot: an attribute has 2 to 100 different values, a third of the rows",
        (f"photos.csv has no split column: {len(data.gallery('test'))} of 300 pictures, chosen by "
         "a hash of their names, are the test split"),
    )  # fmt: skip
    tests = set(data.gallery("test"))
    assert 40 <= len(tests) <= 80
    source = data.pairs(data.split("train"), data.images_of("train"))
    trained = {path for one, _, other in reachable(source, 20) for path in (one, other)}
    assert not trained & tests
    asked = data.split("test")
    assert set(asked["reference"]) | set(asked["target"]) <= tests
    more = table(catalogue(400).assign(colour=lambda f: f["colour"].iloc[::-1].to_numpy()))
    assert {path for path in more.gallery("test") if path < "images/0300.jpg"} == tests
    assert len(table(frame, "test=0.5").gallery("test")) > 120


def test_a_question_in_every_template():
    frame = catalogue(60, splits=["train", "test"])
    once, every = table(frame), table(frame, "paraphrases=true")
    assert every.breakdown == ("column", "template")
    assert len(every.split("test")) == 4 * len(once.split("test"))
    first = every.split("test")[lambda rows: rows["template"] == "in {new}"]
    columns = ["reference", "text", "target", "column"]
    assert first[columns].values.tolist() == once.split("test")[columns].values.tolist()
    assert "a text is each template in turn, filled in" in every.protocol.sentence()


def test_templates_of_one_s_own_some_for_one_column_alone():
    text = "wearer: for {new}\nas {new} , not {old}\r\n\nwearer: {column} = {new}\nnote: {new}\n"
    write({"own.txt": text}, ".")
    frame = catalogue(60, splits=["train", "test"])
    data = table(frame, "templates=own.txt")
    texts = {(row.column, row.template) for row in data.split("test").itertuples()}
    assert texts == {("wearer", "for {new}"), ("colour", "as {new} , not {old}"),
                     ("articleType", "as {new} , not {old}")}  # fmt: skip
    source = data.pairs(data.split("train"), data.images_of("train"))
    drawn = {text for _, text, _ in reachable(source)}
    assert {"for men", "wearer = women", "as red , not blue", "note: dress"} <= drawn
    assert not any(text.startswith(("as men", "note: men")) for text in drawn)
    assert "a text is the first template of each column" in data.protocol.sentence()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("in {new}\nplain\n", "line 2 is no template ('plain'): it needs {new} and may have {c"),
        ("{new} {size}\n", "line 1 is no template ('{new} {size}')"),
        ("colour: in {new}\n", "has no template for articleType: add one"),
        ("", "has no template for colour"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused(text, message):
    write({"own.txt": text}, ".")
    with pytest.raises(UserError) as error:
        table(catalogue(60), "templates=own.txt")
    assert f"own.txt {message}" in str(error.value)
    with pytest.raises(UserError, match=r"nowhere\.txt is missing"):
        table(catalogue(60), "templates=nowhere.txt")


def test_what_is_not_known_is_an_empty_cell_and_nothing_else():
    frame = catalogue(60, splits=["train", "test"])
    frame["colour"] = ["N/A", "007", 'a "b", c', ""] * 15
    data = table(frame)
    assert any(
        note == "colour is unknown of 15 pictures: they are in no pair that changes it"
        for note in data.notes
    )
    unknown = set("images/" + frame["id"][frame["colour"] == ""] + ".jpg")
    source = data.pairs(data.split("train"), data.images_of("train"))
    colours = {one for one, text, _ in reachable(source) if "instead of N/A" in text}
    assert colours
    texts = set(data.split("test")[lambda rows: rows["column"] == "colour"]["text"])
    assert texts == {"in N/A", "in 007", 'in a "b", c'}
    for row in data.split("test").itertuples():
        assert row.column != "colour" or not {row.reference, row.target} & unknown
        assert (row.reference in unknown) == (row.target in unknown)  # equal in all but one column
    assert unknown & set(data.split("test")["reference"])


def test_rows_without_a_name_again_or_without_a_picture_are_said(write_features):
    frame = catalogue(60, splits=["train", "test"])
    paths = [f"images/{name}.jpg" for name in frame["id"][:50]]
    again = frame.iloc[[3]].assign(id="images/0003.jpg", colour="none of it")
    frame = pd.concat([frame, again, frame.iloc[[4]].assign(id=" ")])
    data = table(frame, paths=paths)
    assert "1 rows of photos.csv name no picture and are left out" in data.notes
    assert (
        "1 rows of photos.csv name a picture that an earlier one has, first images/0003.jpg: the "
        "earlier one counts"
    ) in data.notes
    named = set(data.split("test")["reference"]) | set(data.split("test")["target"])
    assert named <= set(paths)
    features = write_features(
        "artifacts/photos.h5", paths, np.ones((50, 2, 4), np.float32),
        np.tile(np.float32([0, 0, 300, 300]), (50, 2, 1)), root=Path("photos").resolve(),
    )  # fmt: skip
    with pytest.raises(UserError, match="10 of 60 images have no regions in"):
        collect(features, Wanted())
    material = collect(features, Wanted(), max_missing=0.5)
    assert any("10 of 60 images have no regions" in note for note in material.notes)
    assert set(material.dataset.gallery("test")) <= set(paths)


def captions(*lines):
    return pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(lines))], "caption": lines})


def captioned(*lines):
    """Of pictures that are there as `table` has them."""
    return captions(*lines).assign(path=[f"{i}" for i in range(len(lines))])


def left_out(one, other):
    """How many words each of two captions must lose, so that the rest is equal: by their LCS."""
    longest = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, j in np.ndindex(len(one), len(other)):
        both = longest[i, j] + 1 if one[i] == other[j] else 0
        longest[i + 1, j + 1] = max(both, longest[i, j + 1], longest[i + 1, j])
    return len(one) - longest[-1, -1]


def test_captions_pair_with_those_that_differ_in_the_fewest_words():
    rng = np.random.default_rng(0)
    words = ["red", "long", "dress", "silk", "a", "b", "c", "gown"]
    lines = [tuple(rng.permutation(words)[: rng.integers(2, 5)]) for _ in range(40)]
    lines += [("two", "words", "of", "a", "hill"), ("two", "words", "under", "one", "cloud")]
    described = list(dict.fromkeys(lines))
    images = pd.DataFrame({"path": [" ".join(d) for d in described], "described": described})
    source = Pairs(None, images, FewestWords(), Templates(attributes_texts.OF_WORDS[:1]))
    wanted = set()
    levels = set()
    for one in described:
        others = [o for o in described if len(o) == len(one) and set(o) != set(one)]
        numbers = {other: left_out(one, other) for other in others}
        least = min(numbers.values(), default=9)
        for other in [other for other in others if numbers[other] == least <= 3]:
            levels.add(least)
            old = " ".join(w for w in one if w not in other)
            new = " ".join(w for w in other if w not in one)
            wanted.add((" ".join(one), f"replace {old} with {new}", " ".join(other)))
    assert levels == {1, 2, 3}
    assert reachable(source, 300) == wanted


def test_a_table_of_captions():
    frame = captions("A red dress.", "a blue dress", "a blue, dress!", "nothing alike at all",
                     "", "a green dress", "A red shirt", "a blue shirt")  # fmt: skip
    data = table(frame.assign(split=["train"] * 2 + ["test"] * 6, other=list("ababababab"[:8])),
                 paths=frame["path"])  # fmt: skip
    assert sorted(data.split("test")[["reference", "text", "target"]].values.tolist()) == [
        ["2.jpg", "replace blue with green", "5.jpg"],
        ["2.jpg", "replace dress with shirt", "7.jpg"],
        ["5.jpg", "replace green with blue", "2.jpg"],
        ["6.jpg", "replace red with blue", "7.jpg"],
        ["7.jpg", "replace blue with red", "6.jpg"],
        ["7.jpg", "replace shirt with dress", "2.jpg"],
    ]
    assert data.gallery("test") == [f"{i}.jpg" for i in range(2, 8)]
    assert data.breakdown == ()
    assert "1 pictures have no caption: they are in no pair" in data.notes
    by_column = table(frame.assign(split=["train", "test"] * 4, other=list("aabbaabb")),
                      "columns=other", paths=frame["path"])  # fmt: skip
    assert set(by_column.split("test")["column"]) == {"other"}


def test_one_word_of_a_caption_is_fashion_200k_s_clean_rule():
    rng = np.random.default_rng(1)
    words = ["red", "blue", "long", "dress", "gown"]
    lines = [" ".join(rng.choice(words, 3)) for _ in range(30)]
    images = pd.DataFrame({"path": [f"{i}.jpg" for i in range(30)], "caption": lines,
                           "described": [tuple(line.split()) for line in lines]})  # fmt: skip
    theirs = Siblings(None, images, clean=True)
    ours = Pairs(None, images, FewestWords(), Templates(("replace {old} with {new}",)))
    only = {one for one, text, _ in reachable(theirs, 1)}  # those with a sibling in one word
    assert {t for t in reachable(ours, 300) if t[0] in only} == reachable(theirs, 300)


def test_a_column_that_stays_is_mit_states_clean_rule():
    rng = np.random.default_rng(2)
    states = [(rng.choice(["ripe", "cut", "raw"]), rng.choice(["fig", "tea"])) for _ in range(20)]
    images = pd.DataFrame(states, columns=["adjective", "noun"])
    images = images.assign(path=[f"{i}.jpg" for i in range(20)], described=states)
    theirs = Changes(None, images, clean=True)

    class Adjectives(OneColumn):
        def families(self, described):
            return Families(
                (noun, child, adjective) for child, (adjective, noun) in enumerate(described)
            )

    ours = Pairs(None, images, Adjectives(("adjective", "noun")), Templates(("{new}",)))
    assert reachable(ours, 300) == reachable(theirs, 300)
    changes = reachable(
        Pairs(None, images, OneColumn(("adjective", "noun")), Templates(("{new}",))), 300
    )
    assert {t for t in changes if t[1] in ("ripe", "cut", "raw")} == reachable(theirs, 300)


@pytest.mark.parametrize(
    ("frame", "given", "message"),
    [
        (lambda: catalogue(30).assign(colour="red"), ["columns=colour,wearer"],
         "photos.csv: the column colour has one value in 30 rows, and an attribute has 2 to 10 "),
        (lambda: catalogue(30), ["columns=name"], "the column name has 30 values in 30 rows, and"),
        (lambda: catalogue(30), ["columns=colour,size"],
         "--protocol columns=colour,size: 'size' is no column of attributes; photos.csv"),
        (lambda: catalogue(30), ["columns=colour,colour"], "'colour' is there twice; photos.csv"),
        (lambda: catalogue(30)[["id", "name"]], [],
         "photos.csv has no column that can be used: name (30 values), and an attribute has"),
        (lambda: captioned(*["a Dress.", "a dress"] * 8), [],
         "photos.csv: the captions of all 16 rows are equal or empty, so nothing tells"),
        (lambda: captioned(*["a dress", "nothing of this"] * 8), [],
         "no two of their 2 different captions differ in 3 words or fewer, the rest being equal"),
        (lambda: catalogue(30, splits=["train"]), [], "photos.csv has no test split: mark some"),
        (lambda: catalogue(30), ["test=0"],
         "all 30 pictures of photos.csv are the train split, of which --protocol test=0 is"),
    ],
)  # fmt: skip
def test_a_table_of_which_nothing_comes_is_refused(frame, given, message):
    with pytest.raises(UserError) as error:
        table(frame(), *given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_pair_says_how_many_pictures_share_all_but_one_column():
    frame = pd.DataFrame({"id": [f"{i}" for i in range(8)], "split": ["train"] * 4 + ["test"] * 4,
                          "a": list("ppppqqpp"), "b": list("mnmmmnmm")})  # fmt: skip
    with pytest.raises(UserError) as error:
        table(frame.assign(a=list("pqppppqq"), b=list("mnmmmnmm"), split=list("attaaaaa")).replace(
            {"split": {"a": "train", "t": "test"}}), "columns=a,b")  # fmt: skip
    assert str(error.value) == (
        "no pair can be drawn from the 2 test pictures of photos.csv: 0 of them share all but one "
        "of a and b with another, so no change can be asked; choose other columns with --protocol "
        "columns=A,B, or add pictures"
    )
    with pytest.raises(UserError) as error:
        table(frame.assign(a=list("pqpppppp"), b=list("mnmmmmmm")), "columns=a,b")
    assert (
        "no pair can be drawn from the 4 test pictures of photos.csv: 4 of them share all but one "
        "of a and b with another, and these differ in nothing that is known; choose other"
    ) in str(error.value)


def test_names_that_are_of_no_picture_at_all():
    with pytest.raises(UserError) as error:
        table(catalogue(30), paths=["x.jpg"])
    assert str(error.value) == (
        "none of the 30 rows of photos.csv names a picture of photos in the column id (first "
        "'0000'): name them by their path or file name"
    )


def test_which_table_is_which():
    pictures = Pictures(Path("photos"), [f"images/{i:04d}.jpg" for i in range(60)])
    catalogue().to_csv("photos.csv", index=False)
    assert find(pictures).name == "attributes"
    assert find(pictures, Path("photos.csv")).name == "attributes"
    queries = "reference,text,target,path,colour\n0001,t,0002,x,red\n"
    Path("photos.csv").write_text(queries)
    assert find(pictures).name == "table"
    catalogue().to_parquet("styles.parquet")
    assert find(pictures, Path("styles.parquet")).name == "attributes"
    write({"labels.csv": "image,label\n0001,a\n", "more.csv": "file,label\n0001,a\n"}, "photos")
    assert find(pictures).name == "table"  # tables of pictures stand back
    Path("photos.csv").unlink()
    with pytest.raises(UserError, match=r"holds 2 tables of pictures \(labels.csv, more.csv\)"):
        find(pictures)


def test_a_change_is_said_in_words():
    change = Change("base_colour", "{new}", "a{old}b")
    said = attributes_texts.filled("{column}: {new} for {old}", change)
    assert said == "base colour: a{old}b for {new}"


def test_a_folder_with_a_table_beside_it_is_surveyed_trained_on_and_scored(write_features):
    frame = catalogue(90)
    names = [f"{name}.jpg" for name in frame["id"]]
    write(dict.fromkeys(names, b"picture"), "photos")
    frame.to_csv("photos.csv", index=False)
    found = survey(Path("photos.csv"))
    assert found.dataset.name == "attributes"
    assert (found.named, found.missing, found.astray, found.repeated) == (90, [], [], [])
    assert ("pictures", 90, None) in found.counts
    codes = np.random.default_rng(3).normal(size=(3, 3, 8))
    values = [[COLOURS.index(c), KINDS.index(k), WEARERS.index(w)]
              for c, k, w in frame[CHOSEN].values]  # fmt: skip
    one_hot = np.stack([codes[[0, 1, 2], some] for some in values]).astype(np.float32)
    features = write_features(
        "artifacts/photos.h5", names, one_hot,
        np.tile(np.float32([0, 0, 300, 300]), (90, 3, 1)), root=Path("photos").resolve(),
    )  # fmt: skip
    options = dict(choice.split("=") for choice in TINY)
    run = cqr.train(features, data="photos.csv", protocol={"columns": ",".join(CHOSEN)}, epochs=25,
                    lr=1e-2, select="last", options=options, progress=False)  # fmt: skip
    assert run.dataset == "attributes"
    assert run.protocol["columns"] == "colour,articleType,wearer"
    evaluation = cqr.evaluate(run, examples=2, device="cpu", progress=False)
    assert evaluation.recall[1] > 3 * evaluation.metrics["chance"]["1"]
    assert set(evaluation.metrics["breakdown"]["column"]) == set(CHOSEN)
    every = cqr.evaluate(run, protocol={"paraphrases": True}, progress=False, device="cpu")
    assert len(every.metrics["breakdown"]["template"]) == 4
    assert (
        every.metrics["breakdown"]["template"]["in {new}"]["recall"]
        == (evaluation.metrics["recall"])
    )
