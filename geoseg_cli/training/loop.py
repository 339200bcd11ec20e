"""The training loop: a budget in, the best averaged weights out.

The budget is wall clock, because that is what people have, or steps, for runs that must come out the same; the
learning rate follows the share of it that is spent. Everything random is drawn from (seed, step, rank), so a run that
was killed and resumed draws what it would have drawn.

Axes: N batch, C input channels, K classes, H rows, W columns.
"""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import AccessError, StorageError
from geoseg_cli.metrics import Confusion, confusion
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.training.augment import AugmentOptions, Sample, Source
from geoseg_cli.training.chips import values_from_targets
from geoseg_cli.training.feed import Drawn, Feed, ReadAhead, stack
from geoseg_cli.training.losses import segmentation_loss, view_disagreement
from geoseg_cli.training.ranks import Ranks
from geoseg_cli.training.schedule import TrainOptions, learning_rate

__all__ = ["Pace", "Progress", "TrainOptions", "Trainer", "ValidationSet", "learning_rate", "score", "stack"]

TIE = 0.001
"""Difference of scores (mean IoU) that does not tell two sets of weights apart."""


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
class Pace:
    """How far a run is and how fast it goes.

    Attributes:
        step: Steps done.
        share: Share of the budget used, 0 to 1.
        steps_per_s: Of this process since it started or resumed, validation included; 0 before its first step.
        left_s: Time to the end of the budget at this rate; NaN before the first step of a budget of steps.
    """

    step: int
    share: float
    steps_per_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step, elapsed_s, share: Steps done, seconds used, share of the budget used.
        loss: Mean loss since the last report.
        learning_rate: Now.
        scores: Mean IoU of each validation set.
        is_best: Whether these weights are the best so far.
        pace: Rate and time left.
    """

    step: int
    elapsed_s: float
    share: float
    loss: float
    learning_rate: float
    scores: dict[str, float]
    is_best: bool
    pace: Pace


@dataclass(slots=True)
class _State:
    """What a checkpoint must hold beside the tensors."""

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = -math.inf
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    reported_step: int = 0
    reported_s: float = 0.0
    losses: list[float] = field(default_factory=list)
    stale_reports: int = 0


class Trainer:
    """Trains one network.

    Args:
        network: Returns logits, or in training main and auxiliary logits; on the device where it is to be trained.
        spec: Normalisation.
        options: How to train.
        augment: How to disturb the samples.
        checkpoint: File to keep the run in, and to resume it from if it exists. None keeps nothing.
        ranks: This process among those that train together; each of them needs a trainer.

    Attributes:
        averaged: The moving average of the weights.
    """

    def __init__(
        self, network: nn.Module, spec: InputSpec, options: TrainOptions, augment: AugmentOptions,
        checkpoint: Path | None = None, ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self.network, self.spec, self.options, self.augment = network, spec, options, augment
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self._best = copy.deepcopy(self.averaged.state_dict())
        self._optimizer = _optimizer(network, options)
        self._checkpoint, self._state = checkpoint, _State()
        self._ranks = ranks or Ranks()
        if checkpoint is not None and checkpoint.is_file():
            self._load(checkpoint)
        self._module = self._ranks.wrap(network, spec.channels)
        self._clock, self._first_step = _Clock(self._state.elapsed_s), self._state.step

    def run(
        self, sources: Sequence[Source], validation: Sequence[ValidationSet],
        on_step: Callable[[], None] = lambda: None, stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Progress]:  # fmt: skip
        """Train until the budget is spent, patience is at its end, or a stop is asked for.

        Args:
            sources: What to learn from.
            validation: What chooses the best weights: their mean over the sets of the mean IoU.
            on_step: Called after each step, for a pool that has to be pumped.
            stop: Asked before each step; when any process says yes, the checkpoint is written and all end.

        Yields:
            A report after each validation, in the first process; the checkpoint is written before it is yielded.
        """
        self._clock, self._first_step = _Clock(self._state.elapsed_s), self._state.step
        if not self._state.reported_s:
            self._state.reported_s = self._state.elapsed_s
        feed = Feed(sources, self.spec, self.options, self.augment, self._ranks.rank)
        with ReadAhead(feed, self.options.prefetch, self.options.steps) as batches:
            while (share := self._agreed_share(is_stopped := stop())) < 1:
                self._state.losses.append(self._step(batches.take(self._state.step), share))
                on_step()
                if self._ranks.is_first and self._is_report_due():
                    yield self._report(validation)
        if is_stopped or (share == math.inf and not self.is_over):
            self._keep()

    def best(self) -> tuple[nn.Module, int, float]:
        """The network with the best averaged weights, in evaluation mode, their step and their score."""
        network = copy.deepcopy(self.averaged)
        network.load_state_dict(self._best)
        return network.eval(), self._state.best_step, self._state.best_score

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row per report."""
        return list(self._state.history)

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent or patience is at its end."""
        return self._share() >= 1 or self._is_patience_over()

    @property
    def pace(self) -> Pace:
        """How far and how fast."""
        step, seconds = self._state.step, self._clock.own_s
        rate = (step - self._first_step) / seconds if seconds else 0.0
        if self.options.steps is None:
            left_s = max(0.0, 60 * self.options.minutes - self._clock.elapsed_s)
        else:
            left_s = (self.options.steps - step) / rate if rate else math.nan
        return Pace(step, min(1.0, self._share()), rate, left_s)

    def _share(self) -> float:
        if self.options.steps is not None:
            return self._state.step / self.options.steps
        return self._clock.elapsed_s / (60 * self.options.minutes)

    def _is_patience_over(self) -> bool:
        return self.options.patience is not None and self._state.stale_reports >= self.options.patience

    def _agreed_share(self, is_stopped: bool) -> float:
        """Share of the budget that is spent by the clock of the first process; infinite when any wants to end."""
        own = self._share() if self._ranks.is_first else 0.0
        share, votes = self._ranks.total(own, float(is_stopped or self._is_patience_over()))
        return math.inf if votes else share

    def _is_report_due(self) -> bool:
        state, options = self._state, self.options
        if self._share() >= 1:
            return True
        if options.validate_steps is not None:
            return state.step - state.reported_step >= options.validate_steps
        return self._clock.elapsed_s - state.reported_s >= 60 * options.validate_minutes

    def _step(self, drawn: Drawn, share: float) -> float:
        """One step; returns the loss."""
        rate = learning_rate(share, self.options)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with torch.random.fork_rng(devices=[]):  # dropout must neither read nor move the caller's generator
            torch.manual_seed(drawn.seed)
            loss = self._descend(drawn)
        self._state.step += 1
        self._average()
        return loss

    def _descend(self, drawn: Drawn) -> float:
        device = next(self.network.parameters()).device
        pixels, target, weight = (part.to(device) for part in stack(drawn.samples))
        classes = self.options.class_weights
        self._module.train()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
            outputs = self._module(pixels)
        weights = None if classes is None else torch.tensor(classes, device=device)
        loss = segmentation_loss(outputs, target, weight, self.options.output_weights, weights)
        if drawn.shifts:
            main = outputs if isinstance(outputs, Tensor) else outputs[0]
            # Normalised bands are exactly 0 where a pixel is invalid, and hardly anywhere else.
            shown = (pixels[:, : len(self.spec.bands)] != 0).any(dim=1)
            loss = loss + self.options.view_weight * view_disagreement(main, drawn.shifts, shown)
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

    def _report(self, validation: Sequence[ValidationSet]) -> Progress:
        state = self._state
        loss = float(np.mean(state.losses))
        scores = {one.name: score(self.averaged, one.samples).mean_iou for one in validation}
        total = float(np.mean(list(scores.values()))) if scores else -loss
        if not all(bool(torch.isfinite(weights).all()) for weights in self.averaged.parameters()):
            total = -math.inf  # it answers something all the same: the first class
        # Of scores that a few pixels more or less would turn round, the later weights have learned more.
        is_best = total > state.best_score - TIE
        state.stale_reports = 0 if total > state.best_score else state.stale_reports + 1
        if is_best:
            self._best = copy.deepcopy(self.averaged.state_dict())
            state.best_score, state.best_step = max(total, state.best_score), state.step
        share, elapsed_s = self._share(), self._clock.elapsed_s
        state.history.append({"step": state.step, "loss": round(loss, 4), "scores": scores})
        state.reported_step, state.reported_s, state.losses = state.step, elapsed_s, []
        self._keep()
        rate = learning_rate(share, self.options)
        return Progress(state.step, elapsed_s, share, loss, rate, scores, is_best, self.pace)

    def _keep(self) -> None:
        """Write the checkpoint, in the first process."""
        self._state.elapsed_s = self._clock.elapsed_s
        if self._checkpoint is not None and self._ranks.is_first:
            self._save(self._checkpoint)

    def _save(self, path: Path) -> None:
        """Write the checkpoint beside its place, then rename: a kill leaves the old one or the new one."""
        unfinished = path.with_suffix(".part")
        state = {name: getattr(self._state, name) for name in _State.__slots__}
        tensors = {
            "network": self.network.state_dict(), "averaged": self.averaged.state_dict(), "best": self._best,
            "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        buffer = io.BytesIO()  # torch names neither the file nor the full disk
        torch.save({"state": state, **tensors}, buffer)
        with storage_trouble(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(buffer.getbuffer())
            unfinished.replace(path)

    def _load(self, path: Path) -> None:
        """Take up a run.

        Raises:
            AccessError: The checkpoint may not be read.
            StorageError: It is damaged or belongs to another network.
        """
        hint = f"remove {path} to train anew with the same chips, or begin a new run with --restart"
        kept = _read_checkpoint(path, hint)
        try:
            self.network.load_state_dict(kept["network"])
            self.averaged.load_state_dict(kept["averaged"])
            self._optimizer.load_state_dict(kept["optimizer"])
            self._best, self._state = kept["best"], _State(**kept["state"])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise StorageError(f"checkpoint {path} does not fit: it is not of this network", hint) from error


def _read_checkpoint(path: Path, hint: str) -> dict[str, Any]:
    """What a checkpoint holds; torch's own words about a damaged one advise to trust it, ours do not."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise AccessError(f"checkpoint {path} cannot be read: {error.strerror}", "give yourself the right") from error
    except Exception as error:  # unpickling damaged bytes ends in any kind of error
        raise StorageError(f"checkpoint {path} is cut or damaged, or is no checkpoint", hint) from error
    if not isinstance(kept, dict):
        raise StorageError(f"checkpoint {path} is no checkpoint of geoseg train", hint)
    return kept


class _Clock:
    """Seconds of work; those before a resume count as well."""

    def __init__(self, earlier_s: float) -> None:
        self._start, self._earlier_s = time.monotonic(), earlier_s

    @property
    def own_s(self) -> float:
        """Since this clock was started."""
        return time.monotonic() - self._start

    @property
    def elapsed_s(self) -> float:
        """Since the run began."""
        return self._earlier_s + self.own_s


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
