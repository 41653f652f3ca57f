"""The JSON API: what it answers, held against the engine and the files themselves."""

import io
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cqr.search.engine import Engine
from cqr.search.question import Question, WeightedText
from cqr.search.server.suggestions import suggestions, varied
from drawn_gallery import client, opened


@pytest.fixture(scope="module")
def engine(drawn_run):
    return opened(drawn_run)


@pytest.fixture(scope="module")
def asked(engine):
    return client(engine, suggestions(engine.run, None))


def picture(engine, row):
    return engine.file(row).read_bytes()


def test_info_says_what_is_asked(asked, engine):
    said = asked.get("/api/info").json()
    assert said["run"] == "pictures-lbf-001"
    assert (said["model"], said["dataset"], said["index"]) == ("lbf", "table", "exact")
    assert said["pictures"] == len(engine.gallery) == 40
    assert said["attends"] is True
    assert asked.get("/api/health").json() == {"status": "ok"}


def test_the_gallery_is_listed_in_parts(asked, engine):
    parts = [asked.get(f"/api/gallery?start={start}&count=15").json() for start in (0, 15, 30, 45)]
    assert [len(part["pictures"]) for part in parts] == [15, 15, 10, 0]
    assert {part["total"] for part in parts} == {40}
    listed = [one for part in parts for one in part["pictures"]]
    assert [one["path"] for one in listed] == engine.gallery.paths
    assert [one["row"] for one in listed] == list(range(40))
    assert {(one["width"], one["height"]) for one in listed} == {(64, 64)}


def test_a_search_is_what_the_engine_finds(asked, engine):
    question = {"images": [3], "texts": [{"text": "make it red", "weight": 2}], "k": 7}
    said = asked.post("/api/search", json=question).json()
    texts = (WeightedText("make it red", 2.0),)
    hits = engine.ask(Question((engine.row(3),), texts, k=7)).hits
    assert [(hit["row"], hit["path"]) for hit in said["hits"]] == [(h.row, h.path) for h in hits]
    np.testing.assert_allclose([hit["score"] for hit in said["hits"]], [h.score for h in hits])
    assert len(hits) == 7
    assert 3 not in [hit["row"] for hit in said["hits"]]
    assert {"encode", "search"} <= said["seconds"].keys()
    kept = asked.post("/api/search", json={"images": [3], "keep_references": True, "k": 1}).json()
    assert kept["hits"][0]["row"] == 3


def test_an_upload_is_found_as_the_picture_that_it_is(asked, engine):
    given = asked.post("/api/uploads", content=picture(engine, 5))
    assert given.status_code == 201
    said = given.json()
    assert (said["width"], said["height"]) == (64, 64)
    assert {"detect"} <= said["seconds"].keys()
    found = asked.post("/api/search", json={"images": [said["id"]], "k": 1}).json()["hits"][0]
    assert found["row"] == 5
    assert found["score"] == pytest.approx(1, abs=1e-3)
    shown = Image.open(io.BytesIO(asked.get(f"/api/uploads/{said['id']}").content))
    assert (shown.format, shown.size) == ("JPEG", (64, 64))


class Scaling:
    """A detector that admits JPEGs decoded at a quarter, and keeps what it was given."""

    def __init__(self, detector):
        self.detector, self.given = detector, []

    def __call__(self, pictures, k):
        self.given += [picture.shape for picture in pictures]
        return self.detector(pictures, k)

    def fraction(self, width, height):
        return 4


def test_an_upload_is_decoded_at_the_fraction_that_the_features_were(engine, monkeypatch):
    engine.new_pictures.load()
    scaling = Scaling(engine.new_pictures._detector)
    monkeypatch.setattr(engine.new_pictures, "_detector", scaling)
    large = Image.open(engine.file(5)).convert("RGB").resize((320, 240))
    content = io.BytesIO()
    large.save(content, "JPEG")
    said = client(engine).post("/api/uploads", content=content.getvalue()).json()
    assert scaling.given == [(60, 80, 3)]
    assert (said["width"], said["height"]) == (320, 240)


def test_only_the_last_uploads_are_kept(engine):
    small = client(engine, uploads=2)
    names = [small.post("/api/uploads", content=picture(engine, i)).json()["id"] for i in range(3)]
    codes = [small.get(f"/api/uploads/{name}").status_code for name in names]
    assert codes == [404, 200, 200]
    said = small.post("/api/search", json={"images": names[:1]})
    assert (said.status_code, said.json()) == (
        404,
        {"detail": "this uploaded picture is no longer kept: upload it again"},
    )


def test_attention_is_that_of_the_model(asked, engine):
    said = asked.post("/api/attention", json={"image": 4, "text": "make it red"}).json()
    found = engine.attended(engine.row(4), "make it red")
    assert said["words"] == found.words == ["make", "it", "red"]
    np.testing.assert_allclose(said["boxes"], found.boxes, atol=1e-5)
    np.testing.assert_allclose(said["weights"], found.weights, atol=1e-5)
    assert (said["way"], said["said"]) == ("attention", "")


def test_shares_sum_to_the_score_of_the_result(asked, engine):
    question = {"images": [4], "texts": [{"text": "make it red"}], "k": 3}
    for hit in asked.post("/api/search", json=question).json()["hits"]:
        said = asked.post("/api/shares", json={**question, "row": hit["row"]}).json()
        assert (
            len(said["shares"]) == len(said["boxes"]) == engine.row(hit["row"]).regions.mask.sum()
        )
        assert sum(said["shares"]) == pytest.approx(said["score"], abs=1e-4)
        assert said["score"] == pytest.approx(hit["score"], abs=2e-3)
    beyond = asked.post("/api/shares", json={**question, "row": 10_000})
    assert beyond.status_code == 404


def test_shares_beside_are_of_the_same_picture(engine):
    """The other run lists its pictures in an order of its own."""
    paths = engine.gallery.paths[::-1]
    gallery = SimpleNamespace(paths=paths, rows={path: row for row, path in enumerate(paths)})
    both = client(engine, beside=replace(engine, gallery=gallery))
    question = {"images": [4], "texts": [{"text": "make it red"}], "row": 7}
    own = both.post("/api/shares", json=question).json()
    assert both.post("/api/shares", json={**question, "beside": True}).json() == own
    assert both.get("/api/info").json()["beside"]["divides"] is True


def test_suggestions_are_the_texts_of_a_picture_or_of_many(asked, engine):
    queries = (engine.run.features.parent.parent / "pictures.csv").read_text().splitlines()[1:]
    path = queries[0].split(",")[0]
    own = {line.split(",")[1] for line in queries if line.startswith(f"{path},")}
    row = engine.gallery.paths.index(path)
    texts = asked.get(f"/api/suggestions?row={row}").json()["texts"]
    assert texts
    assert set(texts) <= own
    common = asked.get("/api/suggestions").json()["texts"]
    assert 1 <= len(common) <= 6
    assert set(common) <= {line.split(",")[1] for line in queries}


def test_suggestions_take_turns_by_their_first_word():
    texts = ["add a", "add b", "add a", "make c", "?", "add d", "remove e", "make f", "add g"]
    assert varied(texts) == ["add a", "make c", "remove e", "add b", "make f", "add d"]


@pytest.fixture
def own_engine(drawn_run, tmp_path):
    """An engine over a copy of the pictures, which a test may change."""
    shutil.copytree(drawn_run.parents[2] / "pictures", tmp_path / "pictures")
    engine = opened(drawn_run)
    object.__setattr__(engine.reader.file.header, "image_root", str(tmp_path / "pictures"))
    return engine


def test_pictures_are_small_and_hold_nothing_but_pixels(own_engine):
    exif = Image.Exif()
    exif[0x010F] = "the maker"
    large = Image.fromarray(np.zeros((900, 3000, 3), np.uint8))
    large.save(own_engine.file(0), "JPEG", exif=exif)
    asked = client(own_engine)
    for address, size in (("/api/images/0", (1024, 307)), ("/api/images/0/thumb", (256, 77))):
        answer = asked.get(address)
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == size
        assert b"the maker" in own_engine.file(0).read_bytes()
        assert b"the maker" not in answer.content


def test_a_picture_is_sent_again_only_when_its_file_is_another(own_engine):
    asked = client(own_engine)
    first = asked.get("/api/images/1/thumb")
    known = {"If-None-Match": first.headers["etag"]}
    again = asked.get("/api/images/1/thumb", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    Image.new("RGB", (9, 9), "red").save(own_engine.file(1))
    changed = asked.get("/api/images/1/thumb", headers=known)
    assert changed.status_code == 200
    assert Image.open(io.BytesIO(changed.content)).size == (9, 9)
    own_engine.file(1).unlink()
    gone = asked.get("/api/images/1/thumb", headers=known)
    assert gone.status_code == 404
    assert gone.json()["detail"] == "picture 1 cannot be opened (No such file or directory)"


@pytest.mark.parametrize(
    ("method", "address", "content", "status", "sentence"),
    [
        ("GET", "/api/images/40", None, 404, "the gallery has no picture 40"),
        ("GET", "/api/suggestions?row=40", None, 404, "the gallery has no picture 40"),
        ("GET", "/api/images/-1", None, 422, "row: Input should be greater than or equal to 0"),
        ("GET", "/api/nothing", None, 404, "there is nothing at /api/nothing"),
        ("DELETE", "/api/info", None, 405, "/api/info does not take DELETE"),
        ("POST", "/api/search", {"images": [40]}, 404, "the gallery has no picture 40"),
        ("POST", "/api/search", {"images": []}, 422, "images: List should have at least 1 item"),
        ("POST", "/api/search", {"images": [0], "kk": 1}, 422, "kk: Extra inputs are not"),
        ("POST", "/api/search", {"images": [0], "k": "3"}, 422, "k: Input should be a valid int"),
        ("POST", "/api/search", {"images": [0], "where": "("}, 422, ""),
        ("POST", "/api/attention", {"image": 0, "text": " "}, 422, "text: String should match"),
    ],
)
def test_what_a_caller_causes_is_one_sentence(asked, method, address, content, status, sentence):
    answer = asked.request(method, address, json=content)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(sentence)
    assert list(answer.json()) == ["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xd8@", b"red"])
def test_a_body_that_is_not_json_is_said(asked, body):
    answer = asked.post("/api/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == (400 if body else 422)
    assert answer.json()["detail"] == (
        "the body is not JSON in UTF-8" if body else "body: Field required"
    )


def test_a_defect_is_said_without_its_details(engine, monkeypatch):
    monkeypatch.setattr(Engine, "ask", lambda *_: 1 / 0)
    answer = client(engine).post("/api/search", json={"images": [0]})
    assert answer.status_code == 500
    assert answer.json() == {"detail": "the service failed; what it printed says why"}
