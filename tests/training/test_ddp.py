"""Several processes train as one: other samples, the mean of their gradients, the same weights; one of them writes."""

from __future__ import annotations

import copy
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from geoseg_cli.bundle import InputSpec  # noqa: E402
from geoseg_cli.training.augment import AugmentOptions, Source, whole_sample  # noqa: E402
from geoseg_cli.training.chips import Chip  # noqa: E402
from geoseg_cli.training.feed import Feed, ReadAhead, stack  # noqa: E402
from geoseg_cli.training.loop import Trainer, TrainOptions, ValidationSet  # noqa: E402
from geoseg_cli.training.losses import segmentation_loss  # noqa: E402
from geoseg_cli.training.ranks import Ranks, has_idle_weights, joined  # noqa: E402

SPEC = InputSpec(("red", "nir"), (), (0.2, 0.2), (0.1, 0.1))
OPTIONS = TrainOptions(
    steps=4, pixels_per_step=2 * 16 * 16, sizes_px=(16, 32), learning_rate=0.01, validate_steps=2, precision="fp32"
)


def make_chip(seed: int) -> Chip:
    dn = np.random.default_rng(seed).integers(500, 4000, (2, 40, 40)).astype(np.int16)
    return Chip("test", ("red", "nir"), dn, np.where(dn[1] > dn[0], 2, 1).astype(np.uint8))


SOURCES = [Source([make_chip(seed) for seed in range(4)])]


def make_network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))


def feed(rank: int) -> Feed:
    return Feed(SOURCES, SPEC, OPTIONS, AugmentOptions(), rank)


def test_processes_see_other_samples_of_the_same_size() -> None:
    for step in range(6):
        first, second = (feed(rank).draw(step).samples for rank in (0, 1))
        assert [one.pixels.shape for one in first] == [one.pixels.shape for one in second]
        assert not np.array_equal(first[0].pixels, second[0].pixels)


def test_views_come_in_pairs_and_half_as_many() -> None:
    options = replace(OPTIONS, view_weight=1.0, pixels_per_step=8 * 16 * 16, sizes_px=(16,))
    for rank in (0, 1):
        drawn = Feed(SOURCES, SPEC, options, AugmentOptions(shift_px=5), rank).draw(3)
        assert (len(drawn.samples), len(drawn.shifts)) == (8, 4)
        assert {one.pixels.shape for one in drawn.samples} == {(2, 16, 16)}
    assert feed(0).draw(3).shifts == ()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_that_are_drawn_ahead_are_the_same(threads: int) -> None:
    with ReadAhead(feed(0), threads, last_step=8) as batches:
        for step in range(2, 8):
            taken, wanted = batches.take(step), feed(0).draw(step)
            assert taken.seed == wanted.seed
            for one, other in zip(taken.samples, wanted.samples, strict=True):
                np.testing.assert_array_equal(one.pixels, other.pixels)


def test_one_process_alone_joins_nothing() -> None:
    with joined(0, 1, "cpu") as ranks:
        assert ranks == Ranks()
        assert ranks.total(2.0, 3.0) == (2.0, 3.0)
        network = make_network()
        assert ranks.wrap(network, 2) is network


class Idle(torch.nn.Module):
    """A weight that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = torch.nn.Conv2d(2, 2, 1), torch.nn.Conv2d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.used(x)
        return logits


def test_weights_that_no_output_depends_on_are_noticed() -> None:
    network = make_network()
    before = copy.deepcopy(network.state_dict())
    assert not has_idle_weights(network, 2)
    assert has_idle_weights(Idle(), 2)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def work(rank: int, port: int, folder: Path, steps: int) -> None:
    """One of two processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    validation = [ValidationSet("held-out", [whole_sample(make_chip(99), SPEC)])]
    with joined(rank, 2, "cpu") as ranks:
        options = replace(OPTIONS, steps=steps)
        trainer = Trainer(make_network(), SPEC, options, AugmentOptions(), folder / "checkpoint.pt", ranks)
        reports = [progress.step for progress in trainer.run(SOURCES, validation)]
    torch.save({"weights": trainer.network.state_dict(), "reports": reports}, folder / f"{rank}.pt")


def run_two(folder: Path, steps: int) -> list[dict[str, object]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(port, folder, steps), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def step_by_hand(network: torch.nn.Module, steps: int) -> dict[str, torch.Tensor]:
    """The weights after steps along the mean of the gradients of both processes' batches."""
    optimizer = torch.optim.AdamW([
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": OPTIONS.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ])  # fmt: skip
    from geoseg_cli.training.schedule import learning_rate

    for step in range(steps):
        optimizer.zero_grad()
        for rank in (0, 1):
            pixels, target, weight = stack(feed(rank).draw(step).samples)
            (segmentation_loss(network(pixels), target, weight, OPTIONS.output_weights) / 2).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), OPTIONS.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, OPTIONS)
        optimizer.step()
    return network.state_dict()


@pytest.mark.slow
def test_two_processes_step_along_the_mean_of_their_gradients_and_one_reports(tmp_path: Path) -> None:
    first, second = run_two(tmp_path, 4)
    assert (first["reports"], second["reports"]) == ([2, 4], [])
    wanted = step_by_hand(make_network(), 4)
    for name, value in wanted.items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_go_on_from_one_checkpoint(tmp_path: Path) -> None:
    first, _ = run_two(tmp_path, 4)
    again, other = run_two(tmp_path, 4)
    assert again["reports"] == []
    for name, value in first["weights"].items():
        assert torch.equal(again["weights"][name], value)
        assert torch.equal(other["weights"][name], value)
