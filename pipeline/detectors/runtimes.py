"""What computes a detector's network: PyTorch as it is; on a CPU a library for inference alone; on
a GPU PyTorch in 16 bits.

PyTorch is the oracle: a network that another library computes is held against it before the first
picture.  What is not a network's (selection, pooling over boxes) stays PyTorch's, in 32 bits.
"""

import functools
import importlib
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cqr.errors import UserError

TORCH, FP16 = "torch", "fp16"

PACKAGES = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx")}
"""What the other runtimes are, the fastest first: the packages that each needs."""

EXTRAS = {"openvino": "cpu", "onnxruntime": "onnx"}
"""The extra of this package that brings them."""

RUNTIMES = (TORCH, *PACKAGES, FP16)

HALF = torch.float16
"""Not bfloat16, which is as fast: in that nearly half of the features of EfficientNet-Lite0 have a
cosine of less than 0.999 to those of 32 bits, in float16 none (docs/performance.md)."""

TOLERANCE = 1e-3
"""Of what a network gives, over its largest value: more than this from PyTorch is another network.
4e-6 has been seen."""

FEW = 256
"""For fewer pictures `auto` is PyTorch: each worker would convert a network, which takes 2 s."""

SHAPES = 32
"""So many compiled networks are kept, one for each size of picture; each copies the weights."""

Arrays = list[NDArray[np.float32]]
Network = Callable[[Tensor], tuple[Tensor, ...]]
"""B x C x H x W to one or more tensors of B rows."""

Convert = Callable[[nn.Module, tuple[int, int, int]], Network]
"""A module that gives tuples of tensors, and the C x H x W to try it with, to what replaces it."""


class Halvable(Protocol):
    """A `regional.Encoder` whose network can compute in 16 bits."""

    device: torch.device

    def in_16_bits(self) -> None:
        """Have what is most of the network's work computed by `sixteen`, from now on."""
        ...


class Convertible(Protocol):
    """A `regional.Backend` whose network another runtime can compute."""

    identity: dict[str, Any]
    device: torch.device

    def convert(self, convert: Convert) -> None:
        """Have the network computed by what `convert` makes of it, from now on."""
        ...


def settled(asked: str, detector: Any, pictures: int, begun: Mapping[str, Any] | None) -> str:
    """The runtime that an extraction takes.

    Args:
        asked: "auto" or one of RUNTIMES.
        detector: a `Detector` on PyTorch.
        pictures: how many there are.
        begun: the identity of the detector in the file that is continued; None for a new file.

    Raises:
        UserError: no such runtime.
    """
    if asked in RUNTIMES:
        return asked
    if asked != "auto":
        raise UserError(
            f"no runtime is named {asked}; choose --runtime from auto, {', '.join(RUNTIMES)}"
        )
    backend = _convertible(detector)
    if backend is None or backend.device.type != "cpu":
        return TORCH
    if begun is not None:
        return str(begun.get("runtime", TORCH))
    if pictures < FEW:
        return TORCH
    return next((name for name in PACKAGES if not _absent(name)), TORCH)


def run_by(runtime: str, detector: Any) -> None:
    """Have a detector's network computed by a runtime; its identity says so.

    Raises:
        UserError: it is not installed, or cannot be used for this detector or device.
    """
    if runtime == TORCH:
        return
    if runtime == FP16:
        _in_16_bits(detector)
        return
    backend = _convertible(detector)
    if backend is None:
        raise UserError(_cannot(runtime, detector))
    if backend.device.type != "cpu":
        raise UserError(
            f"--runtime {runtime} runs on a CPU, not on {backend.device}: add --device cpu, or"
            f" leave it out"
        )
    if missing := _absent(runtime):
        raise UserError(
            f"--runtime {runtime} needs {missing}, which cannot be imported here:"
            f" pip install 'cqr[{EXTRAS[runtime]}]'"
        )
    backend.convert(functools.partial(_Converted, runtime))
    detector.identity["runtime"] = runtime


def _in_16_bits(detector: Any) -> None:
    backend: Any = getattr(detector, "backend", None)
    if getattr(backend, "in_16_bits", None) is None:
        raise UserError(_cannot(FP16, detector))
    if backend.device.type == "cpu":
        raise UserError(f"--runtime {FP16} runs on a GPU, not on a CPU: leave it out")
    halve(detector)


def halve(detector: Any) -> None:
    """Have a `RegionDetector` compute in 16 bits; its identity says so."""
    parts: list[Halvable] = [detector.backend]
    if detector.describer is not None:
        parts.append(detector.describer.encoder)
    for part in parts:
        part.in_16_bits()
    detector.identity["runtime"] = FP16


def sixteen(forward: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """A part of a network, computed in HALF; what it gives is float32 again."""

    @functools.wraps(forward)
    def run(*arguments: Any) -> Any:
        with torch.autocast(device.type, HALF):
            found = forward(*arguments)
        if isinstance(found, Mapping):
            return {name: part.float() for name, part in found.items()}
        return found.float()

    return run


def _cannot(runtime: str, detector: Any) -> str:
    name = "/".join(filter(None, map(detector.identity.get, ("name", "config"))))
    return f"--runtime {runtime} cannot run {name}, torch alone can: leave it out"


def _convertible(detector: Any) -> Convertible | None:
    backend = getattr(detector, "backend", None)
    return backend if getattr(backend, "convert", None) is not None else None


def _absent(runtime: str) -> str:
    """The package that a runtime lacks, or ""."""
    for package in PACKAGES[runtime]:
        try:
            importlib.import_module(package)
        except Exception:  # also one that is there, and for another machine
            return package
    return ""


class _Converted:
    """A module as a runtime computes it; converted at the first picture, since loading is for all.

    A picture at a time: on one core a batch is no faster, and what is in it changes no number.
    """

    def __init__(self, runtime: str, module: nn.Module, shape: tuple[int, int, int]) -> None:
        self._runtime, self._module, self._shape = runtime, module.eval(), shape
        self._run: Callable[[NDArray[np.float32]], Arrays] | None = None

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        if self._run is None:
            self._run = self._checked()
        each = [self._run(picture[None].contiguous().numpy()) for picture in batch]
        return tuple(torch.from_numpy(np.concatenate(rows)) for rows in zip(*each, strict=True))

    def _checked(self) -> Callable[[NDArray[np.float32]], Arrays]:
        random = torch.Generator().manual_seed(0)
        example = torch.rand(1, *self._shape, generator=random) * 255
        convert = {"openvino": _openvino, "onnxruntime": _onnxruntime}[self._runtime]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch: tracing is on its way out
            run = convert(self._module, example)
        for found, expected in zip(run(example.numpy()), self._module(example), strict=True):
            off = float((torch.from_numpy(found) - expected).abs().max())
            if not off <= TOLERANCE * max(1.0, float(expected.abs().max())):
                raise UserError(
                    f"{self._runtime} computes other numbers than torch on this machine ({off:.2g}"
                    f" apart): say --runtime torch"
                )
        return run


@functools.cache
def _openvino_core() -> Any:
    """One for the life of the process.

    OpenVINO gives signals a stack of the core's own.  Of two cores, the one that ends last brings
    back the stack of the other, which may be gone: the next Ctrl-C then kills the process (2026.4).
    """
    import openvino

    return openvino.Core()


def _openvino(module: nn.Module, example: Tensor) -> Callable[[NDArray[np.float32]], Arrays]:
    """By OpenVINO, compiled for each size of picture.

    Its front end is called here, not its `convert_model`: that reports each call to its makers.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    traced = torch.jit.freeze(torch.jit.trace(module, example, check_trace=False))
    front = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # the front end does not hold it: we must
    loaded = front.load(decoder)
    (place,) = loaded.get_inputs()
    loaded.set_element_type(place, openvino.Type.f32)
    loaded.set_partial_shape(place, openvino.PartialShape([1, example.shape[1], -1, -1]))
    model = front.convert(loaded)
    core = _openvino_core()
    exact = {
        "INFERENCE_NUM_THREADS": 1,  # cores are shared out by workers
        "INFERENCE_PRECISION_HINT": "f32",  # else 16 bits, where the core has them
    }

    @functools.lru_cache(SHAPES)
    def compiled(shape: tuple[int, ...]) -> Any:
        of_shape = model.clone()
        of_shape.reshape(list(shape))
        return core.compile_model(of_shape, "CPU", exact)

    def run(picture: NDArray[np.float32]) -> Arrays:
        return list(compiled(picture.shape)(picture).values())

    return run


def _onnxruntime(module: nn.Module, example: Tensor) -> Callable[[NDArray[np.float32]], Arrays]:
    import onnxruntime

    free = {"x": {2: "height", 3: "width"}}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as above
    with tempfile.TemporaryDirectory() as scratch:
        file = str(Path(scratch, "network.onnx"))
        torch.onnx.export(
            module, (example,), file, dynamo=False, input_names=["x"], dynamic_axes=free
        )
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(picture: NDArray[np.float32]) -> Arrays:
        return list(session.run(None, {"x": picture}))

    return run
