"""The trials of land-cover recipes: what they count, and that they leave the tiles alone that bundles are judged by."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from geoseg_cli.training.augment import Sample
from geoseg_cli.training.real_chips import EUROSAT_PARTS

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def real_share(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("real_share")


def test_a_tile_is_right_by_its_most_frequent_answer_and_tiles_without_a_class_do_not_count(
    real_share: ModuleType,
) -> None:
    def tile(trees: int) -> Sample:
        logits = np.zeros((7, 2, 5), np.float32)
        logits[0].flat[:trees] = 1  # trees, and grass elsewhere
        logits[1].flat[trees:] = 1
        return Sample(logits, np.zeros((2, 5), np.uint8), 1.0)

    tiles = [tile(10), tile(6), tile(2), tile(0)]
    right, pixels = real_share.tile_accuracy(torch.nn.Identity(), tiles, [10, 30, 30, 0])
    assert right == pytest.approx(2 / 3)
    assert pixels == pytest.approx((1.0 + 0.4 + 0.8) / 3)


def test_trials_and_the_choice_of_weights_leave_the_tiles_of_the_report_alone() -> None:
    tiles = {part: set(range(*span)) for part, span in EUROSAT_PARTS.items()}
    assert tiles["fit"] | tiles["check"] == tiles["train"] | tiles["develop"]
    assert not tiles["fit"] & tiles["check"]
    assert not tiles["train"] & tiles["develop"]
    assert not tiles["test"] & (tiles["train"] | tiles["develop"])
    assert len(tiles["train"] | tiles["develop"] | tiles["test"]) == 16


def test_the_first_trial_is_the_recipe_that_is_shipped(real_share: ModuleType) -> None:
    from geoseg_cli.training.bundle_recipes import SHARES

    shares, has_textures = real_share.ARMS["recipe"]
    assert shares == tuple(SHARES["land-cover"].values())
    assert has_textures
