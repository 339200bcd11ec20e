"""How long and how hard to train: the options of a run, and the curve of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        minutes: Time budget, validation included.
        steps: Budget in steps instead, for runs that must be the same on every machine.
        pixels_per_step: Pixels of one batch of one process; the number of images follows from their size.
        sizes_px: Sides of the images; each step draws one.
        learning_rate: At the top of its curve.
        warmup_share: Share of the budget in which the learning rate rises.
        weight_decay: Of weights with two axes or more.
        clip_norm: Longest gradient.
        ema_decay: Of the averaged weights that are validated and kept.
        output_weights: Loss weights of main and auxiliary outputs.
        view_weight: Loss weight of the disagreement of two views of the same ground; 0 draws single views.
        class_weights: Weight of each class in the cross-entropy; None weighs pixels alike.
        precision: ``bf16`` computes under autocast; weights and loss stay fp32.
        validate_minutes: Time between validations.
        validate_steps: Steps between validations instead.
        patience: Validations without a better score after which a run ends; None goes on to the end of the budget.
        prefetch: Threads that draw coming batches while a step runs; they change no batch.
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
    view_weight: float = 0.0
    class_weights: tuple[float, ...] | None = None
    precision: Literal["fp32", "bf16"] = "bf16"
    validate_minutes: float = 2.0
    validate_steps: int | None = None
    patience: int | None = None
    prefetch: int = 0
    seed: int = 1


def learning_rate(share: float, options: TrainOptions) -> float:
    """Learning rate after ``share`` of the budget: a straight rise, then half a cosine down to 1 % of the top."""
    if share < options.warmup_share:
        return options.learning_rate * max(share / options.warmup_share, 0.02)
    fall = min(1.0, (share - options.warmup_share) / (1 - options.warmup_share))
    return options.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))
