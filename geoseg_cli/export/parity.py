"""Does an exported file answer as the network does? Asked at sizes that were not traced, because an exporter can bake
a traced size in without any error.

Legend: N batch, C input channels, K classes, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoseg_cli.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

FloatArray = npt.NDArray[np.float32]
Run = Callable[[FloatArray], FloatArray]
"""Pixels (N, C, H, W) float32 -> logits (N, K, H, W) float32."""
Shape = tuple[int, int, int, int]

STRIDE_PX = 32
LARGEST_RELATIVE_DIFFERENCE = 1e-4
"""Logits in fp32 may differ by this share of the largest; the networks of geoseg stay below 4e-6."""
LEAST_AGREEMENT = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.98}
"""Precision -> share of the pixels that must get the class that PyTorch gives them in fp32."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes (N, C, H, W) that a network is traced at, and others that its file is checked at.

    Attributes:
        traced: No axis of it is 1, which tracers treat as a constant.
        checked: Differ from ``traced`` in every axis but C; one tile and several, square and not, the smallest with
            one attention window in its deepest stage.
    """

    traced: Shape
    checked: tuple[Shape, ...]

    @classmethod
    def choose(cls, channels: int, size_multiple: int) -> Shapes:
        """Choose shapes for a network whose heights and widths are multiples of ``size_multiple``."""
        unit = math.lcm(size_multiple, STRIDE_PX)
        checked = (
            (1, channels, 2 * unit, 2 * unit),
            (3, channels, 3 * unit, 5 * unit),
            (1, channels, 5 * unit + size_multiple, unit + size_multiple),
        )
        return cls((2, channels, 4 * unit, 6 * unit), checked)


@dataclass(frozen=True, slots=True)
class Sample:
    """Pixels (N, C, H, W) and the logits (N, K, H, W) that PyTorch gives for them in fp32; both float32."""

    pixels: FloatArray
    wanted: FloatArray


@dataclass(frozen=True, slots=True)
class Parity:
    """How an exported file answers beside its network.

    Attributes:
        shapes: Shapes that were compared.
        pixels: Pixels that were compared.
        labels: Share of them with the same class, 0 to 1.
        classes: The same for the pixels that the network gives each class; None where there are none.
        class_pixels: How many these are.
        largest_difference: Largest difference of a logit.
    """

    shapes: tuple[tuple[int, ...], ...]
    pixels: int
    labels: float
    classes: tuple[float | None, ...]
    class_pixels: tuple[int, ...]
    largest_difference: float


def draw_pixels(shape: tuple[int, ...]) -> FloatArray:
    """Normal noise of a shape, the same every time."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def spread_tiles(tiles: Sequence[FloatArray], shape: Shape) -> FloatArray:
    """Fill a batch (N, C, H, W) with tiles (C, T, T), mirrored at their edges where it is larger."""
    return np.stack([_mirror(tiles[index % len(tiles)], shape[2], shape[3]) for index in range(shape[0])])


def answer(module: nn.Module, batches: Sequence[FloatArray]) -> list[Sample]:
    """Samples of what a network answers for batches of pixels, (N, C, H, W) float32 each."""
    return [Sample(pixels, run_torch(module, pixels)) for pixels in batches]


def run_torch(module: nn.Module, pixels: FloatArray) -> FloatArray:
    """Logits (N, K, H, W) of a network for pixels (N, C, H, W), float32, tile by tile in evaluation mode on the CPU."""
    import torch

    with evaluating(module), torch.inference_mode():
        logits: list[Tensor] = [module(torch.from_numpy(tile)[None]) for tile in pixels]
    return np.concatenate([one.numpy() for one in logits])


def compare(run: Run, samples: Sequence[Sample], precision: str = "fp32") -> Parity:
    """Compare a file with the network it was exported from.

    Args:
        run: Runs the file.
        samples: What the network answers.
        precision: In ``fp32`` logits must agree, in ``fp16`` and ``int8`` they must be finite.

    Raises:
        ModelError: The file does not take a shape, or answers with another shape, with numbers that are not finite,
            or in fp32 otherwise.
    """
    found = [_run(run, sample, precision) for sample in samples]
    wanted = np.concatenate([_labels(sample.wanted) for sample in samples])
    same = np.concatenate([_labels(logits) for logits in found]) == wanted
    pairs = list(zip(samples, found, strict=True))
    of_class = [wanted == value for value in range(samples[0].wanted.shape[1])]
    return Parity(
        shapes=tuple(sample.pixels.shape for sample in samples),
        pixels=len(wanted),
        labels=float(same.mean()),
        classes=tuple(_share(same[chosen]) for chosen in of_class),
        class_pixels=tuple(int(chosen.sum()) for chosen in of_class),
        largest_difference=max(float(np.abs(sample.wanted - logits).max()) for sample, logits in pairs),
    )


def require_agreement(parity: Parity, precision: str, least: float) -> None:
    """Refuse a file that gives too many pixels another class.

    Args:
        parity: What was measured.
        precision: ``fp32``, ``fp16`` or ``int8``.
        least: Share of the pixels that must keep their class, 0 to 1.

    Raises:
        ModelError: Fewer do.
    """
    if parity.labels >= least:
        return
    rounded = math.floor(parity.labels * 1000) / 1000
    hint = {
        "fp16": f"use --precision fp32, or accept it with --accept-agreement {rounded:g}",
        "int8": "give --calibration scenes like those to be mapped, use --precision fp16,"
        f" or accept it with --accept-agreement {rounded:g}",
    }
    raise ModelError(
        f"in {precision} {parity.labels:.3%} of {parity.pixels} pixels get the class of fp32, less than {least:.2%}",
        hint.get(precision, "look for a size that the network's code turns into a constant while it is traced"),
    )


def summarise(error: BaseException) -> str:
    """The first sentence of an error whose message fills a page, with what follows a colon at its end."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def _run(run: Run, sample: Sample, precision: str) -> FloatArray:
    try:
        found = run(sample.pixels)
    except Exception as error:  # neither ONNX Runtime's errors nor those of torch have a common class below Exception
        raise _differs(sample, summarise(error)) from error
    if found.shape != sample.wanted.shape:
        raise _differs(sample, f"logits are {found.shape}, not {sample.wanted.shape}")
    if not np.isfinite(found).all():
        raise _differs(sample, f"{np.count_nonzero(~np.isfinite(found))} logits are not finite")
    largest = float(np.abs(sample.wanted - found).max())
    limit = LARGEST_RELATIVE_DIFFERENCE * float(np.abs(sample.wanted).max())
    # Not `largest > limit`: a network that itself answers NaN must not pass.
    if precision == "fp32" and not largest <= limit:
        raise _differs(sample, f"logits differ by up to {largest:.3g}, more than {limit:.3g}")
    return found


def _differs(sample: Sample, trouble: str) -> ModelError:
    return ModelError(
        f"the exported graph does not answer as the network does for pixels {sample.pixels.shape}: {trouble}",
        "look for a size that the network's code turns into a constant while it is traced",
    )


def _labels(logits: FloatArray) -> npt.NDArray[np.intp]:
    """Class of every pixel (N * H * W,) for logits (N, K, H, W)."""
    labels: npt.NDArray[np.intp] = logits.argmax(1).ravel()
    return labels


def _share(same: npt.NDArray[np.bool_]) -> float | None:
    return float(same.mean()) if same.size else None


def _mirror(tile: FloatArray, height: int, width: int) -> FloatArray:
    below, right = max(0, height - tile.shape[1]), max(0, width - tile.shape[2])
    return np.pad(tile, ((0, 0), (0, below), (0, right)), mode="symmetric")[:, :height, :width]
