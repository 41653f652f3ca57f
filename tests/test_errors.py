"""What is said of errors that are not ours, and of devices that are not there."""

import pytest
import torch

from cqr.errors import UserError, reason
from cqr.machine import device_name, find_device
from cqr.trainer.training import checkpoint


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n  \nthird line"), "third line"),
        (MemoryError(), "MemoryError"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_the_reason_is_a_line_even_of_an_error_without_text(error, said):
    assert reason(error) == said


def test_a_device_is_found_by_its_name_or_refused_in_a_sentence():
    assert find_device("cpu") == torch.device("cpu")
    assert device_name(torch.device("cpu")) == "CPU"
    for name in ("cuda:99", "meta", "abacus"):
        with pytest.raises(UserError, match="try --device cpu"):
            find_device(name)


def test_a_checkpoint_that_does_not_fit_into_memory_is_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.save(path, checkpoint.Progress(epoch=1), model, optimizer)

    def full(path):
        raise MemoryError

    monkeypatch.setattr(checkpoint, "load_file", full)
    with pytest.raises(
        UserError, match=r"cannot read .*checkpoint.safetensors: there is not enough memory"
    ):
        checkpoint.load(path, model, optimizer)
