"""Every network that a CPU can train learns two tiles by heart: over 95 % of their pixels within 200 steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from geoseg_cli.networks import create_network

Learn = Callable[[nn.Module], int | None]
BANDS = CLASSES = 4  # of the two tiles

# The smallest of each family.
SMALLEST: dict[str, dict[str, Any]] = {
    "lale-s1": {},
    "mscloudcam-small": {},
    "chromaformer-mini": {"drop_path": 0.0},
    "lemevit-tiny-light": {},
}
LARGER = (
    "lale-s2", "lale-s3", "lale-s4", "lale-s1-k7", "lale-s2-k7",
    "mscloudcam",
    "chromaformer-t", "chromaformer-s",
    "lemevit-tiny", "lemevit-small-light", "lemevit-base-light",
)  # fmt: skip


def learns(name: str, config: dict[str, Any], steps_to_learn: Learn) -> bool:
    torch.manual_seed(0)
    return steps_to_learn(create_network(name, BANDS, CLASSES, **config)) is not None


@pytest.mark.parametrize(("name", "config"), SMALLEST.items())
def test_the_smallest_of_each_family_learns_two_tiles_by_heart(
    name: str, config: dict[str, Any], steps_to_learn: Learn
) -> None:
    assert learns(name, config, steps_to_learn)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_larger_variants_learn_two_tiles_by_heart(name: str, steps_to_learn: Learn) -> None:
    assert learns(name, {}, steps_to_learn)
