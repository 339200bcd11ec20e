"""The training loop: a time budget in, the best averaged weights out.

The budget is wall clock, because that is what people have; the learning rate follows the share of it that is spent.
Everything random is drawn from (seed, step), so a run that was killed and resumed draws what it would have drawn.

Axes: N batch, C input channels, K classes, H rows, W columns.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import StorageError
from geoseg_cli.metrics import Confusion, confusion
from geoseg_cli.training.augment import AugmentOptions, Sample, Source, draw_batch
from geoseg_cli.training.chips import values_from_targets
from geoseg_cli.training.losses import segmentation_loss


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        minutes: Time budget, validation included.
        steps: Budget in steps instead, for runs that must be the same on every machine.
        pixels_per_step: Pixels of one batch; the number of images follows from their size.
        sizes_px: Sides of the images; each step draws one.
        learning_rate: At the top of its curve.
        warmup_share: Share of the budget in which the learning rate rises.
        weight_decay: Of weights with two axes or more.
        clip_norm: Longest gradient.
        ema_decay: Of the averaged weights that are validated and kept.
        output_weights: Loss weights of main and auxiliary outputs.
        precision: ``bf16`` computes under autocast; weights and loss stay fp32.
        validate_minutes: Time between validations.
        seed: Of all chance.
    """

    minutes: float = 40.0
    steps: int | None = None
    pixels_per_step: int = 8 * 128 * 128
    sizes_px: tuple[int, ...] = (128, 128, 192, 256)
    learning_rate: float = 1.5e-3
    warmup_share: float = 0.03
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    output_weights: tuple[float, ...] = (1.0,)
    precision: Literal["fp32", "bf16"] = "bf16"
    validate_minutes: float = 2.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Samples to choose the best weights with; never those that figures are reported on.

    Attributes:
        name: One word.
        samples: Whole images of one or more sizes.
    """

    name: str
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step, elapsed_s, share: Steps done, seconds used, share of the budget used.
        loss: Mean loss since the last report.
        learning_rate: Now.
        scores: Mean IoU of each validation set.
        is_best: Whether these weights are the best so far.
    """

    step: int
    elapsed_s: float
    share: float
    loss: float
    learning_rate: float
    scores: dict[str, float]
    is_best: bool


@dataclass(slots=True)
class _State:
    """What a checkpoint must hold beside the tensors."""

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = -math.inf
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains one network.

    Args:
        network: Returns logits, or in training main and auxiliary logits.
        spec: Normalisation.
        options: How to train.
        augment: How to disturb the samples.
        checkpoint: File to keep the run in, and to resume it from if it exists. None keeps nothing.

    Attributes:
        averaged: The moving average of the weights.
    """

    def __init__(
        self, network: nn.Module, spec: InputSpec, options: TrainOptions, augment: AugmentOptions,
        checkpoint: Path | None = None,
    ) -> None:  # fmt: skip
        self.network, self.spec, self.options, self.augment = network, spec, options, augment
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self._best = copy.deepcopy(self.averaged.state_dict())
        self._optimizer = _optimizer(network, options)
        self._checkpoint, self._state = checkpoint, _State()
        if checkpoint is not None and checkpoint.is_file():
            self._load(checkpoint)

    def run(
        self, sources: Sequence[Source], validation: Sequence[ValidationSet],
        on_step: Callable[[], None] = lambda: None,
    ) -> Iterator[Progress]:  # fmt: skip
        """Train until the budget is spent.

        Args:
            sources: What to learn from.
            validation: What chooses the best weights: their mean over the sets of the mean IoU.
            on_step: Called after each step, for a pool that has to be pumped.

        Yields:
            A report after each validation; the checkpoint is written before it is yielded.
        """
        clock = _Clock(self._state.elapsed_s)
        since, losses = clock.elapsed_s, list[float]()
        while (share := self._share(clock.elapsed_s)) < 1:
            losses.append(self._step(sources, share))
            on_step()
            is_last = self._share(clock.elapsed_s) >= 1
            if is_last or clock.elapsed_s - since >= 60 * self.options.validate_minutes:
                self._state.elapsed_s = clock.elapsed_s
                yield self._report(validation, float(np.mean(losses)), clock)
                since, losses = clock.elapsed_s, []

    def best(self) -> tuple[nn.Module, int, float]:
        """The network with the best averaged weights, in evaluation mode, their step and their score."""
        network = copy.deepcopy(self.averaged)
        network.load_state_dict(self._best)
        return network.eval(), self._state.best_step, self._state.best_score

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row per report."""
        return list(self._state.history)

    def _share(self, elapsed_s: float) -> float:
        if self.options.steps is not None:
            return self._state.step / self.options.steps
        return elapsed_s / (60 * self.options.minutes)

    def _step(self, sources: Sequence[Source], share: float) -> float:
        """One step; returns the loss."""
        rate = learning_rate(share, self.options)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng((self.options.seed, self._state.step))
        size_px = int(rng.choice(self.options.sizes_px))
        count = max(1, self.options.pixels_per_step // size_px**2)
        batch = draw_batch(sources, count, size_px, self.spec, self.augment, rng)
        with torch.random.fork_rng(devices=[]):  # dropout must neither read nor move the caller's generator
            torch.manual_seed(int(rng.integers(2**31)))
            loss = self._descend(batch)
        self._state.step += 1
        self._average()
        return loss

    def _descend(self, batch: Sequence[Sample]) -> float:
        device = next(self.network.parameters()).device
        pixels, target, weight = (part.to(device) for part in stack(batch))
        self.network.train()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
            outputs = self.network(pixels)
        loss = segmentation_loss(outputs, target, weight, self.options.output_weights)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip_norm)
        if torch.isfinite(norm):  # one bad batch must not end hours of work
            self._optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights; early on they follow faster, or they would remember the random start."""
        decay = min(self.options.ema_decay, (1 + self._state.step) / (10 + self._state.step))
        averaged: list[Tensor] = list(self.averaged.parameters())
        current = [parameter.detach() for parameter in self.network.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for kept, new in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)

    def _report(self, validation: Sequence[ValidationSet], loss: float, clock: _Clock) -> Progress:
        scores = {one.name: score(self.averaged, one.samples).mean_iou for one in validation}
        total = float(np.mean(list(scores.values()))) if scores else -loss
        is_best = total > self._state.best_score
        if is_best:
            self._best = copy.deepcopy(self.averaged.state_dict())
            self._state.best_score, self._state.best_step = total, self._state.step
        share = self._share(clock.elapsed_s)
        progress = Progress(
            self._state.step, clock.elapsed_s, share, loss, learning_rate(share, self.options), scores, is_best
        )
        self._state.history.append({"step": progress.step, "loss": round(loss, 4), "scores": scores})
        self._state.elapsed_s = clock.elapsed_s
        if self._checkpoint is not None:
            self._save(self._checkpoint)
        return progress

    def _save(self, path: Path) -> None:
        """Write the checkpoint beside its place, then rename: a kill leaves the old one or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        state = {name: getattr(self._state, name) for name in _State.__slots__}
        tensors = {
            "network": self.network.state_dict(), "averaged": self.averaged.state_dict(), "best": self._best,
            "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        torch.save({"state": state, **tensors}, unfinished)
        unfinished.replace(path)

    def _load(self, path: Path) -> None:
        """Take up a run.

        Raises:
            StorageError: The checkpoint is damaged or belongs to another network.
        """
        try:
            kept = torch.load(path, map_location="cpu", weights_only=True)
            self.network.load_state_dict(kept["network"])
            self.averaged.load_state_dict(kept["averaged"])
            self._optimizer.load_state_dict(kept["optimizer"])
            self._best, self._state = kept["best"], _State(**kept["state"])
        except (RuntimeError, KeyError, ValueError, TypeError, EOFError) as error:
            raise StorageError(f"checkpoint {path} does not fit: {error}", f"remove {path} to start anew") from error


class _Clock:
    """Seconds of work, those before a resume included."""

    def __init__(self, earlier_s: float) -> None:
        self._start = time.monotonic() - earlier_s

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start


def learning_rate(share: float, options: TrainOptions) -> float:
    """Learning rate after ``share`` of the budget: a straight rise, then half a cosine down to 1 % of the top."""
    if share < options.warmup_share:
        return options.learning_rate * max(share / options.warmup_share, 0.02)
    fall = min(1.0, (share - options.warmup_share) / (1 - options.warmup_share))
    return options.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


def stack(batch: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of one size as tensors: pixels (N, C, H, W) float32, targets (N, H, W) uint8, weights (N,) float32."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in batch]))
    target = torch.from_numpy(np.stack([sample.target for sample in batch]))
    return pixels, target, torch.tensor([sample.weight for sample in batch], dtype=torch.float32)


@torch.no_grad()
def score(network: nn.Module, samples: Sequence[Sample]) -> Confusion:
    """Compare a network in evaluation mode with the pixels whose class is certain.

    Args:
        network: Logits (1, K, H, W) out.
        samples: Images of any sizes.

    Returns:
        The confusion of classes 0 to K - 1.
    """
    total: Confusion | None = None
    device = next(network.parameters()).device
    for sample in samples:
        logits = network(torch.from_numpy(sample.pixels)[None].to(device))
        values = range(logits.shape[1])
        predicted = logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
        counts = confusion(values_from_targets(sample.target, values), predicted, values)
        total = counts if total is None else total + counts
    assert total is not None, "a validation set needs samples"
    return total


def _optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW; gains and biases do not decay, they have no length to lose."""
    parameters = list(network.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=options.learning_rate,
    )
