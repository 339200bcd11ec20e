"""Run a bundle's exported graph with OpenVINO."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.ahead import usable_cores
from geoseg_cli.arrays import NUMPY
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.engines.finite import recompute_not_finite
from geoseg_cli.engines.graph import FLOAT, GraphTensor, check_contract, graph_asset, read_graph, tensor_names
from geoseg_cli.engines.openvino_cache import CompiledGraphs
from geoseg_cli.engines.openvino_graph import (
    PRECISIONS,
    REWRITES,
    compile_for,
    describe_processor,
    has_bf16,
    openvino,
    read_model,
    settings_for,
)
from geoseg_cli.engines.prepared import NotPreparedError
from geoseg_cli.errors import EngineError

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FloatArray = npt.NDArray[np.float32]

_MOST_STREAMS = 32
_MOST_SHAPES = 4
_ONLY_CPU = "the openvino engine runs on CPUs only"


class OpenVinoEngine:
    """A graph of a bundle on a CPU: ``model.onnx`` in fp32 or bf16, or the one that was quantised to int8.

    As many tiles run at the same time as there are threads, each alone on one thread, so a tile's answer depends
    neither on its batch nor on the number of threads. The graph is compiled for every shape of a tile, and the last
    few are held; that takes most of a second, so the card's own tile is begun with at once, beside whatever the caller
    does before its first tile, and that one is kept in the user's cache folder for the next process, as is the first
    other one. To compile for bf16 the graph lies in a temporary folder for a moment. No other file is written and no
    connection opened.

    The graph must be one file with standard operators; see :mod:`geoseg_cli.engines.onnx_scan`.

    Args:
        bundle: Whose graph to run.
        device: ``cpu``.
        precision: ``auto``, which is fp32, or ``fp32``, ``bf16`` or ``int8``.
        threads: Processor threads; 0, or more than that, is as many as the cores this process may use.
        only_prepared: Whether not to be opened where the graph must be read and compiled.
        kept: Compiled graphs of earlier processes; those in the user's cache folder if not given.

    Raises:
        NotPreparedError: The graph must be compiled, and ``only_prepared``.
        EngineError: The device or precision does not run here, or OpenVINO cannot run the graph.
        ModelError: The bundle has no such graph, or it does not fit the card.
    """

    name = "openvino"
    arrays = NUMPY

    def __init__(
        self, bundle: Bundle, device: str = "cpu", precision: str = "auto", threads: int = 0,
        only_prepared: bool = False, kept: CompiledGraphs | None = None,
    ) -> None:  # fmt: skip
        if device != "cpu":
            raise EngineError(f"{_ONLY_CPU}, not on {device}", "use --device cpu, or --engine torch or onnx")
        self.device = device
        self.precision = _choose_precision(precision)
        self.batch_tiles = min(threads or usable_cores(), usable_cores(), _MOST_STREAMS)
        self._is_closed = False
        self._classes = len(bundle.legend.classes)
        self._bundle = bundle
        self._kept = CompiledGraphs() if kept is None else kept
        self._graphs: dict[str, Any] = {}
        self._queues: OrderedDict[tuple[str | int, ...], Future[Any]] = OrderedDict()
        bundle.file(graph_asset(self.precision))
        tile_px = bundle.card.extras.tile_px
        self._own_shape = (bundle.input_spec.channels, tile_px, tile_px)
        self._other_shape: tuple[int, ...] | None = None
        if not self._kept.has(self._key(self.precision, self._own_shape)):
            if only_prepared:
                raise NotPreparedError
            self._graph(self.precision)
        self._compiler = ThreadPoolExecutor(1, "geoseg-openvino")
        self._compile(self._own_shape, self.precision)

    def run(self, pixels: FloatArray) -> FloatArray:
        """Run the graph; arrays as :meth:`geoseg_cli.engines.Engine.run`.

        In bf16 and int8 a tile whose logits are not all finite is computed again in fp32.

        Raises:
            EngineError: OpenVINO failed.
        """
        logits = self._run(pixels, self.precision)
        if self.precision != "fp32":
            recompute_not_finite(logits, pixels, lambda tile: self._run(tile, "fp32"))
        return logits

    def close(self) -> None:
        """Free the compiled graphs."""
        self._is_closed = True
        self._compiler.shutdown(wait=False, cancel_futures=True)
        self._graphs.clear()
        self._queues.clear()

    @property
    def fingerprint(self) -> str:
        """What the digits of its answers depend on besides graph and precision."""
        return f"openvino {openvino.__version__}, rewriting {REWRITES}, on {describe_processor()}"

    def _run(self, pixels: FloatArray, precision: str) -> FloatArray:
        assert not self._is_closed, "a closed engine was run"
        logits: FloatArray = NUMPY.empty((len(pixels), self._classes, *pixels.shape[2:]))
        try:
            queue = self._compile(pixels.shape[1:], precision).result()
            _run_tiles(queue, np.require(pixels, np.float32, ["C", "W"]), logits)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO failed: {_last_line(error)}", "use --engine onnx or torch, or a smaller --tile"
            ) from error
        return logits

    def _compile(self, shape: tuple[int, ...], precision: str) -> Future[Any]:
        """Begin to compile the graph for tiles of (C, H, W), or find it compiled."""
        key: tuple[str | int, ...] = (precision, *shape)
        if key not in self._queues:
            if len(self._queues) == _MOST_SHAPES:
                self._queues.popitem(last=False)
            self._queues[key] = self._compiler.submit(self._queue, shape, precision)
        self._queues.move_to_end(key)
        return self._queues[key]

    def _queue(self, shape: tuple[int, ...], precision: str) -> Any:
        """As many requests as there are threads, of a graph that was kept or is compiled now.

        Kept are the card's own tile and the first other one: scenes smaller than a tile come in any shape.
        """
        if shape != self._own_shape and self._other_shape is None:
            self._other_shape = shape
        is_kept = shape in (self._own_shape, self._other_shape)
        settings, key = settings_for(precision, self.batch_tiles), self._key(precision, shape)
        compiled = self._kept.find(key, settings) if is_kept else None
        if compiled is None:
            compiled = compile_for(self._graph(precision), shape, settings)
            if is_kept and not self._is_closed:
                self._compiler.submit(self._kept.keep, key, compiled)
        return openvino.AsyncInferQueue(compiled, self.batch_tiles)

    def _key(self, precision: str, shape: tuple[int, ...]) -> list[object]:
        """All that a kept graph depends on: the file, what the card wants of it, the tile, the processor."""
        return [self._bundle.sha256(graph_asset(precision)), *tensor_names(self._bundle), self._classes,
                *shape, precision, self.batch_tiles, REWRITES, describe_processor()]  # fmt: skip

    def _graph(self, precision: str) -> Any:
        """The graph for a precision; that of fp32 beside int8 is read when a tile needs it."""
        asset = graph_asset(precision)
        if asset not in self._graphs:
            self._graphs[asset] = _open_graph(self._bundle, precision)
        return self._graphs[asset]


def find_cuda_obstacle(probe: CudaProbe) -> str:
    """Tell why OpenVINO does not run on CUDA: the machine has none, or it never does."""
    return probe.reason or _ONLY_CPU


def _run_tiles(queue: Any, pixels: FloatArray, logits: FloatArray) -> None:
    """Run every tile of (N, C, H, W) by itself, read from where it lies and written to where it belongs."""
    try:
        for tile in range(len(pixels)):
            request = queue[queue.get_idle_request_id()]
            request.set_input_tensor(openvino.Tensor(pixels[tile : tile + 1], shared_memory=True))
            request.set_output_tensor(openvino.Tensor(logits[tile : tile + 1], shared_memory=True))
            queue.start_async()
        queue.wait_all()
    except RuntimeError:
        # Requests that still run write into arrays that are about to be freed.
        with contextlib.suppress(RuntimeError):
            queue.wait_all()
        raise


def _open_graph(bundle: Bundle, precision: str) -> Any:
    content = read_graph(bundle, precision)
    try:
        model = read_model(content)
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO cannot run the graph of bundle {bundle.name}: {_last_line(error)}",
            "use --engine onnx or torch",
        ) from error
    sides = ([_describe(side) for side in model.inputs], [_describe(side) for side in model.outputs])
    if not check_contract(bundle, *sides).is_free:
        raise EngineError(
            f"OpenVINO runs graphs of free size only; that of bundle {bundle.name} takes {sides[0][0]}",
            "use --engine onnx or torch",
        )
    return model


def _describe(side: Any) -> GraphTensor:
    shape = side.get_partial_shape()
    sizes = tuple(size.get_length() if size.is_static else "any" for size in shape) if shape.rank.is_static else ()
    element = side.get_element_type()
    kind = FLOAT if element == openvino.Type.f32 else f"tensor({element.get_type_name()})"
    return GraphTensor(side.any_name, kind, sizes)


def _choose_precision(precision: str) -> str:
    if precision == "auto":
        return "fp32"
    if precision not in PRECISIONS:
        raise EngineError(
            f"the openvino engine runs {', '.join(PRECISIONS)}, not {precision}", "use --precision fp32 or bf16"
        )
    if precision == "bf16" and not has_bf16():
        raise EngineError(f"this processor has no bf16: {describe_processor()}", "use --precision fp32")
    return precision


def _last_line(error: Exception) -> str:
    """The reason; OpenVINO writes first where in its own code it was found."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


if TYPE_CHECKING:
    _fits: type[Engine] = OpenVinoEngine
