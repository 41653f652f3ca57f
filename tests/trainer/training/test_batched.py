"""Trainings as one batched model, compiled, and of what lies on a device, against plain ones."""

import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from around_models import NAMES, losses, model, regions, settings, trained, words
from cqr.errors import UserError
from cqr.trainer.text.vocabulary import TextSpec, Vocabulary, WordBatch
from cqr.trainer.training import checkpoint, train
from cqr.trainer.training.material import collect
from cqr.trainer.training.start import start
from cqr.trainer.training.steps import resident
from cqr.trainer.training.steps.batches import Batch
from cqr.trainer.training.train import train_seeds

SEEDS = 3
CPU = torch.device("cpu")
LBF = ["dropout=0", "pool=max", "locate=1", "where=0.3", "nothing=true", "word_reach=2"]
LBF += ["waves=true", "relations=true"]
REFUSED = {"show-and-tell": "lstm", "film": "dynamic shape", "clvc-net": "dynamic shape"}
"""Those of which several are no batched model, and why."""


def several(features, chosen):
    """New runs of one model and several seeds."""
    material = collect(features)
    return [start(material, replace(chosen, seed=n), fresh=True) for n in range(SEEDS)], material


def together(features, chosen, **how):
    runs, material = several(features, chosen)
    train_seeds(runs, material, device="cpu", **how)
    return runs


def assert_alike(got, expected, least=0.99):
    """Losses are equal to 1e-3, and weights but a few: Adam follows rounding where no more is."""
    torch.testing.assert_close(losses(got), losses(expected), rtol=0, atol=1e-3)
    got, expected = (load_file(run.weights) for run in (got, expected))
    assert got.keys() == expected.keys()
    near = [torch.isclose(got[n], expected[n], rtol=1e-3, atol=1e-4).flatten() for n in expected]
    assert torch.cat(near).float().mean() > least


def test_seeds_as_one_model_are_those_by_themselves(drawn_scenes):
    features, chosen = drawn_scenes(), settings("lbf", *LBF)
    for run in together(features, chosen):
        alone, _ = trained(features, run.settings)
        assert_alike(run, alone)
        assert {line["together"] for line in run.history()} == {SEEDS}
        scores = [[line["recall"] for line in one.history()] for one in (run, alone)]
        assert scores[0] == scores[1]


@pytest.mark.parametrize(
    "given",
    [
        {"muon_lr": 0.003, "reorder": 0.5},  # whose products are of 16 bits, so rounding grows
        {"negatives": "wrong", "loss": "soft-triplet", "snr": True},
        {"learners": 2, "kappa": "squared-l2"},
    ],
)
def test_so_they_are_with_what_may_be_around_a_model(drawn_scenes, given):
    features, chosen = drawn_scenes(), settings("lbf", *LBF, select="last", **given)
    for run in together(features, chosen):
        assert_alike(run, trained(features, run.settings)[0], 0.9 if "muon_lr" in given else 0.99)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lbf"])
def test_every_model_is_so_or_says_why_not(drawn_scenes, monkeypatch, name):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_: x)  # it draws other numbers
    options = ["encoder=lbf", "encoder_dropout=0"]
    chosen = settings(name, *options, epochs=1, select="last", embed=64, lr=3e-4)
    features = drawn_scenes()
    if name in REFUSED:
        with pytest.raises(UserError, match=rf"^{name} cannot be .*{REFUSED[name]}.*--batched$"):
            together(features, chosen)
        return
    for run in together(features, chosen)[1:]:
        torch.testing.assert_close(
            losses(run), losses(trained(features, run.settings)[0]), rtol=0, atol=1e-3
        )


@pytest.mark.parametrize("compile", [False, True])
def test_each_seed_has_a_dropout_of_its_own(drawn_scenes, traced, compile):
    """The models here are equal, and so are their batches: only what is dropped can differ."""
    features, chosen = drawn_scenes(), settings("lbf", "dropout=0.3", epochs=1, select="last")
    (run, *others), material = several(features, chosen)
    same = [replace(other, settings=run.settings) for other in others]
    train_seeds([run, *same], material, device="cpu", compile=compile)
    found = [run.history()[0]["loss"] for run in (run, *same)]
    assert len(set(found)) == SEEDS
    assert max(found) - min(found) < 0.5


def test_an_lstm_is_no_batched_model(drawn_scenes):
    with pytest.raises(UserError, match=r"^tirg cannot be trained with several.*lstm.*--batched$"):
        together(drawn_scenes(), settings("tirg"))


def test_seeds_whose_models_differ_in_size_are_refused(drawn_scenes, monkeypatch):
    features, chosen = drawn_scenes(), settings("lbf", *LBF)
    runs, material = several(features, chosen)
    more = Vocabulary((*runs[1].vocabulary.words, "purple"), 32)
    runs[1] = replace(runs[1], vocabulary=more)
    wanted = (
        r"^--batched: the sizes of embed_words\S+ differ by the seed \(29, 30, 29\).*select=last"
    )
    with pytest.raises(UserError, match=wanted):
        train_seeds(runs, material, device="cpu")
    sizes = iter((3, 3, 4, 3, 3, 4))
    monkeypatch.setattr(train.Training, "steps", property(lambda _: next(sizes)))
    with pytest.raises(
        UserError, match=r"^--batched: the steps of an epoch differ by the seed \(3, 3, 4\)"
    ):
        train_seeds(several(features, chosen)[0], material, device="cpu")


def test_stopped_seeds_go_on(drawn_scenes):
    features, chosen = drawn_scenes(), settings("lbf", *LBF)
    whole = together(features, chosen)
    runs, material = several(features, chosen)
    steps = []

    def stop(*_):
        steps.append(0)
        if len(steps) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_seeds(runs, material, device="cpu", on_step=stop)
    assert {checkpoint.progress(run.checkpoint).step for run in runs} == {2}
    train_seeds(runs, material, device="cpu")
    for a, b in zip(runs, whole, strict=True):
        a, b = (load_file(run.checkpoint) for run in (a, b))
        assert all(torch.equal(a[name], b[name]) for name in b)


def test_seeds_that_a_kill_left_at_different_steps_go_on_one_by_one(drawn_scenes, monkeypatch):
    features, chosen = drawn_scenes(), settings("lbf", *LBF)
    runs, material = several(features, chosen)
    real, saved = checkpoint.save, []

    def kill(*args):
        saved.append(0)
        if len(saved) == 2:
            raise MemoryError
        real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", kill)
        with pytest.raises(MemoryError):
            train_seeds(runs, material, device="cpu")
    assert [checkpoint.progress(run.checkpoint).epoch for run in runs] == [1, 0, 0]
    train_seeds(runs, material, device="cpu")
    for run in runs:
        assert [line["epoch"] for line in run.history()] == [1, 2]
        assert_alike(run, trained(features, run.settings)[0])


# compiled


@pytest.fixture
def traced(monkeypatch):
    """What is compiled is traced whole, and run as PyTorch would: its compiler takes minutes."""
    real, made = torch.compile, []

    def compile(work, *, mode, **how):
        made.append(work)
        return real(work, backend="aot_eager", **how)

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", compile)
    yield made
    torch.compiler.reset()


def test_a_compiled_step_is_the_one_that_is_written(drawn_scenes, traced):
    features, chosen = drawn_scenes(), settings("lbf", *LBF)
    run, _ = trained(features, chosen, compile=True)
    assert len(traced) == 1
    assert_alike(run, trained(features, chosen)[0])


def test_seeds_as_one_model_can_be_compiled(drawn_scenes, traced):
    features, chosen = drawn_scenes(), settings("lbf", *LBF, select="last")
    for run in together(features, chosen, compile=True):
        assert_alike(run, trained(features, run.settings)[0])
    assert len(traced) == 1


def test_all_steps_of_a_training_are_compiled_once(drawn_scenes, traced, monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    chosen = settings("lbf", *LBF, together=2, select="last", reorder=0.5, batch=8)
    trained(drawn_scenes(), chosen, compile=True)


def test_what_cannot_be_compiled_says_so(drawn_scenes, traced):
    with pytest.raises(UserError, match=r"^tirg cannot be compiled \(.*LSTM\): leave out --comp"):
        trained(drawn_scenes(), settings("tirg"), compile=True)


def test_a_batch_in_a_larger_shape_is_the_same_batch():
    counts = (3, 1, 2, 3)
    batch = Batch(regions(counts, seed=1), words(), regions(counts, seed=2), torch.zeros(4, 2))
    filled = batch.filled(5, 7)
    assert filled.reference.features.shape == (4, 5, 20)
    assert filled.words.tokens.shape == (4, 7)
    again = Batch.of(filled.parts())
    one = model("lbf", word_reach=2, relations=True, locate=1, where=1)
    expected, *others = (
        one(each.reference, each.words, each.target) for each in (batch, filled, again)
    )
    for out in others:
        torch.testing.assert_close(out.query, expected.query)
        torch.testing.assert_close(out.target, expected.target)
        assert out.extra.keys() == expected.extra.keys() == {"locate", "where"}
        for name, (_, value) in out.extra.items():
            torch.testing.assert_close(value, expected.extra[name].value)


# on a device


def test_what_lies_on_the_device_trains_the_same(drawn_scenes, monkeypatch):
    features, chosen = drawn_scenes(), settings("lbf", reorder=0.5)
    mapped, _ = trained(features, chosen)
    monkeypatch.setattr(resident, "room", lambda device: 2**40)
    near, _ = trained(features, chosen)
    a, b = (load_file(run.checkpoint) for run in (mapped, near))
    assert all(torch.equal(a[name], b[name]) for name in a)


TEXTS = ["make it red", "remove the big dog", "", "red"]


class Features:
    """A reader whose words are features, with a vector of each text."""

    spec = TextSpec(4, dim=3)

    def encode(self, texts):
        lengths = torch.tensor([max(1, len(text.split())) for text in texts])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        tokens = torch.stack([torch.full((mask.shape[1], 3), float(len(t))) for t in texts])
        vector = torch.tensor([[len(t), 1.0] for t in texts])
        return WordBatch((tokens * mask[..., None]).half(), mask, vector)


@pytest.mark.parametrize("reader", [Vocabulary.of(TEXTS, 4), Features()])
@pytest.mark.parametrize(
    "asked", [[TEXTS[0], TEXTS[3], TEXTS[0]], [TEXTS[2]], [TEXTS[1], "never heard"]]
)
def test_texts_that_were_read_once_are_read_so_again(monkeypatch, reader, asked):
    monkeypatch.setattr(resident, "CHUNK", 2)
    monkeypatch.setattr(resident, "room", lambda device: 200)
    once, expected = resident.read_once(reader, [*TEXTS, TEXTS[0]], CPU), reader.encode(asked)
    assert isinstance(once, resident.Once)
    got = once.encode(asked)
    for name in ("tokens", "mask", "vector"):
        a, b = getattr(got, name), getattr(expected, name)
        assert a is b is None or (a.dtype == b.dtype and torch.equal(a, b))
    meta = resident.Once(reader, TEXTS, CPU)
    meta._every, meta.device = meta._every.to("meta"), torch.device("meta")
    assert meta.encode(asked).tokens.device.type == "meta"


def test_what_does_not_fit_stays_where_it_is(drawn_scenes, monkeypatch):
    reader = collect(drawn_scenes()).reader
    assert resident.room(CPU) == 0  # the shards are mapped into it
    assert resident.near(reader, CPU) is reader
    monkeypatch.setattr(resident, "room", lambda device: reader.bytes)
    assert resident.near(reader, CPU)._rows.arrays.keys() == {"regions/features", "regions/boxes"}
    monkeypatch.setattr(resident, "room", lambda device: reader.bytes - 1)
    assert resident.near(reader, CPU) is reader
