"""Pages: what they promise, read by a parser; how they look and act, in a real browser."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from command_line import cqr
from cqr.errors import UserError
from cqr.report import cards, examples, page, pictures, plots
from cqr.report import evaluation as report
from cqr.trainer.evaluation import evaluate
from cqr.trainer.evaluation.explained import Shares
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.training.material import collect
from cqr.trainer.training.settings import settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

TINY = ["width=32", "heads=2", "fusion_depth=1", "embed_dim=48"]
VOID = {"meta", "br", "img", "input", "link"}


class Page(HTMLParser):
    """A page as a list of elements: tag, attributes, and all text inside."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", "inside": [e["class"] for e in self.open]}
        element |= {"class": "", **{name: value or "" for name, value in attributes}}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, kind=None):
        return [
            e for e in self.elements
            if e["tag"] == tag and (kind is None or kind in e["class"].split())
        ]  # fmt: skip

    def texts(self, tag, kind=None):
        return [e["text"] for e in self.all(tag, kind)]


def draw(root, paths, edge=48):
    rng = np.random.default_rng(0)
    for path in paths:
        file = Path(root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (edge, edge, 3), dtype=np.uint8)).save(file)


def trained(features, model="lbf", **given):
    material = collect(features)
    given = {"model": model, "epochs": 2, "batch": 16, "validation": 0.2, **given}
    settings = settle({}, given, TINY if model == "lbf" else [])
    run = start(material, settings, fresh=True)
    train(run, material, device="cpu")
    return run, material


POINTING = {"queries": 10, "chance": 30.0, "attention": 90.0, "change": 60.0}
WHY = "Why they were found: what their regions add to the score"


def written(features, model="lbf", pointing=POINTING, **more):
    """The parsed page of a small run, and the evaluation that it is of.

    How well it points is made up, since a run as small as this does not.
    """
    run, material = trained(features, model)
    evaluation = evaluate.evaluate(run, material, torch.device("cpu"))
    evaluation.metrics["pointing"] = pointing
    path = report.write(evaluation, run, material, Stored(run.evaluation("css")), **more)
    text = path.read_text(encoding="utf-8")
    check_alone(text)
    return Page(text), evaluation, path


def check_alone(text):
    """The page is one file: it refers to its own parts only, and each is there once."""
    found = Page(text)
    ids = Counter(e["id"] for e in found.elements if "id" in e)
    assert set(ids.values()) <= {1}
    for element in found.elements:
        assert not {"src", "srcset", "action", "onclick", "onload", "onerror"} & set(element)
        for name in ("href", "xlink:href"):
            if (link := element.get(name)) is not None:
                assert link.startswith("data:image/webp;base64,") or link[1:] in ids
    data = re.findall(r"data:image/webp;base64,[\w+/=]+", text)
    assert len(set(data)) == len(data)
    assert len(found.all("script")) == 1
    assert "@import" not in text
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)


@pytest.fixture
def scenes(drawn_scenes):
    """Features of generated scenes whose pictures are there."""
    features = drawn_scenes()
    material = collect(features)
    draw(material.reader.file.image_root, material.reader.paths)
    return features


def captions(features):
    content = json.loads((features.parent.parent / "css/test.json").read_text())
    return {image["file"]: image["caption"] for image in content["images"]}


def test_the_page_shows_what_was_measured(scenes):
    found, evaluation, path = written(scenes)
    metrics = evaluation.metrics
    cells = found.texts("td")
    for part in (metrics, *(p for c in metrics["breakdown"].values() for p in c.values())):
        assert all(f"{value:.2f}" in cells for value in part["recall"].values())
    assert all(f"{value:.2f}" in cells for value in metrics["chance"].values())
    assert {"add", "make", "remove", "color", "shape", "size", "top-left"} <= set(found.texts("th"))
    assert found.texts("h1") == [metrics["run"]]
    assert metrics["protocol"] in "".join(found.texts("p"))
    plotted = [e["aria-label"] for e in found.all("figure", "plot")]
    assert plotted == ["training loss, by epoch", "recall on the held-out queries, %, by epoch"]
    assert path.stat().st_size < 3_000_000


def test_each_example_shows_what_was_found_with_the_right_ones_framed(scenes):
    found, evaluation, _ = written(scenes, examples=9)
    caption = captions(scenes)
    queries = evaluation.queries.set_index("query_id")
    shown = found.texts("code")
    assert len(found.all("article", "example")) == len(shown)
    assert found.texts("q") == queries.loc[shown, "text"].tolist()
    tiles = found.all("li")
    wanted = [
        caption[path] == caption[queries.loc[name, "target"]]
        for name in shown
        for path in queries.loc[name, "found"][:10]
    ]
    assert [e["class"] == "right" for e in tiles] == wanted
    titles = [e["text"].split("\n")[0] for e in tiles]
    assert titles == [path for name in shown for path in queries.loc[name, "found"][:10]]
    pixels = found.all("image")
    named = set(titles) | set(queries.loc[shown, ["reference", "target"]].to_numpy().ravel())
    assert len(pixels) == len(named)
    regions = found.all("path", "region")
    counts = collect(scenes).reader._count
    row = {name: i for i, name in enumerate(collect(scenes).reader.paths)}
    assert len(regions) == sum(counts[row[queries.loc[name, "reference"]]] for name in shown)
    words = found.all("button", "word")
    assert [w["text"] for w in words] == [
        w for name in shown for w in queries.loc[name, "text"].split()
    ]
    assert all(max(map(int, w["data-weights"].split())) == 100 for w in words)
    assert len(found.all("path", "heat")) >= len(words)


def test_what_the_regions_of_the_first_results_add_sums_to_their_scores(scenes):
    run, material = trained(scenes)
    evaluation = evaluate.evaluate(run, material, torch.device("cpu"))
    groups = examples.of_evaluation(evaluation.queries, run, material, 6)
    answers = [answer for group in groups for one in group.examples for answer in one.answers]
    assert answers
    for answer in answers:
        assert len(answer.shares) == 5
        sums = [shares.shares.sum() for shares in answer.shares]
        assert sums == pytest.approx(answer.scores[:5], abs=2e-3)


def test_shares_are_drawn_and_said_where_they_say_something():
    boxes = np.float32([[0, 0, 0.3, 0.3], [0.4, 0.4, 0.6, 0.6], [0.7, 0, 1, 0.3], [0, 0.7, 1, 1]])
    some = Shares(boxes, np.float32([0.48, 0.24, -0.04, 0.12]), 0.8)
    alike = Shares(boxes, np.float32([0.2] * 4), 0.8)
    against = Shares(boxes, np.float32([0.1, -0.2, 0, 0]), -0.1)
    one = Shares(boxes[:1], np.float32([0.8]), 0.8)
    names = ["a", "b", "c", "d", "e", "f"]
    answer = examples.Answer("lbf", 1, names, [0.8] * 6, [alike, some, None, against, one])
    album = pictures.Album({n: pictures.Picture(n, f"p{n}", 100, 100, None) for n in names})
    found = Page(cards._why(answer, album))
    [said] = found.texts("figcaption")
    assert said.replace("\u00a0", " ") == "2: top left 60 %, middle center 30 %, bottom center 15 %"
    assert [e["fill-opacity"] for e in found.all("path", "heat")] == ["0.55", "0.28", "0.14"]
    assert found.all("details")
    none = examples.Answer("lbf", 1, names, [0.8] * 6, [alike, None])
    assert cards._why(none, album) == ""


def test_the_examples_follow_their_rule(scenes):
    found, evaluation, _ = written(scenes, examples=9)
    queries = evaluation.queries.sort_values("query_id")
    first = queries[queries["rank"] == 1]
    good = min(5, len(first))
    by_rank = sorted(queries[queries["rank"] > 1].itertuples(), key=lambda q: (-q.rank, q.query_id))
    worst, seen = [], set()
    for query in by_rank:
        if query.reference not in seen:
            worst.append(query.query_id)
            seen.add(query.reference)
    shown = found.texts("code")
    assert set(shown[:good]) <= set(first["query_id"])
    assert shown[good:] == worst[:4]
    rules = " ".join(found.texts("p", "rule"))
    assert f"4 of the {len(by_rank)} queries that have a right image in the gallery" in rules


@given(st.integers(0, 40), st.integers(0, 12))
def test_evenly_spaced_rows_are_distinct_in_order_and_no_further_apart_than_needed(size, number):
    rows = examples._spaced(np.arange(size), number)
    assert len(rows) == min(size, number)
    gaps = np.diff(rows)
    assert (gaps >= 1).all()
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_no_examples_if_none_are_wanted(scenes):
    found, _, _ = written(scenes, examples=0)
    assert not found.all("article")
    assert not found.all("image")


def test_text_of_others_is_shown_and_never_run(tmp_path, write_features):
    rng = np.random.default_rng(0)
    bad = '<script>alert("x")</script> "><img src=x onerror=alert(1)> \ud800 ' + "long" * 200
    names = [f"<b>{i}</b>'&.jpg" for i in range(12)]
    draw(tmp_path / "photos", names)
    table = pd.DataFrame({"reference": names, "text": "red", "target": [*names[1:], names[0]]})
    table.to_csv("photos.csv", index=False)
    features = write_features(
        "artifacts/photos.h5", names, rng.normal(size=(12, 3, 8)).astype(np.float32),
        np.tile(np.float32([10, 20, 100, 200]), (12, 3, 1)), root=tmp_path / "photos",
    )  # fmt: skip
    run, material = trained(features)
    evaluation = evaluate.evaluate(run, material, torch.device("cpu"))
    evaluation.queries["text"] = pd.Series(bad, evaluation.queries.index, dtype=object)
    evaluation.metrics["breakdown"] = {"<i>": {"</table>": evaluation.metrics}}
    said = {"</td><script>": {"R@1": 5.0, "source": "<script>2</script>"}}
    path = report.write(evaluation, run, material, Stored(Path("out")), published=said)
    text = path.read_text(encoding="utf-8")
    check_alone(text)
    found = Page(text)
    assert not found.all("img")
    assert len(found.all("b")) == len(evaluation.metrics["recall"])  # the large figures
    assert found.texts("q")[0].startswith('<script>alert("x")</script> "><img')
    assert all(len(text) < 450 for text in found.texts("q"))
    assert any("<b>" in e["text"] for e in found.all("title"))


def test_pictures_that_are_gone_leave_frames_with_their_boxes(scenes):
    root = Path(collect(scenes).reader.file.image_root)
    shutil.rmtree(root / "images")
    found, _, _ = written(scenes)
    assert not found.all("image")
    assert found.all("rect", "frame")
    assert found.all("path", "region")
    [said] = found.texts("p", "warning")
    assert re.match(rf"(\d+) of these \1 pictures cannot be read below {root} any more", said)


def test_a_picture_that_cannot_be_read_is_one_empty_frame(scenes):
    run, material = trained(scenes)
    evaluation = evaluate.evaluate(run, material, torch.device("cpu"))
    [worst, *_] = examples.of_evaluation(evaluation.queries, run, material, 2)[1].examples
    Path(material.reader.file.image_root, worst.reference).write_bytes(b"\x89PNG no more")
    path = report.write(evaluation, run, material, Stored(Path("out")), examples=2)
    found = Page(path.read_text())
    assert len(found.all("rect", "frame")) == 1
    assert found.all("image")


def test_regions_without_boxes_are_said_to_have_none(scenes, write_features):
    reader = collect(scenes).reader
    features = write_features(
        "artifacts/css.h5", reader.paths,
        np.random.default_rng(0).normal(size=(len(reader), 3, 8)).astype(np.float32),
        np.zeros((len(reader), 3, 4), np.float32), root=reader.file.image_root,
    )  # fmt: skip
    found, _, _ = written(features)
    assert not found.all("path", "region")
    assert not found.all("button")
    assert not found.all("details")
    assert set(found.texts("figcaption")) >= {"Reference, whose regions have no boxes"}


def test_the_way_that_points_best_is_shown_with_its_score(scenes):
    found, _, _ = written(scenes, pointing={**POINTING, "change": 95.5})
    texts = [w["text"] for w in found.all("button", "word")]
    assert texts == found.texts("q")
    assert set(found.texts("summary")) == {"What the text changes", WHY}
    said = "".join(found.texts("p"))
    assert "95.5 % of the 10 queries that mean one (a region at random: 30.0 %)" in said
    assert {"90.00", "95.50", "30.00"} <= set(found.texts("td"))


def test_a_way_that_is_near_chance_is_not_shown(scenes):
    found, _, _ = written(scenes, pointing={**POINTING, "attention": 40.0, "change": 20.0})
    assert found.all("article", "example")
    assert not found.all("button", "word")
    assert set(found.texts("summary")) <= {WHY}
    assert "is not shown, being too near chance" in "".join(found.texts("p"))


def test_a_model_whose_words_attend_to_nothing_has_no_heat(scenes):
    found, _, _ = written(scenes, model="tirg")
    assert found.all("article", "example")
    assert not found.all("button")
    assert not found.all("path", "heat")


def test_many_pictures_are_made_smaller_until_they_fit(tmp_path, monkeypatch, scenes):
    monkeypatch.setattr(pictures, "BUDGET", 20_000)
    file = collect(scenes).reader.file
    draw(file.image_root, file.paths, edge=200)
    album = pictures.album(file, file.paths[:3], file.paths[3:40])
    sizes = [len(picture.webp) for picture in album.pictures.values()]
    assert len(sizes) == 40
    assert sum(sizes) <= 20_000
    copy = Image.open(io.BytesIO(album[file.paths[0]].webp))
    assert copy.size[0] < 200
    assert (album[file.paths[0]].width, album[file.paths[30]].width) == (200, pictures.SMALL)
    assert base64.b64encode(album[file.paths[0]].webp).decode() in album.definitions()


def test_of_a_table_with_very_many_rows_those_with_most_queries_are_shown():
    rows = [(f"v{i}", i, ["1.00"]) for i in range(page.MOST + 5)]
    found = Page("".join(page.by_kind("Kinds", ["R@1"], {"noun": rows})))
    assert [e["text"] for e in found.all("th") if e["text"].startswith("v")] == [
        f"v{i}" for i in range(5, page.MOST + 5)
    ]
    assert found.texts("p") == ["5 values with fewer queries are left out."]


def test_a_plot_takes_the_ink_of_the_page_and_no_name_for_a_formula():
    svg = plots.epochs("loss $", {"$\\bad$": [(1, 0.5)], "two": [(1, 1.0), (2, 0.0)]})
    assert "$\\bad$" in svg
    assert plots.INK not in plots.inline(svg, "loss")
    assert "currentColor" in plots.inline(svg, "loss")
    assert "metadata" not in svg
    assert svg == plots.epochs("loss $", {"$\\bad$": [(1, 0.5)], "two": [(1, 1.0), (2, 0.0)]})


@pytest.mark.parametrize("wide", [False, True])
def test_a_plot_of_many_lines_names_them_below_it(wide):
    names = [f"{'a row of a long name ' * wide}{i}" for i in range(24)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where the legend leaves no room
        svg = plots.epochs("loss", {name: [(1, 0.5), (2, 0.1)] for name in names})
    assert all(f">{name}<" in svg for name in names)


def test_other_queries_than_those_that_were_scored_are_refused(scenes):
    run, material = trained(scenes)
    evaluation = evaluate.evaluate(run, material, torch.device("cpu"))
    other = evaluation.queries.iloc[::-1]
    with pytest.raises(UserError, match="are not those that were scored: score them again"):
        examples.of_evaluation(other, run, material, 4)


def test_the_command_says_where_the_page_is_and_shows_published_numbers(scenes):
    run, _ = trained(scenes)
    Path("published.csv").write_text("row,source,R@1,R@5\nlbf,A paper,79.2,\n[/tirg],Another,1,2\n")
    words = ["evaluate", "--device", "cpu", "--examples", "3", "--published"]
    done = subprocess.run(
        [sys.executable, "-m", "cqr.cli", *words, "published.csv"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert f"Wrote {run.path}/evaluation/report.html\n" in done.stdout
    assert "R@1 published" in done.stdout
    assert re.search(r"│ lbf +│.*│ +79.20 │ +│", done.stdout)
    assert re.search(r"│ \[/tirg\] +│.*│ +1.00 │ +2.00 │", done.stdout)
    found = Page((run.path / "evaluation/report.html").read_text())
    assert "R@5 published" in found.texts("th")
    assert "79.20" in found.texts("td")
    assert "Published: lbf: A paper; [/tirg]: Another." in found.texts("p")
    assert len(found.all("article")) <= 3
    wrong = cqr(*words, "none.csv")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("Error: --published none.csv cannot be read")


def opened(browser, path, width=1280, **how):
    """A tab with the page, and what it complained of or asked the network for."""
    tab = browser.new_context(viewport={"width": width, "height": 900}, **how).new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: said.append(request.url))
    tab.goto(path.resolve().as_uri())
    return tab, [one for one in said if one != path.resolve().as_uri()]


def lit(tab):
    regions = tab.locator(".example").first.locator(".reference .region")
    return regions.evaluate_all("all => all.map(r => Number(r.style.fillOpacity || 0))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_asks_for_nothing(browser, scenes, width, scheme):
    _, _, path = written(scenes)
    tab, said = opened(browser, path, width, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    shades = tab.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", shade))) for shade in shades]
    assert (brightness[0] > brightness[1]) is (scheme == "light")
    tab.locator("summary").first.click()
    wide = tab.locator("details[open] .picture").first.bounding_box()["width"]
    assert wide > 50
    assert [one for one in said if not one.startswith("data:")] == []


def test_a_word_lights_its_regions(browser, scenes):
    found, _, path = written(scenes)
    tab, _ = opened(browser, path)
    words = tab.locator(".example").first.locator("button.word")
    wanted = [
        [0.55 * int(v) / 100 for v in word["data-weights"].split()] for word in found.all("button")
    ]
    assert max(lit(tab)) == 0
    words.nth(0).hover()
    assert lit(tab) == pytest.approx(wanted[0])
    tab.mouse.move(0, 0)
    assert max(lit(tab)) == 0
    words.nth(1).focus()
    assert lit(tab) == pytest.approx(wanted[1])
    tab.keyboard.press("Enter")
    words.nth(1).blur()
    assert lit(tab) == pytest.approx(wanted[1])
    assert words.nth(1).get_attribute("aria-pressed") == "true"
    touch, _ = opened(browser, path, 390, has_touch=True, is_mobile=True)
    touch.locator("button.word").first.tap()
    assert lit(touch) == pytest.approx(wanted[0])


def test_without_scripts_every_word_still_has_its_picture(browser, scenes):
    found, _, path = written(scenes)
    tab, said = opened(browser, path, java_script_enabled=False)
    example = tab.locator(".example").first
    example.get_by_text("What each word looks at").click()
    words = ".heats:not(.whys) figure"
    assert example.locator(words).first.is_visible()
    assert tab.locator(words).count() == len(found.all("button"))
    assert not [one for one in said if not one.startswith("data:")]


def test_a_script_that_slipped_in_would_not_run(browser, scenes):
    _, _, path = written(scenes, examples=1)
    text = path.read_text()
    bad = (
        "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    )
    path.write_text(text.replace("</body>", f"{bad}</body>"))
    tab, said = opened(browser, path)
    assert tab.title() != "owned"
    assert sum("Content Security Policy" in one for one in said) >= 2


def test_no_letter_of_a_plot_is_under_nine_pixels_on_a_phone():
    """A plot is at least 20 rem wide, whatever the phone is: beyond its edge it scrolls."""
    rows = [{"row": n, "recall": {"1": {"mean": 50.0, "std": 1.0}}} for n in ("lbf", "tirg")]
    points = [(float(n), {"1": {"mean": 50.0, "std": 1.0}}) for n in range(3)]
    style = (Path(plots.__file__).parent / "page.css").read_text()
    rem = float(re.search(r"\.plot svg \{[^}]*min-width: ([\d.]+)rem", style)[1])
    many = {f"row {n}": [(1, 5.0), (2, 7.0)] for n in range(9)}
    for svg in (plots.bars(rows), plots.curve("k", points), plots.epochs("R@1", many)):
        width = float(re.search(r'viewBox="0 0 ([\d.]+) ', svg)[1])
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
        assert sizes
        assert min(sizes) * 16 * rem / width >= 9
