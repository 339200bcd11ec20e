"""The figures of benchmarks/seams.py: a seam that was painted shows, borders of the scene do not."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from geoseg_cli.tiles import Axis, TilePlan

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
GRIDS = 4


@pytest.fixture
def seams(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("seams")


def moved_plans(seams: ModuleType) -> list[TilePlan]:
    plan = TilePlan.cover(300, 500, 64, 16)
    return [seams.moved_plan(plan, number, GRIDS) for number in range(GRIDS)]


def same_place(seams: ModuleType, plans: list[TilePlan], maps: list[np.ndarray], kind: str) -> float:
    lines = [line for axis in (0, 1) for found, line in seams.lines_of(plans, maps, axis) if found == kind]
    return sum(line.borders for line in lines) / sum(line.same_place for line in lines)


@pytest.mark.parametrize("number", range(GRIDS))
@pytest.mark.parametrize("size", [40, 64, 65, 111, 500])
def test_moved_tiles_cover_the_axis_and_overlap_enough(seams: ModuleType, size: int, number: int) -> None:
    axis = seams.moved_axis(Axis.spread(size, 64, 16, 8), number, GRIDS)
    assert axis.starts[0] == 0
    assert sum(axis.extent(len(axis.starts) - 1)) == size
    steps = np.diff(axis.starts)
    assert ((steps > 0) & (steps <= 64 - 16)).all()


def test_borders_of_the_scene_are_no_seams_wherever_they_lie(seams: ModuleType) -> None:
    plans = moved_plans(seams)
    labels = np.random.default_rng(0).integers(0, 3, (300, 500)).astype(np.uint8)
    labels[:, 100:200] = 1
    for kind in ("edges", "middles"):
        assert same_place(seams, plans, [labels] * GRIDS, kind) == 1


def test_a_seam_at_the_middles_shows_there_and_not_at_the_edges(seams: ModuleType) -> None:
    plans = moved_plans(seams)
    scene = np.random.default_rng(0).integers(0, 3, (300, 500)).astype(np.uint8)
    scene[:, 1:][np.random.default_rng(1).random((300, 499)) < 0.8] = 1
    maps = []
    for plan in plans:
        labels = scene.copy()
        for tile in plan:
            if (tile.row_index + tile.col_index) % 2:
                core = plan.core(tile)
                labels[core.rows, core.cols] = (labels[core.rows, core.cols] + 1) % 3
        maps.append(labels)
    assert same_place(seams, plans, maps, "middles") > 1.5
    assert same_place(seams, plans, maps, "edges") == pytest.approx(1, abs=0.05)


def test_pixels_without_an_answer_have_no_borders(seams: ModuleType) -> None:
    labels = np.array([[0, 1, 255, 1], [0, 0, 1, 255]], np.uint8)
    borders, pairs = seams.border_counts(labels)
    assert borders.tolist() == [0, 1, 1, 0]
    assert pairs.tolist() == [0, 2, 1, 0]
