"""``geoseg composite`` on maps that geoseg made of real-format scenes, and what it tells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.cli.conftest import Run
from tests.composite.stacks import Observation, counted_by_hand, grid_of, write_map
from tests.test_predict import random_scene

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "sample_scenes" / "l2a_12_bands.tif"


def geoseg(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "geoseg_cli", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_maps_of_a_real_run_become_a_composite_that_verify_accepts(tmp_path: Path) -> None:
    with rasterio.open(SCENE) as scene:
        left, top = scene.bounds.left, scene.bounds.top
        size = 96 * scene.res[0]
    common = ("--bounds", f"{left} {top - size} {left + size} {top}", "--crop", "-q")
    stack = []
    for name, more in (("1", ("--mask-clouds",)), ("2", ("--blend", "trim", "--tile", "64"))):
        maps = tmp_path / f"maps/{name}_landcover.tif", tmp_path / f"maps/{name}_confidence.tif"
        maps[0].parent.mkdir(exist_ok=True)
        geoseg("classify", SCENE, *common, *more, "-o", maps[0], "--confidence", maps[1])
        with rasterio.open(maps[0]) as labels, rasterio.open(maps[1]) as confidence:
            stack.append(Observation(labels.read(1), None, confidence.read(1)))
            values = [row["value"] for row in json.loads(labels.tags()["GEOSEG_CLASSES"])]
    out = tmp_path / "out.tif"
    printed = geoseg("composite", tmp_path / "maps", "--confidence-suffix", "_confidence", "-o", out, "--json")
    with rasterio.open(out) as file:
        assert (file.read(1).tolist(), file.read(2).tolist()) == counted_by_hand(stack, values)
    report = json.loads(printed)
    assert (report["maps"], report["skipped"], report["weights"]) == (2, 2, "confidence")
    assert report["valid_pixels"] == sum(one["pixels"] for one in report["classes"])
    assert "intact" in geoseg("verify", out)


def test_masks_of_a_run_become_the_most_frequent_cloud_class(run: Run, tmp_path: Path, model: Path) -> None:
    """The small twin of the real run: three masks by an engine whose answer is known."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("a", "b", "c"):
        random_scene(folder / f"{name}.tif", 30, 40, seed=ord(name))
    assert run("cloudmask", folder, "--model", model, "-q").code == 0
    out = tmp_path / "out.tif"
    assert run("composite", folder, "--pattern", "*_cloudmask.tif", "-o", out).code == 0
    stack = []
    for path in folder.glob("*_cloudmask.tif"):
        with rasterio.open(path) as file:
            stack.append(Observation(file.read(1)))
    assert len({one.labels.tobytes() for one in stack}) == 3
    with rasterio.open(out) as file:
        assert (file.read(1).tolist(), file.read(2).tolist()) == counted_by_hand(stack, range(4))
    assert run("verify", out).code == 0


def test_it_prints_the_path_and_tells_areas_dates_and_repeated_maps(run: Run, tmp_path: Path) -> None:
    labels = np.full((4, 6), 10, np.uint8)
    labels[0] = 255
    for name in ("a", "b"):
        write_map(tmp_path / f"maps/{name}.tif", labels).with_suffix(".json").unlink()
    done = run("composite", tmp_path / "maps", "-o", tmp_path / "out.tif", "--min-count", "3")
    assert (done.code, done.out) == (0, f"{tmp_path / 'out.tif'}\n")
    for line in ("2 maps of 4 x 6 px", "2 maps without the time", "never seen clearly: 6 pixels", "3 times: 18 pixels"):
        assert line in done.err
    assert "Tree cover" in done.err
    assert run("composite", tmp_path / "maps", "-o", tmp_path / "out.tif").code == 73


def test_a_damaged_map_in_a_folder_is_counted_and_ends_with_1(run: Run, tmp_path: Path) -> None:
    labels = np.full((4, 6), 10, np.uint8)
    for name in ("a", "b", "c"):
        write_map(tmp_path / f"maps/{name}.tif", labels)
    damaged = tmp_path / "maps/b.tif"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    done = run("composite", tmp_path / "maps", "-o", tmp_path / "out.tif", "-q")
    assert (done.code, done.out) == (1, f"{tmp_path / 'out.tif'}\n")
    assert f"{damaged}: failed (code 74)" in done.err
    told = run("composite", tmp_path / "maps", "-o", tmp_path / "out.tif", "--overwrite", "--json")
    report = json.loads(told.out)
    assert (report["maps"], [one["map"] for one in report["failed"]]) == (2, [str(damaged)])
    assert "1 of 3 maps failed" in told.err


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (("--clouds", "/none/at/all"), 66),
        (("--confidence-suffix", "a/b"), 2),
        (("--confidence-suffix", "x" * 300), 66),
        (("--pattern", "/abs/*"), 2),
        (("--pattern", "**x"), 2),
        (("-o", "."), 73),
        (("-o", "-"), 2),
    ],
)
def test_what_no_file_can_be_called_is_refused_in_words(
    run: Run, tmp_path: Path, extra: tuple[str, ...], code: int
) -> None:
    write_map(tmp_path / "maps/a.tif", np.full((4, 6), 10, np.uint8))
    done = run("composite", tmp_path / "maps", "-o", tmp_path / "out.tif", *extra)
    assert done.code == code, done.err
    assert " -> " in done.err


def test_what_lies_beside_a_map_is_not_replaced_by_what_lies_beside_the_composite(run: Run, tmp_path: Path) -> None:
    path = write_map(tmp_path / "a.tif", np.full((4, 6), 10, np.uint8))
    before = path.with_suffix(".json").read_bytes()
    done = run("composite", path, "-o", tmp_path / "a.tiff", "--overwrite")
    assert done.code == 2
    assert path.with_suffix(".json").read_bytes() == before


@pytest.mark.parametrize(("extra", "code"), [((), 65), (("--pattern", "*.jp2"), 66), (("--min-count", "0"), 2)])
def test_what_cannot_be_done_has_its_exit_code_and_leaves_nothing(
    run: Run, tmp_path: Path, extra: tuple[str, ...], code: int
) -> None:
    for name, width in (("a", 6), ("b", 7)):
        labels = np.full((4, width), 10, np.uint8)
        write_map(tmp_path / f"maps/{name}.tif", labels, grid=grid_of(labels))
    done = run("composite", tmp_path / "maps", "-o", tmp_path / "out.tif", *extra)
    assert done.code == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps"]
    if not extra:
        assert "gdalwarp" in done.err
