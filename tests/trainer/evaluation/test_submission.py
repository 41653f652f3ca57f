"""The files of a submission: what is right passes, and each way to be wrong is named."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.datasets.forms import Entries, Form, Keyed, check_text
from cqr.trainer.datasets.queries import Dataset, Protocol
from cqr.trainer.datasets.readers import css
from cqr.trainer.evaluation.checking import check_file
from cqr.trainer.evaluation.submission import forms_of

KEYED = Form(file="keyed.json", depth=3, layout=Keyed({"version": "rc2"}))
SUBSET = replace(KEYED, depth=2, among_members=True)
ENTRIES = Form(
    file="dress.test.pred.json", depth=2, layout=Entries(("candidate", "captions")), part="dress"
)

PROTOCOL = Protocol(
    name="made",
    source="made",
    gallery="all",
    remove_reference=True,
    correct="target",
    recall_at=(1,),
    scored="val",
    submitted="test",
)


def dataset(**protocol):
    """Two test queries over the images a ... f, called A ... F, and a query of val."""
    images = pd.DataFrame(
        {"path": list("abcdef"), "caption": None, "split": "test", "name": list("ABCDEF")},
        dtype=object,
    )
    queries = pd.DataFrame(
        [
            ("1", "a", "red", None, "test", ["a", "b", "c", "d"]),
            ("2", "f", "blue", None, "test", ["c", "d", "e", "f"]),
            ("3", "a", "green", "b", "val", ["a", "b", "c", "d"]),
        ],
        columns=["query_id", "reference", "text", "target", "split", "members"],
        dtype=object,
    )
    return Dataset("made", None, queries, images, replace(PROTOCOL, **protocol))


def content(**answers):
    return {"version": "rc2", "1": ["B", "C", "D"], "2": ["A", "B", "C"]} | answers


def fault(form, data, answers):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check_text(form, answers if isinstance(answers, str) else json.dumps(answers), data)
    return str(error.value)


def test_what_is_right_passes():
    check_text(KEYED, json.dumps(content()), dataset())
    check_text(SUBSET, json.dumps({"version": "rc2", "1": ["D", "B"], "2": ["C", "E"]}), dataset())


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("{", "is no JSON (Expecting property name"),
        ("[" * 100_000, "is no JSON ("),
        ([], "is no JSON object"),
        ({}, 'does not say "version": "rc2"'),
        (content(version="rc1"), 'does not say "version": "rc2"'),
        ({"version": "rc2", "1": ["B", "C", "D"]}, "lacks 1 of 2 test queries, first 2"),
        (content(**{"3": ["B", "C", "D"]}), "answers 1 query not asked, first 3"),
        (content(**{"1": ["B", "C"]}), "query 1 names 2 images, not 3"),
        (content(**{"1": ["B", "C", "D", "E"]}), "query 1 names 4 images, not 3"),
        (content(**{"2": "ABC"}), "query 2 names no list of images, not 3"),
        (content(**{"2": ["A", "B", "B"]}), "query 2 names B twice"),
        (content(**{"2": ["A", "B", "F"]}), "query 2 names F, its own reference"),
        (content(**{"2": ["A", "B", "X"]}), 'query 2 names "X", which is no image of the gallery'),
        (content(**{"2": ["A", "B", ["C"]]}), 'query 2 names ["C"], which is no image of the'),
        (content(**{"1": [], "2": []}), "has 2 wrong answers: query 1 names 0 images"),
        ('{"version": "rc2", "1": [], "1": []}', "has a key twice"),
    ],
)
def test_each_fault_is_named(answers, said):
    assert said in fault(KEYED, dataset(), answers)


def test_a_subset_is_of_the_members_without_the_reference():
    answers = {"version": "rc2", "1": ["D", "E"], "2": ["C", "E"]}
    assert "query 1 names E, which is not in its image set" in fault(SUBSET, dataset(), answers)
    # even where the gallery keeps the reference
    kept = dataset(remove_reference=False)
    assert "query 1 names A, its own" in fault(SUBSET, kept, answers | {"1": ["A", "D"]})
    check_text(KEYED, json.dumps(content(**{"1": ["A", "B", "C"]})), kept)


def test_numbers_are_told_from_texts_and_truth_values():
    numbered = dataset()
    numbered = replace(numbered, images=numbered.images.assign(name=range(6)))
    form = replace(KEYED, layout=Keyed())
    check_text(form, '{"1": [1, 2, 3], "2": [0, 1, 2]}', numbered)
    for odd in ('"1"', "true", "1.0"):
        said = fault(form, numbered, f'{{"1": [{odd}, 2, 3], "2": [0, 1, 2]}}')
        assert f"query 1 names {odd}, which is no image of the gallery" in said


def test_a_file_that_is_too_large_is_named():
    text = json.dumps(content())
    check_text(replace(KEYED, largest=len(text)), text, dataset())
    said = fault(replace(KEYED, largest=len(text) - 1), dataset(), text)
    assert said == f"has {len(text)} bytes, more than the {len(text) - 1} that are taken"


def test_a_file_of_any_program_is_checked(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content(), indent=4))
    check_file(path, [KEYED], dataset())
    path.write_text(json.dumps(content(version="rc3")))
    with pytest.raises(UserError) as error:
        check_file(path, [KEYED], dataset())
    assert str(error.value) == (f'{path} would be refused: it does not say "version": "rc2"')
    with pytest.raises(UserError, match="there is no file"):
        check_file(tmp_path / "nowhere.json", [KEYED], dataset())


def by_category():
    """Two categories that share an image, the queries as FashionIQ gives them."""
    images = pd.DataFrame(
        [(p, None, "test", p.upper(), c) for c, ps in (("dress", "abc"), ("shirt", "cde"))
         for p in ps],
        columns=["path", "caption", "split", "name", "category"],
        dtype=object,
    )  # fmt: skip
    queries = pd.DataFrame(
        [
            ("s0", "c", "x", None, "test", "shirt", "C", ["is", "x"]),
            ("d0", "a", "y", None, "test", "dress", "A", ["is", "y"]),
            ("d1", "b", "z", None, "test", "dress", "B", ["", "z"]),
        ],
        columns=["query_id", "reference", "text", "target", "split", "category", "candidate",
                 "captions"],
        dtype=object,
    )  # fmt: skip
    protocol = replace(PROTOCOL, part="category", remove_reference=False)
    return Dataset("made", None, queries, images, protocol)


def test_entries_are_the_queries_of_a_part_with_a_ranking():
    data = by_category()
    queries = ENTRIES.of(data, data.split("test"))
    made = ENTRIES.layout.write(queries, {"d1": ["A", "C"], "d0": ["B", "A"], "s0": []})
    assert made == [
        {"candidate": "A", "captions": ["is", "y"], "ranking": ["B", "A"]},
        {"candidate": "B", "captions": ["", "z"], "ranking": ["A", "C"]},
    ]
    check_text(ENTRIES, json.dumps(made), data)
    assert fault(ENTRIES, data, made[:1]) == "is no JSON list of 2 entries"
    assert fault(ENTRIES, data, made[::-1]) == "has another entry 1 than the data set"
    assert "query d1 names no list of images" in fault(ENTRIES, data, [made[0], {
        key: value for key, value in made[1].items() if key != "ranking"}])  # fmt: skip
    other = [made[0], made[1] | {"ranking": ["A", "D"]}]
    assert 'query d1 names "D", which is no image of the gallery' in fault(ENTRIES, data, other)


@given(
    st.dictionaries(
        st.sampled_from(["version", "1", "2", "9"]),
        st.one_of(
            st.sampled_from(["rc2", None, 3]),
            st.lists(st.sampled_from([*"ABCDEFX", 1, None]), max_size=4),
        ),
    )
)
def test_what_passes_is_what_the_rules_say(answers):
    def keeps_the_rules(key, reference):
        names = answers.get(key)
        return (
            isinstance(names, list)
            and len(names) == 3
            and len(set(names)) == 3
            and set(names) <= set("ABCDEF") - {reference}
        )

    right = (
        answers.keys() == {"version", "1", "2"}
        and answers["version"] == "rc2"
        and keeps_the_rules("1", "A")
        and keeps_the_rules("2", "F")
    )
    try:
        check_text(KEYED, json.dumps(answers), dataset())
        passed = True
    except ValueError:
        passed = False
    assert passed == right


def test_what_has_no_server_is_told_so():
    data = replace(dataset(), name="css", protocol=css.PROTOCOL)
    with pytest.raises(UserError) as error:
        forms_of(data)
    assert "css keeps no truth on a server: score it with `cqr evaluate`; what can" in str(
        error.value
    )
    assert "cirr, circo" in str(error.value)


def test_without_queries_of_the_split_there_is_nothing_to_submit():
    data = replace(dataset(), name="cirr", queries=dataset().queries.iloc[2:])
    with pytest.raises(UserError, match="has no queries of its test split to submit: complete"):
        forms_of(data)
