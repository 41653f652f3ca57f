"""The readers, through the one function that recognises a data set."""

import json

import pandas as pd
import pytest

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.recognise import READERS, find, read


@pytest.fixture
def features(tmp_path):
    """What a reader needs of a feature file: where it and its pictures are."""
    root = tmp_path / "photos"
    root.mkdir()
    paths = ["a.jpg", "b.jpg", "sub/c.jpg", "sub/d d.jpg", "other/d d.jpg"]
    return Pictures(root, paths, tmp_path / "artifacts" / "photos.h5")


def recognise(features, data=None, name=None, given=()):
    return read(find(features, data, name), features, given=given)


def write(features, text, name="queries.csv"):
    path = features.features.parent.parent / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


ROWS = "reference,text,target,split\na.jpg,make it red,b.jpg,train\nb.jpg,bigger,c.jpg,test\n"


def test_a_table_in_the_image_folder_is_found(features):
    write(features, ROWS)
    data = recognise(features)
    assert data.name == "table"
    assert list(data.queries) == ["query_id", "reference", "text", "target", "split"]
    assert data.queries.values.tolist() == [
        ["1", "a.jpg", "make it red", "b.jpg", "train"],
        ["2", "b.jpg", "bigger", "sub/c.jpg", "test"],
    ]
    # not a.jpg, which only a training row names; the last two are named by no row
    assert data.gallery("test") == features.paths[1:]
    kept = recognise(features, given=["gallery=all"])
    assert kept.gallery("test") == features.paths
    assert "the gallery is all pictures," in kept.protocol.sentence()


@pytest.mark.parametrize(
    "name", ["photos.csv", "photos.queries.csv", "artifacts/photos.queries.csv"]
)
def test_a_table_beside_the_folder_or_the_features_is_found(features, name):
    write(features, ROWS, f"../{name}")
    assert len(recognise(features).queries) == 2


def test_parquet_bom_crlf_and_columns_of_one_s_own(features):
    write(
        features,
        "\ufeff"
        + ROWS.replace("split", "split,colour")
        .replace("train", "train,red")
        .replace("test", "test,")
        .replace("\n", "\r\n"),
    )
    frame = recognise(features).queries
    assert frame["colour"].tolist()[0] == "red"
    path = features.features.parent.parent / "q.parquet"
    frame.to_parquet(path)
    assert recognise(features, path).queries["reference"].tolist() == ["a.jpg", "b.jpg"]


def test_without_a_split_column_every_fifth_reference_is_the_test(features):
    lines = "".join(f"r{i}.jpg,t,x.jpg\n" for i in range(10) for _ in range(3))
    write(features, "reference,text,target\n" + lines)
    data = recognise(features)
    tests = data.split("test")
    assert sorted(tests["reference"].unique()) == ["r4.jpg", "r9.jpg"]
    assert not set(tests["reference"]) & set(data.split("train")["reference"])
    assert data.notes == (
        ("queries.csv has no split column: 6 of 30 queries, those of every 5th reference, are the "
         "test split"),
        "queries.csv: 6 test rows are 2 questions",
    )  # fmt: skip


def test_a_name_is_resolved_only_when_one_file_has_it(features):
    write(features, "reference,text,target,split\nc.jpg,t,a.jpg,train\nc.jpg,t,sub/d d.jpg,test\n")
    assert recognise(features).queries["target"].tolist() == ["a.jpg", "sub/d d.jpg"]
    assert recognise(features).queries["reference"].tolist() == ["sub/c.jpg", "sub/c.jpg"]
    path = write(
        features, "reference,text,target,split\nc.jpg,t,d d.jpg,train\nc.jpg,t,a.jpg,test\n"
    )
    with pytest.raises(UserError) as error:
        recognise(features)
    assert str(error.value) == (
        f"{path} names d d.jpg, which fits other/d d.jpg and sub/d d.jpg: write the path"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reference,target\na,b\n", "lacks the column text; it has reference, target; needed are "),
        ("reference,text\na,b\n", "lacks the column target; it has reference, text; needed"),
        ("reference,text,target,split\na,b,c,train\na,,c,test\n",
         "text is empty in 1 of 2 rows, first in row 2; fill or remove them"),
        ("reference,text,target,split\na,x,c,train\n ,x,c,test\n", "reference is empty in 1 of 2"),
        ("reference,text,target,split\na,b,c,train\n",
         "has no test split: mark some rows with split = test, or remove the column"),
        ("reference,text,target\na,b,c\na,b,\n", "target is empty in 1 of 2 rows, first in row 2"),
        ("reference,text,target,kind\na,b,,none\n", "names no target in any of its 1 rows: mark"),
        ("reference,text,target,kind\na,b,,right\n", "target is empty in 1 of 1 rows"),
        ("reference,text,target,gallery\na,b,c,Louvre\n",
         "against with ; between, names no picture (first 'Louvre'): fill it or call it otherwise"),
        ("reference,text,target,gallery,split\na,b,c,a.jpg; b,test\na,b,c,,train\na,b,c, ;,val\n",
         "gallery is empty in 1 rows that are scored, first in row 3; fill them, or leave it with"),
        ("colour,width\nred,3\n",
         "lacks reference, text, target, of one of pictures a column path, file, image or id; it "),
        ("path,split\na.jpg,test\n",
         "of one of pictures a caption or an attribute beside path; it has path, split"),
        ("reference,text,target,split\na,b,c,train\na,b,c,dev\n",
         "split must be train, val or test in every row, and is also dev"),
        ("reference,text,target,split\na,b,c,train\na,b,c,\n",
         "split must be train, val or test in every row, and is also empty"),
        ("reference,text,target\n", "holds no queries"),
    ],
)  # fmt: skip
def test_a_broken_table_is_refused_in_one_sentence(features, text, message):
    path = write(features, text, "../photos.csv").resolve()
    with pytest.raises(UserError) as error:
        recognise(features)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_utf8_is_refused(features):
    path = features.features.parent.parent / "latin.csv"
    path.write_bytes(ROWS.replace("red", "r\xe9d").encode("latin-1"))
    with pytest.raises(UserError, match=rf"cannot read the table {path} \('utf-8' codec"):
        recognise(features, path)


def test_two_tables_are_one_too_many(features):
    write(features, ROWS)
    write(features, ROWS, "more.csv")
    with pytest.raises(
        UserError,
        match=r"holds 2 tables of queries \(more.csv, queries.csv\): choose one with --data",
    ):
        recognise(features)


def test_other_tables_are_not_queries(features):
    write(features, "file name,label\na,b\n", "labels.csv")
    with pytest.raises(UserError) as error:
        recognise(features)
    first, rest = str(error.value).split(": ", 1)
    assert first == f"{features.root} has no queries to learn from"
    assert rest.startswith(f"write them beside it as {features.root.name}.csv with the columns ")
    assert "reference,text,target" in rest
    for reader in READERS[:-2]:  # the last two are the tables that it speaks of
        assert reader.NAME in rest


def test_data_that_is_not_there(features):
    with pytest.raises(UserError, match="--data nowhere does not exist"):
        recognise(
            features, features.features.with_name("nowhere").relative_to(features.features.parent)
        )


def scenes(features, **manifest):
    write(features, json.dumps({"format": "cqr-scenes", "version": 1} | manifest), "scenes.json")
    for split in ("train", "test"):
        images = [{"file": f"images/{split}{i}.png", "caption": f"scene {i}"} for i in range(3)]
        query = {"source": 0, "target": 2, "text": "add it", "kind": "add", "attribute": None}
        write(features, json.dumps({"images": images, "queries": [query]}), f"{split}.json")


def test_generated_scenes_are_recognised_before_a_table(features):
    scenes(features)
    write(features, ROWS)
    data = recognise(features)
    assert data.name == "css"
    assert data.queries["phrase"].isna().all()  # these scenes tell of no objects
    columns = [
        "attribute",
        "place",
        "phrase",
        *(f"meant_{edge}" for edge in ("x1", "y1", "x2", "y2")),
    ]
    assert data.queries.drop(columns=columns).to_dict("records")[1] == {
        "query_id": "test-0", "reference": "images/test0.png", "text": "add it",
        "target": "images/test2.png", "split": "test", "kind": "add",
    }  # fmt: skip
    assert data.gallery("test") == [f"images/test{i}.png" for i in range(3)]
    assert data.images.loc[data.images["path"] == "images/train2.png", "caption"].tolist() == [
        "scene 2"
    ]


def test_scenes_of_another_version_or_with_a_part_missing_are_refused(features):
    scenes(features, version=2)
    with pytest.raises(
        UserError, match="is 'cqr-scenes' version 2, not 'cqr-scenes' version 1: make"
    ):
        recognise(features)
    scenes(features)
    (features.features.parent.parent / "photos" / "test.json").unlink()
    with pytest.raises(UserError, match=r"cannot read .*test.json .*: make the folder again"):
        recognise(features)


def test_a_frame_of_queries_never_shares_an_index(features):
    scenes(features)
    assert isinstance(recognise(features).queries.index, pd.RangeIndex)


def shoes(features):
    write(
        features,
        json.dumps(
            [{"ImageName": a, "ReferenceImageName": b, "RelativeCaption": "t"} for a, b in
             (("a.jpg", "b.jpg"), ("c.jpg", "d d.jpg"))]
        ),
        "relative_captions_shoes.json",
    )  # fmt: skip
    write(features, "a.jpg\nb.jpg\n", "train_im_names.txt")
    write(features, "c.jpg\nd d.jpg\n", "eval_im_names.txt")


def fashion_iq(features):
    entry = {"target": "a", "candidate": "b", "captions": ["t", "u"]}
    for split in ("train", "val"):
        write(features, json.dumps([entry]), f"captions/cap.dress.{split}.json")
        write(features, json.dumps(["a", "b"]), f"image_splits/split.dress.{split}.json")


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        (scenes, shoes, ["css", "shoes"]),
        (shoes, fashion_iq, ["fashion-iq", "shoes"]),
        (fashion_iq, scenes, ["css", "fashion-iq"]),
    ],
)
def test_two_data_sets_in_one_folder_are_refused_until_one_is_chosen(features, one, other, names):
    one(features)
    other(features)
    write(features, ROWS)
    layout = {reader.NAME: reader.LAYOUT for reader in READERS}
    with pytest.raises(UserError) as error:
        recognise(features)
    assert str(error.value) == (
        f"{features.root} looks like {names[0]} ({layout[names[0]]}) and {names[1]} "
        f"({layout[names[1]]}): choose one with --as NAME"
    )
    for name in (*names, "table"):
        assert recognise(features, name=name).name == name
    [left] = {"css", "shoes", "fashion-iq"} - set(names)
    with pytest.raises(UserError) as error:
        recognise(features, name=left)
    assert str(error.value) == f"{features.root} holds no {left} data set, which is {layout[left]}"


def test_a_name_of_no_data_set_is_refused(features):
    with pytest.raises(UserError) as error:
        recognise(features, name="shoe")
    known = ", ".join(reader.NAME for reader in READERS)
    assert str(error.value) == f"--as shoe is no data set; there are {known}"
