"""Answers that are kept: by the API, through kills, by several processes, and learned from."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

import command_line
import cqr
from cqr.errors import UserError
from cqr.search.server.collected import Collected, Row
from drawn_gallery import client, opened
from small_datasets import TINY

HEADER = "reference,text,target,kind,wrong,time\n"


def answer(number):
    """Three rows that belong together."""
    rows = [("b.png", "right", ""), ("c.png", "right", ""), ("", "wrong", "d.png")]
    return [Row("a.png", f'no, "{number}"', target, kind, wrong, "now")
            for target, kind, wrong in rows]  # fmt: skip


def read(path):
    return [tuple(row) for row in csv.reader(Path(path).open(newline="", encoding="utf-8"))]


def test_rows_are_added_to_those_that_are_there():
    kept = Collected.at(Path("deep/answers.csv"))
    assert Path("deep/answers.csv").read_text() == HEADER
    assert kept.add(answer(1)) == {"right": 2, "wrong": 1}
    assert Collected.at(Path("deep/answers.csv")).add(answer(2)) == {"right": 4, "wrong": 2}
    assert read("deep/answers.csv") == [Row._fields, *answer(1), *answer(2)]


def test_a_table_that_a_spreadsheet_saved_is_gone_on_with():
    old = "\ufeff" + (HEADER + "a.png,ä,b.png,right,,then").replace("\n", "\r\n")
    Path("answers.csv").write_text(old, newline="", encoding="utf-8")
    kept = Collected.at(Path("answers.csv"))
    kept.add(answer(1))
    content = Path("answers.csv").read_bytes().decode()
    assert content.startswith(old + "\na.png,")
    assert kept.counts() == {"right": 3, "wrong": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"reference,text,target\n", "is another table, of reference, text, target: give"),
        ((HEADER + 'a,"b').encode(), "is no table of answers (unexpected end of data): give"),
        ((HEADER + "ä").encode("latin-1"), "is no table of answers ("),
        (b"\n", "is no table of answers ("),
    ],
)  # fmt: skip
def test_another_table_is_left_as_it_is(content, message):
    Path("answers.csv").write_bytes(content)
    with pytest.raises(UserError) as error:
        Collected.at(Path("answers.csv"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert Path("answers.csv").read_bytes() == content


CHILD = """
import json, sys
from pathlib import Path
from cqr.search.server.collected import Collected, Row
kept = Collected.at(Path("answers.csv"))
print("ready", flush=True)
for number, rows in json.loads(sys.stdin.read()):
    kept.add([Row(*row) for row in rows])
    print(number, flush=True)
"""
"""Loads nothing heavy: two of them are to be at it at the same time."""


def child():
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def give(process, numbers):
    process.stdin.write(json.dumps([(number, answer(number)) for number in numbers]))
    process.stdin.close()


def test_after_a_kill_each_answer_is_whole_or_not_there():
    rng = random.Random(0)
    kept = []
    for life in range(4):
        process = child()
        give(process, range(1000 * life, 1000 * (life + 1)))
        time.sleep(0.02 + 0.1 * rng.random())
        os.kill(process.pid, signal.SIGKILL)
        said = [int(line) for line in process.stdout.read().split()]
        process.wait()
        header, *rows = read("answers.csv")
        assert header == Row._fields
        assert len(rows) % 3 == 0
        texts = [row[1] for row in rows[::3]]
        assert rows == [row for text in texts for row in answer(text.split('"')[1])]
        assert texts[: len(kept)] == kept  # what was there before is there still
        new = [int(text.split('"')[1]) for text in texts[len(kept) :]]
        assert new[: len(said)] == said  # what was said to be kept is kept
        assert len(new) <= len(said) + 1
        kept = texts
    assert kept


def test_two_processes_lose_nothing_of_each_other_s():
    processes = [child(), child()]
    for process, first in zip(processes, (0, 40), strict=True):
        give(process, range(first, first + 40))
    assert [process.wait() for process in processes] == [0, 0]
    _, *rows = read("answers.csv")
    texts = [row[1] for row in rows]
    assert texts[::3] == texts[1::3] == texts[2::3]
    assert sorted(texts[::3]) == sorted(answer(number)[0].text for number in range(80))


@pytest.fixture(scope="module")
def engine(drawn_run):
    return opened(drawn_run)


@pytest.fixture
def asked(engine):
    return client(engine, collected=Collected.at(Path("answers.csv")))


def test_what_is_marked_is_in_the_table(asked, engine):
    paths = engine.gallery.paths
    counts = {"file": "answers.csv", "right": 0, "wrong": 0, "none": 0}
    assert asked.get("/api/answers").json() == counts
    said = asked.post("/api/answers", json={
        "reference": 3, "text": " make it\nred ", "right": [5, 7], "wrong": [9]})  # fmt: skip
    assert said.status_code == 201
    assert said.json() == counts | {"right": 2, "wrong": 1}
    asked.post("/api/answers", json={"reference": 4, "text": "bigger", "none": True})
    _, *rows = read("answers.csv")
    assert [row[:5] for row in rows] == [
        (paths[3], "make it\nred", paths[5], "right", ""),
        (paths[3], "make it\nred", paths[7], "right", ""),
        (paths[3], "make it\nred", "", "wrong", paths[9]),
        (paths[4], "bigger", "", "none", ""),
    ]
    for row in rows:
        assert abs(datetime.fromisoformat(row[5]).timestamp() - time.time()) < 60
    assert asked.get("/api/answers").json() == counts | {"right": 2, "wrong": 1, "none": 1}


@pytest.mark.parametrize(
    ("said", "status", "why"),
    [
        ({}, 422, "an answer marks pictures as right or wrong, or says that none is right"),
        ({"right": [1], "none": True}, 422, "none is right, and some are marked as right"),
        ({"right": [1, 2], "wrong": [2]}, 422, "a picture is marked twice"),
        ({"right": [0]}, 422, "the picture that was asked about is marked too"),
        ({"right": [4000]}, 404, "the gallery has no picture 4000"),
        ({"right": [1], "reference": 4000}, 404, "the gallery has no picture 4000"),
        ({"right": [1], "text": " "}, 422, "text: String should match pattern"),
        ({"right": [1], "text": "a\0b"}, 422, "the text cannot be kept in a table"),
        ({"right": ["a.png"]}, 422, "right.0: "),
        ({"right": [1], "reference": "0" * 32}, 422,
         "an uploaded picture cannot be learned from, since its regions are not kept: mark"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_learned_from_is_refused(asked, said, status, why):
    refused = asked.post("/api/answers", json={"reference": 0, "text": "red"} | said)
    assert (refused.status_code, refused.json()["detail"][: len(why)]) == (status, why)
    assert Path("answers.csv").read_text() == HEADER


def test_a_service_that_keeps_none_says_so(engine):
    asked = client(engine)
    refused = asked.post("/api/answers", json={"reference": 0, "text": "red", "right": [1]})
    assert refused.status_code == 404
    assert refused.json()["detail"] == (
        "this service keeps no answers: start it with --collect FILE.csv"
    )
    assert asked.get("/api/answers").json() == {"file": None, "right": 0, "wrong": 0, "none": 0}


def test_another_site_s_page_marks_nothing(engine):
    kept = Collected.at(Path("answers.csv"))
    asked = client(engine, hosts=frozenset({"127.0.0.1"}), collected=kept)
    said = {"reference": 0, "text": "red", "right": [1]}
    other = asked.post("/api/answers", json=said, headers={"Origin": "http://evil.example"})
    assert other.status_code == 403
    named = asked.post("/api/answers", json=said, headers={"Host": "evil.example"})
    assert named.status_code == 421
    assert kept.counts() == {}
    own = asked.post("/api/answers", json=said, headers={"Origin": "http://127.0.0.1:8000"})
    assert own.status_code == 201


def test_a_table_that_was_changed_meanwhile_is_not_written_over(asked):
    Path("answers.csv").write_text("a,b\n1,2\n")
    refused = asked.post("/api/answers", json={"reference": 0, "text": "red", "right": [1]})
    assert refused.status_code == 422
    assert "is another table, of a, b" in refused.json()["detail"]
    assert Path("answers.csv").read_text() == "a,b\n1,2\n"


def test_a_training_learns_from_what_was_marked(asked, engine):
    for reference in range(10):
        right = [(reference + 3) % 40, (reference + 5) % 40]
        said = {"reference": reference, "text": f"text {reference}", "right": right, "wrong": [39]}
        assert asked.post("/api/answers", json=said).status_code == 201
    options = dict(choice.split("=") for choice in TINY)
    run = cqr.train(engine.run.features, data="answers.csv", epochs=1, batch=4, options=options,
                    device="cpu", progress=False)  # fmt: skip
    assert run.dataset == "table"
    evaluation = cqr.evaluate(run, examples=0, device="cpu", progress=False)
    assert evaluation.metrics["queries"] == 2  # every fifth reference, of two targets each
    trained = {path for row in read("answers.csv")[1:] if row[3] == "right"
               for path in (row[0], row[2])}  # fmt: skip
    found = {path for some in pd.Series(evaluation.queries["found"]) for path in some if path}
    assert engine.gallery.paths[39] in found
    assert not found >= trained


def test_the_command_refuses_another_table_before_it_does_anything():
    Path("photos.csv").write_text("reference,text,target\na,b,c\n")
    done = command_line.cqr("serve", "--collect", "photos.csv")
    assert done.returncode == 1
    assert "photos.csv is another table, of reference, text, target" in done.stderr
    assert Path("photos.csv").read_text() == "reference,text,target\na,b,c\n"
