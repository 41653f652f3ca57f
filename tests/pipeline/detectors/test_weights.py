"""Files of weights: what is read, what is refused, and that nothing in them runs."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from cqr.errors import UserError
from cqr.pipeline.detectors.weights import fit, read

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, 2.0])}
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}


class Runs:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[n], STATE[n]) for n in STATE)


@pytest.mark.parametrize(
    "content", [STATE, {"model": STATE, "iteration": 3}, {"state_dict": STATE}]
)
@pytest.mark.parametrize("suffix", ["pth", "pt", "pkl"])
def test_torch_files(tmp_path, content, suffix):
    path = tmp_path / f"w.{suffix}"
    torch.save(content, path)
    assert same(read(path))


def test_safetensors(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(STATE, path)
    assert same(read(path))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_as_in_the_model_zoo(tmp_path, protocol):
    path = tmp_path / "w.pkl"
    zoo = {"model": OrderedDict(ARRAYS), "__author__": "Zoo", "n": np.float32(1)}
    path.write_bytes(pickle.dumps(zoo, protocol))
    assert same(read(path))


def test_names_under_distributed_data_parallel(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({f"module.{n}": t for n, t in STATE.items()}, path)
    assert same(read(path))


@pytest.mark.parametrize("save", [torch.save, lambda c, p: p.write_bytes(pickle.dumps(c, 2))])
@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_nothing_in_a_file_runs(tmp_path, save, suffix):
    path, trace = tmp_path / f"w.{suffix}", tmp_path / "ran"
    save({"model": STATE, "x": Runs(trace)}, path)
    with pytest.raises(UserError, match="more than tensors"):
        read(path)
    assert not trace.exists()


def test_a_file_that_is_absent_or_no_table(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; check --weights"):
        read(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path)
    for content in ([1, 2], {}, torch.zeros(2)):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UserError, match="no table of tensors"):
            read(tmp_path / "w.pth")
    torch.save({"a": torch.zeros(1), "b": 3}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="int where the tensor b is expected"):
        read(tmp_path / "w.pth")


def test_a_length_beyond_all_memory_is_damage_and_no_scarcity(tmp_path):
    whole = pickle.dumps({"model": ARRAYS}, protocol=4)
    (tmp_path / "w.pkl").write_bytes(whole[:10] + b"\x01")  # a frame of 72 petabytes
    with pytest.raises(UserError, match="it is damaged"):
        read(tmp_path / "w.pkl")


def test_damage_that_ends_a_pickle_early_leaves_no_table(tmp_path):
    whole = pickle.dumps({"model": ARRAYS})
    (tmp_path / "w.pkl").write_bytes(whole[:127] + b".")
    with pytest.raises(UserError, match="holds no table of tensors; give another file with --w"):
        read(tmp_path / "w.pkl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from(["pth", "pkl", "safetensors"]))
def test_damage_is_one_sentence(tmp_path, data, suffix):
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        whole = safetensors.torch.save(STATE)
    elif suffix == "pkl":
        whole = pickle.dumps({"model": ARRAYS})
    else:
        torch.save(STATE, path)
        whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(max_size=8))
    path.write_bytes(whole[:cut] + junk)
    sentence = ""
    try:
        state = read(path)
    except UserError as error:
        sentence = str(error)
    if sentence:  # or it ends early, as a whole file of something else
        said = (f"cannot read weights from {path}: ", f"{path} holds ")
        assert sentence.startswith(said)
        assert "--weights" in sentence
    else:  # bytes were replaced by as many, which no format here tells
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_fit_takes_all_that_the_network_needs(tmp_path):
    network = nn.ModuleDict({"a": nn.Linear(3, 2)})
    fit(network, {**STATE, "mask_head.weight": torch.zeros(9)}, tmp_path / "w.pth", "net")
    assert same(network.state_dict())


def test_a_counter_of_training_may_be_missing(tmp_path):
    frozen = {n: torch.ones(2) for n in ("weight", "bias", "running_mean", "running_var")}
    fit(nn.BatchNorm2d(2), frozen, tmp_path / "w.pth", "net")


def test_other_networks_weights_are_one_sentence(tmp_path):
    path = tmp_path / "w.pth"
    network = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(1, 1)})
    with pytest.raises(UserError, match=r"not those of net: 2 of 4 .*\(b\.weight is missing\)"):
        fit(network, STATE, path, "net")
    with pytest.raises(UserError, match=r"1 of 2 .*\(a\.weight is 2x3, not 2x4\)"):
        fit(nn.ModuleDict({"a": nn.Linear(4, 2)}), STATE, path, "net")
