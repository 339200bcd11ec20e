"""What every network asks of its input, said once and before a layer would stumble over it."""

from __future__ import annotations

import torch
from torch import Tensor

from geoseg_cli.errors import ModelError

__all__ = ["check_image"]


def check_image(network: str, x: Tensor, bands: int) -> None:
    """Refuse an input that a network cannot take.

    Args:
        network: Name of the architecture, for the message.
        x: The input; (N, bands, H, W) with H and W of at least 1 is right.
        bands: Bands that the network's weights are for.

    Raises:
        ModelError: The input has another number of axes or bands, or no pixels.
    """
    shape = tuple(x.shape)
    if len(shape) != 4:
        raise ModelError(f"{network}: the input has the shape {shape}", "give (images, bands, rows, columns)")
    if shape[1] != bands:
        raise ModelError(
            f"{network}: the image has {shape[1]} bands and the network {bands}",
            "give the bands that the weights are for, or create the network with the bands of the image",
        )
    # While exporting, sizes are symbols: asking would tie the graph to an answer.
    if not torch.compiler.is_exporting() and min(shape[2:]) < 1:
        raise ModelError(f"{network}: the image has {shape[2]} x {shape[3]} pixels", "give at least one of each")
