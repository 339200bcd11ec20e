"""Scaled dot-product attention among all tokens or among the near positions of a map.

It is fused for speed or spelled out for counting and inspection.

Legend: N batch, A heads, Q query tokens, T key tokens, D channels per head, C channels, H rows, W columns, B blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DotProductAttention", "attend_near", "merge_heads", "set_explicit_attention", "split_heads"]

# Added to a score, it makes its share of the softmax 0. Not infinite: what fills the last blocks sees nothing at all.
_NOT_SEEN = -1e4
_LEAST_BLOCK = 4


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


def attend_near(attend: DotProductAttention, fused: Tensor, heads: int, reach: int) -> Tensor:
    """Attend among those positions of a map that lie within ``reach`` rows and columns of each other.

    Blocked local attention (HaloNet, arXiv 2103.12731, figure 1), but masked to each position's own surroundings: the
    map is cut into square blocks, and each attends to itself and a halo of ``reach`` around it, so that cost and memory
    grow with the map's area and not with its square.

    Args:
        attend: What attends.
        fused: Query, key and value of every position, one after the other: (N, H, W, 3 * A * D), floating.
        heads: Number of heads A.
        reach: At least 1.

    Returns:
        (N, H, W, A * D), dtype of ``fused``.
    """
    rows, columns = fused.shape[1:3]
    width = fused.shape[3] // 3
    side = max(_LEAST_BLOCK, 2 * reach)
    # a block of zeros on every side, and what the last blocks lack
    margins = (0, 0, side, _up_to(columns, side) - columns + side, side, _up_to(rows, side) - rows + side)
    padded, is_map = F.pad(fused, margins), F.pad(torch.ones_like(fused[:1, :, :, :1]), margins)
    own = _cut(padded[..., :width], side, 0)  # (N, H / side, W / side, Q, A * D)
    query = _heads_apart(own, heads)
    key, value = (_heads_apart(part, heads) for part in _cut(padded[..., width:], side, reach).chunk(2, dim=-1))
    seen = _cut(is_map, side, reach).flatten(1, 2).unsqueeze(2).transpose(-1, -2)  # (1, B, 1, 1, T)
    bias = _NOT_SEEN * (1 - seen * _are_near(side, reach, like=seen))  # (1, B, 1, Q, T)
    attended = attend(query, key, value, bias).transpose(2, 3).flatten(3)  # (N, B, Q, A * D)
    blocks = torch.unflatten(torch.unflatten(attended, 2, (side, side)), 1, own.shape[1:3]).transpose(2, 3)
    return blocks.flatten(3, 4).flatten(1, 2)[:, :rows, :columns]


def _up_to(length: int, side: int) -> int:
    return (length + side - 1) // side * side


def _cut(padded: Tensor, side: int, halo: int) -> Tensor:
    """Cut the blocks inside a map's outermost ones, each with ``halo`` rows and columns of its neighbours.

    Args:
        padded: (N, H, W, C); H and W are multiples of ``side``.
        side: Rows and columns of a block, at least ``halo``.
        halo: At least 0.

    Returns:
        (N, H / side - 2, W / side - 2, T, C), T = (side + 2 * halo)^2.
    """
    blocks = _cut_dimension(_cut_dimension(padded, 2, side, halo), 1, side, halo)
    return blocks.transpose(2, 3).flatten(3, 4)


def _cut_dimension(x: Tensor, dim: int, side: int, halo: int) -> Tensor:
    blocks = torch.unflatten(x, dim, (-1, side))
    before, own, after = (blocks.narrow(dim, start, blocks.shape[dim] - 2) for start in range(3))
    if not halo:
        return own
    return torch.cat([before.narrow(dim + 1, side - halo, halo), own, after.narrow(dim + 1, 0, halo)], dim + 1)


def _heads_apart(blocks: Tensor, heads: int) -> Tensor:
    """(N, H / side, W / side, T, A * D) -> (N, B, A, T, D)."""
    return torch.unflatten(blocks.flatten(1, 2), -1, (heads, -1)).transpose(2, 3)


def _are_near(side: int, reach: int, like: Tensor) -> Tensor:
    """Which positions of a block's window each of its own sees: (side^2, (side + 2 * reach)^2), 1 or 0."""
    own = torch.arange(side, device=like.device)[:, None]
    window = torch.arange(side + 2 * reach, device=like.device)[None] - reach
    near = (own - window).abs() <= reach  # (side, side + 2 * reach)
    return (near[:, None, :, None] & near[None, :, None, :]).flatten(2).flatten(0, 1).to(like.dtype)
