"""Maps on the disk become a composite: found, checked, counted, written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.warp import transform_bounds

from geoseg_cli.catalog import legends
from geoseg_cli.cloud_masking import CloudMasking
from geoseg_cli.composite.find import find_maps
from geoseg_cli.composite.run import CompositeOptions, compose, windows_of
from geoseg_cli.errors import GeosegError, GridError, InputError, InputMissingError
from geoseg_cli.results.class_map import ClassMap
from geoseg_cli.results.data_array import open_result
from geoseg_cli.results.raster_pool import RasterPool
from geoseg_cli.results.verify import verify_map
from tests.composite.stacks import (
    NORTH_UP,
    WORLDCOVER,
    Observation,
    Pixels,
    counted_by_hand,
    grid_of,
    write_confidence,
    write_map,
)

CLOUDS = legends()["cloudsen12"]
MASKED = CloudMasking.of(WORLDCOVER, CLOUDS, "class").legend
FOUR = (10, 20, 50, 255)


def noise(seed: int, values: tuple[int, ...] = FOUR, shape: tuple[int, int] = (9, 13)) -> Pixels:
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), shape)


def composed(path: Path) -> tuple[Pixels, Pixels]:
    with rasterio.open(path) as file:
        labels, counts = file.read()
    return labels, counts


def same(path: Path, stack: list[Observation], least: int = 1) -> bool:
    labels, counts = composed(path)
    return (labels.tolist(), counts.tolist()) == counted_by_hand(stack, WORLDCOVER.values, least)


def test_the_file_holds_what_loops_over_pixels_find(tmp_path: Path) -> None:
    stack = [Observation(noise(day), day) for day in range(1, 6)]
    for number, one in enumerate(stack):
        write_map(tmp_path / f"maps/{9 - number}.tif", one.labels, one.day)
    report = compose([tmp_path / "maps"], tmp_path / "out.tif", CompositeOptions(min_count=3))
    assert same(tmp_path / "out.tif", stack, 3)
    assert report.never_seen == np.count_nonzero(composed(tmp_path / "out.tif")[1] == 0)
    assert report.too_rarely == np.isin(composed(tmp_path / "out.tif")[1], (1, 2)).sum()


def test_confidence_beside_the_maps_weighs_their_votes(tmp_path: Path) -> None:
    weights = [noise(10 + day, (0, 3, 100, 250)) for day in range(1, 5)]
    stack = [Observation(noise(day), day, weight) for day, weight in zip(range(1, 5), weights, strict=True)]
    for one in stack:
        write_map(tmp_path / f"maps/{one.day}_landcover.tif", one.labels, one.day)
        assert one.confidence is not None
        write_confidence(tmp_path / f"maps/{one.day}_confidence.tif", one.confidence)
    options = CompositeOptions(confidence_suffix="_confidence")
    report = compose([tmp_path / "maps"], tmp_path / "out.tif", options)
    assert same(tmp_path / "out.tif", stack)
    assert report.stack.skipped == 4
    compose([tmp_path / "maps"], tmp_path / "equal.tif")
    assert same(tmp_path / "equal.tif", [Observation(one.labels, one.day) for one in stack])


@pytest.mark.parametrize("clouds", ["_cloudmask", "folder"])
def test_cloud_masks_hide_what_lies_below_them(tmp_path: Path, clouds: str) -> None:
    folder = tmp_path / ("maps" if clouds == "_cloudmask" else "masks")
    stack = []
    for day in range(1, 5):
        labels, mask = noise(day), noise(20 + day, (0, 1, 2, 3, 255))
        write_map(tmp_path / f"maps/{day}_landcover.tif", labels, day)
        write_map(folder / f"{day}_cloudmask.tif", mask, day, CLOUDS)
        stack.append(Observation(np.where(mask == 0, labels, 255).astype(np.uint8), day))
    options = CompositeOptions(clouds=clouds if clouds == "_cloudmask" else str(folder))
    report = compose([tmp_path / "maps"], tmp_path / "out.tif", options)
    assert len(report.stack.maps) == 4
    assert same(tmp_path / "out.tif", stack)


def test_classes_of_clouds_in_land_cover_maps_do_not_count_and_leave_the_legend(tmp_path: Path) -> None:
    hidden = [one.value for one in MASKED.classes if one not in WORLDCOVER.classes]
    stack = [Observation(noise(day, (10, 20, *hidden)), day) for day in (1, 2, 3)]
    for one in stack:
        write_map(tmp_path / f"maps/{one.day}.tif", one.labels, one.day, MASKED)
    write_map(tmp_path / "maps/plain.tif", noise(4, (10, 20)), 4)
    stack.append(Observation(noise(4, (10, 20)), 4))
    report = compose([tmp_path / "maps"], tmp_path / "out.tif")
    assert same(tmp_path / "out.tif", stack)
    assert report.stack.counted == WORLDCOVER


def test_every_class_of_a_cloud_mask_counts(tmp_path: Path) -> None:
    for day, value in ((1, 1), (2, 1), (3, 0)):
        write_map(tmp_path / f"maps/{day}.tif", np.full((4, 5), value, np.uint8), day, CLOUDS)
    compose([tmp_path / "maps"], tmp_path / "out.tif")
    labels, counts = composed(tmp_path / "out.tif")
    assert (set(labels.flat), set(counts.flat)) == ({1}, {3})


def test_the_names_of_the_files_and_their_order_change_no_byte(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    days = [None, None, 3, 3, 5]
    for folder, order in (("a", range(5)), ("b", reversed(range(5)))):
        for name, number in enumerate(order):
            write_map(tmp_path / folder / f"{name}_landcover.tif", noise(number), days[number])
        options = CompositeOptions(written_at=datetime(2024, 5, 6, tzinfo=UTC), sidecars=False)
        (tmp_path / f"out_{folder}").mkdir()
        compose([tmp_path / folder], tmp_path / f"out_{folder}/out.tif", options)
    assert (tmp_path / "out_a/out.tif").read_bytes() == (tmp_path / "out_b/out.tif").read_bytes()


@pytest.mark.parametrize("shape", [(9, 13), (700, 1100)])
def test_the_file_is_a_cog_with_a_palette_and_no_transparency(tmp_path: Path, shape: tuple[int, int]) -> None:
    for day in (1, 2):
        write_map(tmp_path / f"maps/{day}.tif", noise(day, shape=shape), day)
    out = tmp_path / "out.tif"
    compose([tmp_path / "maps"], out)
    with rasterio.open(out) as file:
        assert file.colorinterp == (ColorInterp.palette, ColorInterp.undefined)
        assert file.descriptions == ("land_cover", "clear_observations")
        assert file.colormap(1)[10] == (0, 100, 0, 255)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.read_masks(1) == 0).tolist() == (file.read(1) == 255).tolist()
        assert file.read_masks(2).all()
    with tifffile.TiffFile(out) as pages:
        assert all(page.extrasamples == (0,) for page in pages.pages)
    verdict = verify_map(out)
    assert verdict.is_intact, verdict.problems
    assert {"counts", "attributes (out.tif.aux.xml)", "item (out.json)", "style (out.qml)"} <= set(verdict.checks)


@pytest.mark.parametrize("bigtiff", ["YES", "NO"])
def test_no_directory_of_either_kind_of_tiff_calls_the_count_transparency(tmp_path: Path, bigtiff: str) -> None:
    write_map(tmp_path / "maps/1.tif", noise(1, shape=(600, 700)), 1)
    compose([tmp_path / "maps"], tmp_path / "out.tif", CompositeOptions(creation_options={"BIGTIFF": bigtiff}))
    with tifffile.TiffFile(tmp_path / "out.tif") as pages:
        assert pages.is_bigtiff == (bigtiff == "YES")
        assert [page.extrasamples for page in pages.pages] == [(0,), (0,)]


def test_finished_composites_open_as_maps_do(tmp_path: Path) -> None:
    write_map(tmp_path / "maps/1.tif", noise(1), 1)
    compose([tmp_path / "maps"], tmp_path / "out.tif")
    assert next(ClassMap.open(tmp_path / "out.tif").strips())[1].tolist() == noise(1).tolist()
    assert open_result(tmp_path / "out.tif").values.tolist() == noise(1).tolist()


def test_a_changed_count_is_found(tmp_path: Path) -> None:
    write_map(tmp_path / "maps/1.tif", noise(1), 1)
    out = tmp_path / "out.tif"
    compose([tmp_path / "maps"], out)
    with rasterio.open(out, "r+", IGNORE_COG_LAYOUT_BREAK=True) as file:
        file.write(file.read(2) + 1, 2)
    problems = verify_map(out).problems
    assert "counts" in problems
    assert "pixels" not in problems


def test_the_catalogue_entry_spans_the_scenes_and_names_their_model(tmp_path: Path) -> None:
    for day in (7, 2):
        write_map(tmp_path / f"maps/{day}.tif", noise(day), day)
    compose([tmp_path / "maps"], tmp_path / "out.tif")
    item = json.loads((tmp_path / "out.json").read_text())
    properties = item["properties"]
    assert (properties["datetime"], properties["start_datetime"], properties["end_datetime"]) == (
        None, "2024-03-02T10:00:00Z", "2024-03-07T10:00:00Z",
    )  # fmt: skip
    assert [link["rel"] for link in item["links"]] == ["describedby"]
    assert [band["name"] for band in item["assets"]["labels"]["bands"]] == ["land_cover", "clear_observations"]


@pytest.mark.parametrize(
    ("crs", "transform", "shape", "told"),
    [
        (CRS.from_epsg(25831), NORTH_UP, (9, 13), "CRS EPSG:25831 instead of EPSG:32631"),
        (CRS.from_epsg(32631), NORTH_UP @ Affine.translation(1, 0), (9, 13), "transform"),
        (CRS.from_epsg(32631), NORTH_UP, (9, 14), "9 x 14 px instead of 9 x 13"),
    ],
)
def test_a_map_of_another_grid_is_named_with_what_differs_and_how_to_warp_it(
    tmp_path: Path, crs: CRS, transform: Affine, shape: tuple[int, int], told: str
) -> None:
    write_map(tmp_path / "maps/0_odd.tif", noise(0, shape=shape), grid=grid_of(noise(0, shape=shape), crs, transform))
    for day in (1, 2):
        write_map(tmp_path / f"maps/{day}.tif", noise(day), day)
    with pytest.raises(GridError, match=f"0_odd.tif has other pixels.*{told}") as caught:
        find_maps([tmp_path / "maps"], "*.tif", None, None)
    assert caught.value.exit_code == 65
    assert "gdalwarp -r near -t_srs EPSG:32631 -te 500000 4999910 500130 5000000 -ts 13 9" in caught.value.hint


OWN_CRS = CRS.from_proj4("+proj=laea +lat_0=45 +lon_0=3 +ellps=GRS80 +units=m")


@pytest.mark.skipif(shutil.which("gdalwarp") is None, reason="GDAL's programs are not installed")
@pytest.mark.parametrize(
    ("crs", "other"), [(CRS.from_epsg(32631), CRS.from_epsg(32632)), (OWN_CRS, CRS.from_epsg(32631)), (None, None)]
)
def test_the_command_of_the_hint_puts_a_map_on_the_grid_of_the_others(
    tmp_path: Path, crs: CRS | None, other: CRS | None
) -> None:
    """From any folder, whatever the folder of the maps is called."""
    folder = tmp_path / "it's a folder"
    labels = noise(0, (10, 20))
    there = grid_of(labels, crs, NORTH_UP if crs != OWN_CRS else Affine(10, 0, 0, 0, -10, 0))
    for day in (1, 2):
        write_map(folder / f"{day}.tif", labels, day, grid=there)
    left, _, _, top = there.bounds if crs == other else transform_bounds(crs, other, *there.bounds)
    odd = grid_of(labels, other, Affine(20, 0, left - 30, 0, -20, top + 30))
    write_map(folder / "0_odd.tif", labels, grid=odd)
    with pytest.raises(GridError) as caught:
        find_maps([folder], "*.tif", None, None)
    command, instead = caught.value.hint.split("; ")
    subprocess.run(command, shell=True, check=True, capture_output=True, cwd="/")
    assert instead == "then take 0_odd_aligned.tif in the place of 0_odd.tif"
    (folder / "0_odd.tif").unlink()
    assert len(find_maps([folder], "*.tif", None, None).maps) == 3


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (CRS.from_epsg(32631), NORTH_UP @ Affine.translation(13, 0)),  # they share an edge and no pixel
        (CRS.from_epsg(32631), NORTH_UP @ Affine.translation(0, -5000)),
        (CRS.from_epsg(32650), NORTH_UP),
        (CRS.from_epsg(4326), Affine(0.001, 0, 20, 0, -0.001, 45)),
        (None, NORTH_UP),
    ],
)
def test_nobody_is_told_to_warp_a_map_of_another_place(tmp_path: Path, crs: CRS | None, transform: Affine) -> None:
    write_map(tmp_path / "maps/0_odd.tif", noise(0), grid=grid_of(noise(0), crs, transform))
    for day in (1, 2):
        write_map(tmp_path / f"maps/{day}.tif", noise(day), day)
    with pytest.raises(GridError, match=r"0_odd.tif has other pixels") as caught:
        find_maps([tmp_path / "maps"], "*.tif", None, None)
    assert "gdalwarp" not in caught.value.hint
    assert "leave it out with --pattern" in caught.value.hint


def test_maps_of_another_legend_are_named(tmp_path: Path) -> None:
    write_map(tmp_path / "maps/1.tif", noise(1), 1)
    write_map(tmp_path / "maps/2.tif", noise(2, (0, 1)), 2, CLOUDS)
    with pytest.raises(InputError, match=r"2.tif has other classes \(cloudsen12\)"):
        find_maps([tmp_path / "maps"], "*.tif", None, None)


def test_a_map_without_its_mask_or_confidence_is_named(tmp_path: Path) -> None:
    write_map(tmp_path / "maps/1_landcover.tif", noise(1), 1)
    write_map(tmp_path / "masks/2_cloudmask.tif", noise(1, (0, 1)), 1, CLOUDS)
    for suffix, clouds in (("_confidence", None), (None, "_cloudmask"), (None, str(tmp_path / "masks"))):
        with pytest.raises(InputMissingError, match=r"1_landcover.tif"):
            find_maps([tmp_path / "maps"], "*.tif", suffix, clouds)


def test_folders_without_maps_and_composites_of_composites_are_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "maps/1.tif", noise(1), 1)
    compose([tmp_path / "maps"], tmp_path / "maps/out.tif")
    stack = find_maps([tmp_path / "maps"], "*.tif", None, None)
    assert (len(stack.maps), stack.skipped) == (1, 1)
    with pytest.raises(InputError, match="is a composite itself"):
        find_maps([tmp_path / "maps/out.tif"], "*.tif", None, None)
    with pytest.raises(InputMissingError, match="no class map"):
        find_maps([tmp_path / "maps"], "*.vrt", None, None)


def test_what_plainly_is_no_map_is_left_out_and_does_not_fail(tmp_path: Path) -> None:
    write_map(tmp_path / "maps/1.tif", noise(1), 1)
    compose([tmp_path / "maps"], tmp_path / "maps/composite.tif")
    write_confidence(tmp_path / "maps/confidence.tif", noise(2))
    profile = {"driver": "GTiff", "height": 9, "width": 13, "crs": "EPSG:32631", "transform": NORTH_UP}
    with rasterio.open(tmp_path / "maps/scene.tif", "w", count=3, dtype="uint16", **profile) as file:
        file.write(np.ones((3, 9, 13), np.uint16))
    (tmp_path / "maps/notes.txt").write_text("no raster")
    stack = find_maps([tmp_path / "maps"], "*.tif", None, None)
    assert (len(stack.maps), stack.skipped, stack.failed) == (1, 3, ())


def without_tags(path: Path) -> None:
    with rasterio.open(path) as file:
        profile, pixels, colours = file.profile, file.read(), file.colormap(1)
    with rasterio.open(path, "w", **{**profile, "driver": "GTiff"}) as file:
        file.write(pixels)
        file.write_colormap(1, colours)


def cut_to(share: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (cut_to(0.999), 74),
        (cut_to(0.5), 74),
        (cut_to(0.02), 74),
        (cut_to(0.0001), 74),
        (cut_to(0), 65),
        (without_tags, 65),
    ],
)
def test_a_damaged_map_in_a_folder_is_named_and_the_composite_is_of_the_others(
    tmp_path: Path, harm: Callable[[Path], None], code: int
) -> None:
    whole = [Observation(noise(day, shape=(600, 300)), day) for day in (1, 2)]
    for number, one in enumerate(whole):
        write_map(tmp_path / f"maps/{number}.tif", one.labels, one.day)
    broken = write_map(tmp_path / "maps/broken.tif", whole[0].labels, 3)
    harm(broken)
    report = compose([tmp_path / "maps"], tmp_path / "out.tif")
    assert same(tmp_path / "out.tif", whole)
    ((path, error),) = report.stack.failed
    assert (path, error.exit_code, report.stack.skipped) == (broken, code, 0), error.message
    assert report.to_json()["failed"][0]["error"]["exit_code"] == code
    for paths in ([broken], [tmp_path / "maps/0.tif", broken]):
        with pytest.raises(GeosegError, match=r"broken\.tif") as caught:
            find_maps(paths, "*.tif", None, None)
        assert caught.value.exit_code == code


def test_a_map_named_twice_counts_once(tmp_path: Path) -> None:
    path = write_map(tmp_path / "maps/1.tif", noise(1), 1)
    assert len(find_maps([path, tmp_path / "maps", path], "*.tif", None, None).maps) == 1


def test_windows_cover_the_grid_once_however_little_memory_there_is() -> None:
    grid = grid_of(np.empty((1100, 1700), np.uint8))
    for memory in (1, 10**8, 10**12):
        covered = np.zeros((1100, 1700), int)
        for window in (one for row in windows_of(grid, 11, memory) for one in row):
            covered[window.rows, window.cols] += 1
        assert (covered == 1).all()
    assert len(windows_of(grid, 11, 1)[0]) == 4
    assert len(windows_of(grid, 11, 10**12)[0]) == 1


def test_maps_whose_band_lost_its_name_become_a_composite(tmp_path: Path) -> None:
    path = write_map(tmp_path / "maps/1.tif", noise(1), 1)
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK=True) as file:
        file.set_band_description(1, "")
    compose([tmp_path / "maps"], tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.descriptions == ("classes", "clear_observations")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors as Linux lists them")
def test_no_more_files_are_open_than_allowed(tmp_path: Path) -> None:
    paths = [write_map(tmp_path / f"{number}.tif", noise(number)) for number in range(12)]
    before = len(os.listdir("/proc/self/fd"))
    with RasterPool(most_open=5) as pool:
        for _ in range(2):
            for number, path in enumerate(paths):
                assert pool.read(path, grid_of(noise(0)).window).tolist() == noise(number).tolist()
                assert len(os.listdir("/proc/self/fd")) - before <= 5
    assert len(os.listdir("/proc/self/fd")) == before


PEAK = """
import resource, sys
from pathlib import Path
from geoseg_cli.composite.run import CompositeOptions, compose
compose([Path(sys.argv[1])], Path(sys.argv[2]), CompositeOptions(max_memory_bytes=1, sidecars=False))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(folder: Path, out: Path) -> int:
    done = subprocess.run([sys.executable, "-c", PEAK, folder, out], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_grows_neither_with_the_number_of_maps_nor_with_their_height(tmp_path: Path) -> None:
    """Four times as high, and 75 times as many maps; the raster of one map alone is 6 MiB more in the high case."""
    small, high = noise(1, shape=(1024, 2048)), noise(1, shape=(4096, 2048))
    first = write_map(tmp_path / "few/0.tif", small, 1)
    write_map(tmp_path / "high/0.tif", high, 1)
    write_map(tmp_path / "high/1.tif", high, 2)
    shutil.copy(first, tmp_path / "few/1.tif")
    (tmp_path / "many").mkdir()
    for number in range(150):
        shutil.copy(first, tmp_path / f"many/{number}.tif")
    peaks = {name: peak_kib(tmp_path / name, tmp_path / f"{name}.tif") for name in ("few", "many", "high")}
    # Handles of 128 open files, and GDAL's cache, which is bounded at 64 MiB, may fill in the larger cases.
    assert peaks["many"] - peaks["few"] < 80 * 1024, peaks
    assert peaks["high"] - peaks["few"] < 80 * 1024, peaks
