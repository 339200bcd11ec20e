"""Several devices on one scene."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.arrays import Arrays
from geoseg_cli.engines.fake_engine import FakeEngine
from geoseg_cli.engines.group import EngineGroup
from geoseg_cli.errors import EngineError

FloatArray = npt.NDArray[np.float32]


def batch_sized(pixels: FloatArray) -> FloatArray:
    """An answer that depends on the size of the batch, as kernels of a GPU do."""
    return pixels[:, :1] + np.float32(len(pixels))


def fakes(count: int, batch_tiles: int) -> list[FakeEngine]:
    made = []
    for number in range(count):
        engine = FakeEngine(1, batch_sized)
        engine.batch_tiles, engine.device = batch_tiles, f"cuda:{number}"
        made.append(engine)
    return made


@given(engines=st.integers(1, 4), part=st.integers(1, 5), tiles=st.integers(1, 40))
def test_answers_are_those_of_one_device_that_gets_its_own_batches(engines: int, part: int, tiles: int) -> None:
    pixels = np.arange(tiles * 4, dtype=np.float32).reshape(tiles, 1, 2, 2)
    group = EngineGroup(fakes(engines, part))
    size = group.batch_tiles
    got = np.concatenate([group.run(pixels[start : start + size]) for start in range(0, tiles, size)])
    alone = np.concatenate([batch_sized(pixels[start : start + part]) for start in range(0, tiles, part)])
    assert np.array_equal(got, alone)
    group.close()


class OnTensors(FakeEngine):
    """An engine that takes and gives tensors."""

    arrays = Arrays(torch)

    def run(self, pixels: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        assert isinstance(pixels, torch.Tensor)
        self.batches.append(len(pixels))
        return pixels[:, :1] + len(pixels)


def test_tensors_are_answered_with_tensors_and_arrays_with_arrays() -> None:
    engines = [OnTensors(1, batch_sized) for _ in range(2)]
    group = EngineGroup(engines, part_tiles=2)
    pixels = np.arange(20, dtype=np.float32).reshape(5, 1, 2, 2)
    right = np.concatenate([batch_sized(pixels[start : start + 2]) for start in (0, 2, 4)])
    answer = group.run(torch.from_numpy(pixels))
    assert isinstance(answer, torch.Tensor)
    assert np.array_equal(answer.numpy(), right)
    assert np.array_equal(group.run(pixels), right)
    assert [engine.batches for engine in engines] == [[2, 1, 2, 1], [2, 2]]
    group.close()


def test_all_devices_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    def wait(pixels: FloatArray) -> FloatArray:
        together.wait()
        return pixels

    engines = [FakeEngine(1, wait) for _ in range(3)]
    group = EngineGroup(engines, part_tiles=1)
    group.run(np.zeros((3, 1, 2, 2), np.float32))
    assert [engine.batches for engine in engines] == [[1], [1], [1]]
    group.close()


def test_it_says_which_devices_run_and_closes_them() -> None:
    engines = fakes(3, 2)
    group = EngineGroup(engines)
    assert (group.device, group.batch_tiles) == ("cuda:0,1,2", 6)
    group.close()
    assert all(engine.closed for engine in engines)


def test_the_error_of_one_device_is_raised() -> None:
    def fail(pixels: FloatArray) -> FloatArray:
        raise EngineError("device 1 fell off the bus", "use another")

    group = EngineGroup([FakeEngine(1, batch_sized), FakeEngine(1, fail)], part_tiles=1)
    with pytest.raises(EngineError, match="fell off"):
        group.run(np.zeros((2, 1, 2, 2), np.float32))
    group.close()
