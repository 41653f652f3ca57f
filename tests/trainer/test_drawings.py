"""2D to 3D: queries that ask with the flat drawing of a scene for 3D pictures."""

import json
from pathlib import Path

import pytest
import torch

from cqr.errors import UserError
from cqr.trainer.datasets.queries import tasks
from cqr.trainer.datasets.readers.css_original import FILE
from cqr.trainer.datasets.survey import survey
from cqr.trainer.evaluation import evaluate
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import Wanted, collect, collect_for
from cqr.trainer.training.settings import Settings, settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

ASKED = Wanted(chosen=("reference=drawing",))
SMALL = ["width=32", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=48"]


@pytest.fixture
def features(drawn_scenes):
    return drawn_scenes(references=4, modifications=3, drawings=True)


def test_the_drawing_asks_and_the_scene_s_own_picture_is_removed(features):
    plain, drawn = (collect(features, wanted).dataset for wanted in (Wanted(), ASKED))
    pictures = plain.queries["reference"].tolist()
    assert drawn.queries["reference"].tolist() == [
        path.replace("images/", "drawings/") for path in pictures
    ]
    same = ["query_id", "text", "target", "split", "kind"]
    assert drawn.queries[same].equals(plain.queries[same])
    assert drawn.images.equals(plain.images)
    [flat], [solid] = (tasks(dataset, "test") for dataset in (drawn, plain))
    assert flat.gallery == solid.gallery
    assert [flat.gallery[place] for place in flat.reference] == pictures[12:]
    assert flat.reference.tolist() == solid.reference.tolist()
    assert [c.tolist() for c in flat.correct] == [c.tolist() for c in solid.correct]
    assert "the reference scene's own 3D picture is removed from it" in drawn.protocol.sentence()
    assert "the reference is removed from it" in plain.protocol.sentence()
    assert (plain.recommended["locate"], plain.recommended["muon_lr"]) == (1, 0.012)
    # Nothing in a drawing is as it is in a picture.
    assert (drawn.recommended["locate"], drawn.recommended["muon_lr"]) == (0, 0)


def test_no_drawing_is_in_the_gallery_that_chooses_the_epoch(features):
    _, [work] = divide(collect(features, ASKED).dataset, Settings(validation=0.25))
    assert len(work.queries) == 3
    assert all(path.startswith("images/") for path in work.gallery)
    assert (work.reference >= 0).all()
    assert {work.gallery[place] for place in work.reference} == set(work.queries["own_image"])


def test_only_what_is_asked_for_needs_its_pictures(features):
    root = features.parent.parent / "css"
    names = [set(survey(root, chosen=chosen).missing) for chosen in ((), ASKED.chosen)]
    drawings = {
        f"drawings/css_{split}_{i:06d}.png" for split in ("train", "test") for i in range(4)
    }
    assert names[1] - names[0] == drawings
    assert names[0] <= names[1]


def test_scenes_without_drawings_are_refused(drawn_scenes):
    with pytest.raises(UserError) as error:
        collect(drawn_scenes(references=4, modifications=3), ASKED)
    assert str(error.value).endswith(
        "css has no drawings: make it again with `cqr scenes --overwrite`, without "
        "--no-drawings, or leave out --protocol reference=drawing"
    )


def test_scenes_whose_json_lacks_the_key_have_no_drawings_either(features):
    file = features.parent.parent / "css" / "train.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        del image["drawing"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="css has no drawings: make it again"):
        collect(features, ASKED)


def test_features_without_the_drawings_say_how_to_extract_them(features, write_features):
    from cqr.trainer.features import RegionReader

    reader = RegionReader(features)
    kept = [i for i, path in enumerate(reader.paths) if path.startswith("images/")]
    batch = reader.gather(torch.tensor(kept).numpy())
    lacking = write_features(
        "artifacts/lacking.h5",
        [reader.paths[i] for i in kept],
        batch.features.numpy(),
        batch.boxes.numpy() * 300,
        batch.mask.sum(1).numpy(),
        root=reader.file.image_root,
    )
    collect(lacking)
    with pytest.raises(UserError, match=r"8 of 40 images have no regions .*drawings/css_train_0"):
        collect(lacking, ASKED)


def test_tirg_s_own_files_have_none():
    root = Path("original")
    root.mkdir()
    (root / FILE).write_bytes(b"")
    with pytest.raises(UserError, match="comes without drawings, which TIRG's code makes") as error:
        survey(root, chosen=ASKED.chosen)
    assert "\n" not in str(error.value)


def test_a_model_learns_to_find_pictures_with_drawings(drawn_scenes):
    features = drawn_scenes(references=30, modifications=8, drawings=True)
    material = collect(features, ASKED)
    given = {"epochs": 15, "batch": 16, "warmup": 5, "lr": 3e-3, "select": "last"}
    run = start(material, settle({}, given, [*SMALL, "separate_reference=true"]))
    train(run, material, device="cpu")
    again = collect_for(run, None, Wanted(), split="scored", max_missing=0)
    metrics = evaluate.evaluate(run, again, torch.device("cpu")).metrics
    assert metrics["options"]["reference"] == "drawing"
    assert metrics["gallery"] == 270
    assert metrics["chance"]["1"] < 1
    assert metrics["recall"]["1"] > 5
    assert metrics["recall"]["10"] > 25
