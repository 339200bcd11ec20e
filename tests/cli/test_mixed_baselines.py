"""A folder of scenes of several processing baselines: each is decided by what it says itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.cli.conftest import Run
from tests.conftest import write_scene
from tests.scenes.safe_fixtures import ALL_MINUS_1000, Text, write_safe
from tests.test_predict import read

LABELS = np.random.default_rng(8).integers(1, 4, (120, 120))
"""Classes that the fake model sees: reflectance is 0.5 for each step. None is 0, which was nodata before 04.00."""

NUMBERS = (LABELS * 5000).astype(np.uint16)
SHIFTED = NUMBERS + np.uint16(1000)


def test_scenes_of_mixed_baselines_in_one_folder_give_the_same_map_each(run: Run, tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "scenes"
    old, new = Text(baseline="03.01"), Text(baseline="05.09", adds=ALL_MINUS_1000)
    write_safe(folder, old, {"B04_10m": NUMBERS})
    write_safe(folder, new, {"B04_10m": SHIFTED})
    write_scene(folder / "S2B_MSIL1C_20240101T104619_N0510_R051_T31UFS_20240101T114500.tif", SHIFTED[None], ["B04"])
    write_scene(folder / "S2B_MSIL1C_20200101T104619_N0208_R051_T31UFS_20200101T114500.tif", NUMBERS[None], ["B04"])
    write_scene(folder / "harmonised.tif", NUMBERS[None], ["B04"], [(1e-4, 0.0)])
    write_scene(folder / "reflectance.tif", (LABELS * 0.5).astype(np.float32)[None], ["B04"])
    write_scene(folder / "undecided.tif", NUMBERS[None], ["B04"])
    done = run("cloudmask", folder, "--model", model, "--json")
    assert done.code == 1
    reports = [json.loads(line) for line in done.out.splitlines()]
    maps = [report for report in reports if "outputs" in report]
    assert len(maps) == 6
    for report in maps:
        np.testing.assert_array_equal(read(Path(report["outputs"]["labels"]))[0], LABELS)
    (failure,) = (report for report in reports if "error" in report)
    assert failure["scene"].endswith("undecided.tif")
    assert "nothing says what its uint16 numbers mean" in failure["error"]["message"]
