"""What the API says for the page: pages of results, orders, regions, feedback, marks, two runs."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cqr.errors import UserError
from cqr.search.alike import leaders
from cqr.search.command import index
from cqr.search.console import bars
from cqr.search.engine import Engine
from cqr.search.pictures import NewPictures
from cqr.search.server.collected import Collected
from cqr.search.server.serve import load
from drawn_gallery import client, opened


@pytest.fixture(scope="module")
def engine(drawn_run, tmp_path_factory):
    """Over metadata that knows nothing of the last picture."""
    first = opened(drawn_run)
    about = tmp_path_factory.mktemp("about") / "about.csv"
    paths = first.gallery.paths[:-1]
    half = ["first" if i < 20 else "second" for i in range(len(paths))]
    price = [float(100 - i) for i in range(len(paths))]
    pd.DataFrame({"path": paths, "price": price, "half": half, "sold": [True] * 39}).to_csv(
        about, index=False
    )
    index(drawn_run, None, None, about, "cpu", lambda *_: None)
    return Engine.open(drawn_run, device="cpu")


@pytest.fixture(scope="module")
def asked(engine):
    return client(engine)


def found(asked, **question):
    said = asked.post("/api/search", json={"images": [3], **question})
    assert said.status_code == 200, said.json()
    return said.json()


def rows(said):
    return [hit["row"] for hit in said["hits"]]


def test_pages_of_results_are_the_results(asked):
    whole = rows(found(asked, k=60))
    pages = [found(asked, k=10, start=start) for start in (0, 10, 20, 30)]
    assert [row for page in pages for row in rows(page)] == whole
    assert [page["more"] for page in pages] == [True, True, True, False]
    assert found(asked, k=10, start=10, most=12)["more"] is False
    assert rows(found(asked, k=10, start=10, most=12)) == whole[10:12]
    assert rows(found(asked, k=10, start=50)) == []


def test_results_are_sorted_by_a_column_and_what_is_not_known_is_last(asked):
    best = rows(found(asked, k=12))
    assert rows(found(asked, k=60, most=12, sort="path")) == sorted(best)
    assert rows(found(asked, k=60, most=12, sort="price")) == sorted(best, reverse=True)
    everything = rows(found(asked, k=60, sort="price", descending=True))
    assert everything == [*(row for row in range(39) if row != 3), 39]
    refused = asked.post("/api/search", json={"images": [3], "sort": "colour"})
    assert refused.status_code == 422
    assert "there is no column 'colour' to sort by; there are path, price" in refused.text


def test_the_gallery_is_listed_in_another_order_and_a_name_found_in_it(asked):
    def listed(**query):
        said = asked.get("/api/gallery", params=query).json()
        return said["total"], [one["row"] for one in said["pictures"]]

    assert listed(count=3) == (40, [0, 1, 2])
    assert listed(count=3, descending=True) == (40, [39, 38, 37])
    assert listed(count=2, sort="price", start=38) == (40, [0, 39])
    assert listed(count=2, where='half == "second"') == (19, [20, 21])
    assert asked.get("/api/gallery/place?name=0005").json() == {"place": 5}
    assert asked.get("/api/gallery/place?name=0005&descending=true").json() == {"place": 34}
    assert asked.get("/api/gallery/place?name=nix").status_code == 404


def test_a_picture_is_told_about(asked, engine):
    said = asked.get("/api/images/5/about").json()
    assert said["known"] == {"price": 95.0, "half": "first", "sold": True}
    assert (said["path"], said["width"], said["height"]) == ("0005.png", 64, 64)
    batch = engine.row(5).regions
    np.testing.assert_allclose(said["boxes"], batch.boxes[0][batch.mask[0]], atol=1e-5)
    assert asked.get("/api/images/39/about").json()["known"] == dict.fromkeys(
        ("price", "half", "sold")
    )
    upload = asked.post("/api/uploads", content=engine.file(5).read_bytes()).json()["id"]
    own = asked.get(f"/api/uploads/{upload}/about").json()
    assert len(own["boxes"]) == len(said["boxes"])
    kinds = {one["name"]: one for one in asked.get("/api/info").json()["columns"]}
    assert kinds["half"]["values"] == ["first", "second"]
    assert (kinds["price"]["least"], kinds["price"]["most"]) == (62.0, 100.0)
    assert kinds["sold"]["kind"] == "flag"


def test_one_region_is_asked_as_if_it_were_all(asked, engine):
    batch = engine.row(3).regions
    batch.features, batch.boxes = batch.features[:, 1:2], batch.boxes[:, 1:2]
    batch.mask = batch.mask[:, 1:2]
    vector = engine.model.encode_image(batch)[0].detach().numpy()
    scores = engine.gallery.vectors.astype(np.float32) @ vector
    scores[3] = -2
    part = [{"image": 3, "region": 1}]
    assert rows(found(asked, images=part, k=5)) == np.argsort(-scores, kind="stable")[:5].tolist()
    refused = asked.post("/api/search", json={"images": [{"image": 3, "region": 99}]})
    assert refused.status_code == 422
    assert "regions, and so none of the number 99" in refused.text


def test_what_is_wanted_more_and_less_moves_the_question(asked, engine):
    def own(row):
        return engine.model.encode_image(engine.row(row).regions)[0].detach().numpy()

    vector = own(3) + 0.5 * (own(8) - own(3)) - 0.5 * (own(12) - own(3))
    scores = engine.gallery.vectors.astype(np.float32) @ (vector / np.linalg.norm(vector))
    scores[[3, 12]] = -2  # what is not wanted is no result
    said = found(asked, more=[8], less=[12], k=10)
    assert rows(said) == np.argsort(-scores, kind="stable")[:10].tolist()
    np.testing.assert_allclose(said["hits"][0]["score"], scores.max(), atol=1e-3)


def test_what_is_nearly_the_same_follows_the_first_of_it():
    one, other = np.eye(4)[0], np.eye(4)[1]
    near = np.array([1, 0.05, 0, 0]) / np.linalg.norm([1, 0.05, 0, 0])
    vectors = np.array([one, other, near, one, other]).astype(np.float16)
    assert leaders(vectors).tolist() == [0, 1, 0, 0, 1]
    assert leaders(vectors[:0]).tolist() == []


def test_marks_are_changed_and_taken_back_at_once(engine):
    asked = client(engine, collected=Collected.at(Path("answers.csv")))

    def mark(**said):
        answer = asked.post("/api/answers", json={"reference": 3, "text": "red", **said})
        assert answer.status_code == 201, answer.json()
        return asked.get("/api/marks?reference=3&text=red").json()

    assert mark(right=[5], wrong=[7]) == {"right": [5], "wrong": [7], "none": False}
    assert mark(wrong=[5], taken_back=[5]) == {"right": [], "wrong": [5, 7], "none": False}
    assert mark(none=True) == {"right": [], "wrong": [5, 7], "none": True}
    assert mark(none_taken_back=True, right=[9]) == {"right": [9], "wrong": [5, 7], "none": False}
    assert mark(taken_back=[5, 7, 9]) == {"right": [], "wrong": [], "none": False}
    assert Path("answers.csv").read_text() == "reference,text,target,kind,wrong,time\n"
    mark(right=[5])
    other = asked.get("/api/marks?reference=3&text=blue").json()
    assert other == {"right": [], "wrong": [], "none": False}
    told = asked.get("/api/info").json()["collects"]
    assert told["file"] == "answers.csv"
    assert told["train"].startswith("cqr train --features ")


def test_the_other_run_answers_beside(engine):
    assert client(engine).post(
        "/api/search", json={"images": [3], "beside": True}
    ).status_code == 404  # fmt: skip
    asked = client(engine, beside=engine)
    beside = {"run": "pictures-lbf-001", "model": "lbf", "divides": True}
    assert asked.get("/api/info").json()["beside"] == beside
    assert found(asked, beside=True)["hits"] == found(asked)["hits"]
    upload = asked.post("/api/uploads", content=engine.file(5).read_bytes()).json()["id"]
    assert rows(found(asked, images=[upload], beside=True, k=1)) == [5]


def fresh_engine(engine, pictures):
    return replace(engine, new_pictures=pictures)


def test_a_detector_that_is_being_loaded_is_said(engine, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_):
        begun.set()
        go_on.wait(60)
        raise UserError("it is not here")

    monkeypatch.setattr("cqr.search.pictures.detector", slow)
    fresh = NewPictures(engine.reader, None, "cpu")
    asked = client(fresh_engine(engine, fresh))
    loading = threading.Thread(target=load, args=([fresh_engine(engine, fresh)],))
    loading.start()
    assert begun.wait(60)
    time.sleep(0.01)
    state = asked.get("/api/info").json()["detector"]
    assert (state["state"], state["why"]) == ("loading", None)
    assert state["seconds"] > 0
    refused = asked.post("/api/uploads", content=engine.file(5).read_bytes())
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["detail"].startswith("the detector is being loaded (")
    go_on.set()
    loading.join(60)
    state = asked.get("/api/info").json()["detector"]
    assert state == {"state": "absent", "seconds": None, "why": "it is not here"}


def test_a_browser_is_shown_a_page_and_a_program_told_a_sentence(asked):
    shown = asked.get("/nothing", headers={"Accept": "text/html,*/*"})
    assert shown.status_code == 404
    assert "<h1>There is nothing at this address</h1>" in shown.text
    for address in ("/nothing", "/api/nothing"):
        said = asked.get(address)
        assert said.json() == {"detail": f"there is nothing at {address}"}
    api = asked.get("/api/nothing", headers={"Accept": "text/html"})
    assert api.json() == {"detail": "there is nothing at /api/nothing"}


def test_in_a_pipe_what_is_encoded_is_said_line_by_line(capsys):
    with bars(spoken=True) as progress:
        for done in range(0, 1001, 10):
            progress("encode", done, 1000)
        progress("index", 0, 0)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "encode 0 of 1,000"
    assert said[-1] == "encode 1,000 of 1,000"
    assert len(said) < 12
