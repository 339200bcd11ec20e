"""Golden tiles: does an engine answer on this machine as torch did where the bundle was made?"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import Bundle
from geoseg_cli.errors import ModelError

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FloatArray = npt.NDArray[np.float32]

_FLOAT = np.dtype(np.float32)
LARGEST_DIFFERENCE = 1e-3
"""Logits of two engines may differ by this much in fp32."""
LEAST_AGREEMENT = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.98}
"""Precision -> share of pixels that must get the same class as in fp32."""
_RESTORE = "restore the bundle, or write it again with geoseg train CONFIG.toml --resume where its run is kept"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two engines answer.

    Attributes:
        labels: Share of pixels with the same class, 0 to 1.
        largest_difference: Largest difference of a logit; NaN if a logit is NaN.
        precision: Precision of the engine that was compared; the tolerance goes by it.
    """

    labels: float
    largest_difference: float
    precision: str = "fp32"

    @property
    def trouble(self) -> str:
        """What is out of tolerance; empty where nothing is."""
        # Not `difference > limit`: NaN must be found too.
        limit = LARGEST_DIFFERENCE if self.precision == "fp32" else float("inf")
        if not self.largest_difference <= limit:
            return f"logits differ by up to {self.largest_difference:.3g}, more than {limit:g}"
        least = LEAST_AGREEMENT[self.precision]
        if self.labels < least:
            return f"{self.labels:.3%} of the pixels get the same class, less than {least:.2%}"
        return ""


def compare_logits(wanted: FloatArray, found: FloatArray, precision: str = "fp32") -> Agreement:
    """Compare the logits of two engines.

    Args:
        wanted: (N, K, H, W) float32 from torch in fp32.
        found: (N, K, H, W) float32 from the other.
        precision: That of the other.
    """
    largest = float(np.abs(wanted - found).max(initial=0.0))
    return Agreement(float((wanted.argmax(1) == found.argmax(1)).mean()), largest, precision)


def check_golden(engine: Engine, bundle: Bundle) -> Agreement:
    """Run an engine over the golden tiles of its bundle.

    Returns:
        How the engine's answer compares with the one that the bundle keeps; see ``trouble``.

    Raises:
        ModelError: The bundle has no golden tiles, or they cannot be read or do not fit the card.
    """
    pixels, wanted = read_golden(bundle)
    return compare_logits(wanted, engine.run(pixels), engine.precision)


def read_golden(bundle: Bundle) -> tuple[FloatArray, FloatArray]:
    """Golden tiles of a bundle.

    Returns:
        Normalised pixels (N, C, T, T) and the logits (N, K, T, T) that torch gave for them in fp32 on a CPU, float32.

    Raises:
        ModelError: There are none, or they cannot be read or do not fit the card.
    """
    path = bundle.file("golden")
    pixels, logits = _read_arrays(path)
    classes = len(bundle.legend.classes)
    is_fitting = pixels.ndim == 4 and logits.shape == (len(pixels), classes, *pixels.shape[2:])
    if not (is_fitting and pixels.shape[1] == bundle.input_spec.channels and {pixels.dtype, logits.dtype} == {_FLOAT}):
        raise ModelError(
            f"{path}: pixels {pixels.shape} and logits {logits.shape} do not fit the card", "export the bundle again"
        )
    return pixels, logits


def _read_arrays(path: Path) -> tuple[FloatArray, FloatArray]:
    """``pixels`` and ``logits`` of a file; numpy's own words about a damaged one advise to unpickle it, ours do not."""
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["pixels"], arrays["logits"]
    except KeyError as error:
        raise ModelError(f"{path} holds no golden tiles: it lacks pixels or logits", _RESTORE) from error
    except OSError as error:
        raise ModelError(f"{path} holds no golden tiles: {error.strerror or 'it cannot be read'}", _RESTORE) from error
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path} holds no golden tiles: it is damaged, or is no archive of numbers", _RESTORE
        ) from error
