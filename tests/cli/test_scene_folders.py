"""Folders of scenes, and folders that are one: what stands for a scene, what belongs to one, what is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from tests.cli.conftest import Run
from tests.conftest import write_scene
from tests.scenes.test_aws_tile import write_tile
from tests.test_predict import random_scene, read


def reports_of(run: Run, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    done = run("cloudmask", *arguments, "--json")
    return done.code, [json.loads(line) for line in done.out.splitlines()]


@pytest.mark.parametrize("name", ["lost.tif", "lost.jp2", "lost.SAFE", "lost.zip"])
def test_a_link_to_nothing_in_a_folder_of_scenes_is_named_as_a_failure(
    run: Run, tmp_path: Path, model: Path, name: str
) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    random_scene(folder / "scene.tif", 30, 30)
    for link in (name, "notes.txt"):
        (folder / link).symlink_to(tmp_path / "gone")
    code, reports = reports_of(run, folder, "--model", model)
    assert code == 1
    (failure,) = (report for report in reports if "error" in report)
    assert failure["scene"].endswith(name)
    assert failure["error"]["exit_code"] == 66


def test_masks_of_planetscope_beside_several_scenes_are_no_scenes(run: Run, tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    for day in ("20210825", "20210826"):
        stem = folder / f"{day}_153054_80_2442_3B"
        write_scene(Path(f"{stem}_AnalyticMS_SR.tif"), np.full((4, 64, 64), 5000, np.uint16))
        write_scene(Path(f"{stem}_udm2.tif"), np.zeros((8, 64, 64), np.uint8))
    code, reports = reports_of(run, folder, "--model", model)
    assert (code, len(reports)) == (0, 2)


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_a_tile_of_the_archive_on_aws_is_one_scene(run: Run, tmp_path: Path, model: Path, level: str) -> None:
    labels = np.random.default_rng(3).integers(1, 4, (120, 120))
    image = {"B04_10m" if level == "L2A" else "B04": (labels * 5000).astype(np.uint16)}
    tile = write_tile(tmp_path / "tiles" / "0", level, image)
    done = run("cloudmask", tile, "--model", model, "-q")
    assert (done.code, done.out) == (0, f"{tmp_path / 'tiles' / '0_cloudmask.tif'}\n")
    np.testing.assert_array_equal(read(Path(done.out.strip()))[0], labels)


def test_a_list_of_single_band_files_is_one_scene_also_among_several(run: Run, tmp_path: Path, model: Path) -> None:
    labels = np.random.default_rng(3).integers(1, 4, (2, 64, 64))
    lists = []
    for plane, name in zip(labels, ("20200101", "20200106"), strict=True):
        for band in ("B03", "B04"):
            write_scene(tmp_path / f"T31UFS_{name}_{band}.tif", (plane[None] * 5000).astype(np.uint16))
        lists.append(f"{tmp_path}/T31UFS_{name}_B03.tif,T31UFS_{name}_B04.tif")
    code, reports = reports_of(run, *lists, "--radiometry", "dn", "--model", model)
    reports.sort(key=lambda report: report["scene"])  # they come as scenes end
    assert (code, [report["scene"] for report in reports]) == (0, lists)
    for plane, report, name in zip(labels, reports, ("20200101", "20200106"), strict=True):
        assert report["output"] == str(tmp_path / f"T31UFS_{name}_cloudmask.tif")
        np.testing.assert_array_equal(read(Path(report["output"]))[0], plane)
    done = run("scene", "info", lists[0])
    assert (done.code, "list of single-band files" in done.out) == (0, True)


@pytest.mark.parametrize("right", ["180.1", "-179.9"])
def test_bounds_across_the_180th_meridian_are_taken_either_way(
    run: Run, tmp_path: Path, model: Path, right: str
) -> None:
    transform = Affine(100, 0, 140_000, 0, -100, 8_140_000)
    tags = [(1e-4, 0.0)]
    numbers = np.full((1, 300, 800), 5000, np.uint16)
    write_scene(tmp_path / "s.tif", numbers, ["red"], tags, crs="EPSG:32701", transform=transform)
    where = ("--bounds", f"179.9 -17 {right} -16.9", "--bounds-crs", "EPSG:4326", "--gsd", "10")
    code, (report,) = reports_of(run, tmp_path / "s.tif", "--model", model, *where)
    assert code == 0
    # 0.2 degrees of longitude are 21.3 km there, and 0.1 of latitude 11.1 km.
    assert 190 * 110 < report["valid_pixels"] < 230 * 130
