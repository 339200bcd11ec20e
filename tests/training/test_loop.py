"""The loop: budget, resuming, averaging, choosing; and that it learns."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from geoseg_cli.bundle import InputSpec  # noqa: E402
from geoseg_cli.errors import StorageError  # noqa: E402
from geoseg_cli.training.augment import AugmentOptions, Sample, Source, whole_sample  # noqa: E402
from geoseg_cli.training.chips import Chip  # noqa: E402
from geoseg_cli.training.loop import (  # noqa: E402
    Trainer,
    TrainOptions,
    ValidationSet,
    learning_rate,
    score,
)

SPEC = InputSpec(("red", "nir"), (), (0.2, 0.2), (0.1, 0.1))
OPTIONS = TrainOptions(
    steps=6, pixels_per_step=2 * 16 * 16, sizes_px=(16,), learning_rate=0.02, validate_minutes=0.0, precision="fp32"
)


def make_chip(seed: int) -> Chip:
    """Class 1 where the near infrared is brighter than the red."""
    dn = np.random.default_rng(seed).integers(500, 4000, (2, 24, 24)).astype(np.int16)
    return Chip("test", ("red", "nir"), dn, np.where(dn[1] > dn[0], 2, 1).astype(np.uint8))


class Net(torch.nn.Module):
    """Two 1 x 1 convolutions with a norm that has buffers and a dropout that draws chance."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(2, 8, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2),
            torch.nn.Conv2d(8, 2, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(x)
        return logits


@pytest.fixture
def network() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


SOURCES = [Source([make_chip(seed) for seed in range(4)])]
VALIDATION = [ValidationSet("held-out", [whole_sample(make_chip(99), SPEC)])]


def make_trainer(network: Net, options: TrainOptions = OPTIONS, checkpoint: Path | None = None) -> Trainer:
    return Trainer(copy.deepcopy(network), SPEC, options, AugmentOptions(), checkpoint)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [*trainer.network.state_dict().values(), *trainer.averaged.state_dict().values()]


def test_the_learning_rate_rises_and_falls_with_the_budget() -> None:
    options = replace(OPTIONS, learning_rate=1.0, warmup_share=0.1)
    assert learning_rate(0.0, options) == pytest.approx(0.02)
    assert learning_rate(0.05, options) == pytest.approx(0.5)
    assert learning_rate(0.1, options) == pytest.approx(1.0)
    assert learning_rate(0.55, options) == pytest.approx(0.505)
    assert learning_rate(1.0, options) == pytest.approx(0.01)
    rates = [learning_rate(share, options) for share in np.linspace(0.1, 1, 50)]
    assert rates == sorted(rates, reverse=True)


def test_two_runs_of_a_seed_end_with_the_same_weights(network: Net) -> None:
    first, second = make_trainer(network), make_trainer(network)
    for trainer in (first, second):
        assert [progress.step for progress in trainer.run(SOURCES, VALIDATION)] == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(one, other) for one, other in zip(weights(first), weights(second), strict=True))


def test_another_seed_gives_other_weights(network: Net) -> None:
    first, second = make_trainer(network), make_trainer(network, replace(OPTIONS, seed=2))
    for trainer in (first, second):
        list(trainer.run(SOURCES, VALIDATION))
    assert not torch.equal(weights(first)[0], weights(second)[0])


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(network: Net, tmp_path: Path) -> None:
    whole = make_trainer(network)
    list(whole.run(SOURCES, VALIDATION))
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    killed = make_trainer(network, checkpoint=checkpoint)
    assert [progress.step for progress in islice(killed.run(SOURCES, VALIDATION), 3)] == [1, 2, 3]
    resumed = make_trainer(network, checkpoint=checkpoint)
    assert [progress.step for progress in resumed.run(SOURCES, VALIDATION)] == [4, 5, 6]
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))
    assert resumed.history == whole.history
    assert resumed.best()[1:] == whole.best()[1:]


def test_a_finished_run_does_nothing_more(network: Net, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    list(make_trainer(network, checkpoint=checkpoint).run(SOURCES, VALIDATION))
    again = make_trainer(network, checkpoint=checkpoint)
    assert list(again.run(SOURCES, VALIDATION)) == []
    assert again.best()[1] > 0


def test_a_checkpoint_of_another_network_or_a_torn_one_is_refused(network: Net, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    list(make_trainer(network, checkpoint=checkpoint).run(SOURCES, VALIDATION))
    with pytest.raises(StorageError, match="does not fit"):
        Trainer(torch.nn.Conv2d(2, 2, 1), SPEC, OPTIONS, AugmentOptions(), checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(StorageError, match="is cut or damaged"):
        make_trainer(network, checkpoint=checkpoint)


def test_a_time_budget_ends_soon_after_it_is_spent(network: Net) -> None:
    trainer = make_trainer(network, replace(OPTIONS, steps=None, minutes=0.01, validate_minutes=1.0))
    reports = list(trainer.run(SOURCES, VALIDATION))
    assert len(reports) == 1
    assert 0.6 <= reports[0].elapsed_s < 3


def test_training_leaves_the_callers_chance_alone(network: Net) -> None:
    trainer = make_trainer(network)
    before = torch.random.get_rng_state()
    list(trainer.run(SOURCES, VALIDATION))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_averaged_weights_follow_the_formula(network: Net) -> None:
    trainer = make_trainer(network, replace(OPTIONS, steps=1, ema_decay=0.999))
    start = [parameter.clone() for parameter in trainer.network.parameters()]
    list(trainer.run(SOURCES, VALIDATION))
    decay = 2 / 11  # (1 + step) / (10 + step) at step 1
    for old, new, averaged in zip(start, trainer.network.parameters(), trainer.averaged.parameters(), strict=True):
        torch.testing.assert_close(averaged, decay * old + (1 - decay) * new.detach())


def test_the_best_weights_are_those_of_the_best_report(network: Net) -> None:
    trainer = make_trainer(network, replace(OPTIONS, steps=12, learning_rate=0.5))
    reports = list(trainer.run(SOURCES, VALIDATION))
    best, step, value = trainer.best()
    scores = [report.scores["held-out"] for report in reports]
    assert value == max(scores)
    assert step == reports[int(np.argmax(scores))].step
    assert score(best, VALIDATION[0].samples).mean_iou == pytest.approx(value)


def test_steps_pump_the_pool(network: Net) -> None:
    pumped = []
    list(make_trainer(network).run(SOURCES, VALIDATION, lambda: pumped.append(1)))
    assert len(pumped) == 6


def test_scores_leave_out_pixels_that_are_not_certain() -> None:
    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.ones_like(x[:, :1]), torch.zeros_like(x[:, :1])], dim=1)

    target = np.array([[1, 1, 2, 3, 0]], np.uint8)
    table = score(First(), [Sample(np.zeros((2, 1, 5), np.float32), target, 1.0)])
    assert table.counts.tolist() == [[2, 0], [1, 0]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_simple_rule_is_learned_within_a_few_seconds(network: Net, precision: str) -> None:
    options = replace(
        OPTIONS, steps=150, precision=precision, validate_minutes=10.0, ema_decay=0.9, pixels_per_step=2048
    )
    trainer = make_trainer(network, options)
    (report,) = trainer.run(SOURCES, VALIDATION)
    assert report.scores["held-out"] > 0.85


def test_a_run_that_was_stopped_between_reports_ends_as_if_it_had_not_been(network: Net, tmp_path: Path) -> None:
    options = replace(OPTIONS, validate_steps=4, steps=8)
    whole = make_trainer(network, options)
    list(whole.run(SOURCES, VALIDATION))
    checkpoint = tmp_path / "checkpoint.pt"
    stopped = make_trainer(network, options, checkpoint)
    asked: list[int] = []
    reports = stopped.run(SOURCES, VALIDATION, lambda: asked.append(1), lambda: len(asked) == 6)
    assert [progress.step for progress in reports] == [4]
    assert (stopped.pace.step, stopped.is_over) == (6, False)
    resumed = make_trainer(network, options, checkpoint)
    assert [progress.step for progress in resumed.run(SOURCES, VALIDATION)] == [8]
    assert resumed.is_over
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))
    assert resumed.history == whole.history


def test_batches_drawn_ahead_change_no_weight(network: Net) -> None:
    first, second = make_trainer(network), make_trainer(network, replace(OPTIONS, prefetch=3))
    for trainer in (first, second):
        list(trainer.run(SOURCES, VALIDATION))
    assert all(torch.equal(one, other) for one, other in zip(weights(first), weights(second), strict=True))


def test_patience_ends_a_run_for_good(network: Net, tmp_path: Path) -> None:
    # Weights that do not move cannot improve; of equal scores the latest weights are kept.
    options = replace(OPTIONS, steps=50, learning_rate=0.0, validate_steps=2, patience=3)
    checkpoint = tmp_path / "checkpoint.pt"
    still = copy.deepcopy(network)
    still.layers[1] = torch.nn.Identity()
    trainer = make_trainer(still, options, checkpoint)
    assert [progress.step for progress in trainer.run(SOURCES, VALIDATION)] == [2, 4, 6, 8]
    assert trainer.is_over
    assert trainer.best()[1] == 8
    again = make_trainer(still, options, checkpoint)
    assert list(again.run(SOURCES, VALIDATION)) == []
    assert again.is_over


def test_the_pace_says_how_long_the_rest_takes(network: Net) -> None:
    trainer = make_trainer(network, replace(OPTIONS, steps=10, validate_steps=5))
    first, last = trainer.run(SOURCES, VALIDATION)
    assert (first.pace.step, first.pace.share) == (5, 0.5)
    assert first.pace.left_s == pytest.approx(5 / first.pace.steps_per_s)
    assert last.pace.left_s == 0


def test_a_class_that_weighs_more_is_found_more_often(network: Net) -> None:
    found = []
    for class_weights in ((10.0, 0.1), (0.1, 10.0)):
        trainer = make_trainer(network, replace(OPTIONS, steps=30, class_weights=class_weights, validate_steps=30))
        list(trainer.run(SOURCES, VALIDATION))
        found.append(score(trainer.averaged, VALIDATION[0].samples).predicted[1])
    assert found[0] < found[1]


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint at all", b"\x80\x02cos\nsystem\nq\x00.", b"PK\x03\x04 cut"]
)
def test_a_file_that_is_no_checkpoint_is_refused_in_our_own_words(network: Net, tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        make_trainer(network, checkpoint=checkpoint)
    said = f"{caught.value.message}\n{caught.value.hint}"
    assert f"checkpoint {checkpoint} is cut or damaged" in said
    assert f"remove {checkpoint}" in said
    assert "--restart" in said
    assert not any(word in said for word in ("weights_only", "torch", "pickle", "arbitrary"))


@pytest.mark.parametrize("kept", [[1, 2], {}, {"network": 3}, {"network": {}, "averaged": {}}])
def test_a_file_of_torch_that_is_no_checkpoint_of_this_network_is_refused(
    network: Net, tmp_path: Path, kept: object
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    torch.save(kept, checkpoint)
    with pytest.raises(StorageError, match=r"is no checkpoint of geoseg train|does not fit"):
        make_trainer(network, checkpoint=checkpoint)


def test_weights_that_are_not_finite_are_never_the_best(network: Net) -> None:
    with torch.no_grad():
        network.layers[0].weight.fill_(torch.nan)
    trainer = make_trainer(network)
    reports = list(trainer.run(SOURCES, VALIDATION))
    assert reports
    assert not any(report.is_best for report in reports)
    assert trainer.best()[2] == -math.inf


def test_a_checkpoint_that_cannot_be_written_is_named(network: Net, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of the folder")
    trainer = make_trainer(network, checkpoint=tmp_path / "file" / "checkpoint.pt")
    with pytest.raises(StorageError, match=r"file/checkpoint\.pt"):
        list(trainer.run(SOURCES, VALIDATION))


def test_a_run_of_views_that_was_killed_ends_as_if_it_had_not_been(network: Net, tmp_path: Path) -> None:
    options = replace(OPTIONS, view_weight=2.0)
    whole = make_trainer(network, options)
    list(whole.run(SOURCES, VALIDATION))
    killed = make_trainer(network, options, tmp_path / "checkpoint.pt")
    list(islice(killed.run(SOURCES, VALIDATION), 3))
    resumed = make_trainer(network, options, tmp_path / "checkpoint.pt")
    list(resumed.run(SOURCES, VALIDATION))
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))


def test_weights_that_had_to_agree_on_views_change_their_answer_less_in_other_light(network: Net) -> None:
    augment = AugmentOptions(gain=0.5, band_gain=0.2, shift_px=4)
    chip = make_chip(50)
    dimmed = replace(chip, dn=(chip.dn * np.array([0.7, 0.9])[:, None, None]).astype(np.int16))
    changed = {}
    for weight in (0.0, 20.0):
        options = replace(OPTIONS, steps=80, view_weight=weight, validate_minutes=9.0)
        trainer = Trainer(copy.deepcopy(network), SPEC, options, augment)
        list(trainer.run(SOURCES, VALIDATION))
        with torch.no_grad():
            seen, again = (
                trainer.averaged(torch.from_numpy(whole_sample(one, SPEC).pixels)[None]).softmax(1)
                for one in (chip, dimmed)
            )
        changed[weight] = float((seen - again).abs().mean())
    assert changed[20.0] < 0.8 * changed[0.0]
