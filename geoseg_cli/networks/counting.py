"""Parameters and multiply-adds of networks, counted from shapes: nothing is allocated and nothing computed.

The counting rule: one multiply-add (MAC) per product in convolutions, transposed convolutions, linear layers and
matrix products, both products of attention and the averaging matrices of adaptive pooling included. Norms, activations,
softmax, sums and resizing cost nothing. A fused multiply-add counts once, so FLOP are twice this number.

Published figures are often totals of fvcore, which also charges norms and bilinear resizing; ``with_charges`` adds
those: 2 per element for batch norm, 5 for layer norm, 4 per element that bilinear resizing makes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from geoseg_cli.errors import ModelError
from geoseg_cli.networks import create_network
from geoseg_cli.networks.attention import set_explicit_attention

__all__ = ["COUNTING_RULE", "NetworkSize", "count_macs", "count_macs_by_module", "count_parameters", "measure_size"]

COUNTING_RULE = (
    "MAC: multiply-adds of convolutions, linear layers and matrix products, those of attention included; "
    "norms, activations, softmax and resizing count nothing; FLOP are twice as many."
)

_aten = torch.ops.aten


def count_parameters(module: nn.Module) -> int:
    """Count the learned numbers of a module, shared ones once; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, bands: int, height: int, width: int, *, with_charges: bool = False) -> int:
    """Count the multiply-adds of one image, by the rule at the top of this file.

    Args:
        module: A network of images (1, bands, height, width), on any device; neither run nor changed. It is counted
            in its mode: evaluation is what runs in production.
        bands: Input bands.
        height: Rows in pixels, at least 1.
        width: Columns in pixels, at least 1.
        with_charges: Add what fvcore charges for norms and bilinear resizing.

    Returns:
        Multiply-adds.

    Raises:
        ModelError: A number is below 1.
    """
    return int(_run_counter(module, bands, height, width, with_charges).get_total_flops()) // 2


def count_macs_by_module(
    module: nn.Module, bands: int, height: int, width: int, *, with_charges: bool = False
) -> dict[str, int]:
    """Count the multiply-adds of one image in every module inside a network.

    Args:
        module: As for ``count_macs``.
        bands: As for ``count_macs``.
        height: As for ``count_macs``.
        width: As for ``count_macs``.
        with_charges: As for ``count_macs``.

    Returns:
        Multiply-adds by the names of ``module.named_modules()``, those of inner modules included; modules that cost
        nothing are left out.

    Raises:
        ModelError: A number is below 1.
    """
    counter = _run_counter(module, bands, height, width, with_charges)
    root = type(module).__name__
    return {
        name.removeprefix(root).removeprefix("."): sum(operators.values()) // 2
        for name, operators in counter.get_flop_counts().items()
        if name != "Global"
    }


def _run_counter(module: nn.Module, bands: int, height: int, width: int, with_charges: bool) -> FlopCounterMode:
    if min(bands, height, width) < 1:
        raise ModelError(f"cannot count for {bands} bands of {height} x {width} pixels", "use at least one of each")
    shadow = _move_to_meta(module)
    # Counters do not see inside the fused kernel.
    set_explicit_attention(shadow)
    counter = FlopCounterMode(display=False, custom_mapping=_CHARGES if with_charges else None)
    with torch.no_grad(), counter:
        shadow(torch.empty(1, bands, height, width, device="meta"))
    return counter


def _move_to_meta(module: nn.Module) -> nn.Module:
    """Copy a module without its numbers: parameters and buffers keep shape and dtype only."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(module, memo)


def _charge_norm(per_element: int) -> Callable[..., int]:
    def charge(x: tuple[int, ...], *arguments: Any, **named: Any) -> int:
        return 2 * per_element * prod(x)

    return charge


def _charge_resize(x: tuple[int, ...], *arguments: Any, out_shape: tuple[int, ...], **named: Any) -> int:
    return 2 * 4 * prod(out_shape)


# Twice the charge, because the counter's own formulas count two operations per multiply-add. Every network here
# scales and shifts after its norms, so the smaller charges of norms without weights are not needed.
_CHARGES: dict[Any, Callable[..., int]] = {
    _aten.native_batch_norm: _charge_norm(2),
    _aten._native_batch_norm_legit_no_training: _charge_norm(2),
    _aten.cudnn_batch_norm: _charge_norm(2),
    _aten.native_layer_norm: _charge_norm(5),
    _aten.upsample_bilinear2d: _charge_resize,
}


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """How large a network is.

    Attributes:
        name: Its name in ``network_names()``.
        bands: Input bands.
        classes: Output classes.
        parameters: Learned numbers, auxiliary heads included.
        macs: Multiply-adds of one square image in evaluation, by side in pixels.
    """

    name: str
    bands: int
    classes: int
    parameters: int
    macs: dict[int, int] = field(default_factory=dict)


def measure_size(name: str, bands: int, classes: int, sides_px: tuple[int, ...] = (256, 512)) -> NetworkSize:
    """Count a network by name without allocating its weights.

    Args:
        name: One of ``network_names()``.
        bands: Input bands, at least 1.
        classes: Output classes, at least 1.
        sides_px: Sides of the square images to count multiply-adds for, in pixels.

    Raises:
        ModelError: The name is unknown, or a number is below 1.
    """
    with torch.device("meta"):
        network = create_network(name, bands, classes).eval()
    macs = {side_px: count_macs(network, bands, side_px, side_px) for side_px in sides_px}
    return NetworkSize(name, bands, classes, count_parameters(network), macs)
