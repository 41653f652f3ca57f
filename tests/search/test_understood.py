"""What of a question was understood: words, length, and pictures from elsewhere."""

import numpy as np
import pytest

from cqr.pipeline.detectors.bundled import DIM, KINDS
from cqr.pipeline.regions import Regions
from cqr.search.question import Question, Reference, WeightedText
from cqr.search.server.suggestions import Suggestions, first, names_one_of
from cqr.search.understood import CUT, READ, SCENES, UNKNOWN, read_of, understood
from cqr.search.world import World
from cqr.trainer.features import RegionReader
from cqr.trainer.text.vocabulary import Vocabulary

WORDS = Vocabulary.of(["make the small red circle blue", "remove the object"], max_words=5)


def said(*texts, scenes=False, references=(), vocabulary=WORDS):
    typed = tuple(map(WeightedText, texts))
    question = Question(references or (Reference("a", None),), typed)
    return understood(question, WORDS, vocabulary, scenes)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("make the Red circle", [("make the Red circle", READ)]),
        (
            "make zebra, umbrella red",
            [
                ("make ", READ),
                ("zebra", UNKNOWN),
                (", ", READ),
                ("umbrella", UNKNOWN),
                (" red", READ),
            ],
        ),
        ("make the red circle blue", [("make the red circle blue", READ)]),
        ("the the the the red, please", [("the the the the red,", READ), (" please", CUT)]),
        ("the the the the ox on", [("the the the the ", READ), ("ox", UNKNOWN), (" on", CUT)]),
    ],
)  # fmt: skip
def test_each_part_of_a_text_is_read_unknown_or_cut(text, parts):
    found = read_of(text, WORDS, WORDS)
    assert list(found.parts) == parts
    assert found.text == text


def test_a_model_that_reads_pieces_of_words_knows_them_all():
    found = read_of("make zebra red", WORDS, None)
    assert found.parts == (("make zebra red", READ),)


def test_the_notes_name_what_was_not_understood():
    assert said("make the red circle blue").notes == ()
    assert said("make zebra Umbrella, zebra").notes == ("zebra, Umbrella: not known to this model",)
    nothing = said("delete turquoise cylinder")
    assert nothing.notes[0] == "delete, turquoise, cylinder: not known to this model"
    assert nothing.notes[1].startswith("No word of this question is known")
    (cut,) = said("make the red circle blue and the red circle").notes
    assert cut.endswith("“and the red circle”")
    assert "beyond the 5 words" in cut


def test_where_scenes_are_asked_for_solids_their_words_are_told():
    assert SCENES in said("make the red cylinders blue", scenes=True).notes
    assert SCENES not in said("make the red zebra blue", scenes=True).notes
    assert SCENES not in said("make the red cylinder blue").notes


@pytest.fixture
def world(tmp_path, write_features):
    """A function of the number of pictures: the world of features around one direction."""

    def make(number, detector="torchvision"):
        features = np.random.default_rng(1).normal(10, 1, (number, 2, 8)).astype(np.float32)
        boxes = np.tile(np.array([0, 0, 50, 50], np.float32), (number, 2, 1))
        paths = [f"{i}.png" for i in range(number)]
        reader = RegionReader(write_features(tmp_path / "a.h5", paths, features, boxes))
        found = World.of(reader)
        return World(found.known, found.usual, detector)

    return make


def regions(whole, boxes, width=100, height=50):
    k = max(1, len(boxes))
    features = np.tile(np.float32(whole), (k, 1))
    boxes = np.float32(boxes or [(0, 0, width, height)])
    return Regions(features, boxes, np.ones(k, np.float32), k, np.float32(whole), width, height)


def test_a_picture_of_the_gallerys_world_is_said_to_be_nothing_but_found(world):
    inside = world(200).sight(regions([10] * 8, [(0, 0, 50, 50), (1, 1, 2, 2)]))
    assert (inside.objects, inside.outside) == (2, False)
    np.testing.assert_allclose(inside.boxes[0], [0, 0, 0.5, 1])
    assert inside.notes("a.png") == ["a.png: 2 objects found"]


def test_a_picture_from_elsewhere_is_said_to_be(world):
    found = world(200, "bundled").sight(regions([10, -10] * 4, []))
    assert (found.objects, found.outside) == (0, True)
    counted, unlike = found.notes("jeans.jpg")
    assert counted == "jeans.jpg: 0 objects found"
    assert "jeans.jpg is unlike every picture of the gallery" in unlike
    assert "knows generated scenes only" in unlike


def test_the_threshold_is_the_gallerys_own(world):
    made = world(200)
    alike = made.known @ made.known.T
    np.fill_diagonal(alike, -1)
    nearest = np.sort(alike.max(1))
    assert nearest[0] <= made.usual <= nearest[1]  # 1 of 500 may be further: of 200, the first


def test_of_a_few_pictures_nothing_is_said(world):
    found = world(40).sight(regions([10, -10] * 4, []))
    assert not found.outside


def test_cells_are_no_objects(world):
    found = world(60, "grid").sight(regions([10] * 8, [(0, 0, 50, 50)]))
    assert found.objects is None
    assert found.notes("a.png") == []


def test_the_bundled_detector_names_what_it_found(world):
    kind = KINDS["grid"]
    values = np.zeros(kind.dim, np.float32)
    color, shape, size = (list(kind.attributes[name]) for name in ("color", "shape", "size"))
    values[DIM + color.index("cyan")] = 1
    values[DIM + len(color) + shape.index("circle")] = 1
    values[DIM + len(color) + len(shape) + size.index("large")] = 1
    made = World(np.ones((1, len(values)), np.float32), None, "bundled")
    found = made.sight(regions(values, [(0, 0, 10, 10)]))
    assert found.looks == (frozenset({"cyan", "circle", "large"}),)


LOOKS = (frozenset({"small", "red", "circle"}), frozenset({"large", "red", "triangle"}))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("remove small object", True),
        ("remove red object", False),  # there are two
        ("remove blue object", False),
        ("make red circle blue", True),
        ("make red circle small", False),  # it is
        ("make circle large", True),
        ("remove top-left red circle", False),  # nobody knows where
        ("add small red circle to top-left", False),
        ("", False),
    ],
)
def test_texts_for_an_upload_name_what_was_found_in_it(text, fits):
    assert names_one_of(text, LOOKS) is fits


def test_a_picture_from_elsewhere_gets_no_texts(world):
    known = Suggestions(common=["make it red"])
    assert known.of_new(world(200).sight(regions([10, -10] * 4, []))) == []
    assert known.of_new(world(200).sight(regions([10] * 8, [(0, 0, 9, 9)]))) == ["make it red"]


class Run:
    vocabulary = WORDS
    reads_nothing = False


def test_the_first_question_is_the_datas_own():
    known = Suggestions({"b.png": ["make it red"]}, ["make it small"])
    assert first(known, ["a.png", "b.png"], Run) == ("b.png", "make it red")
    assert first(Suggestions(), ["a.png"], Run) == ("a.png", "")
    assert first(Suggestions(common=["red"]), ["a.png"], Run) == ("a.png", "red")
