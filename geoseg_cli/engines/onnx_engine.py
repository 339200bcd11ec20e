"""Run a bundle's exported graph with ONNX Runtime."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from geoseg_cli.ahead import usable_cores
from geoseg_cli.arrays import NUMPY
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.engines.finite import recompute_not_finite
from geoseg_cli.engines.graph import check_answer, check_contract, read_graph, tensor_names
from geoseg_cli.engines.onnx_session import (
    CPU,
    CUDA_NAME,
    CudaSession,
    cuda_provider,
    describe,
    open_session,
    translate,
)
from geoseg_cli.errors import EngineError

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FloatArray = npt.NDArray[np.float32]

_MOST_TILES_AT_ONCE = 8
_CUDA_BATCH_TILES = 16
IDENTITY_GRAPH: Final = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02"
    "080142040a00100d"
)
"""y = Identity(x) for one float; ONNX IR 8, opset 13. Only a session shows whether CUDA loads."""


class OnnxEngine:
    """A graph of a bundle as it was exported: ``model.onnx`` in fp32, or the one that was quantised to int8.

    On a CPU several tiles run at the same time, each for itself, so a tile's answer depends neither on its batch nor
    on the number of threads. On CUDA a batch runs whole and is halved when memory runs out.

    The graph must be one file with operators of ONNX Runtime itself; see :mod:`geoseg_cli.engines.onnx_scan`.

    Args:
        bundle: Whose graph to run.
        device: ``cpu`` or ``cuda:N``.
        precision: ``auto``, which is fp32, or ``fp32``, or on a CPU ``int8``.
        threads: Processor threads; 0 is as many as the cores this process may use.

    Raises:
        EngineError: The device or precision does not run here.
        ModelError: The bundle has no such graph, or it does not fit the card.
    """

    name = "onnx"
    arrays = NUMPY

    def __init__(self, bundle: Bundle, device: str = "cpu", precision: str = "auto", threads: int = 0) -> None:
        self.precision = _choose_precision(precision, device)
        self._asked_threads = threads
        threads = threads or usable_cores()
        self.device = device
        self.batch_tiles = min(threads, _MOST_TILES_AT_ONCE) if device == "cpu" else _CUDA_BATCH_TILES
        self._input, self._output = names = tensor_names(bundle)
        self._classes = len(bundle.legend.classes)
        self._exact: OnnxEngine | None = None
        self._bundle = bundle
        content = read_graph(bundle, self.precision)
        self._pool = ThreadPoolExecutor(self.batch_tiles, "geoseg-onnx") if device == "cpu" else None
        self._session: Any
        if device == "cpu":
            self._session = open_session(content, device, [CPU], max(1, threads // self.batch_tiles))
        else:
            self._session = CudaSession(content, device, [cuda_provider(device), CPU], threads, names)
        self._size = check_contract(bundle, *map(describe, (self._session.get_inputs(), self._session.get_outputs())))
        if device != "cpu" and not self._size.is_free:
            raise EngineError(f"on {device} the onnx engine runs graphs of free size only", "use --device cpu")

    def run(self, pixels: FloatArray) -> FloatArray:
        """Run the graph; arrays as :meth:`geoseg_cli.engines.Engine.run`.

        In int8 a tile whose logits are not all finite is computed again in fp32.

        Raises:
            EngineError: The runtime failed, or one tile alone does not fit into the device's memory.
        """
        assert self._session is not None, "a closed engine was run"
        logits: FloatArray = NUMPY.empty((len(pixels), self._classes, *pixels.shape[2:]))
        if self._pool is None:
            self._session.run(pixels, logits)
        elif len(pixels) == 1:
            self._run_tile(pixels, logits, 0)
        else:
            list(self._pool.map(lambda tile: self._run_tile(pixels, logits, tile), range(len(pixels))))
        if self.precision == "int8":
            recompute_not_finite(logits, pixels, self._run_in_fp32)
        return logits

    def close(self) -> None:
        """Free the session and its threads."""
        if self._exact is not None:
            self._exact.close()
        self._session = None
        if self._pool is not None:
            self._pool.shutdown()

    @property
    def fingerprint(self) -> str:
        """What the digits of its answers depend on besides graph and precision."""
        # ONNX Runtime does not tell which instructions it takes; the machine stands for its processor.
        return f"onnxruntime {onnxruntime.__version__} on {platform.node()} ({platform.machine()})"

    def _run_in_fp32(self, pixels: FloatArray) -> FloatArray:
        if self._exact is None:
            self._exact = OnnxEngine(self._bundle, self.device, "fp32", self._asked_threads)
        return self._exact.run(pixels)

    def _run_tile(self, pixels: FloatArray, logits: FloatArray, tile: int) -> None:
        one = self._size.fit(pixels[tile : tile + 1], f"bundle {self._bundle.name}: the graph")
        try:
            answer = self._session.run([self._output], {self._input: one})[0]
        except Exception as error:  # ONNX Runtime's errors have no common class below Exception
            raise translate(error) from error
        check_answer(self._bundle, answer, (len(one), self._classes, *one.shape[2:]))
        logits[tile] = answer[0, :, : pixels.shape[2], : pixels.shape[3]]


def find_cuda_obstacle(probe: CudaProbe) -> str:
    """Tell why ONNX Runtime cannot use the CUDA devices of this machine; empty where it can."""
    if not probe.works:
        return probe.reason
    if CUDA_NAME not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA; pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    try:
        open_session(IDENTITY_GRAPH, "cuda:0", [cuda_provider("cuda:0"), CPU], 1)
    except EngineError as error:
        return f"{error.message}; {error.hint}"
    return ""


def _choose_precision(precision: str, device: str) -> str:
    if precision == "int8" and device != "cpu":
        raise EngineError(f"int8 runs on CPUs, not on {device}", "use --device cpu, or --precision fp16")
    if precision not in ("auto", "fp32", "int8"):
        raise EngineError(
            f"the onnx engine runs fp32 and int8, not {precision}", "use --engine torch, or --precision fp32"
        )
    return "fp32" if precision == "auto" else precision


if TYPE_CHECKING:
    _fits: type[Engine] = OnnxEngine
