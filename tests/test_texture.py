"""Tiles whose texture is gone: what is counted, and that only the tiles that choose weights are opened."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch")

from geoseg_cli.training.chips import Chip

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def texture(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("texture")


def test_classes_weigh_as_many_tiles_as_they_have_and_tiles_without_a_class_do_not_count(texture: ModuleType) -> None:
    def tile(*values: int) -> np.ndarray:
        return np.array([values], np.uint8)

    maps = [tile(10, 10, 10, 40), tile(40, 40, 10, 10), tile(40, 40, 40, 40), tile(80, 80, 80, 80)]
    assert texture.shares_right(maps, [10, 40, 40, 0]) == "0.750   10: 0.75  40: 0.75"


def test_every_view_of_a_tile_holds_only_its_own_pixels_and_two_of_three_have_lost_their_order(
    texture: ModuleType,
) -> None:
    dn = np.arange(64 * 64, dtype=np.int16).reshape(1, 64, 64)
    chip = Chip("t", ("red",), dn, np.ones((64, 64), np.uint8))
    views = {name: view(3, chip).dn for name, view in texture.VIEWS}
    assert list(views) == ["as they are", "scattered", "scattered pieces"]
    np.testing.assert_array_equal(views["as they are"], dn)
    kept = {name: np.unique(pixels) for name, pixels in views.items()}
    assert len(kept["scattered pieces"]) <= 14**2 < len(kept["scattered"])
    rows, columns = np.divmod(kept["scattered pieces"], 64)
    assert max(np.ptp(rows), np.ptp(columns)) < 14
    for name in ("scattered", "scattered pieces"):
        assert (np.abs(np.diff(views[name][0].astype(int), axis=1)) == 1).mean() < 0.05
