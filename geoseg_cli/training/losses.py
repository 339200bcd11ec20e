"""What training minimises.

A target is a set of classes: bit k set where the pixel may be class k (see ``chips``). Cross-entropy asks for
probability inside the set, Dice for overlap where the class is certain. Two views of the same ground can be asked to
agree, whatever they say. Targets are uint8 for up to 8 classes and
int64 for more.

Axes: N batch, K classes, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

DICE_SMOOTHING = 1.0
"""Pixels added to both sides of the Dice ratio, so that a class of few pixels does not swing it."""
MAX_CLASS_WEIGHT = 10.0
"""A class of a handful of pixels must not outshout all others: its labels may be wrong."""


def allowed_classes(target: Tensor, classes: int) -> Tensor:
    """Spread targets (N, H, W) into (N, K, H, W) bool: True where the pixel may be class k."""
    bits = torch.arange(classes, dtype=target.dtype, device=target.device).view(1, -1, 1, 1)
    return (target.unsqueeze(1) >> bits) & 1 != 0


def class_weights(pixels: Sequence[int], power: float) -> tuple[float, ...]:
    """Weights that let rare classes count more: proportional to frequency to the power of -``power``.

    Args:
        pixels: Labelled pixels of each of the K classes.
        power: 0 for equal weights, 0.5 for the inverse square root of the frequency, 1 for its inverse.

    Returns:
        One weight per class, at most ``MAX_CLASS_WEIGHT``; before that bound their mean over the pixels is 1. A class
        without pixels gets 1: nothing is known of it.
    """
    total = sum(pixels)
    raw = [(count / total) ** -power if count else 0.0 for count in pixels]
    mean = sum(count * value for count, value in zip(pixels, raw, strict=True)) / total if total else 1.0
    return tuple(min(value / mean, MAX_CLASS_WEIGHT) if value else 1.0 for value in raw)


def set_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, classes: Tensor | None = None) -> Tensor:
    """Mean of -log(probability of the allowed classes) over the pixels that have any.

    With one allowed class it is the usual cross-entropy.

    Args:
        logits: (N, K, H, W) float32.
        target: (N, H, W) sets of classes; 0 is ignored.
        weight: (N,) float32, at least 0, weight of each image's pixels.
        classes: (K,) float32, above 0, weight of each class; a set weighs as much as its classes in the mean.

    Returns:
        Scalar, at least 0; 0 when no pixel is labelled.
    """
    is_known = target != 0
    # Unlabelled pixels allow everything: their loss is exactly 0 and its gradient too, never -inf or NaN.
    everything = torch.full_like(target, (1 << logits.shape[1]) - 1)
    allowed = allowed_classes(torch.where(is_known, target, everything), logits.shape[1])
    inside = logits.masked_fill(~allowed, float("-inf")).logsumexp(dim=1)
    losses = logits.logsumexp(dim=1) - inside  # (N, H, W)
    weights = weight.view(-1, 1, 1) * is_known
    if classes is not None:
        weights = weights * (allowed * classes.view(1, -1, 1, 1)).sum(dim=1) / allowed.sum(dim=1)
    return (losses * weights).sum() / weights.sum().clamp_min(1.0)


def dice_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over the classes that occur of 1 - Dice between probability and truth, over the whole batch.

    Args:
        logits: (N, K, H, W) float32.
        target: (N, H, W) sets of classes; only pixels with exactly one class count.
        weight: (N,) float32, at least 0, weight of each image's pixels.

    Returns:
        Scalar, 0 to 1; 0 when no pixel is certain.
    """
    truth = allowed_classes(target, logits.shape[1])
    is_certain = truth.sum(dim=1) == 1
    weights = (weight.view(-1, 1, 1) * is_certain).unsqueeze(1)  # (N, 1, H, W)
    probability = logits.softmax(dim=1) * weights
    truth_weight = truth * weights
    common = (probability * truth).sum(dim=(0, 2, 3))
    total = probability.sum(dim=(0, 2, 3)) + truth_weight.sum(dim=(0, 2, 3))
    dice = (2 * common + DICE_SMOOTHING) / (total + DICE_SMOOTHING)
    occurs = truth_weight.sum(dim=(0, 2, 3)) > 0
    return ((1 - dice) * occurs).sum() / occurs.sum().clamp_min(1)


def segmentation_loss(
    outputs: Tensor | Sequence[Tensor],
    target: Tensor,
    weight: Tensor,
    output_weights: Sequence[float] = (1.0, 0.4, 0.4),
    classes: Tensor | None = None,
) -> Tensor:
    """Cross-entropy plus Dice of the main output, and weighted of the auxiliary ones.

    Args:
        outputs: Logits (N, K, H, W), or main logits followed by auxiliary ones.
        target: (N, H, W) sets of classes; 0 is ignored.
        weight: (N,) float32, at least 0.
        output_weights: Weight of each output; MSCloudCAM publishes 1, 0.4, 0.4.
        classes: (K,) float32, above 0, weight of each class in the cross-entropy; Dice weighs classes equally already.

    Returns:
        Scalar, at least 0.
    """
    several = (outputs,) if isinstance(outputs, Tensor) else outputs
    total = torch.zeros((), device=target.device)
    for logits, share in zip(several, output_weights, strict=False):
        scores = logits.float()
        total = total + share * (set_cross_entropy(scores, target, weight, classes) + dice_loss(scores, target, weight))
    return total


def view_disagreement(logits: Tensor, shifts: Sequence[tuple[int, int]], valid: Tensor) -> Tensor:
    """How differently pairs of views judge the pixels that both show: mean Jensen-Shannon divergence.

    Args:
        logits: (2 V, K, H, W); the views 2 v and 2 v + 1 show the same ground.
        shifts: Rows and columns by which view 2 v + 1 lies further down and right than view 2 v.
        valid: (2 V, H, W) bool, where a view shows anything.

    Returns:
        Scalar, 0 where all agree to ln 2; 0 when no pixel is shown twice.
    """
    total, count = logits.new_zeros((), dtype=torch.float32), 0
    for place, shift in enumerate(shifts):
        ours, theirs = (_common(logits[2 * place + view].float(), shift, view) for view in (0, 1))
        both = _common(valid[2 * place], shift, 0) & _common(valid[2 * place + 1], shift, 1)
        first, second = ours.log_softmax(dim=0), theirs.log_softmax(dim=0)
        middle = torch.logaddexp(first, second) - math.log(2)
        apart = (first.exp() * (first - middle) + second.exp() * (second - middle)).sum(dim=0) / 2
        total, count = total + (apart * both).sum(), count + int(both.sum())
    return total / max(count, 1)


def _common(planes: Tensor, shift: tuple[int, int], view: int) -> Tensor:
    """What view 0 or 1 of a pair shows of the ground that both show: (..., H, W) cut along both axes."""
    for axis, amount in zip((-2, -1), shift, strict=True):
        length = max(0, planes.shape[axis] - abs(amount))
        # The second lies further along, so that the first shows the common ground later.
        begin = max(amount, 0) if view == 0 else max(-amount, 0)
        planes = planes.narrow(axis, begin if length else 0, length)
    return planes
