"""Scenes that declare too much, without a valid pixel, or with files beside them, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.cli.conftest import Run
from tests.conftest import TEN_METRES, MakeScene
from tests.scenes.test_scene_sidecars import NOTES, bare, beside

SIDE = 24_000
"""Rows and columns of a file that declares 1.1 GiB and is far smaller; nothing is stored in it."""


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "sparse.tif"
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "nodata": 0}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=SIDE,
        height=SIDE,
        count=1,
        dtype="uint16",
        crs="EPSG:32631",
        transform=TEN_METRES,
        **layout,
    ) as file:
        file.set_band_description(1, "B04")
    return path


@pytest.mark.parametrize("command", [("scene", "info"), ("classify",), ("cloudmask",)], ids=lambda words: words[-1])
def test_a_file_that_declares_far_more_than_it_holds_is_refused_with_the_option_to_open_it(
    run: Run, sparse: Path, command: tuple[str, ...]
) -> None:
    done = run(*command, sparse)
    assert done.code == 65
    assert "1.1 GiB" in done.err
    assert f"--max-pixels {SIDE * SIDE}" in done.err
    assert run(*command, sparse, "--max-pixels", SIDE * SIDE - 1).code == 65
    assert list(sparse.parent.glob("*_*")) == []


def test_the_stated_option_opens_it(run: Run, sparse: Path, model: Path) -> None:
    done = run("scene", "info", sparse, "--max-pixels", SIDE * SIDE, "--radiometry", "dn", "--json")
    assert done.code == 0
    assert json.loads(done.out)["size_px"] == [SIDE, SIDE]
    planned = run("cloudmask", sparse, "--model", model, "--radiometry", "dn", "--max-pixels", SIDE * SIDE, "--dry-run")
    assert planned.code == 0, planned.err
    assert not (sparse.parent / "sparse_cloudmask.tif").exists()


def test_a_lower_limit_refuses_what_would_pass(run: Run, make_scene: MakeScene) -> None:
    done = run("scene", "info", make_scene(np.ones((1, 20, 30), np.uint16), bands=["B04"]), "--max-pixels", 599)
    assert done.code == 65
    assert "up to 599 pixels" in done.err
    assert "--max-pixels 600" in done.err


def test_a_scene_without_a_valid_pixel_is_told_before_and_after_it_is_mapped(
    run: Run, make_scene: MakeScene, model: Path
) -> None:
    scene = make_scene(np.zeros((1, 20, 30), np.uint16), bands=["B04"], nodata=0)
    told = run("scene", "info", scene, "--radiometry", "dn")
    assert told.code == 0
    assert "warning: no valid pixel" in told.out
    done = run("cloudmask", scene, "--model", model, "--radiometry", "dn")
    assert done.code == 0
    assert "warning: no valid pixel in a sample of the scene" in done.err
    assert "warning: no valid pixel: the map is nodata everywhere" in done.err


def test_a_scene_with_one_valid_pixel_is_told_nothing_of_it(run: Run, make_scene: MakeScene, model: Path) -> None:
    pixels = np.zeros((1, 20, 30), np.uint16)
    pixels[0, 7, 9] = 5000
    done = run("cloudmask", make_scene(pixels, bands=["B04"], nodata=0), "--model", model, "--radiometry", "dn")
    assert done.code == 0
    assert "no valid pixel" not in done.err


def test_the_command_line_reads_them_only_when_asked(run: Run, tmp_path: Path, model: Path) -> None:
    path = bare(tmp_path)
    beside(path, NOTES)
    assert run("cloudmask", path, "--model", model).code == 65
    assert run("cloudmask", path, "--model", model, "--sidecars").code == 0
    with rasterio.open(tmp_path / "scene_cloudmask.tif") as written:
        assert written.transform == TEN_METRES
        assert written.crs == rasterio.crs.CRS.from_epsg(32631)
    assert "EPSG:32631" in run("scene", "info", path, "--sidecars").out
