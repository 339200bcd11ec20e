"""Decode heads: maps of a feature pyramid in, logits on its finest map out.

Legend: N batch, K classes, H rows, W columns of the finest map, D channels of a map, M width of the head.

| head       | idea                                           | source                                |
|------------|------------------------------------------------|---------------------------------------|
| AllMLPHead | project every map, concatenate, fuse, classify | SegFormer, arXiv 2105.15203, sec. 3.2 |
| UPerHead   | pyramid pooling and a feature pyramid before   | UPerNet, arXiv 1807.10221, sec. 3.1   |
| FCNHead    | one 3 x 3 convolution, classify; for one map   | FCN, arXiv 1411.4038                  |

No head resizes to the input: the caller knows its size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from geoseg_cli.networks.pooling import adaptive_average_pool

__all__ = ["AllMLPHead", "FCNHead", "UPerHead", "merged", "raise_to"]

PYRAMID_BINS = (1, 2, 3, 6)


def raise_to(x: Tensor, like: Tensor) -> Tensor:
    """Resize a map (N, D, ., .) bilinearly to the rows and columns of ``like`` (N, ., H, W)."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias


def _convolve(width_in: int, width_out: int, kernel: int) -> nn.Sequential:
    """Build a convolution without bias, BatchNorm and ReLU; the size of the map stays."""
    convolution = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width_out), nn.ReLU())


class AllMLPHead(nn.Module):
    """Project every map to one width by 1 x 1 convolutions, meet on the finest, fuse and classify.

    A 1 x 1 convolution and a bilinear resize can change places, so each map's share of the fusion is computed
    before it is raised. That equals the published order, concatenate and then fuse, at less than half its cost.

    Attributes:
        is_concatenating: Whether to keep the published order, whose operations the published figures count.
        shares: What :meth:`merge` makes of the projections and the fusion; None before.
    """

    shares: nn.ModuleList | None

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        *,
        width: int = 128,
        dropout: float = 0.1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        """Create the head.

        Args:
            widths: Channels of the maps, finest first.
            classes: Classes K.
            width: Channels M of the head.
            dropout: Share of fused features dropped in training.
            norm: Makes a norm for maps of so many channels.
            activation: Makes an activation.
        """
        super().__init__()
        self.is_concatenating, self.shares = False, None
        self.project = nn.ModuleList(nn.Conv2d(one, width, 1) for one in widths)
        fuse = nn.Conv2d(len(widths) * width, width, 1)
        self.fuse = nn.Sequential(fuse, norm(width), activation(), nn.Dropout(dropout))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps (N, D, ., .), finest (N, D, H, W) first, into logits (N, K, H, W)."""
        if self.shares is None:
            projected = [project(one) for project, one in zip(self.project, maps, strict=True)]
            fused = self._concatenate(projected) if self.is_concatenating else self._accumulate(projected)
        else:
            first, *others = (share(one) for share, one in zip(self.shares, maps, strict=True))
            fused = sum((raise_to(one, first) for one in others), first)
        logits: Tensor = self.classify(self.fuse[1:](fused))
        return logits

    @torch.no_grad()
    def merge(self) -> None:
        """Make one convolution of each map's projection and its share of the fusion, as nothing is between them.

        That leaves out a fifth of LALE-S1's products. Not for training: the head has other weights afterwards.
        """
        fuse: nn.Conv2d = self.fuse[0]  # type: ignore[assignment]
        project: list[nn.Conv2d] = list(self.project)  # type: ignore[arg-type]
        matrices = [kernel.flatten(1).double() for kernel in fuse.weight.chunk(len(project), dim=1)]  # each (M, M)
        shares: list[nn.Conv2d] = []
        for matrix, one in zip(matrices, project, strict=True):
            share = skip_init(nn.Conv2d, one.in_channels, len(matrix), 1, bias=not shares)  # type: ignore[no-untyped-call]
            share.weight.copy_((matrix @ one.weight.flatten(1).double())[..., None, None])
            shares.append(share)
        # A resized constant is that constant: the first map's share carries the biases of all.
        biases = [matrix @ _bias(one).double() for matrix, one in zip(matrices, project, strict=True)]
        _bias(shares[0]).copy_(sum(biases, _bias(fuse)))
        self.shares, self.project, self.fuse[0] = nn.ModuleList(shares), nn.ModuleList(), nn.Identity()

    def _concatenate(self, projected: list[Tensor]) -> Tensor:
        """Raise maps (N, M, ., .) to the finest, concatenate and fuse: (N, M, H, W)."""
        raised = [projected[0], *(raise_to(one, projected[0]) for one in projected[1:])]
        fused: Tensor = self.fuse[0](torch.cat(raised, dim=1))  # (N, maps * M, H, W) -> (N, M, H, W)
        return fused

    def _accumulate(self, projected: list[Tensor]) -> Tensor:
        """Compute what ``_concatenate`` does as a sum of every map's share."""
        fuse: nn.Conv2d = self.fuse[0]  # type: ignore[assignment]
        kernels = fuse.weight.chunk(len(projected), dim=1)  # each (M, M, 1, 1)
        fused = F.conv2d(projected[0], kernels[0], fuse.bias)
        for one, kernel in zip(projected[1:], kernels[1:], strict=True):
            fused = fused + raise_to(F.conv2d(one, kernel), fused)
        return fused


def merged(network: nn.Module) -> nn.Module:
    """A copy of a network for inference, whose heads do in one step what needs no two (:meth:`AllMLPHead.merge`).

    Its answers are the network's but for the last digits. A network without such a head is given back itself.
    """
    if not any(_merges(part) for part in network.modules()):
        return network
    own = copy.deepcopy(network)
    for part in own.modules():
        if _merges(part):
            part.merge()
    return own


def _merges(part: nn.Module) -> TypeGuard[AllMLPHead]:
    return isinstance(part, AllMLPHead) and not part.is_concatenating


class PyramidPooling(nn.Module):
    """Fuse a map with its averages over 1, 2, 3 and 6 bins a side (PSPNet, arXiv 1612.01105, section 3.2)."""

    def __init__(self, width_in: int, width: int) -> None:
        """Create pooling from ``width_in`` to ``width`` channels."""
        super().__init__()
        self.branches = nn.ModuleList(_convolve(width_in, width, 1) for _ in PYRAMID_BINS)
        self.fuse = _convolve(width_in + len(PYRAMID_BINS) * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Turn a map (N, D, H, W) into (N, M, H, W)."""
        pooled = [
            raise_to(branch(adaptive_average_pool(x, bins)), x)
            for branch, bins in zip(self.branches, PYRAMID_BINS, strict=True)
        ]
        fused: Tensor = self.fuse(torch.cat([x, *pooled], dim=1))  # (N, D + 4 M, H, W) -> (N, M, H, W)
        return fused


class UPerHead(nn.Module):
    """Pyramid pooling on the coarsest map, a top-down feature pyramid, and a fusion of all its maps."""

    def __init__(self, widths: Sequence[int], classes: int, *, width: int = 512, dropout: float = 0.1) -> None:
        """Create the head.

        Args:
            widths: Channels of the maps, finest first.
            classes: Classes K.
            width: Channels M of the head.
            dropout: Share of fused channels dropped in training, whole maps at a time.
        """
        super().__init__()
        self.pool = PyramidPooling(widths[-1], width)
        self.lateral = nn.ModuleList(_convolve(one, width, 1) for one in widths[:-1])
        self.smooth = nn.ModuleList(_convolve(width, width, 3) for _ in widths[:-1])
        self.fuse = nn.Sequential(_convolve(len(widths) * width, width, 3), nn.Dropout2d(dropout))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn maps (N, D, ., .), finest (N, D, H, W) first, into logits (N, K, H, W).

        In training N is at least 2: BatchNorm has nothing to average over a single bin of a single image.
        """
        levels = self._descend(maps)
        raised = [levels[0], *(raise_to(level, levels[0]) for level in levels[1:])]
        fused = self.fuse(torch.cat(raised, dim=1))  # (N, maps * M, H, W) -> (N, M, H, W)
        logits: Tensor = self.classify(fused)
        return logits

    def _descend(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Add every map to all finer ones; return the smoothed levels (N, M, ., .), finest first."""
        top: Tensor = self.pool(maps[-1])
        levels = [top]
        for index in reversed(range(len(self.lateral))):
            top = self.lateral[index](maps[index]) + raise_to(top, maps[index])
            levels.insert(0, self.smooth[index](top))
        return levels


class FCNHead(nn.Module):
    """A 3 x 3 convolution, dropout and a classifier on one map."""

    def __init__(self, width_in: int, classes: int, *, width: int = 256, dropout: float = 0.1) -> None:
        """Create a head on a map of ``width_in`` channels; arguments as those of ``UPerHead``."""
        super().__init__()
        self.convolve = nn.Sequential(_convolve(width_in, width, 3), nn.Dropout2d(dropout))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn a map (N, D, H, W) into logits (N, K, H, W)."""
        logits: Tensor = self.classify(self.convolve(x))
        return logits
