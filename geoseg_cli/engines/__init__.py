"""Engines: batches in, logits out.

An engine owns one network on one device. Everything that it may depend on is in its input: on a CPU its answer for
a tile is the same, to the last bit, whatever batch the tile travels in. On CUDA kernels are chosen by shape, so there
the last digits may differ with the size of the batch.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from typing import Protocol

from geoseg_cli.arrays import Array, Arrays
from geoseg_cli.bundle import INT8_GRAPH, Bundle
from geoseg_cli.engines.devices import CudaProbe, name_devices, probe_cuda, resolve_devices
from geoseg_cli.engines.group import EngineGroup
from geoseg_cli.engines.prepared import NotPreparedError
from geoseg_cli.errors import EngineError, UsageError

__all__ = ["Engine", "EngineOptions", "EngineStatus", "asset_of", "available_engines", "choose_engine"]

ENGINE_NAMES = ("auto", "torch", "onnx", "openvino", "tensorrt")
PRECISION_NAMES = ("auto", "fp32", "fp16", "bf16", "int8")
_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino", "tensorrt": "onnxruntime"}
_ASSETS = {"torch": "weights", "onnx": "onnx", "openvino": "onnx", "tensorrt": "onnx"}
_WITHOUT_INT8 = ("torch", "tensorrt")
_ONNX_WHEELS = ("onnxruntime", "onnxruntime-gpu")


class Engine(Protocol):
    """What runs a network.

    Attributes:
        name: ``torch``, ``onnx``, ``openvino``, ``tensorrt`` or ``fake``.
        device: ``cpu``, ``cuda:N`` or ``cuda:N,M...``, what really runs, not what was asked for.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        batch_tiles: Tiles per call that keep the device busy; any other number works.
        arrays: What it works on: tiles are best made, and answers blended, as such arrays.
    """

    name: str
    device: str
    precision: str
    batch_tiles: int
    arrays: Arrays

    def run(self, pixels: Array) -> Array:
        """Run the network.

        Args:
            pixels: (N, C, H, W) float32 as ``InputSpec.apply`` makes it: of ``arrays``, or numpy's and C-contiguous.

        Returns:
            (N, K, H, W) float32 logits, of the same kind. A device may still be at work on its own arrays.

        Raises:
            EngineError: The device failed, or a single tile does not fit into its memory.
        """
        ...

    def close(self) -> None:
        """Free the device."""
        ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What is asked of an engine.

    Attributes:
        engine: ``auto``, ``torch``, ``onnx``, ``openvino`` or ``tensorrt``, which auto never chooses.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or several as ``cuda:0,1``: then one engine runs on each, and
            they share out the batches.
        precision: ``auto``, ``fp32``, ``fp16``, ``bf16``, or ``int8`` for a graph that was quantised; auto is, for
            torch and tensorrt, fp16 on CUDA, and on a CPU fp32, or bf16 in openvino and int8 in openvino and onnx where
            that is shown to give the same classes (:mod:`geoseg_cli.engines.reduced`).
        threads: Processor threads; 0 is as many as the cores this process may use.
        trust: SHA-256 of weights that are a program and may be run; None for none.
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    trust: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            UsageError: A name is unknown or the number of threads negative.
        """
        if self.engine not in ENGINE_NAMES:
            raise UsageError(f"no engine is called {self.engine!r}", f"use {', '.join(ENGINE_NAMES)}")
        if self.precision not in PRECISION_NAMES:
            raise UsageError(f"no precision is called {self.precision!r}", f"use {', '.join(PRECISION_NAMES)}")
        if self.threads < 0:
            raise UsageError(f"{self.threads} threads were asked for", "use 0 for all cores, or a positive number")
        if self.trust is not None and not re.fullmatch("[0-9a-f]{64}", self.trust):
            raise UsageError(f"--trust {self.trust!r} is no SHA-256", "give 64 hex digits, as sha256sum prints them")


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether an engine runs here.

    Attributes:
        name: ``torch``, ``onnx``, ``openvino`` or ``tensorrt``.
        runs: Whether it runs on any device.
        devices: Devices that it runs on: ``cpu``, ``cuda:0`` ...
        version: Version of its package; empty where it is not installed.
        reason: Why it does not run, or not on CUDA, and what repairs it; empty where all is well.
    """

    name: str
    runs: bool
    devices: tuple[str, ...]
    version: str = ""
    reason: str = ""


@dataclass(slots=True)
class _Search:
    """A search for an engine: what is wanted, why candidates fell out, and what speaks for a reduced precision."""

    bundle: Bundle
    options: EngineOptions
    only_prepared: bool = False
    notes: list[str] = field(default_factory=list)
    shown: str = ""

    def open_first(self, devices: Sequence[str]) -> Engine | None:
        """Open the first engine that runs on all ``devices``, or note why none does."""
        for name in self._names(devices[0]):
            obstacle = self._find_obstacle(name)
            if not obstacle:
                try:
                    return self._open_together(name, devices)
                except EngineError as error:
                    obstacle = error.message
                except ImportError as error:  # an installed package whose libraries are missing
                    obstacle = f"the package {_PACKAGES[name]} does not load: {error}"
            self.notes.append(f"{name}: {obstacle}")
        return None

    def _names(self, device: str) -> tuple[str, ...]:
        if self.options.engine != "auto":
            return (self.options.engine,)
        if device != "cpu":
            return ("torch", "onnx")
        if self.options.precision == "int8":
            return ("openvino", "onnx")
        # Pixels per core-second in fp32, LALE and MSCloudCAM: openvino 1.7 and 1.6 times onnx, that 1.3 to 2.0 times
        # torch, which starts 2 s later. In bf16 (benchmarks/networks.py) openvino is ahead of torch as well.
        is_fp32 = self.options.precision in ("auto", "fp32")
        return ("openvino", "onnx", "torch") if is_fp32 else ("openvino", "torch", "onnx")

    def _open_together(self, name: str, devices: Sequence[str]) -> Engine:
        """Open one engine per device, or none: what was opened before one failed is closed."""
        with ExitStack() as opened:
            engines: list[Engine] = []
            for device in devices:
                engines.append(self._open(name, device))
                opened.callback(engines[-1].close)
            opened.pop_all()
        return engines[0] if len(engines) == 1 else EngineGroup(engines)

    def _open(self, name: str, device: str) -> Engine:
        if self.only_prepared and (name, device) != ("openvino", "cpu"):
            raise NotPreparedError  # only OpenVINO prepares its network in a thread of its own
        if device != "cpu" or self.options.precision == "fp32":
            return self._open_in(name, device)
        from geoseg_cli.engines.reduced import describe_asked, open_if_shown, precisions_to_try

        if self.options.precision != "auto":
            engine = self._open_in(name, device)
            try:
                self.shown = describe_asked(self.bundle, engine, self.only_prepared)
            except NotPreparedError:
                engine.close()
                raise
            return engine
        for precision in precisions_to_try(self.bundle, name):
            try:
                engine, self.shown = open_if_shown(
                    self.bundle, name, precision, self.options.threads, self.only_prepared
                )
                return engine
            except EngineError as error:
                self.notes.append(f"not in {precision}: {error.message}")
        return self._open_in(name, device)

    def _open_in(self, name: str, device: str) -> Engine:
        """Open an engine in the precision that was asked for, or its own."""
        if not self.only_prepared:
            return _open_engine(name, self.bundle, device, self.options)
        from geoseg_cli.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(self.bundle, device, self.options.precision, self.options.threads, only_prepared=True)

    def _find_obstacle(self, name: str) -> str:
        if not _is_installed(name):
            return f"the package {_PACKAGES[name]} is not installed"
        # A bundle that lacks the file of the engine that was named is the bundle's error, raised by the engine.
        if self.options.engine == "auto" and _ASSETS[name] not in self.bundle.card.assets:
            return f"bundle {self.bundle.name} has no {_ASSETS[name]}"
        return ""


def choose_engine(bundle: Bundle, options: EngineOptions | None = None) -> tuple[Engine, str]:
    """Open the engine that was asked for, or the fastest that runs here.

    ``auto`` means torch on CUDA where that works, else OpenVINO, ONNX Runtime or torch on the CPU, the first of them
    that has its package and its file; OpenVINO runs bf16, and both of these int8, where that is shown to give the same
    classes as fp32.

    Args:
        bundle: Whose network to run.
        options: What is wanted; None for everything automatic.

    Returns:
        The engine, and why it is this one in one sentence such as
        ``openvino on cpu: no CUDA device (libcuda.so.1 not found)``.

    Raises:
        EngineError: The engine, device or precision that was asked for by name does not run here.
        AccessError: The weights are a program that nobody trusts.
        ModelError: A file of the bundle does not fit its card, or int8 was asked for and the bundle has no such graph.
    """
    return _choose(bundle, options or EngineOptions())


def choose_prepared(bundle: Bundle, options: EngineOptions) -> tuple[Engine, str]:
    """As :func:`choose_engine`, but only what takes next to none of the caller's time and so may be begun on suspicion.

    That is OpenVINO on a CPU, where nothing must be compiled or measured first.

    Raises:
        NotPreparedError: It would take time.
    """
    return _choose(bundle, options, only_prepared=True)


def _choose(bundle: Bundle, options: EngineOptions, only_prepared: bool = False) -> tuple[Engine, str]:
    if options.precision == "int8" and options.engine not in _WITHOUT_INT8:
        bundle.file(INT8_GRAPH)  # whichever engine is asked for, it is missing in the bundle
    probe = probe_cuda() if options.device != "cpu" else CudaProbe(0, "the CPU was asked for")
    devices = resolve_devices(options.device, probe)
    search = _Search(bundle, options, only_prepared)
    engine = search.open_first(devices)
    if engine is None and options.device == "auto" and devices != ("cpu",):
        engine = search.open_first(("cpu",))
    if engine is None:
        obstacles = "; ".join(search.notes)
        raise EngineError(f"no engine runs on {name_devices(devices)}: {obstacles}", "see `geoseg doctor`")
    return engine, _explain(engine, search, probe)


def asset_of(engine: str, precision: str) -> str:
    """Name of the file of a bundle that an engine runs in a precision: ``weights``, ``onnx`` or ``onnx-int8``."""
    return INT8_GRAPH if precision == "int8" else _ASSETS.get(engine, "weights")


def available_engines() -> list[EngineStatus]:
    """Find out which engines run here, on which devices, and why not.

    Imports their packages where they are installed: only that shows whether they load.
    """
    probe = probe_cuda()
    return [_examine(name, probe) for name in _PACKAGES]


def _examine(name: str, probe: CudaProbe) -> EngineStatus:
    repair = _find_wheel_conflict() if name == "onnx" else ""
    if not _is_installed(name):
        return EngineStatus(name, False, (), "", f"the package {_PACKAGES[name]} is not installed")
    try:
        # Before its package: it keeps OpenVINO's telemetry out.
        module = importlib.import_module(f"geoseg_cli.engines.{name}_engine")
        version = str(importlib.import_module(_PACKAGES[name]).__version__)
        missing: str = module.find_cuda_obstacle(probe)
    except Exception as error:  # a package that is broken can fail in any way while it loads
        return EngineStatus(name, False, (), "", repair or f"{_PACKAGES[name]} does not load: {error}")
    cuda = () if missing else tuple(f"cuda:{number}" for number in range(probe.devices))
    devices = cuda if name == "tensorrt" else ("cpu", *cuda)
    return EngineStatus(name, bool(devices), devices, version, repair or missing)


def _find_wheel_conflict() -> str:
    """Tell how to repair an environment that holds both wheels of ONNX Runtime: they overwrite each other's files."""
    if len([wheel for wheel in _ONNX_WHEELS if _has_distribution(wheel)]) < 2:
        return ""
    return (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other;"
        " pip uninstall -y onnxruntime onnxruntime-gpu && pip install --force-reinstall onnxruntime-gpu"
    )


def _has_distribution(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(_PACKAGES[name]) is not None


def _open_engine(name: str, bundle: Bundle, device: str, options: EngineOptions) -> Engine:
    if name == "torch":
        from geoseg_cli.engines.torch_engine import TorchEngine

        return TorchEngine(bundle, device, options.precision, options.threads, trust=options.trust)
    if name == "openvino":
        from geoseg_cli.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, device, options.precision, options.threads)
    if name == "tensorrt":
        from geoseg_cli.engines.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(bundle, device, options.precision, options.threads)
    from geoseg_cli.engines.onnx_engine import OnnxEngine

    return OnnxEngine(bundle, device, options.precision, options.threads)


def _explain(engine: Engine, search: _Search, probe: CudaProbe) -> str:
    if search.options.engine != "auto":
        reasons = [f"{search.options.engine} was asked for"]
    elif engine.device == "cpu":
        reasons = [probe.reason] if probe.reason else []
    else:
        reasons = ["CUDA works"]
    chosen = f"{engine.name} on {engine.device}{search.shown}"
    return f"{chosen}{'; ' if search.shown else ': '}{'; '.join(reasons + search.notes)}"
