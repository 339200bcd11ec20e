"""Scaled dot-product attention, fused for speed or spelled out for counting and inspection.

Legend: N batch, A heads, Q query tokens, T key tokens, D channels per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DotProductAttention", "merge_heads", "set_explicit_attention", "split_heads"]


def split_heads(tokens: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Split fused projections into one tensor per part, its heads apart.

    Args:
        tokens: Fused projections of shape (N, T, parts * A * D), floating.
        parts: Number of fused projections, 3 for query, key and value.
        heads: Number of heads A.

    Returns:
        ``parts`` tensors of shape (N, A, T, D), in the order in which they were fused.
    """
    batch, length, width = tokens.shape
    split = tokens.reshape(batch, length, parts, heads, width // (parts * heads))  # (N, T, parts, A, D)
    return split.permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(attended: Tensor) -> Tensor:
    """Put the heads of (N, A, T, D) side by side again: (N, T, A * D)."""
    return attended.transpose(1, 2).flatten(2)


class DotProductAttention(nn.Module):
    """softmax(scale * query key^T + bias) value, the softmax over the key tokens; holds no parameters.

    Attributes:
        explicit: Spell the matrix products out. Operation counters do not see inside the fused kernel.
    """

    def __init__(self, scale: float) -> None:
        """Create fused attention whose scores are multiplied by ``scale``."""
        super().__init__()
        self.scale = scale
        self.explicit = False

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend, with scores that may carry positions and masks.

        Args:
            query: Tensor of shape (N, A, Q, D), floating.
            key: Tensor of shape (N, A, T, D), dtype of ``query``.
            value: Tensor of shape (N, A, T, D), dtype of ``query``.
            bias: Added to the scores, broadcastable to (N, A, Q, T), dtype of ``query``; None for nothing.

        Returns:
            Tensor of shape (N, A, Q, D), dtype of ``query``.
        """
        # The exporter spells the kernel with a bias out anyway, but would keep views that hold for the kernel's layout.
        if not (self.explicit or (bias is not None and torch.compiler.is_exporting())):
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)
        scores = (query * self.scale) @ key.transpose(-2, -1)  # (N, A, Q, T)
        return (scores if bias is None else scores + bias).softmax(dim=-1) @ value


def set_explicit_attention(network: nn.Module, explicit: bool = True) -> None:
    """Switch all attention inside a network between the fused kernel and spelled-out products.

    Args:
        network: Any network; changed in place.
        explicit: True for matrix products that counters see, False for the fused kernel.
    """
    for module in network.modules():
        if isinstance(module, DotProductAttention):
            module.explicit = explicit
