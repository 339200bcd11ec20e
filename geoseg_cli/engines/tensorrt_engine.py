"""Run a bundle's exported graph with TensorRT, through ONNX Runtime. Not measured on a GPU; never chosen unasked."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from geoseg_cli.ahead import usable_cores
from geoseg_cli.arrays import NUMPY
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.devices import CudaProbe, device_number
from geoseg_cli.engines.finite import recompute_not_finite
from geoseg_cli.engines.graph import check_contract, read_graph, tensor_names
from geoseg_cli.engines.onnx_engine import IDENTITY_GRAPH, OnnxEngine
from geoseg_cli.engines.onnx_session import (
    CPU,
    TENSORRT_NAME,
    CudaSession,
    Provider,
    cuda_provider,
    describe,
    open_session,
)
from geoseg_cli.errors import EngineError

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FloatArray = npt.NDArray[np.float32]

_BATCH_TILES: Final = 8
_PRECISIONS: Final = ("fp16", "fp32")


class TensorRtEngine:
    """The graph ``model.onnx`` of a bundle in TensorRT; what that does not know runs in ONNX Runtime's CUDA kernels.

    TensorRT builds a program for one shape, which can take minutes, so all batches run in the shape of the first one.
    Nothing of it is kept on disk: such a file would be a program that the next run trusts.

    Args:
        bundle: Whose graph to run.
        device: ``cuda:N``.
        precision: ``auto``, which is fp16, or ``fp16`` or ``fp32``.
        threads: Processor threads; 0 is as many as the cores this process may use.

    Raises:
        EngineError: TensorRT, the device or the precision does not run here.
        ModelError: The bundle has no graph, or it does not fit the card.
    """

    name = "tensorrt"
    arrays = NUMPY
    batch_tiles = _BATCH_TILES

    def __init__(self, bundle: Bundle, device: str, precision: str = "auto", threads: int = 0) -> None:
        if device == "cpu":
            raise EngineError("the tensorrt engine runs on CUDA devices only", "use --engine onnx, or --device cuda")
        self.precision = _choose_precision(precision)
        self.device = device
        self._bundle, self._threads = bundle, threads
        self._classes = len(bundle.legend.classes)
        self._exact: OnnxEngine | None = None
        _prepare()
        self._session: CudaSession | None = CudaSession(
            read_graph(bundle), device, _providers(device, self.precision), threads or usable_cores(),
            tensor_names(bundle), has_one_shape=True,
        )  # fmt: skip
        tensors = self._session.get_inputs(), self._session.get_outputs()
        if not check_contract(bundle, *map(describe, tensors)).is_free:
            raise EngineError("the tensorrt engine runs graphs of free size only", "use --device cpu")

    def run(self, pixels: FloatArray) -> FloatArray:
        """Run the graph; arrays as :meth:`geoseg_cli.engines.Engine.run`.

        In fp16 a tile whose logits are not all finite is computed again in fp32, without TensorRT.

        Raises:
            EngineError: The runtime failed, or one tile alone does not fit into the device's memory.
        """
        assert self._session is not None, "a closed engine was run"
        logits: FloatArray = NUMPY.empty((len(pixels), self._classes, *pixels.shape[2:]))
        self._session.run(pixels, logits)
        if self.precision != "fp32":
            recompute_not_finite(logits, pixels, self._run_in_fp32)
        return logits

    def close(self) -> None:
        """Free the device."""
        if self._exact is not None:
            self._exact.close()
        self._session = None

    def _run_in_fp32(self, pixels: FloatArray) -> FloatArray:
        if self._exact is None:
            self._exact = OnnxEngine(self._bundle, self.device, "fp32", self._threads)
        return self._exact.run(pixels)


def find_cuda_obstacle(probe: CudaProbe) -> str:
    """Tell why TensorRT cannot use the CUDA devices of this machine; empty where it can."""
    if not probe.works:
        return probe.reason
    if TENSORRT_NAME not in onnxruntime.get_available_providers():
        return "this onnxruntime has no TensorRT; pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    _prepare()
    try:
        open_session(IDENTITY_GRAPH, "cuda:0", _providers("cuda:0", "fp32"), 1)
    except EngineError as error:
        return f"{error.message}; {error.hint}"
    return ""


def _choose_precision(precision: str) -> str:
    if precision == "auto":
        return "fp16"
    if precision not in _PRECISIONS:
        raise EngineError(
            f"the tensorrt engine runs {' and '.join(_PRECISIONS)}, not {precision}", "use another --precision"
        )
    return precision


def _providers(device: str, precision: str) -> list[Provider]:
    options = {
        "device_id": str(device_number(device)),
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_layer_norm_fp32_fallback": "1",
        "trt_engine_cache_enable": "0",
    }
    return [(TENSORRT_NAME, options), cuda_provider(device), CPU]


def _prepare() -> None:
    """Load TensorRT's libraries where they lie in a Python package, and keep fp32 from TF32's 10 bits.

    The provider has no option for the latter (onnxruntime issue 26029); the variable counts until the first session.
    """
    os.putenv("NVIDIA_TF32_OVERRIDE", "0")
    with contextlib.suppress(ImportError):  # they may lie among those of the system
        importlib.import_module("tensorrt")


if TYPE_CHECKING:
    _fits: type[Engine] = TensorRtEngine
