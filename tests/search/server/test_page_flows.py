"""What the page can do, flow by flow, in headless Chromium: large, small, dark, by keys alone.

Rules of accessibility are axe-core's: `make axe` brings it, or AXE names its file.
"""

import csv
import json
import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from playwright.sync_api import expect

from command_line import cqr
from served_page import pages, serving, shown

ROOT = Path(__file__).parents[3]
AXE = Path(os.environ.get("AXE", ROOT / "node_modules/axe-core/axe.min.js"))
needs_axe = pytest.mark.skipif(not AXE.exists(), reason=f"there is no {AXE}: make axe")

expect.set_options(timeout=30_000)

ASKED = "?image=3&text=make+it+red"
WIDTHS = {1440: 900, 768: 1024, 390: 844}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("collected")


@pytest.fixture(scope="module")
def service(drawn_run, place):
    """The address of a service that keeps answers, over metadata, with itself beside."""
    files = sorted((drawn_run.parents[2] / "pictures").iterdir())
    about = place / "about.csv"
    with about.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "number", "half"])
        table.writerows(
            [one.name, i, "first" if i < 20 else "second"] for i, one in enumerate(files)
        )
    run = ["--run", str(drawn_run)]
    assert cqr("index", *run, "--metadata", about).returncode == 0
    with serving(*run, "--collect", place / "answers.csv", "--beside", drawn_run) as address:
        yield address


@pytest.fixture
def open_page(browser, service, place):
    (place / "answers.csv").unlink(missing_ok=True)
    with pages(browser, service) as make:

        def at(address="", width=1440, **options):
            return make(address, width, WIDTHS[width], **options)

        yield at


def query(page):
    return parse_qsl(urlsplit(page.url).query, keep_blank_values=True)


def rows(page, grid="#grid"):
    """The rows of the pictures that are shown, in order, once they are results."""
    return [int(address.split("/")[3]) for address in shown(page, grid)]


def kept(place):
    _, *lines = csv.reader((place / "answers.csv").open(newline="", encoding="utf-8"))
    return [tuple(line[:5]) for line in lines]


# --- A result is a thing --------------------------------------------------------------------------


def test_a_result_is_looked_at_stepped_through_and_gone_on_from(open_page):
    page = open_page(ASKED)
    found = rows(page)
    page.locator("#grid a").nth(0).click()
    large = page.locator("#large")
    expect(large).to_be_visible()
    expect(page.locator("#large-title")).to_have_text(f"{found[0]:04d}.png")
    expect(page.locator("#large-place")).to_contain_text("1 of 40 · score 0.")
    expect(page.locator("#large-known")).to_contain_text("half")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#large-title")).to_have_text(f"{found[1]:04d}.png")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is none before the first
    expect(page.locator("#large-title")).to_have_text(f"{found[0]:04d}.png")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(large).to_be_hidden()
    expect(page.locator("#grid li:focus-within")).to_have_attribute("data-index", "1")
    page.locator("#grid a").nth(0).click()
    page.locator("#large [data-name=start]").click()
    expect(page.locator("#heading")).to_have_text("Like this picture")
    assert query(page)[-2:] == [("image", str(found[0])), ("text", "")]


def test_the_path_is_copied_and_the_picture_downloaded(open_page):
    page = open_page(ASKED, permissions=["clipboard-read", "clipboard-write"])
    found = rows(page)
    page.locator("#grid a").first.click()
    page.get_by_role("button", name="Copy path").click()
    expect(page.locator("#large-said")).to_have_text(f"Copied {found[0]:04d}.png")
    assert page.evaluate("navigator.clipboard.readText()") == f"{found[0]:04d}.png"
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download").click()
    assert waiting.value.suggested_filename == f"{found[0]:04d}.jpg"
    assert Image.open(waiting.value.path()).size == (64, 64)


def test_more_and_less_like_a_result_are_in_the_address(open_page):
    page = open_page(ASKED)
    found = rows(page)
    for name, word in (("More like this", "more"), ("Less like this", "less")):
        page.locator("#grid a").nth(2).click()
        page.get_by_role("button", name=name).click()
        expect(page.locator("#large")).to_be_hidden()
        expect(page.locator("#kept")).to_contain_text(f"{word} like")
    assert ("more", str(found[2])) in query(page)
    assert [name for name, _ in query(page)].count("less") == 1
    now = rows(page)
    less = int(dict(query(page))["less"])
    assert less not in now
    page.reload()
    assert rows(page) == now
    page.locator("#kept button").first.click()
    expect(page.locator("#kept li")).to_have_count(1)


def test_favourites_are_kept_by_the_browser(open_page):
    page = open_page(ASKED)
    found = rows(page)
    page.locator("#grid a").first.click()
    page.keyboard.press("f")
    expect(page.locator("#large [data-name=favourite]")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Favourites (1)").click()
    expect(page.locator("#heading")).to_have_text("Favourites")
    expect(page.locator("#grid a")).to_have_attribute("title", f"{found[0]:04d}.png")
    page.reload()
    expect(page.locator("#grid a")).to_have_attribute("title", f"{found[0]:04d}.png")


def test_an_object_is_what_is_asked_about(open_page):
    page = open_page("?image=3&text=")
    whole = rows(page)
    page.locator("#boxes").check()
    expect(page.locator("#reference .object").first).to_be_visible()
    page.locator("#reference .object").last.click()
    expect(page.locator("#objects-count")).to_contain_text("Only object")
    region = dict(query(page))["region"]
    said = page.request.post(
        urlsplit(page.url)._replace(path="/api/search", query="").geturl(),
        data={"images": [{"image": 3, "region": int(region)}], "k": 60},
    ).json()
    assert (
        rows(page) == [hit["row"] for hit in said["hits"] if hit["like"] is None][: len(rows(page))]
    )
    page.get_by_role("button", name="Whole picture").click()
    expect(page.locator("#objects-count")).to_contain_text("object")
    assert rows(page) == whole


# --- Why it was found -----------------------------------------------------------------------------


def with_shares(page, shares):
    """Have the service say that so much of a result's score is of its regions, the rest of none."""

    def divide(route):
        said = route.fetch().json()
        parts = [*shares, *[0] * len(said["boxes"])][: len(said["boxes"])]
        route.fulfill(json=said | {"score": 0.8, "shares": [0.8 * part for part in parts]})

    page.route("**/api/shares", divide)


def spots(page, row):
    """Where the boxes of a picture lie, in words, and the boxes."""
    address = urlsplit(page.url)._replace(path=f"/api/images/{row}/about", query="").geturl()
    boxes = page.request.get(address).json()["boxes"]
    rows, columns = ("top", "middle", "bottom"), ("left", "center", "right")
    return [
        f"{rows[min(2, int(3 * (y + v) / 2))]} {columns[min(2, int(3 * (x + u) / 2))]}"
        for x, y, u, v in boxes
    ], boxes


def test_what_the_regions_of_a_result_add_is_shown(open_page):
    page = open_page(ASKED)
    with_shares(page, [0.7, 0.35, -0.05])
    found = rows(page)
    names, boxes = spots(page, found[0])
    assert len(boxes) > 2
    with page.expect_request("**/api/shares") as asked:
        page.locator("#grid a").first.click()
    sent = json.loads(asked.value.post_data)
    assert (sent["images"], sent["texts"][0]["text"], sent["row"]) == ([3], "make it red", found[0])
    why = page.locator("#large-why button")
    expect(why).to_have_text(["all", f"{names[0]} 70 %", f"{names[1]} 35 %", f"{names[2]} −5 %"])
    dim, looks = page.locator("#large-picture .dim"), page.locator("#large-looks")
    opacities = """rects => rects.map(rect => Number(rect.style.opacity))"""
    holes = page.locator("#large-picture .hole")

    page.locator("#large [data-name=copy]").focus()  # by keys alone
    while not why.first.evaluate("one => one === document.activeElement"):
        page.keyboard.press("Tab")
    expect(looks).to_have_text("The brighter, the more of the score of 0.800")
    expect(dim).not_to_have_css("opacity", "0")
    assert holes.evaluate_all(opacities)[:3] == pytest.approx([1, 0.5, 0])
    page.keyboard.press("Tab")
    expect(looks).to_have_text("It adds 0.560 to the score of 0.800")
    assert holes.evaluate_all(opacities)[:3] == [1, 0, 0]
    page.keyboard.press("Enter")
    expect(why.nth(1)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(dim).to_have_css("opacity", "0")

    why.nth(3).hover()
    expect(looks).to_have_text("It speaks against this picture, by 0.040")
    picture = page.locator("#large-picture image").bounding_box()
    scale = min(picture["width"], picture["height"])  # they are square, in the middle
    left = picture["x"] + (picture["width"] - scale) / 2
    top = picture["y"] + (picture["height"] - scale) / 2
    (x, y, u, v) = boxes[0]
    at = (left + scale * (x + u) / 2, top + scale * (y + v) / 2)
    page.mouse.move(*at)
    expect(page.locator("#large-why button.pointed")).to_have_text(f"{names[0]} 70 %")
    expect(page.locator("#large-picture .box").first).to_have_css("opacity", "1")
    page.mouse.click(*at)
    expect(why.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(dim).not_to_have_css("opacity", "0")
    page.keyboard.press("ArrowRight")  # the next result has its own
    expect(page.locator("#large-why button[aria-pressed=true]")).to_have_count(0)


@pytest.mark.parametrize("shares", [[0.2] * 5, [-1.0, 0.1]])
def test_shares_that_say_nothing_are_not_shown(open_page, shares):
    page = open_page(ASKED)

    def divide(route):
        said = route.fetch().json()
        boxes = [*said["boxes"], *said["boxes"]][: len(shares)]
        route.fulfill(json={"score": sum(shares), "boxes": boxes, "shares": shares})

    page.route("**/api/shares", divide)
    rows(page)
    with page.expect_response("**/api/shares"):
        page.locator("#grid a").first.click()
    expect(page.locator("#large-known")).to_contain_text("half")
    expect(page.locator("#large-why")).to_be_hidden()


def test_a_model_whose_score_does_not_divide_is_not_asked(open_page):
    page = open_page()
    page.route("**/api/info", lambda route: route.fulfill(
        json=route.fetch().json() | {"divides": False}))  # fmt: skip
    page.route("**/api/shares", lambda route: pytest.fail("it was asked"))
    page.goto(urlsplit(page.url)._replace(query=ASKED[1:]).geturl())
    rows(page)
    page.locator("#grid a").first.click()
    expect(page.locator("#large-known")).to_contain_text("half")
    expect(page.locator("#large-why")).to_be_hidden()


# --- Presses that results overtake ----------------------------------------------------------------


def held(page):
    """Have answers wait; gives what lets them go."""
    waiting, released = [], []

    def hold(route):
        if released:
            route.continue_()
        else:
            waiting.append(route)

    page.route("**/api/search", hold)

    def release():
        while not waiting:
            page.wait_for_timeout(20)
        released.append(True)
        for route in waiting:
            route.continue_()

    return release


def test_a_click_on_a_result_that_is_still_to_come_is_done_when_it_is_there(open_page):
    page = open_page("?image=3&text=")
    rows(page)
    release = held(page)
    page.fill("#text", "make it red")
    page.press("#text", "Enter")
    expect(page.locator("#grid .waiting").nth(2)).to_be_visible()
    page.locator("#grid li[data-index='1'] a").click()
    release()
    expect(page.locator("#large-title")).to_have_text(f"{rows(page)[1]:04d}.png")


def test_what_is_done_after_a_click_takes_its_place(open_page):
    page = open_page("?image=3&text=")
    rows(page)
    release = held(page)
    page.fill("#text", "make it red")
    page.press("#text", "Enter")
    page.locator("#grid li[data-index='2'] a").click()
    page.locator("#text").click()
    release()
    rows(page)
    expect(page.locator("#large")).to_be_hidden()


def test_a_press_that_results_overtake_is_of_what_was_pressed(open_page):
    page = open_page("?image=3&text=")
    before = rows(page)
    release = held(page)
    page.fill("#text", "make it red")
    box = page.locator("#grid a").nth(2).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.evaluate("document.getElementById('form').requestSubmit()")
    release()
    expect(page.locator("#heading")).to_have_text("make it red")
    rows(page)
    page.mouse.up()
    expect(page.locator("#large-title")).to_have_text(f"{before[2]:04d}.png")


def test_a_mark_that_is_pressed_while_marks_are_read_is_kept(open_page, place):
    page = open_page(ASKED)
    rows(page)
    tile = page.locator("#grid li").first
    tile.hover()
    box = tile.locator("[data-name=right]").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    with page.expect_response("**/api/marks?*"):
        page.evaluate("dispatchEvent(new Event('focus'))")
    page.wait_for_function(
        "document.getElementById('marking-count').textContent.includes('0 right')"
    )
    page.mouse.up()
    expect(tile).to_have_attribute("data-mark", "right")
    assert len(kept(place)) == 1


# --- Fields ---------------------------------------------------------------------------------------


def test_fields_make_a_question_and_the_address_holds_it(open_page):
    page = open_page(ASKED)
    rows(page)
    page.locator("#fields summary").click()
    page.locator("#add-text").click()
    page.locator("#also [name=text]").fill("make it large")
    page.locator("#also [name=weight]").fill("2")
    page.locator("#add-not").click()
    page.locator("#nots [name=text]").fill("add small circle")
    page.locator("#add-condition").click()
    page.locator("#conditions [name=column]").select_option("number")
    page.locator("#conditions [name=operator]").select_option("<")
    page.locator("#conditions [name=value]").fill("30")
    page.locator("#add-condition").click()
    page.locator("#conditions [name=column]").last.select_option("half")
    page.locator("#conditions [name=value]").last.select_option("second")
    page.locator("#k").fill("6")
    page.locator("#adding [type=submit]").click()
    expect(page.locator("#fields-count")).to_have_text("(4)")
    found = rows(page)
    assert 1 <= len(found) <= 6
    assert set(found) <= set(range(20, 30))
    assert dict(query(page)) == {
        "image": "3", "text": "make it red", "also": "2:make it large", "not": "add small circle",
        "where": 'number < 30 and half == "second"', "k": "6",
    }  # fmt: skip
    page.reload()
    assert rows(page) == found
    expect(page.locator("#conditions li")).to_have_count(2)
    page.locator("#fields summary").click()
    page.locator("#add-picture").click()
    page.locator("#picker-grid a").nth(7).click()
    expect(page.locator("#kept")).to_contain_text("0007.png")
    assert ("and", "7") in query(page)


def test_a_condition_that_no_line_can_say_is_shown_as_it_is(open_page):
    page = open_page(ASKED + "&where=number+in+%5B4%2C+5%5D")
    assert sorted(rows(page)) == [4, 5]
    page.locator("#fields summary").click()
    expect(page.locator("#where-text")).to_have_value("number in [4, 5]")


# --- Many -----------------------------------------------------------------------------------------


SAID = {"notes": [], "texts": []}
"""What a service says of a question that it understood."""


def test_results_go_on_beyond_the_first_page(open_page):
    """A service of 500 results, which gives what it is asked for."""
    page = open_page()

    def search(route):
        asked = json.loads(route.request.post_data)
        hits = [
            {"row": i % 40, "path": f"{i}.png", "score": 1 - i / 1000, "like": None}
            for i in range(asked["start"], min(500, asked["start"] + asked["k"]))
        ]
        for i, hit in enumerate(hits):
            hit["row"] = 1000 + asked["start"] + i
        more = asked["start"] + asked["k"] < 500
        route.fulfill(
            json={"hits": hits, "more": more, **SAID, "seconds": {"encode": 0, "search": 0}}
        )

    page.route("**/api/search", search)
    page.route("**/thumb", lambda route: route.fulfill(status=404, json={"detail": "none"}))
    page.locator("#grid a").first.click()
    expect(page.locator("#status")).to_contain_text("best 60")
    for number in range(120, 500, 60):
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.locator("#status")).to_contain_text(f"best {number}")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("#status")).to_contain_text("best 500")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("#grid a[title='499.png']")).to_be_in_viewport()


def test_what_is_alike_is_one_tile_with_a_count(open_page):
    page = open_page()

    def search(route):
        like = {1: None, 2: 1, 3: None, 4: 1}
        hits = [
            {"row": row, "path": f"{row}.png", "score": 0.9, "like": one}
            for row, one in like.items()
        ]
        route.fulfill(
            json={"hits": hits, "more": False, **SAID, "seconds": {"encode": 0, "search": 0}}
        )

    page.route("**/api/search", search)
    page.locator("#grid a").first.click()
    assert rows(page) == [1, 3]
    expect(page.locator("#grid .caption").first).to_contain_text("+ 2 alike")
    page.locator("#unfold").check()
    expect(page.locator("#grid li")).to_have_count(4)
    assert rows(page) == [1, 2, 3, 4]


def test_the_gallery_is_sorted_and_jumped_in(open_page):
    page = open_page()
    expect(page.locator("#position")).to_contain_text("of 40")
    page.locator("#sort").select_option("number")
    expect(page.locator("#descending")).to_be_enabled()
    page.locator("#descending").check()
    expect(page.locator("#grid li[data-index='0'] a")).to_have_attribute("title", "0039.png")
    page.locator("#jump-to").fill("0002")
    page.locator("#jump-to").press("Enter")
    expect(page.locator("#grid a:focus")).to_have_attribute("title", "0002.png")
    expect(page.locator("#grid a:focus")).to_be_in_viewport()
    page.locator("#jump-to").fill("40")
    page.locator("#jump-to").press("Enter")
    expect(page.locator("#grid a:focus")).to_have_attribute("title", "0000.png")
    page.locator("#jump-to").fill("nothing")
    page.locator("#jump-to").press("Enter")
    expect(page.locator("#position")).to_have_text("No picture here has 'nothing' in its name.")


def test_results_are_sorted_by_what_is_known(open_page):
    page = open_page(ASKED + "&k=10&unfold=1")
    found = rows(page)
    page.locator("#sort").select_option("number")
    expect(page).to_have_url(re.compile("sort=number"))
    expect(page.locator("#status")).to_contain_text("best")
    assert rows(page) == sorted(found)


def test_results_are_taken_along_as_a_table_and_a_sheet(open_page):
    page = open_page(ASKED)
    found = rows(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save as CSV").click()
    text = Path(waiting.value.path()).read_text(encoding="utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    assert [line["path"] for line in lines][: len(found)] == [f"{row:04d}.png" for row in found]
    assert lines[0]["question"] == "make it red (0003.png)"
    assert [float(line["score"]) for line in lines] == sorted(
        (float(line["score"]) for line in lines), reverse=True
    )
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Contact sheet").click()
    sheet = Image.open(waiting.value.path()).convert("RGB")
    assert sheet.width == 1488
    assert len(sheet.resize((60, 60)).getcolors(60 * 60)) > 50  # there are pictures on it


def test_two_runs_stand_side_by_side_with_their_differences(open_page):
    page = open_page(ASKED)
    page.locator("#besides").check()
    expect(page.locator("#other .caption").first).to_be_visible()
    assert rows(page) == rows(page, "#other")
    expect(page.locator("#own-name")).to_contain_text("0 only here")  # it is the same run

    def other(route):
        asked = json.loads(route.request.post_data)
        answer = route.fetch().json()
        if asked["beside"]:
            answer["hits"] = [*answer["hits"][1:2], *answer["hits"][:1], *answer["hits"][3:]]
        route.fulfill(json=answer)

    page.route("**/api/search", other)
    page.reload()
    expect(page.locator("#own-name")).to_contain_text("1 only here")
    notes = page.locator("#grid .caption i")
    expect(notes.nth(0)).to_have_text("▲ 1")
    expect(notes.nth(1)).to_have_text("▼ 1")
    expect(notes.nth(2)).to_have_text("only here")


# --- It teaches the model -------------------------------------------------------------------------


def test_results_are_marked_changed_and_taken_back(open_page, place):
    page = open_page(ASKED)
    found = [f"{row:04d}.png" for row in rows(page)]
    tiles = page.locator("#grid li")
    tiles.nth(0).hover()
    tiles.nth(0).locator("[data-name=right]").click()
    expect(tiles.nth(0)).to_have_attribute("data-mark", "right")
    expect(page.locator("#marking-count")).to_contain_text("1 right, 0 not right")
    tiles.nth(1).locator("a").focus()
    page.keyboard.press("n")
    expect(tiles.nth(1)).to_have_attribute("data-mark", "wrong")
    asked = ("0003.png", "make it red")
    assert kept(place) == [(*asked, found[0], "right", ""), (*asked, "", "wrong", found[1])]
    page.keyboard.press("y")
    expect(tiles.nth(1)).to_have_attribute("data-mark", "right")
    page.keyboard.press("u")
    expect(tiles.nth(1)).to_have_attribute("data-mark", "wrong")
    page.reload()
    expect(tiles.nth(0)).to_have_attribute("data-mark", "right")
    expect(tiles.nth(1)).to_have_attribute("data-mark", "wrong")
    page.get_by_role("button", name="None of these").click()
    expect(tiles.nth(0)).to_have_attribute("data-mark", "")
    assert kept(place) == [(*asked, "", "wrong", found[1]), (*asked, "", "none", "")]
    page.get_by_role("button", name="Undo").click()
    expect(tiles.nth(0)).to_have_attribute("data-mark", "right")
    assert sorted(kept(place)) == sorted(
        [(*asked, "", "wrong", found[1]), (*asked, found[0], "right", "")]
    )
    page.get_by_role("button", name="The right one is another").click()
    page.locator("#picker-grid a").nth(30).click()
    expect(page.locator("#marking-count")).to_contain_text("2 right")
    assert (*asked, "0030.png", "right", "") in kept(place)
    page.locator("#marking-count").click()
    expect(page.locator("#train-command")).to_contain_text("--data")


def test_two_tabs_do_not_clash(open_page, place):
    one = open_page(ASKED)
    rows(one)
    two = open_page(ASKED, context=one.context)
    rows(two)
    for page, key, tile in ((one, "y", 0), (two, "n", 1), (one, "y", 2), (two, "n", 0)):
        page.locator("#grid li a").nth(tile).focus()
        page.keyboard.press(key)
        kind = {"y": "right", "n": "wrong"}[key]
        expect(page.locator("#grid li").nth(tile)).to_have_attribute("data-mark", kind)
    assert [row[3] for row in kept(place)] == ["wrong", "right", "wrong"]  # tile 0 once
    one.evaluate("dispatchEvent(new Event('focus'))")
    expect(one.locator("#grid li").nth(1)).to_have_attribute("data-mark", "wrong")


def test_a_picture_of_one_s_own_says_why_it_cannot_be_marked(open_page, drawn_run):
    page = open_page()
    page.set_input_files("#file", drawn_run.parents[2] / "pictures" / "0005.png")
    expect(page.locator("#heading")).to_have_text("Like this picture")
    page.fill("#text", "make it red")
    page.press("#text", "Enter")
    expect(page.locator("#marking-not")).to_contain_text("its regions are not kept")


def test_rows_are_labelled_by_keys_alone(open_page, place):
    page = open_page("?show=label")
    expect(page.locator("#label-text")).to_be_focused()
    for number in range(5):
        expect(page.locator("#label-grid .caption").first).to_be_visible()
        page.keyboard.type(f"text {number}")
        page.keyboard.press("Enter")
        expect(page.locator("#label-grid a:focus")).to_have_count(1)
        if number % 2:
            page.keyboard.press("3")
        else:
            page.keyboard.press("ArrowRight")
            page.keyboard.press("Enter")
        expect(page.locator("#label-count")).to_contain_text(f"{number + 1} rows")
        expect(page.locator("#label-text")).to_be_focused()
        expect(page.locator("#label-text")).to_have_value("")
    lines = kept(place)
    assert [line[1] for line in lines] == [f"text {number}" for number in range(5)]
    assert all(line[3] == "right" and line[2] != line[0] for line in lines)
    assert len({line[0] for line in lines}) == 5
    page.keyboard.press("Control+z")
    expect(page.locator("#label-text")).to_have_value("text 4")
    assert kept(place) == lines[:4]


# --- What was mended ------------------------------------------------------------------------------


def test_typed_text_survives_the_choice_of_a_picture(open_page):
    page = open_page()
    page.fill("#text", "make it red")
    page.locator("#grid a").nth(4).click()
    expect(page.locator("#heading")).to_have_text("Like this picture")
    expect(page.locator("#text")).to_have_value("make it red")
    page.press("#text", "Enter")
    expect(page.locator("#heading")).to_have_text("make it red")
    expect(page.locator("#text")).to_be_focused()


def test_the_focus_stays_with_the_pictures_after_enter(open_page):
    page = open_page(ASKED)
    rows(page)
    page.locator("#grid a[tabindex='0']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#heading")).to_have_text("Like this picture")
    expect(page.locator("#grid .caption").first).to_be_visible()
    expect(page.locator("#grid li:focus-within")).to_have_attribute("data-index", "0")


def test_trying_again_is_offered_only_where_it_can_help(open_page):
    page = open_page("?image=40&text=red")
    expect(page.locator("#problem")).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()


def test_a_page_that_is_not_there_says_so(open_page, service):
    page = open_page("nothing")
    expect(page.locator("h1")).to_have_text("There is nothing at this address")
    page.get_by_role("link", name="gallery").click()
    expect(page.locator("#heading")).to_have_text("Gallery")
    assert page.request.get(f"{service}nothing").json()["detail"] == "there is nothing at /nothing"


def test_results_come_into_view_on_a_phone(open_page):
    page = open_page("?image=3&text=", width=390)
    rows(page)
    assert page.evaluate("scrollY") == 0
    page.fill("#text", "make it red")
    page.press("#text", "Enter")
    expect(page.locator("#heading")).to_have_text("make it red")
    expect(page.locator("#grid li").first).to_be_in_viewport()


@pytest.mark.parametrize(("width", "columns"), [(1440, 2), (768, 2), (390, 1)])
def test_question_and_pictures_stand_beside_each_other_where_there_is_room(
    open_page, width, columns
):
    page = open_page(ASKED + "&also=make+it+large&where=number+%3C+30", width=width)
    rows(page)
    page.locator("#fields summary").click()
    ask, pictures = (page.locator(name).bounding_box() for name in ("#ask", "#pictures"))
    beside = ask["x"] + ask["width"] <= pictures["x"]
    assert beside == (columns == 2)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    over = page.evaluate(
        """() => [...document.querySelectorAll("#ask *")].filter((one) => one.checkVisibility() &&
          one.getBoundingClientRect().right > document.querySelector("#ask")
            .getBoundingClientRect().right + 1 && !one.closest("#tries")).map((one) => one.id)"""
    )
    assert over == []


def test_sizes_follow_the_browser_s_letters(open_page):
    page = open_page(ASKED, bypass_csp=True)
    rows(page)
    page.evaluate("""() => { window.seen = [...document.querySelectorAll("#ask *, #pictures *")]
      .filter((one) => one.checkVisibility()) }""")
    sizes = """() => seen.map((one) => one.checkVisibility()
      ? parseFloat(getComputedStyle(one).fontSize) : null)"""
    before = page.evaluate(sizes)
    page.add_style_tag(content="html { font-size: 32px }")
    after = page.evaluate(sizes)  # what is drawn anew just then has none
    both = [pair for pair in zip(before, after, strict=True) if pair[1] is not None]
    assert len(both) > len(before) / 2
    assert [size for _, size in both] == pytest.approx([2 * size for size, _ in both])


def test_without_scripts_there_is_no_dead_control(browser, service):
    """As a browser without scripts reads it: where a test forbids them, <noscript> stays hidden."""

    def without(route):
        text = re.sub(
            r"</?noscript>|<script.*?</script>", "", route.fetch().text(), flags=re.DOTALL
        )
        route.fulfill(body=text, content_type="text/html")

    page = browser.new_context(java_script_enabled=False).new_page()
    page.route(service, without)
    page.goto(service)
    expect(page.get_by_text("This page needs JavaScript.")).to_be_visible()
    seen = [one for one in page.locator("button, input, select").all() if one.is_visible()]
    assert seen == []
    page.context.close()


def test_a_detector_that_is_being_loaded_is_waited_for_and_can_be_cancelled(open_page, drawn_run):
    page = open_page()
    expect(page.locator("#grid a").first).to_be_visible()
    loading = {"state": "loading", "seconds": 12.3, "why": None}
    page.route("**/api/info", lambda route: route.fulfill(
        json=route.fetch().json() | {"detector": loading}))  # fmt: skip
    page.set_input_files("#file", drawn_run.parents[2] / "pictures" / "0005.png")
    expect(page.locator("#trouble")).to_have_text("The detector is being loaded: 12 s so far …")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#trouble")).to_have_text("")
    expect(page.locator("#invitation")).to_be_visible()


# --- Every state, by axe-core ---------------------------------------------------------------------


def states(page, service):
    """Each state by its name, once it is there."""
    with_shares(page, [0.7, 0.35, -0.05])
    page.goto(service)
    expect(page.locator("#grid img.here").first).to_be_visible()
    yield "gallery"
    page.goto(f"{service}{ASKED}")
    rows(page)
    yield "results"
    page.locator("#marking-count").click()
    page.locator("#grid a").first.focus()
    page.keyboard.press("y")
    page.locator("#boxes").check()
    page.locator("#fields summary").click()
    for name in ("#add-text", "#add-not", "#add-condition"):
        page.locator(name).click()
    yield "marked, with objects and fields"
    page.keyboard.press("Escape")
    page.locator("#grid a").nth(1).focus()
    page.keyboard.press(" ")
    page.locator("#large-boxes").check()
    expect(page.locator("#large-objects .chips button").first).to_be_visible()
    page.locator("#large-why button").first.click()
    yield "large"
    page.keyboard.press("Escape")
    page.locator("#mark-another").click()
    expect(page.locator("#picker-grid img.here").first).to_be_visible()
    yield "picker"
    page.goto(f"{service}{ASKED}&more=4&less=6&beside=1&image=5&text=a+longer+text+of+words")
    rows(page, "#grid")
    yield "steps"
    page.locator("#besides").check()
    rows(page, "#other")
    yield "beside"
    page.goto(f"{service}?show=label")
    expect(page.locator("#label-grid .caption").first).to_be_visible()
    yield "label"
    page.goto(f"{service}?show=favourites")
    expect(page.locator("#status")).to_contain_text("None yet")
    yield "favourites"
    page.goto(f"{service}?image=99&text=red")
    expect(page.locator("#problem")).to_be_visible()
    yield "error"
    page.goto(f"{service}nothing")
    yield "missing"


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark", "forced"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_state_breaks_a_rule_of_axe(open_page, service, width, scheme):
    how = {"forced_colors": "active"} if scheme == "forced" else {"color_scheme": scheme}
    page = open_page(width=width, bypass_csp=True, reduced_motion="reduce", **how)
    broken = {}
    for state in states(page, service):
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run()")["violations"]
        if found:
            broken[state] = [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found]
    assert broken == {}
