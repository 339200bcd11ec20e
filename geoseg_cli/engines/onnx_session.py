"""Sessions of ONNX Runtime: how they are opened, what their errors mean, and how they run batches on a CUDA device."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from geoseg_cli.engines.devices import device_number
from geoseg_cli.engines.graph import GraphTensor
from geoseg_cli.errors import EngineError, ModelError

FloatArray = npt.NDArray[np.float32]
Provider = tuple[str, dict[str, str]]

CPU: Final[Provider] = ("CPUExecutionProvider", {})
CUDA_NAME: Final = "CUDAExecutionProvider"
TENSORRT_NAME: Final = "TensorrtExecutionProvider"
_ONLY_ERRORS: Final = 3
# ONNX Runtime has no class of error for it (onnxruntime issue 16307).
_OUT_OF_MEMORY: Final = ("failed to allocate memory", "out of memory", "bfc_arena")


class CudaSession:
    """A graph on a CUDA device. Batches run whole; one that does not fit into the memory is halved from then on.

    Args:
        content: The ONNX file.
        device: ``cuda:N``.
        providers: What runs the graph, the first of them most of it.
        threads: Processor threads.
        names: Names of the graph's input and output.
        has_one_shape: Run each batch in the size of the first one, filled up with zeros, because a graph is built for
            each shape.

    Raises:
        EngineError: The first provider does not run here.
    """

    def __init__(
        self,
        content: bytes,
        device: str,
        providers: Sequence[Provider],
        threads: int,
        names: tuple[str, str],
        has_one_shape: bool = False,
    ) -> None:
        self._content, self._device, self._providers, self._threads = content, device, providers, threads
        self._input, self._output = names
        self._has_one_shape = has_one_shape
        self._limit = 0
        self._session = self._open()

    def get_inputs(self) -> list[Any]:
        """What the runtime says of the graph's inputs."""
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        """What the runtime says of the graph's outputs."""
        return list(self._session.get_outputs())

    def run(self, pixels: FloatArray, logits: FloatArray) -> None:
        """Run (N, C, H, W) ``pixels`` into (N, K, H, W) ``logits``.

        Raises:
            EngineError: The runtime failed, or one tile alone does not fit into the device's memory.
        """
        if self._has_one_shape and not self._limit:
            self._limit = len(pixels)
        start = 0
        while start < len(pixels):
            part = pixels[start : start + (self._limit or len(pixels))]
            filled = self._fill(part)
            try:
                self._run_part(filled, logits[start : start + len(part)])
                start += len(part)
                continue
            except Exception as error:  # ONNX Runtime's errors have no common class below Exception
                self._limit = _halve_batch(filled.shape, error)
            # The arena keeps what it took; only a new session gives it back, and only after the error is gone, whose
            # traceback holds the old one.
            self._session = None
            self._session = self._open()

    def _fill(self, part: FloatArray) -> FloatArray:
        missing = self._limit - len(part) if self._has_one_shape else 0
        return np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.float32)]) if missing else part

    def _run_part(self, pixels: FloatArray, logits: FloatArray) -> None:
        """Run one part of a batch with input and output held on the device; ``logits`` may hold fewer tiles."""
        number = device_number(self._device)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, onnxruntime.OrtValue.ortvalue_from_numpy(pixels, "cuda", number))
        shape = (len(pixels), *logits.shape[1:])
        answer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", number)
        binding.bind_ortvalue_output(self._output, answer)
        self._session.run_with_iobinding(binding)
        logits[...] = answer.numpy()[: len(logits)]

    def _open(self) -> Any:
        return open_session(self._content, self._device, self._providers, self._threads)


def open_session(content: bytes, device: str, providers: Sequence[Provider], threads: int) -> Any:
    """Open a session of which the first provider runs.

    Args:
        content: The ONNX file.
        device: ``cpu`` or ``cuda:N``, for words.
        providers: What runs the graph, the first of them most of it.
        threads: Processor threads.

    Raises:
        EngineError: The first provider does not run on a CUDA device.
        ModelError: The runtime refuses the graph on a CPU.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    options.intra_op_num_threads = threads
    complaints = "" if device == "cpu" else _preload_cuda()
    try:
        # Its fallback prints to standard output and goes on with another provider than was asked for.
        session = onnxruntime.InferenceSession(content, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # as above
        if device != "cpu":
            raise _refuse_cuda(device, providers[0][0], first_line(error)) from error
        raise ModelError(f"ONNX Runtime refuses the graph: {first_line(error)}", "export the bundle again") from error
    # On trouble with CUDA the runtime falls back to the CPU without an error, and with TensorRT to CUDA.
    if device != "cpu" and session.get_providers()[0] != providers[0][0]:
        raise _refuse_cuda(device, providers[0][0], complaints or "libraries do not load")
    return session


def cuda_provider(device: str) -> Provider:
    """ONNX Runtime's own kernels on ``cuda:N``, in fp32."""
    options = {
        "device_id": str(device_number(device)),
        "arena_extend_strategy": "kSameAsRequested",
        # An exhaustive search costs seconds for every new shape of a batch.
        "cudnn_conv_algo_search": "HEURISTIC",
        # TF32 keeps 10 bits of fp32's 23.
        "use_tf32": "0",
    }
    return CUDA_NAME, options


def describe(tensors: list[Any]) -> list[GraphTensor]:
    """What the runtime says of a graph's inputs or outputs.

    Raises:
        ModelError: A name is no text.
    """
    try:
        return [GraphTensor(tensor.name, tensor.type, tuple(tensor.shape)) for tensor in tensors]
    except UnicodeDecodeError as error:
        raise ModelError("the graph's names are no text", "restore the bundle, or export it again") from error


def translate(error: Exception) -> EngineError:
    """The error of geoseg for one that running a session raised."""
    return EngineError(f"ONNX Runtime failed: {first_line(error)}", "use --engine torch, or a smaller --tile")


def first_line(error: Exception) -> str:
    """What an error says, without the stack that some append."""
    return str(error).strip().split("\n", 1)[0]


def _preload_cuda() -> str:
    """Load the CUDA libraries that lie in Python packages; returns what ONNX Runtime printed about those missing."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        onnxruntime.preload_dlls()
    return " ".join(printed.getvalue().split())


def _refuse_cuda(device: str, provider: str, reason: str) -> EngineError:
    if provider == TENSORRT_NAME:
        return EngineError(
            f"TensorRT does not run on {device}: {reason}",
            "install the TensorRT and CUDA versions that onnxruntime-gpu names, or use --engine onnx",
        )
    return EngineError(
        f"ONNX Runtime does not run on {device}: {reason}",
        "install the CUDA and cuDNN versions that onnxruntime-gpu names, or use --device cpu",
    )


def _halve_batch(shape: tuple[int, ...], error: Exception) -> int:
    """Half of a batch that did not fit; raises EngineError if it was one tile, or if memory was not the trouble."""
    if not any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
        raise translate(error) from error
    if shape[0] > 1:
        return shape[0] // 2
    raise EngineError(
        f"one tile of {shape[1:]} does not fit into the memory of the device: {first_line(error)}",
        "use a smaller --tile, or --device cpu",
    ) from error
