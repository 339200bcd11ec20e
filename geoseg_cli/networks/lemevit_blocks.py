"""The blocks of LeMeViT: attention through meta tokens, and plain self-attention.

Paper: "LeMeViT: Efficient Vision Transformer with Learnable Meta Tokens", arXiv 2405.09789 (IJCAI 2024).

Legend: N batch, A heads, D channels, H rows, W columns, P = H * W positions, M meta tokens.

| block      | image                    | meta tokens                   | scale of the scores        |
|------------|--------------------------|-------------------------------|----------------------------|
| CrossBlock | passes through untouched | read the image                | (D / A)^-1/2               |
| DualBlock  | reads the meta tokens    | read the image                | log_P(M) D^-1/2 and D^-1/2 |
| SelfBlock  | reads itself             | read themselves, same weights | (D / A)^-1/2               |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geoseg_cli.networks.attention import DotProductAttention, merge_heads, split_heads
from geoseg_cli.networks.swin import DropPath, Mlp

__all__ = ["Block", "CrossBlock", "DualBlock", "SelfBlock", "scale_image_scores"]

HEAD_WIDTH = 32
MLP_RATIO = 4
NORM_EPSILON = 1e-6


class CrossAttention(nn.Module):
    """Let meta tokens read the image: the attention of C blocks."""

    def __init__(self, width: int) -> None:
        """Create attention of ``width`` channels."""
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.attend = DotProductAttention(HEAD_WIDTH**-0.5)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, image: Tensor, meta: Tensor) -> Tensor:
        """Return what meta tokens (N, M, D) read from image tokens (N, P, D): (N, M, D)."""
        (query,) = split_heads(self.query(meta), 1, self.heads)  # (N, A, M, D / A)
        key, value = split_heads(self.key_value(image), 2, self.heads)  # each (N, A, P, D / A)
        read: Tensor = self.out(merge_heads(self.attend(query, key, value)))
        return read


def scale_image_scores(tokens: Tensor, meta_tokens: int, width: int) -> Tensor:
    """Compute log_P(M) / sqrt(D), which keeps the entropy of image queries over few meta tokens in bounds.

    Args:
        tokens: Image tokens (N, P, D).
        meta_tokens: M.
        width: All channels D, not those of one head.

    Returns:
        Scalar float32 tensor.
    """
    # Export would freeze a Python logarithm of P at the traced size, silently wrong at all others, so P is a
    # sum of ones inside the graph. There is no logarithm to base 1, hence the 2.
    positions = torch.ones(tokens.shape[1], device=tokens.device).sum().clamp(min=2)
    scale: Tensor = math.log(meta_tokens) / positions.log() * width**-0.5
    return scale


class DualCrossAttention(nn.Module):
    """Let image and meta tokens read each other: the attention of D blocks."""

    def __init__(self, width: int) -> None:
        """Create attention of ``width`` channels."""
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.attend_to_meta = DotProductAttention(1.0)
        self.attend_to_image = DotProductAttention(width**-0.5)
        self.image_qkv = nn.Linear(width, 3 * width)
        self.meta_qkv = nn.Linear(width, 3 * width)
        self.image_out = nn.Linear(width, width)
        self.meta_out = nn.Linear(width, width)

    def forward(self, image: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Return what image tokens (N, P, D) and meta tokens (N, M, D) read, in the same shapes."""
        image_query, image_key, image_value = split_heads(self.image_qkv(image), 3, self.heads)
        meta_query, meta_key, meta_value = split_heads(self.meta_qkv(meta), 3, self.heads)
        scale = scale_image_scores(image, meta.shape[1], image.shape[2]).to(image_query.dtype)
        image_read = self.attend_to_meta(image_query * scale, meta_key, meta_value)  # (N, A, P, D / A)
        meta_read = self.attend_to_image(meta_query, image_key, image_value)  # (N, A, M, D / A)
        return self.image_out(merge_heads(image_read)), self.meta_out(merge_heads(meta_read))


class SelfAttention(nn.Module):
    """Let tokens read each other: the attention of S blocks."""

    def __init__(self, width: int) -> None:
        """Create attention of ``width`` channels."""
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.attend = DotProductAttention(HEAD_WIDTH**-0.5)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what tokens (N, P, D) read, in the same shape."""
        read: Tensor = self.out(merge_heads(self.attend(*split_heads(self.qkv(tokens), 3, self.heads))))
        return read


class Block(nn.Module):
    """What all blocks share: a position code, two norms and an MLP, the same for image and meta tokens."""

    def __init__(self, width: int, drop_path: float) -> None:
        """Create the shared parts for ``width`` channels."""
        super().__init__()
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.attention_norm = nn.LayerNorm(width, NORM_EPSILON)
        self.mlp_norm = nn.LayerNorm(width, NORM_EPSILON)
        self.mlp = Mlp(width, MLP_RATIO)
        self.drop_path = DropPath(drop_path)

    def locate(self, image: Tensor) -> Tensor:
        """Add the position code to a map (N, D, H, W) and flatten it to tokens (N, P, D)."""
        located: Tensor = image + self.position(image)
        return located.flatten(2).transpose(1, 2)

    def update(self, tokens: Tensor, read: Tensor) -> Tensor:
        """Add what tokens (N, ., D) have read and pass them through the MLP; same shape out."""
        tokens = tokens + self.drop_path(read)
        updated: Tensor = tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))
        return updated


def _unflatten(tokens: Tensor, image: Tensor) -> Tensor:
    """Lay tokens (N, P, D) out as the map (N, D, H, W) that they came from."""
    return tokens.transpose(1, 2).reshape(image.shape)


class CrossBlock(Block):
    """C: meta tokens read the image, which passes through untouched."""

    def __init__(self, width: int, drop_path: float) -> None:
        """Create a block of ``width`` channels."""
        super().__init__(width, drop_path)
        self.attention = CrossAttention(width)

    def forward(self, image: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Turn a map (N, D, H, W) and meta tokens (N, M, D) into the same map and new tokens."""
        tokens = self.attention_norm(self.locate(image))
        return image, self.update(meta, self.attention(tokens, self.attention_norm(meta)))


class DualBlock(Block):
    """D: image and meta tokens read each other, both from before the block."""

    def __init__(self, width: int, drop_path: float) -> None:
        """Create a block of ``width`` channels."""
        super().__init__(width, drop_path)
        self.attention = DualCrossAttention(width)

    def forward(self, image: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Turn a map (N, D, H, W) and meta tokens (N, M, D) into new ones."""
        tokens = self.locate(image)
        image_read, meta_read = self.attention(self.attention_norm(tokens), self.attention_norm(meta))
        return _unflatten(self.update(tokens, image_read), image), self.update(meta, meta_read)


class SelfBlock(Block):
    """S: image and meta tokens each read themselves, with the same weights."""

    def __init__(self, width: int, drop_path: float) -> None:
        """Create a block of ``width`` channels."""
        super().__init__(width, drop_path)
        self.attention = SelfAttention(width)

    def forward(self, image: Tensor, meta: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Turn a map (N, D, H, W) and meta tokens (N, M, D), or None if not needed, into new ones."""
        tokens = self.locate(image)
        image = _unflatten(self.update(tokens, self.attention(self.attention_norm(tokens))), image)
        if meta is not None:
            meta = self.update(meta, self.attention(self.attention_norm(meta)))
        return image, meta
