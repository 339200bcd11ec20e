"""Run a bundle's weights with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.devices import CudaProbe, device_number
from geoseg_cli.engines.finite import recompute_not_finite
from geoseg_cli.engines.replayed import PATIENCE, ReplayedNetwork
from geoseg_cli.engines.trusted import open_trusted
from geoseg_cli.errors import EngineError, ModelError
from geoseg_cli.networks import create_network
from geoseg_cli.networks.heads import merged

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

_REDUCED = {"fp16": torch.float16, "bf16": torch.bfloat16}
_CUDA_BATCH_TILES = 16
_PIECE_PX = 2**20
"""Pixels that are blended at once on a device: a tile of 1024 x 1024, as every call costs it time."""

_NAMED_KEYS = 3


class TorchEngine:
    """A network of ``geoseg_cli.networks`` with the weights of a bundle.

    On a CPU tiles run one at a time, so a tile's answer does not depend on its batch; its last digits can depend on
    the number of threads, by which torch divides its sums. On CUDA a batch runs whole, and in halves when memory
    runs out; there it takes and gives tensors of the device, so that tiles are made and blended where they are.

    Args:
        bundle: Whose weights to run.
        device: ``cpu`` or ``cuda:N``.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``. Auto is fp32 on a CPU and fp16 on CUDA: its 11
            significant bits against 8 keep more of the narrow decisions, and what overflows is computed again in
            fp32.
        threads: Processor threads; 0 leaves torch's own number.
        trust: SHA-256 of a program that may be run; None for none.
        arrays: What tiles are made of around it; None for the device's tensors, and numpy's arrays on a CPU. Tests
            let a CPU stand for a device.

    Raises:
        EngineError: The device or precision does not run here.
        ModelError: The weights do not fit the card.
    """

    name = "torch"

    def __init__(
        self,
        bundle: Bundle,
        device: str = "cpu",
        precision: str = "auto",
        threads: int = 0,
        arrays: Arrays | None = None,
        trust: str | None = None,
    ) -> None:
        self.device = _check_device(device)
        self.precision = _choose_precision(precision, device)
        self.batch_tiles = 1 if device == "cpu" else _CUDA_BATCH_TILES
        self._tensors = Arrays(torch, device, _PIECE_PX)
        self.arrays = arrays or (NUMPY if device == "cpu" else self._tensors)
        self._threads = threads
        self._device = torch.device(device)
        self._lane = _Lane(self._tensors, len(bundle.legend.classes), at_once=1 if device == "cpu" else 0)
        network = self._open_program(bundle, trust) if bundle.holds_program else merged(load_network(bundle))
        # Measured on two cores: 1.8 to 3.8 times as fast as torch's default layout. Tensor cores want it too.
        network = network.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: ReplayedNetwork | None = ReplayedNetwork(network, PATIENCE if device != "cpu" else 0)

    def run(self, pixels: Array) -> Array:
        """Run the network; arrays as :meth:`geoseg_cli.engines.Engine.run`.

        In reduced precision a tile whose logits are not all finite is computed again in fp32.

        Raises:
            EngineError: One tile alone does not fit into the device's memory.
        """
        with torch.inference_mode():
            tensors = self._tensors.put(pixels)
            logits = self._run(tensors, self.precision)
            if self.precision != "fp32":
                recompute_not_finite(logits, tensors, lambda tile: self._run(tile, "fp32"), self._tensors)
        return self._tensors.fetch(logits) if isinstance(pixels, np.ndarray) else logits

    def _open_program(self, bundle: Bundle, trust: str | None) -> nn.Module:
        if (self.device, self.precision) != ("cpu", "fp32"):
            raise EngineError(
                f"the program of bundle {bundle.name} runs in fp32 on a CPU alone", "add --device cpu --precision fp32"
            )
        return open_trusted(bundle, trust)

    def close(self) -> None:
        """Free the network and the device's memory."""
        self._network = None
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def _run(self, pixels: Tensor, precision: str) -> Tensor:
        assert self._network is not None, "a closed engine was run"
        with _autocast(self._device, precision), self._settings():
            return self._lane.run(self._network, pixels)

    @contextmanager
    def _settings(self) -> Iterator[None]:
        if self.device == "cpu":
            with _limited_threads(self._threads):
                yield
        else:
            with _exact_convolutions(), torch.cuda.device(self._device):
                yield


class _Lane:
    """Runs a batch in the largest parts that the device takes.

    Args:
        tensors: Where it runs.
        classes: Number of classes K.
        at_once: Tiles of a part at most; 0 for all.
    """

    def __init__(self, tensors: Arrays, classes: int, at_once: int) -> None:
        self._tensors, self._classes, self._limit = tensors, classes, at_once

    def run(self, network: ReplayedNetwork, pixels: Tensor) -> Tensor:
        """(N, K, H, W) float32 logits of (N, C, H, W), in halves from when memory runs out."""
        while True:
            part = min(self._limit, len(pixels)) or len(pixels)
            try:
                return self._run_parts(network, pixels, part)
            except torch.OutOfMemoryError as error:
                needed_gib = torch.cuda.max_memory_allocated(self._tensors.device) / 2**30
                self._limit = halve_batch(part, tuple(pixels.shape[1:]), needed_gib, error)
            network.forget()
            # Not in the handler: as long as the error lives, its traceback holds the tensors.
            torch.cuda.empty_cache()

    def _run_parts(self, network: ReplayedNetwork, pixels: Tensor, part: int) -> Tensor:
        logits: Tensor = self._tensors.empty((len(pixels), self._classes, *pixels.shape[2:]))
        for start in range(0, len(pixels), part):
            tiles = pixels[start : start + part].contiguous(memory_format=torch.channels_last)
            logits[start : start + part] = network(tiles)
        return logits


def halve_batch(tiles: int, tile_shape: tuple[int, ...], needed_gib: float, error: Exception) -> int:
    """Half of a batch that did not fit into a device's memory.

    Args:
        tiles: Tiles that did not fit together.
        tile_shape: (C, H, W) of one.
        needed_gib: Most memory that was taken until it ran out, GiB.
        error: What the device said.

    Raises:
        EngineError: It was one tile.
    """
    if tiles > 1:
        return tiles // 2
    raise EngineError(
        f"one tile of {tile_shape} does not fit into the memory of the device: {needed_gib:.1f} GiB were taken",
        "use a smaller --tile, or --device cpu",
    ) from error


def load_network(bundle: Bundle) -> nn.Module:
    """Build a bundle's network with its weights, in evaluation mode, on the CPU.

    Raises:
        ModelError: The architecture is unknown, the weights do not fit it or are not finite, or are a program.
    """
    if bundle.holds_program:
        raise ModelError(
            f"the weights of bundle {bundle.name} are a program, not data", "use a bundle with safetensors weights"
        )
    wanted = bundle.card.extras.network
    classes = len(bundle.legend.classes)
    # Building draws random weights; the caller's random numbers must not notice.
    with torch.random.fork_rng(devices=[]):
        network = create_network(wanted.name, bands=bundle.input_spec.channels, classes=classes, **wanted.config)
    weights = _read_weights(bundle.file("weights"))
    _check_weights(bundle.name, network.state_dict(), weights)
    network.load_state_dict(weights)
    return network.eval()


def find_cuda_obstacle(probe: CudaProbe) -> str:
    """Tell why torch cannot use the CUDA devices of this machine; empty where it can."""
    if not probe.works:
        return probe.reason
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a CUDA build of torch"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} needs a driver for CUDA {torch.version.cuda}; update the NVIDIA driver"
    return ""


def _check_device(device: str) -> str:
    if device == "cpu":
        return device
    obstacle = find_cuda_obstacle(CudaProbe(device_number(device) + 1))
    if obstacle:
        raise EngineError(f"torch cannot run on {device}: {obstacle}", "use --device cpu, or see `geoseg doctor`")
    return device


def _choose_precision(precision: str, device: str) -> str:
    if precision == "auto":
        return "fp32" if device == "cpu" else "fp16"
    if precision == "int8":
        raise EngineError("the torch engine does not run int8", "use --engine openvino or onnx, or another --precision")
    if precision == "fp16" and device == "cpu":
        raise EngineError("fp16 does not run on a CPU", "use --precision bf16 or fp32, or --device cuda")
    return precision


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    reduced = _REDUCED.get(precision)
    return nullcontext() if reduced is None else torch.autocast(device.type, dtype=reduced)


@contextmanager
def _limited_threads(count: int) -> Iterator[None]:
    if count == 0:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _ExactConvolutions:
    """Keeps cuDNN from rounding fp32 to TF32's 10 bits, its default, and from kernels that sum in random order.

    The flags are those of the process: of several devices that run beside each other the first sets them, and the
    last one to be done sets them back.
    """

    def __init__(self) -> None:
        self._lock, self._users = Lock(), 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
                    enabled=True, benchmark=False, deterministic=True, allow_tf32=False
                )
                self._flags.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._flags.__exit__(None, None, None)


_exact_convolutions = _ExactConvolutions()


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is no safetensors file: {error}", "restore the bundle") from error


def _check_weights(name: str, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    wrong = [
        f"{key} is {tuple(found[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted.keys() & found.keys()
        if found[key].shape != wanted[key].shape
    ]
    infinite = [key for key, value in found.items() if not torch.isfinite(value).all()]
    for trouble, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", sorted(wrong)),
                          ("not finite", infinite)):  # fmt: skip
        if keys:
            raise ModelError(
                f"bundle {name}: {len(keys)} of {len(wanted)} weights are {trouble}: {_name_some(keys)}",
                "use the weights that belong to the card's network, or correct the card",
            )


def _name_some(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED_KEYS]) + (" ..." if len(keys) > _NAMED_KEYS else "")


if TYPE_CHECKING:
    _fits: type[Engine] = TorchEngine
