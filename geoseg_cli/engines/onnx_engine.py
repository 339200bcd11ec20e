"""Run a bundle's exported graph with ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import platform
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from geoseg_cli.ahead import usable_cores
from geoseg_cli.arrays import NUMPY
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.devices import CudaProbe, device_number
from geoseg_cli.engines.finite import recompute_not_finite
from geoseg_cli.engines.graph import GraphTensor, check_answer, check_contract, read_graph, tensor_names
from geoseg_cli.errors import EngineError, ModelError

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FloatArray = npt.NDArray[np.float32]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ONLY_ERRORS = 3
_MOST_TILES_AT_ONCE = 8
_CUDA_BATCH_TILES = 16
# ONNX Runtime has no class of error for it (onnxruntime issue 16307).
_OUT_OF_MEMORY = ("failed to allocate memory", "out of memory", "bfc_arena")
# y = Identity(x) for one float; ONNX IR 8, opset 13. Only a session shows whether CUDA loads.
_IDENTITY_GRAPH = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02"
    "080142040a00100d"
)


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
        self._input, self._output = tensor_names(bundle)
        self._classes = len(bundle.legend.classes)
        self._content = read_graph(bundle, self.precision)
        self._threads = max(1, threads // self.batch_tiles) if device == "cpu" else threads
        self._pool = ThreadPoolExecutor(self.batch_tiles, "geoseg-onnx") if device == "cpu" else None
        self._limit = 0
        self._exact: OnnxEngine | None = None
        self._session: Any = self._open_session()
        self._bundle = bundle
        self._size = check_contract(bundle, *map(_describe, (self._session.get_inputs(), self._session.get_outputs())))
        if device != "cpu" and not self._size.is_free:
            raise EngineError(f"on {device} the onnx engine runs graphs of free size only", "use --device cpu")

    def run(self, pixels: FloatArray) -> FloatArray:
        """Run the graph; arrays as :meth:`geoseg_cli.engines.Engine.run`.

        In int8 a tile whose logits are not all finite is computed again in fp32.

        Raises:
            EngineError: The runtime failed, or one tile alone does not fit into the device's memory.
        """
        assert self._session is not None, "a closed engine was run"
        logits = np.empty((len(pixels), self._classes, *pixels.shape[2:]), np.float32)
        if self._pool is None:
            self._run_on_cuda(pixels, logits)
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
            raise _translate(error) from error
        check_answer(self._bundle, answer, (len(one), self._classes, *one.shape[2:]))
        logits[tile] = answer[0, :, : pixels.shape[2], : pixels.shape[3]]

    def _run_on_cuda(self, pixels: FloatArray, logits: FloatArray) -> None:
        start = 0
        while start < len(pixels):
            part = pixels[start : start + (self._limit or len(pixels))]
            try:
                self._run_part(part, logits[start : start + len(part)])
                start += len(part)
                continue
            except Exception as error:  # as above
                self._limit = _halve_batch(part.shape, error)
            # The arena keeps what it took; only a new session gives it back, and only after the error is gone, whose
            # traceback holds the old one.
            self._session = None
            self._session = self._open_session()

    def _run_part(self, pixels: FloatArray, logits: FloatArray) -> None:
        """Run one part of a batch with input and output held on the device."""
        number = device_number(self.device)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, onnxruntime.OrtValue.ortvalue_from_numpy(pixels, "cuda", number))
        answer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(logits.shape, np.float32, "cuda", number)
        binding.bind_ortvalue_output(self._output, answer)
        self._session.run_with_iobinding(binding)
        logits[...] = answer.numpy()

    def _open_session(self) -> Any:
        return _open_session(self._content, self.device, self._threads)


def find_cuda_obstacle(probe: CudaProbe) -> str:
    """Tell why ONNX Runtime cannot use the CUDA devices of this machine; empty where it can."""
    if not probe.works:
        return probe.reason
    if _CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA; pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    try:
        _open_session(_IDENTITY_GRAPH, "cuda:0", 1)
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


def _open_session(content: bytes, device: str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    options.intra_op_num_threads = threads
    complaints = "" if device == "cpu" else _preload_cuda()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=_providers(device))
    except Exception as error:  # as above
        if device != "cpu":
            raise _refuse_cuda(device, _first_line(error)) from error
        raise ModelError(f"ONNX Runtime refuses the graph: {_first_line(error)}", "export the bundle again") from error
    # On trouble with CUDA the runtime falls back to the CPU without an error.
    if device != "cpu" and session.get_providers()[0] != _CUDA:
        raise _refuse_cuda(device, complaints or "its CUDA libraries do not load")
    return session


def _refuse_cuda(device: str, reason: str) -> EngineError:
    return EngineError(
        f"ONNX Runtime does not run on {device}: {reason}",
        "install the CUDA and cuDNN versions that onnxruntime-gpu names, or use --device cpu",
    )


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return [_CPU]
    options = {
        "device_id": str(device_number(device)),
        "arena_extend_strategy": "kSameAsRequested",
        # An exhaustive search costs seconds for every new shape of a batch.
        "cudnn_conv_algo_search": "HEURISTIC",
        # TF32 keeps 10 bits of fp32's 23.
        "use_tf32": "0",
    }
    return [(_CUDA, options), _CPU]


def _preload_cuda() -> str:
    """Load the CUDA libraries that lie in Python packages; returns what ONNX Runtime printed about those missing."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        onnxruntime.preload_dlls()
    return " ".join(printed.getvalue().split())


def _describe(tensors: list[Any]) -> list[GraphTensor]:
    try:
        return [GraphTensor(tensor.name, tensor.type, tuple(tensor.shape)) for tensor in tensors]
    except UnicodeDecodeError as error:
        raise ModelError("the graph's names are no text", "restore the bundle, or export it again") from error


def _halve_batch(shape: tuple[int, ...], error: Exception) -> int:
    """Half of a batch that did not fit; raises EngineError if it was one tile, or if memory was not the trouble."""
    if not any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
        raise _translate(error) from error
    if shape[0] > 1:
        return shape[0] // 2
    raise EngineError(
        f"one tile of {shape[1:]} does not fit into the memory of the device: {_first_line(error)}",
        "use a smaller --tile, or --device cpu",
    ) from error


def _translate(error: Exception) -> EngineError:
    return EngineError(f"ONNX Runtime failed: {_first_line(error)}", "use --engine torch, or a smaller --tile")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


if TYPE_CHECKING:
    _fits: type[Engine] = OnnxEngine
