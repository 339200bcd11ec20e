"""When a network's kernels are recorded, and when not; a recording is a function here, CUDA's own is tested there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geoseg_cli.engines.replayed import MOST_RECORDINGS, Replay, ReplayedNetwork


class Counted(nn.Module):
    """Twice its input; NaN stays NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.runs += 1
        return 2 * pixels


class Recorder:
    """Records like a device: the answer lies in the same memory each time."""

    def __init__(self, answer: Callable[[Tensor], Tensor] = lambda pixels: 2 * pixels) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.replays = 0
        self._answer = answer

    def __call__(self, network: nn.Module, pixels: Tensor) -> Replay:
        self.shapes.append(tuple(pixels.shape))
        memory = torch.empty_like(pixels)

        def replay(batch: Tensor) -> Tensor:
            self.replays += 1
            return memory.copy_(self._answer(batch))

        return replay


def batch(tiles: int, number: float = 1.0) -> Tensor:
    return torch.full((tiles, 2, 4, 4), number)


def test_a_shape_is_recorded_once_it_came_often_and_then_replayed() -> None:
    network, recorder = Counted(), Recorder()
    replayed = ReplayedNetwork(network, 3, recorder)
    for number in range(10):
        assert replayed(batch(4, number)).eq(2 * number).all()
    assert (recorder.shapes, network.runs) == ([(4, 2, 4, 4)], 3)
    assert recorder.replays == 1 + 7  # the first is compared with the network's own


def test_a_small_scene_is_not_recorded() -> None:
    network, recorder = Counted(), Recorder()
    replayed = ReplayedNetwork(network, 3, recorder)
    for tiles in (4, 4, 2):
        replayed(batch(tiles))
    assert (recorder.shapes, network.runs) == ([], 3)


def test_no_patience_records_nothing() -> None:
    network, recorder = Counted(), Recorder()
    replayed = ReplayedNetwork(network, 0, recorder)
    for _ in range(20):
        replayed(batch(4))
    assert (recorder.shapes, network.runs) == ([], 20)


def test_each_precision_has_its_own_recording() -> None:
    recorder = Recorder()
    replayed = ReplayedNetwork(Counted(), 2, recorder)
    for _ in range(4):
        replayed(batch(4))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            replayed(batch(4))
    assert recorder.shapes == [(4, 2, 4, 4)] * 2


def test_only_a_few_shapes_are_recorded() -> None:
    recorder = Recorder()
    replayed = ReplayedNetwork(Counted(), 1, recorder)
    for tiles in range(1, 6):
        assert replayed(batch(tiles)).eq(2).all()
    assert len(recorder.shapes) == MOST_RECORDINGS


def test_a_recording_with_another_answer_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    network, recorder = Counted(), Recorder(lambda pixels: 2 * pixels + 1e-6)
    replayed = ReplayedNetwork(network, 2, recorder)
    for _ in range(6):
        assert replayed(batch(4)).eq(2).all()
    assert (len(recorder.shapes), network.runs) == (1, 6)
    assert "gave another answer" in caplog.text


def test_numbers_that_are_none_do_not_make_a_recording_wrong() -> None:
    recorder = Recorder()
    replayed = ReplayedNetwork(Counted(), 2, recorder)
    for _ in range(4):
        assert replayed(batch(4, torch.nan)).isnan().all()
    assert recorder.replays == 3


def test_a_device_that_refuses_to_record_is_told_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(network: nn.Module, pixels: Tensor) -> Replay:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    caplog.set_level("INFO")
    network = Counted()
    replayed = ReplayedNetwork(network, 2, refuse)
    for _ in range(5):
        assert replayed(batch(4)).eq(2).all()
    assert network.runs == 5
    assert caplog.text.count("operation not permitted") == 1
    assert "more" not in caplog.text


def test_what_is_forgotten_is_recorded_again() -> None:
    recorder = Recorder()
    replayed = ReplayedNetwork(Counted(), 2, recorder)
    for _ in range(3):
        replayed(batch(4))
    replayed.forget()
    for _ in range(3):
        replayed(batch(4))
    assert len(recorder.shapes) == 2
