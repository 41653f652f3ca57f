"""The page as a person uses it: a real `cqr serve`, in a real headless Chromium."""

import json
import re
import time
from urllib.parse import parse_qsl, urlsplit

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install playwright")
from playwright.sync_api import expect

from served_page import pages, serving, shown

expect.set_options(timeout=30_000)

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def service(drawn_run):
    """The address of a service."""
    with serving("--run", drawn_run) as address:
        yield address


@pytest.fixture
def open_page(browser, service):
    with pages(browser, service) as make:
        yield make


def steps(page):
    pairs = parse_qsl(urlsplit(page.url).query, keep_blank_values=True)
    values = [value for _, value in pairs]
    assert [name for name, _ in pairs] == ["image", "text"] * (len(pairs) // 2)
    return list(zip(values[::2], values[1::2], strict=True))


def ask(page, text):
    page.fill("#text", text)
    page.press("#text", "Enter")
    expect(page.locator("#heading")).to_have_text(text)


def test_pick_ask_go_on_and_back(open_page):
    page = open_page()
    expect(page.locator("#heading")).to_have_text("Gallery")
    expect(page.locator("#status")).to_have_text("40 pictures: pick one to start from")
    page.locator("#grid a[title='0003.png']").click()
    expect(page.locator("#heading")).to_have_text("Like this picture")
    assert steps(page) == [("3", "")]
    assert page.locator("#reference image").get_attribute("href") == "/api/images/3"
    shown(page)

    ask(page, "make it red")
    first = shown(page)
    assert steps(page) == [("3", "make it red")]
    assert "/api/images/3/thumb" not in first
    scores = [float(said) for said in page.locator("#grid .caption span").all_inner_texts()]
    assert len(scores) == len(first) > 5
    assert scores == sorted(scores, reverse=True)
    assert page.title() == "make it red · cqr"

    found = first[0].split("/")[3]
    page.locator("#grid a").first.hover()
    page.locator("#grid [data-name=start]").first.click()
    expect(page.locator("#heading")).to_have_text("Like this picture")
    assert steps(page) == [("3", "make it red"), (found, "")]
    ask(page, "add large circle")
    second = shown(page)
    assert steps(page) == [("3", "make it red"), (found, "add large circle")]
    expect(page.locator("#trail li")).to_have_count(2)

    page.reload()
    expect(page.locator("#heading")).to_have_text("add large circle")
    assert shown(page) == second
    expect(page.locator("#trail li")).to_have_count(2)
    expect(page.locator("#text")).to_have_value("add large circle")

    page.locator("#trail a").first.click()
    expect(page.locator("#heading")).to_have_text("make it red")
    assert shown(page) == first
    assert steps(page) == [("3", "make it red")]
    page.go_back()
    expect(page.locator("#heading")).to_have_text("add large circle")
    assert shown(page) == second
    page.locator("#home").click()
    expect(page.locator("#heading")).to_have_text("Gallery")
    assert steps(page) == []


def test_a_word_lights_its_regions(open_page):
    page = open_page()
    asked = page.request.post(
        urlsplit(page.url)._replace(path="/api/attention", query="").geturl(),
        data={"image": 3, "text": "make it red"},
    ).json()
    regions = len(asked["boxes"])
    rest = 0.2 / (regions - 1)
    asked["weights"] = [[1 / regions] * regions] + [[0.8] + [rest] * (regions - 1)] * 2
    page.route("**/api/attention", lambda route: route.fulfill(json=asked))
    page.goto(urlsplit(page.url)._replace(query="image=3&text=make+it+red").geturl())
    words = page.locator("#words button")
    expect(words).to_have_text(["make", "it", "red"])
    dim = page.locator("#reference .dim")
    expect(dim).to_have_css("opacity", "0")
    words.nth(2).hover()
    expect(dim).not_to_have_css("opacity", "0")
    opacities = page.locator("#reference .hole").evaluate_all(
        "rects => rects.map(rect => Number(rect.style.opacity))"
    )
    weights = asked["weights"][2]
    assert opacities == pytest.approx([weight / max(weights) for weight in weights], abs=1e-4)
    (left, top, right, bottom) = asked["boxes"][0]
    row = ["top", "middle", "bottom"][int(3 * (top + bottom) / 2)]
    column = ["left", "center", "right"][int(3 * (left + right) / 2)]
    expect(page.locator("#looks")).to_contain_text(f"looks most at: {row} {column} 80 %")
    box = page.locator("#reference .box").first.bounding_box()
    image = page.locator("#reference image").bounding_box()
    left, _, _, bottom = asked["boxes"][0]
    assert box["x"] == pytest.approx(image["x"] + left * image["width"], abs=2)
    assert box["y"] + box["height"] == pytest.approx(image["y"] + bottom * image["height"], abs=2)
    page.mouse.move(900, 500)
    expect(dim).to_have_css("opacity", "0")
    words.nth(0).hover()  # has nothing to say
    expect(page.locator("#looks")).to_have_text("“make” looks everywhere alike")
    expect(dim).to_have_css("opacity", "0")
    words.nth(1).click()  # as a tap does: it stays
    page.mouse.move(900, 500)
    expect(words.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(dim).not_to_have_css("opacity", "0")


def test_upload_a_file_and_reload(open_page, drawn_run):
    page = open_page()
    page.set_input_files("#file", drawn_run.parents[2] / "pictures" / "0005.png")
    expect(page.locator("#heading")).to_have_text("Like this picture")
    ((image, text),) = steps(page)
    assert re.fullmatch("[0-9a-f]{32}", image)
    assert text == ""
    assert shown(page)[0] == "/api/images/5/thumb"
    ask(page, "make it red")
    found = shown(page)
    page.reload()
    expect(page.locator("#heading")).to_have_text("make it red")
    assert shown(page) == found
    assert page.locator("#reference image").get_attribute("href") == f"/api/uploads/{image}"


DROP = """([text, name, times]) => {
  const data = new DataTransfer();
  data.items.add(new File([text.repeat(times)], name));
  for (const kind of ["dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true }));
  }
}"""


def test_a_file_that_is_no_picture_is_said_and_nothing_is_lost(open_page):
    page = open_page("?image=3&text=make+it+red")
    before = shown(page)
    page.evaluate(DROP, ["not a picture", "a.jpg", 1])
    expect(page.locator("#trouble")).to_have_text("This file is not a picture of a known format.")
    assert page.locator("#reference image").get_attribute("href") == "/api/images/3"
    assert shown(page) == before
    assert steps(page) == [("3", "make it red")]


def test_a_file_that_is_too_large_is_not_sent(open_page):
    page = open_page()
    page.route("**/api/uploads", lambda route: pytest.fail("it was sent"))
    page.evaluate(DROP, ["x", "a.jpg", 20 * 2**20 + 1])
    expect(page.locator("#trouble")).to_have_text(
        "This file has more than the 20 MB that are read."
    )


def test_a_service_that_is_gone_is_said_and_tried_again(open_page):
    page = open_page("?image=3&text=")
    shown(page)
    page.context.set_offline(True)
    page.fill("#text", "make it red")
    page.press("#text", "Enter")
    expect(page.locator("#problem p")).to_have_text(
        "The service does not answer: is `cqr serve` still running?"
    )
    assert page.locator("#grid li").count() == 0
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    assert len(shown(page)) > 5
    expect(page.locator("#problem")).to_be_hidden()


def test_a_service_that_is_busy_is_asked_again(open_page):
    page = open_page()
    asked = []

    def busy(route):
        asked.append(time.monotonic())
        if len(asked) > 1:
            return route.continue_()
        body = json.dumps({"detail": "busy"})
        return route.fulfill(status=503, headers={"Retry-After": "1"}, body=body)

    page.route("**/api/search", busy)
    page.locator("#grid a").first.click()
    assert len(shown(page)) > 5
    assert asked[1] - asked[0] >= 0.9


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?image=40&text=red", "The gallery has no picture 40."),
        (
            f"?image={'0' * 31}f&text=red",
            "This uploaded picture is no longer kept: upload it again.",
        ),
        ("?image=nothing&text=red", "The address names no picture: pick one from the gallery."),
    ],
)
def test_an_address_that_names_nothing_is_said(open_page, query, sentence):
    page = open_page(query)
    expect(page.locator("#problem p")).to_contain_text(sentence)
    expect(page.locator("#trouble")).to_have_text("This picture cannot be shown.")


def test_what_is_missing_from_a_question_is_asked_for(open_page):
    page = open_page()
    page.locator("#form .line button").click()
    expect(page.locator("#wanting")).to_contain_text("Pick a picture first")
    page.locator("#grid a").first.click()
    shown(page)
    expect(page.locator("#wanting")).to_be_hidden()
    page.locator("#form .line button").click()
    expect(page.locator("#wanting")).to_have_text("Say what should be different from this picture.")


def test_a_suggestion_is_a_question(open_page):
    page = open_page("?image=0&text=")
    suggestion = page.locator("#tries button").first
    text = suggestion.inner_text()
    suggestion.click()
    expect(page.locator("#heading")).to_have_text(text)
    assert steps(page) == [("0", text)]


def test_by_keyboard_alone(open_page):
    page = open_page("?image=3&text=")
    shown(page)
    page.keyboard.press("/")
    page.keyboard.type("make it red")
    page.keyboard.press("Enter")
    expect(page.locator("#words button").first).to_be_visible()
    page.locator("#words button").first.focus()
    page.keyboard.press("Tab")
    expect(page.locator("#words button").nth(1)).to_be_focused()
    expect(page.locator("#looks")).to_contain_text("“it” looks")

    page.locator("#grid a[tabindex='0']").focus()
    columns = page.evaluate("new Set([...document.querySelectorAll('#grid li')]"
                            ".map(li => li.getBoundingClientRect().x)).size")  # fmt: skip
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    focused = page.locator("#grid li:focus-within")
    assert focused.get_attribute("data-index") == str(columns + 1)
    page.keyboard.press("End")
    assert focused.get_attribute("aria-posinset") == focused.get_attribute("aria-setsize")
    page.keyboard.press("Home")
    assert page.locator("#grid a[tabindex='0']").count() == 1
    image = focused.get_attribute("data-src").split("/")[3]
    page.keyboard.press("Enter")
    expect(page.locator("#heading")).to_have_text("Like this picture")
    assert steps(page)[-1] == (image, "")


def test_a_gallery_of_a_hundred_thousand_scrolls(open_page):
    page = open_page()
    total = 100_000

    def info(route):
        said = route.fetch().json() | {"pictures": total}
        route.fulfill(json=said)

    def part(route):
        start = int(dict(parse_qsl(urlsplit(route.request.url).query))["start"])
        pictures = [
            {"row": row, "path": f"{row}.png", "width": 64, "height": 64}
            for row in range(start, min(start + 100, total))
        ]
        route.fulfill(json={"total": total, "pictures": pictures})

    page.route("**/api/info", info)
    page.route("**/api/gallery?*", part)
    page.route("**/thumb", lambda route: route.fulfill(status=404, json={"detail": "none"}))
    page.reload()
    expect(page.locator("#status")).to_have_text("100,000 pictures: pick one to start from")
    for place in (0.3, 0.77, 1):
        page.evaluate("place => scrollTo(0, place * document.body.scrollHeight)", place)
        page.wait_for_timeout(150)
        assert 10 < page.locator("#grid li").count() < 150
        first, last = (
            int(getattr(page.locator("#grid li"), end).get_attribute("data-index") or -1)
            for end in ("first", "last")
        )
        assert first >= 0
        assert abs(last / total - place) < 0.01
    expect(page.locator(f"#grid a[title='{total - 1}.png']")).to_be_in_viewport()


def test_a_place_in_the_gallery_is_come_back_to(open_page):
    page = open_page()
    page.set_viewport_size(PHONE)
    expect(page.locator("#grid li").first).to_be_visible()
    page.evaluate("scrollTo(0, 1e6)")
    tile = page.locator("#grid a[title='0030.png']")
    tile.scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    assert place > 300
    tile.click()
    expect(page.locator("#heading")).to_have_text("Like this picture")
    assert page.evaluate("scrollY") < place
    page.go_back()
    expect(page.locator("#heading")).to_have_text("Gallery")
    expect(tile).to_be_in_viewport()
    assert page.evaluate("scrollY") == place


@pytest.mark.parametrize("view", [PHONE, {"width": 320, "height": 568}])
def test_nothing_is_wider_than_a_phone(open_page, view):
    page = open_page("?image=3&text=make+it+red&image=5&text=a+rather+long+text+of+many+words")
    page.set_viewport_size(view)
    shown(page)
    assert page.evaluate("document.documentElement.scrollWidth") == view["width"]
    widths = {round(tile.bounding_box()["width"]) for tile in page.locator("#grid li").all()}
    assert max(widths) < view["width"] / 2


CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (name) => {
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((v) =>
      v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (names) => {
    const [dark, bright] = names.map(light).sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  return [
    ["--ink", "--paper"], ["--ink", "--raised"], ["--soft", "--paper"], ["--soft", "--raised"],
    ["--soft", "--sunk"], ["--on-accent", "--accent"], ["--bad", "--paper"],
  ].map(ratio);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(open_page, scheme):
    """WCAG 2, 1.4.3: 4.5 to 1."""
    page = open_page(color_scheme=scheme)
    ratios = page.evaluate(CONTRAST)
    assert min(ratios) >= 4.5


def test_nothing_moves_for_who_wants_no_motion(open_page):
    page = open_page("?image=3&text=make+it+red", reduced_motion="reduce")
    expect(page.locator("#words button").first).to_be_visible()
    moving = page.evaluate("""() => [...document.querySelectorAll("*")].filter((element) => {
      const style = getComputedStyle(element);
      return style.transitionDuration !== "0s" || style.animationName !== "none";
    }).length""")
    assert moving == 0


def test_each_control_has_a_name(open_page):
    page = open_page("?image=3&text=make+it+red&image=5&text=red")
    shown(page)
    unnamed = page.evaluate("""() => [...document.querySelectorAll("a, button, input")].filter(
      (element) => !(element.ariaLabel || element.textContent.trim() || element.title ||
        element.labels?.length || element.querySelector("img")?.alt)
    ).map((element) => element.outerHTML)""")
    assert unnamed == []
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.locator("#trail [aria-current=step]")).to_have_count(1)


def test_what_was_not_understood_is_above_the_results(open_page):
    page = open_page("?image=3&text=make+zebra+red")
    expect(page.locator("#notes")).to_contain_text("zebra: not known to this model.")
    expect(page.locator("#heading s")).to_have_text(["zebra"])
    expect(page.locator("#heading")).to_have_text("make zebra red")
    page = open_page("?image=3&text=zebra+umbrella")
    expect(page.locator("#notes")).to_contain_text("No word of this question is known")
    expect(page.locator("#grid a").first).to_be_visible()
    page = open_page("?image=3&text=")
    expect(page.locator("#grid a").first).to_be_visible()
    expect(page.locator("#notes")).to_be_empty()


def test_the_field_suggests_the_datas_own_text(open_page):
    page = open_page("?image=0&text=")
    first = page.locator("#tries button").first.text_content()
    expect(page.locator("#text")).to_have_attribute("placeholder", first)
