"""Run a bundle's weights with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.devices import CudaProbe, device_number
from geoseg_cli.engines.finite import recompute_not_finite
from geoseg_cli.errors import EngineError, ModelError
from geoseg_cli.networks import create_network

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FloatArray = npt.NDArray[np.float32]

_REDUCED = {"fp16": torch.float16, "bf16": torch.bfloat16}
_CUDA_BATCH_TILES = 16
_NAMED_KEYS = 3


class TorchEngine:
    """A network of ``geoseg_cli.networks`` with the weights of a bundle.

    On a CPU tiles run one at a time, so a tile's answer does not depend on its batch; its last digits can depend on
    the number of threads, by which torch divides its sums. On CUDA a batch runs whole, and in halves when memory
    runs out; the next part is then uploaded while this one is computed.

    Args:
        bundle: Whose weights to run.
        device: ``cpu`` or ``cuda:N``.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``. Auto is fp32 on a CPU and fp16 on CUDA: its 11
            significant bits against 8 keep more of the narrow decisions, and what overflows is computed again in
            fp32.
        threads: Processor threads; 0 leaves torch's own number.

    Raises:
        EngineError: The device or precision does not run here.
        ModelError: The weights do not fit the card.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, device: str = "cpu", precision: str = "auto", threads: int = 0) -> None:
        self.device = _check_device(device)
        self.precision = _choose_precision(precision, device)
        self.batch_tiles = 1 if device == "cpu" else _CUDA_BATCH_TILES
        self._threads = threads
        self._classes = len(bundle.legend.classes)
        self._device = torch.device(device)
        network = load_network(bundle)
        # Measured on two cores: 1.8 to 3.8 times as fast as torch's default layout. Tensor cores want it too.
        network = network.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: nn.Module | None = network
        self._cuda = None if device == "cpu" else _CudaLane(self._device, self._classes)

    def run(self, pixels: FloatArray) -> FloatArray:
        """Run the network; arrays as :meth:`geoseg_cli.engines.Engine.run`.

        In reduced precision a tile whose logits are not all finite is computed again in fp32.

        Raises:
            EngineError: One tile alone does not fit into the device's memory.
        """
        logits = self._run(pixels, self.precision)
        if self.precision != "fp32":
            recompute_not_finite(logits, pixels, lambda tile: self._run(tile, "fp32"))
        return logits

    def close(self) -> None:
        """Free the network and the device's memory."""
        self._network = None
        if self._cuda is not None:
            self._cuda = None
            torch.cuda.empty_cache()

    def _run(self, pixels: FloatArray, precision: str) -> FloatArray:
        assert self._network is not None, "a closed engine was run"
        source = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        with torch.inference_mode(), _autocast(self._device, precision):
            if self._cuda is not None:
                return self._cuda.run(self._network, source)
            with _limited_threads(self._threads):
                return self._run_on_cpu(self._network, source)

    def _run_on_cpu(self, network: nn.Module, source: Tensor) -> FloatArray:
        logits = np.empty((len(source), self._classes, *source.shape[2:]), np.float32)
        target = torch.from_numpy(logits)
        for tile in range(len(source)):
            one = source[tile : tile + 1].contiguous(memory_format=torch.channels_last)
            target[tile : tile + 1].copy_(network(one))
        return logits


class _CudaLane:
    """Moves batches to a CUDA device and back.

    Pinned host memory lets copies run beside the network; it is dear to allocate, so it is kept.
    """

    def __init__(self, device: torch.device, classes: int) -> None:
        self._device = device
        self._classes = classes
        self._limit = 0
        self._upload = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pinned: dict[str, Tensor] = {}

    def run(self, network: nn.Module, source: Tensor) -> FloatArray:
        """Run (N, C, H, W) through the network in the largest parts that fit."""
        while True:
            part = min(self._limit, len(source)) or len(source)
            try:
                return self._run_parts(network, source, part)
            except torch.cuda.OutOfMemoryError as error:
                needed_gib = torch.cuda.max_memory_allocated(self._device) / 2**30
                self._limit = halve_batch(part, tuple(source.shape[1:]), needed_gib, error)
            # Not in the handler: as long as the error lives, its traceback holds the tensors.
            torch.cuda.empty_cache()

    def _run_parts(self, network: nn.Module, source: Tensor, part: int) -> FloatArray:
        pixels = self._pin("pixels", tuple(source.shape)).copy_(source)
        logits = self._pin("logits", (len(source), self._classes, *source.shape[2:]))
        compute = torch.cuda.current_stream(self._device)
        with _exact_convolutions(), torch.cuda.device(self._device):
            for start in range(0, len(source), part):
                with torch.cuda.stream(self._upload):
                    tiles = pixels[start : start + part].to(self._device, non_blocking=True)
                compute.wait_stream(self._upload)
                # The allocator would hand the memory to the next upload while the network still reads it.
                tiles.record_stream(compute)
                answer = network(tiles.contiguous(memory_format=torch.channels_last))
                logits[start : start + part].copy_(answer.float(), non_blocking=True)
            compute.synchronize()
        return np.array(logits.numpy(), np.float32)

    def _pin(self, name: str, shape: tuple[int, ...]) -> Tensor:
        count = int(np.prod(shape))
        if name not in self._pinned or self._pinned[name].numel() < count:
            self._pinned[name] = torch.empty(count, dtype=torch.float32, pin_memory=True)
        return self._pinned[name][:count].view(shape)


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
        ModelError: The architecture is unknown, or the weights do not fit it or are not finite.
    """
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


def _exact_convolutions() -> AbstractContextManager[None]:
    """Keep cuDNN from rounding fp32 to TF32's 10 bits, its default, and from kernels that sum in random order."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


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
