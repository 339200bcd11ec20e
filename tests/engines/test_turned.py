"""Test-time augmentation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from geoseg_cli.arrays import NUMPY, Arrays
from geoseg_cli.engines.turned import TurnedEngine

FloatArray = npt.NDArray[np.float32]
TORCH = Arrays(torch)


class Recorder:
    """Answers with what ``answer`` makes of its input, and remembers what it saw."""

    name, device, precision, batch_tiles, arrays = "fake", "cpu", "fp32", 3, NUMPY

    def __init__(self) -> None:
        self.seen: list[FloatArray] = []
        self.closed = False

    def run(self, pixels: FloatArray) -> FloatArray:
        assert pixels.flags.c_contiguous
        self.seen.append(pixels.copy())
        return self.answer(pixels)

    def answer(self, pixels: FloatArray) -> FloatArray:
        return pixels.copy()

    def close(self) -> None:
        self.closed = True


class Slanted(Recorder):
    """A network that is not symmetric: it adds to each pixel a number that grows to the right and downwards."""

    def answer(self, pixels: FloatArray) -> FloatArray:
        height, width = pixels.shape[-2:]
        return pixels + np.arange(width, dtype=np.float32) + 10 * np.arange(height, dtype=np.float32)[:, None]


@pytest.mark.parametrize(("augmentation", "views"), [("flip", 4), ("d4", 8)])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 4, 6)])
def test_what_treats_all_directions_alike_answers_as_without(
    augmentation: str, views: int, shape: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 99, shape).astype(np.float32)
    engine = Recorder()
    assert np.array_equal(TurnedEngine(engine, augmentation).run(pixels), pixels)  # type: ignore[arg-type]
    assert len(engine.seen) == views


def test_all_eight_views_of_a_tile_differ() -> None:
    engine = Recorder()
    TurnedEngine(engine, "d4").run(np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3))
    assert len({one.tobytes() for one in engine.seen}) == 8


def test_what_grows_to_one_side_is_averaged_away() -> None:
    pixels = np.zeros((1, 1, 5, 5), np.float32)
    # Mirrored both ways, 0..4 and 0..40 average to 2 and 20 everywhere.
    assert np.array_equal(TurnedEngine(Slanted(), "flip").run(pixels), np.full((1, 1, 5, 5), 22, np.float32))


@pytest.mark.parametrize("augmentation", ["flip", "d4"])
def test_tensors_are_turned_as_arrays_are(augmentation: str) -> None:
    class OnTensors(Slanted):
        arrays = TORCH  # type: ignore[assignment]

        def run(self, pixels: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return torch.from_numpy(super().run(pixels.numpy()))

    pixels = np.random.default_rng(2).random((2, 3, 6, 6), np.float32)
    right = TurnedEngine(Slanted(), augmentation).run(pixels)  # type: ignore[arg-type]
    found = TurnedEngine(OnTensors(), augmentation).run(torch.from_numpy(pixels))  # type: ignore[arg-type]
    assert found.numpy().tobytes() == right.tobytes()


def test_it_is_known_by_the_engine_that_it_asks_and_closes_it() -> None:
    engine = Recorder()
    turned = TurnedEngine(engine, "flip")
    assert (turned.name, turned.device, turned.precision, turned.batch_tiles) == ("fake", "cpu", "fp32", 3)
    turned.close()
    assert engine.closed
