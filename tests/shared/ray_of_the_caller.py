"""Run by a test: extractions on a Ray that is there already, being the caller's, which stays.

In a process of its own, since Ray ends the process that it was started from when one of its own
programs dies.
"""

import sys
from pathlib import Path
from unittest import mock

import pytest
import ray

from cqr.errors import UserError
from cqr.pipeline import extract as module
from cqr.pipeline.extract import Job, extract

sys.path.insert(0, str(Path(__file__).parent))
from fake_detector import FakeSpec
from ray_extraction import files, same_plan


class Elsewhere(FakeSpec):
    """Cannot be unpickled, as on a machine that has another cqr."""

    def __reduce__(self):
        return int, ("a spec",)


def job(out: str, engine: str, **changes) -> Job:
    settings = {"detector": FakeSpec(), "shard": 5, "workers": 1, **changes}
    return Job(Path("pictures"), Path(out) / "x.h5", 18, engine=engine, **settings)


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        extract(job)
    assert type(caught.value) is UserError
    return str(caught.value)


def main() -> None:
    """Of `pictures`, 12 of which one is no picture, in the working folder."""
    plain, by_ray = job("plain", "local"), job("ray", "ray")
    extract(plain)
    same_plan(plain.out, by_ray.out)
    ray.init(
        "local", num_cpus=1, num_gpus=0, include_dashboard=False, object_store_memory=100 << 20
    )
    summary = extract(by_ray)
    assert (summary.rows, summary.computed, len(summary.failures)) == (11, 12, 1)
    assert summary.times.detect > 0
    assert files(by_ray.out) == files(plain.out)
    assert len(files(by_ray.out)) == 4
    assert extract(by_ray).kept == 12

    broken = FakeSpec(config="memory")
    message = refusal(job("memory", "ray", detector=broken))
    assert message.startswith("memory or the device gave out at p001.png (cannot allocate); ")
    assert message == refusal(job("memory-too", "local", detector=broken))

    message = refusal(job("absent", "ray", detector=Elsewhere()))
    assert message == (
        "a worker of Ray cannot start (ValueError: invalid literal for int() with base 10:"
        " 'a spec'); install the same cqr and Ray on every machine"
    ), message

    with mock.patch.object(module, "_devices", return_value=["cuda:0"]):
        message = refusal(job("gpu", "ray"))
    assert message == (
        "the machines of this Ray have no GPU to give; add one that has, or choose another --device"
    ), message
    assert ray.is_initialized()
    ray.shutdown()


if __name__ == "__main__":
    main()
