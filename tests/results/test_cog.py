from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from affine import Affine
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from geoseg_cli.errors import StorageError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.cog import check_cog, write_cog
from geoseg_cli.results.creation_options import check_creation_options
from geoseg_cli.results.raster import RasterSpec, WorkRaster

SINUSOIDAL = CRS.from_string("+proj=sinu +R=6371007.181 +units=m +no_defs")


@pytest.fixture
def one_block(tmp_path, grid, legend, labels, make_work):
    """A work raster of 300 x 400 px and its COG."""
    work = make_work(RasterSpec(grid(300, 400), palette=legend.palette()), labels(300, 400)[None])
    write_cog(work, tmp_path / "map.tif")
    return work, tmp_path / "map.tif"


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (513, 511), (512, 512), (1500, 2048)])
def test_every_size_is_a_valid_cog_with_the_same_pixels_for_two_readers(shape, grid, legend, labels, make_cog):
    pixels = labels(*shape)
    path = make_cog(RasterSpec(grid(*shape), palette=legend.palette()), pixels[None])
    width = shape[1]
    # An overview of a single column would have "decimation 1"; the validator then recommends one all the same.
    assert cog_validate(path, strict=width > 1, quiet=True)[:2] == (True, [])
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), pixels)
        assert (len(file.overviews(1)) > 0) == (max(shape) > 512 and width > 1)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.is_tiled
        assert np.array_equal(page.asarray(), pixels)


@pytest.mark.parametrize("shape", [(1024, 512), (2600, 1024), (2600, 513), (1400, 256), (600, 2048)])
def test_a_level_that_is_one_block_wide_is_still_tiled_to_the_validator(grid, labels, legend, make_cog, shape):
    pixels = labels(*shape)
    path = make_cog(RasterSpec(grid(*shape), palette=legend.palette()), pixels[None])
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), pixels)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (CRS.from_epsg(32633), Affine(10, 0, 1e5 / 3, 0, -10, 4e6 / 7)),
        (CRS.from_epsg(4326), Affine(1.2103e-4, 0, 179.99, 0, -9.017e-5, 42.3)),
        (CRS.from_epsg(3031), Affine(529.2, 0, -1e6, 0, -528, 1e6)),
        (SINUSOIDAL, Affine(463.31, 0, 0, 0, -463.31, 1.2e6)),
        (CRS.from_epsg(32633), Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10)),
        (CRS.from_epsg(32633), Affine(10, 0, 5e5, 0, 10, 5e6)),
        (None, Affine(10, 0, 5e5, 0, -10, 5e6)),
    ],
    ids=["projected", "geographic", "polar", "sphere", "rotated", "south-up", "no-crs"],
)
def test_the_grid_comes_back_exactly(crs, transform, grid, labels, make_cog):
    wanted = grid(600, 30, crs, transform)
    path = make_cog(RasterSpec(wanted), labels(600, 30)[None])
    with rasterio.open(path) as file:
        assert Grid(file.crs, file.transform, file.height, file.width) == wanted
    assert sorted(p.name for p in path.parent.iterdir()) == ["map.tif", "scratch.tif"], "no sidecar holds a part of it"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_image_without_any_georeference_is_written_too(grid, labels, make_cog):
    path = make_cog(RasterSpec(grid(600, 30, None, Affine.identity())), labels(600, 30)[None])
    with rasterio.open(path) as file:
        assert (file.crs, file.transform) == (None, Affine.identity())


@pytest.mark.parametrize("method", ["NEAREST", "MODE"])
@pytest.mark.parametrize("with_palette", [True, False])
def test_overviews_hold_nothing_but_classes(method, with_palette, grid, legend, make_cog):
    pixels = np.where(np.random.default_rng(1).random((1, 2100, 1100)) < 0.5, 10, 100).astype(np.uint8)
    spec = RasterSpec(grid(2100, 1100), palette=legend.palette() if with_palette else None, overview_resampling=method)
    path = make_cog(spec, pixels)
    with tifffile.TiffFile(path) as file:
        assert [page.shape for page in file.pages] == [(2100, 1100), (1050, 550), (525, 275), (262, 137)]
        for page in file.pages:
            assert set(np.unique(page.asarray())) == {10, 100}


def test_palette_description_tags_and_nodata_survive(grid, legend, labels, make_cog):
    tags = {
        "AREA_OR_POINT": "Area",
        "TIFFTAG_SOFTWARE": "geoseg 1.0",
        "TIFFTAG_DATETIME": "2026:01:02 03:04:05",
        "GEOSEG_CLASSES": '[{"value": 10, "title": "Tree <& cover>"}]',
        "GEOSEG_NOTE": "zwei\nZeilen mit Ümlaut",
        "GEOSEG_EMPTY": "",
        "GEOSEG_PADDED": " x ",
    }
    spec = RasterSpec(grid(600, 600), descriptions=("land_cover",), palette=legend.palette(), tags=tags)
    path = make_cog(spec, labels(600, 600)[None])
    with rasterio.open(path) as file:
        assert (file.nodata, file.descriptions, file.dtypes) == (255, ("land_cover",), ("uint8",))
        found, colors = file.tags(), file.colormap(1)
    assert {name: found[name] for name in tags if name not in ("GEOSEG_EMPTY", "GEOSEG_PADDED")} == {
        name: value for name, value in tags.items() if name not in ("GEOSEG_EMPTY", "GEOSEG_PADDED")
    }
    assert {value: colors[value] for value in legend.values} == {c.value: (*c.rgb, 255) for c in legend.classes}
    assert colors[255][3] == 0, "nodata is transparent"
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.photometric == tifffile.PHOTOMETRIC.PALETTE
        assert page.tags["GDAL_NODATA"].value.strip() == "255"
        assert (page.software, page.tags["DateTime"].value) == ("geoseg 1.0", "2026:01:02 03:04:05")


def test_tags_added_after_the_pixels_reach_the_cog(tmp_path, grid, labels):
    with WorkRaster(tmp_path / "w.tif", RasterSpec(grid(20, 20), tags={"GEOSEG_A": "1"})) as work:
        work.write(0, labels(20, 20)[None])
        work.add_tags({"GEOSEG_B": "2"})
    write_cog(work, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.tags()["GEOSEG_A"], file.tags()["GEOSEG_B"]) == ("1", "2")


def test_probabilities_keep_scale_names_and_averages_without_nodata(grid, make_cog):
    pixels = np.full((3, 800, 600), 255, np.uint8)
    pixels[0, :, :300], pixels[1, :, :300], pixels[2, :, :300] = 250, 0, 100
    pixels[2, ::2, :300] = 50
    names = ("prob_water", "prob_tree", "prob_bare")
    spec = RasterSpec(
        grid(800, 600), bands=3, descriptions=names, scale=1 / 250, offset=0.0, overview_resampling="AVERAGE"
    )
    path = make_cog(spec, pixels)
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as file:
        assert (file.descriptions, file.scales, file.offsets) == (names, (1 / 250,) * 3, (0.0,) * 3)
        assert np.array_equal(file.read(), pixels)
    with rasterio.open(path, overview_level=0) as file:
        halves = file.read()
    assert (halves[:, :, 150:] == 255).all(), "nodata stays nodata"
    assert [np.unique(band[:, :150]).tolist() for band in halves] == [[250], [0], [75]]


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_bands_of_probabilities_are_no_colours_so_nodata_never_enters_an_average(bands, grid, make_cog):
    """GDAL takes four bands of bytes for red, green, blue and alpha, and then averages nodata like any value."""
    rng = np.random.default_rng(0)
    valid = rng.random((600, 800)) < 0.5
    pixels = np.where(valid, rng.integers(0, 201, (bands, 600, 800)), 255).astype(np.uint8)
    path = make_cog(RasterSpec(grid(600, 800), bands=bands, scale=1 / 250, overview_resampling="AVERAGE"), pixels)
    with rasterio.open(path) as file:
        assert [one.name for one in file.colorinterp] == ["gray"] + ["undefined"] * (bands - 1)
        assert np.array_equal(file.read(), pixels)
    with rasterio.open(path, overview_level=0) as overview:
        halves = overview.read()
    four = pixels.reshape(bands, 300, 2, 400, 2).astype(float)
    four[four == 255] = np.nan
    known = ~np.isnan(four).all(axis=(2, 4))
    means = np.nanmean(np.where(known[:, :, None, :, None], four, 255), axis=(2, 4))
    assert (np.abs(halves - means) <= 0.5).all()


def test_the_same_input_gives_the_same_bytes_with_any_threads(tmp_path, grid, labels, make_work):
    spec = RasterSpec(grid(700, 700), tags={"TIFFTAG_DATETIME": "2026:01:02 03:04:05"})
    work = make_work(spec, labels(700, 700)[None])
    write_cog(work, tmp_path / "a.tif")
    write_cog(work, tmp_path / "b.tif", {"NUM_THREADS": "1"})
    write_cog(work, tmp_path / "c.tif", {"NUM_THREADS": "3"})
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()


def _write_in_fork(work, out):
    child = os.fork()
    if child == 0:
        write_cog(work, out)
        os._exit(0)
    return child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(60)
def test_a_forked_process_writes_after_its_parent_did(tmp_path, grid, labels, make_work):
    work = make_work(RasterSpec(grid(700, 700)), labels(700, 700)[None])
    write_cog(work, tmp_path / "parent.tif")
    child = _write_in_fork(work, tmp_path / "child.tif")
    try:
        deadline = time.monotonic() + 20
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            assert time.monotonic() < deadline, "the forked process hangs"
            time.sleep(0.05)
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    assert (tmp_path / "child.tif").read_bytes() == (tmp_path / "parent.tif").read_bytes()


def test_odd_file_names_work(tmp_path, grid, labels, make_work):
    for name in ("a #1 %20 ü: x.tif", "http:x.tif", "-rf.tif", "a?b=c&d.tif", "x!y.tif", "vrt:y.zip"):
        work = make_work(RasterSpec(grid(20, 20)), labels(20, 20)[None], tmp_path / f"work {name}")
        write_cog(work, tmp_path / name)
        assert (tmp_path / name).is_file()


def test_a_flipped_bit_anywhere_in_the_pixels_is_caught_or_harmless(one_block):
    work, path = one_block
    with tifffile.TiffFile(path) as file:
        start, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    sound = path.read_bytes()
    with rasterio.open(path) as file:
        wanted = file.read()
    caught = 0
    for offset in np.linspace(start, start + size - 1, 60).astype(int):
        damaged = bytearray(sound)
        damaged[offset] ^= 1 << (offset % 8)
        path.write_bytes(damaged)
        try:
            check_cog(path, work)
        except StorageError:
            caught += 1
        else:
            with rasterio.open(path) as file:
                assert np.array_equal(file.read(), wanted)
    assert caught >= 55


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_caught(one_block, share):
    work, path = one_block
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(StorageError, match="read back") as caught:
        check_cog(path, work)
    assert caught.value.exit_code == 74
    assert str(work.target) in caught.value.message


def test_other_pixels_are_caught_with_their_rows(tmp_path, grid, labels, make_work):
    pixels = labels(1200, 40)
    other = pixels.copy()
    other[1100, 20] = 0
    work = make_work(RasterSpec(grid(1200, 40)), pixels[None])
    write_cog(make_work(RasterSpec(grid(1200, 40)), other[None], tmp_path / "other.tif"), tmp_path / "map.tif")
    with pytest.raises(StorageError, match="rows 1024 to 1199 of band 1"):
        check_cog(tmp_path / "map.tif", work)


def test_overviews_that_invent_classes_are_caught(tmp_path, grid, make_work):
    pixels = np.where(np.random.default_rng(1).random((1, 1100, 1100)) < 0.5, 10, 100).astype(np.uint8)
    work = make_work(RasterSpec(grid(1100, 1100)), pixels)
    # What the driver does when nobody tells it which resampling to use.
    rasterio.shutil.copy(work.path, tmp_path / "map.tif", driver="COG", blocksize=512)
    with pytest.raises(StorageError, match="550 x 550 overview holds"):
        check_cog(tmp_path / "map.tif", work)


def test_a_plain_geotiff_is_no_cog(one_block, tmp_path):
    work, _ = one_block
    shutil.copy(work.path, tmp_path / "plain.tif")
    with pytest.raises(StorageError, match="layout"):
        check_cog(tmp_path / "plain.tif", work)


@pytest.mark.parametrize("wrong", ["grid", "nodata", "descriptions", "palette", "tags", "scale"])
def test_every_part_of_the_description_is_compared(wrong, tmp_path, grid, legend, labels, make_work):
    right = RasterSpec(grid(30, 40), descriptions=("land_cover",), palette=legend.palette(), tags={"GEOSEG_A": "1"})
    changes = {
        "grid": {"grid": grid(30, 40, transform=Affine(10, 0, 500_000, 0, -10, 5_000_010))},
        "nodata": {"nodata": 254},
        "descriptions": {"descriptions": ("cloud",)},
        "palette": {"palette": legend.palette() | {10: (1, 2, 3, 255)}},
        "tags": {"tags": {"GEOSEG_A": "2"}},
        "scale": {"scale": 0.5},
    }
    work = make_work(right, labels(30, 40)[None])
    other = make_work(replace(right, **changes[wrong]), labels(30, 40)[None], tmp_path / "other.tif")
    write_cog(other, tmp_path / "map.tif")
    with pytest.raises(StorageError, match=f"other.*{wrong}"):
        check_cog(tmp_path / "map.tif", work)


def test_the_check_looks_at_the_file_alone_not_at_sidecars(one_block):
    work, path = one_block
    path.with_name("map.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3035</SRS><GeoTransform>1,2,0,3,0,-2</GeoTransform></PAMDataset>"
    )
    check_cog(path, work)


def test_creation_options_of_the_user_replace_ours(grid, make_cog):
    # Three of every four pixels are 20, but the first of each four is 10.
    pixels = np.full((1, 700, 700), 20, np.uint8)
    pixels[0, ::2, ::2] = 10
    path = make_cog(RasterSpec(grid(700, 700)), pixels, blocksize="256", COMPRESS="lzw", Overview_Resampling="mode")
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as file:
        assert (file.block_shapes[0], file.compression.name) == ((256, 256), "lzw")
        assert np.array_equal(file.read(), pixels)
    with rasterio.open(path, overview_level=0) as overview:
        assert (overview.read() == 20).all()


@pytest.mark.parametrize("bands", [1, 4])
def test_rasters_without_compression_are_cogs_of_any_number_of_bands(grid, make_cog, bands):
    """GDAL leaves the name of the layout out of uncompressed files of several bands."""
    pixels = np.random.default_rng(0).integers(0, 251, (bands, 700, 900)).astype(np.uint8)
    path = make_cog(RasterSpec(grid(700, 900), bands=bands, overview_resampling="AVERAGE"), pixels, COMPRESS="NONE")
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as file:
        assert file.compression is None
        assert np.array_equal(file.read(), pixels)


def test_blocks_larger_than_the_image_need_no_overviews(grid, labels, make_cog):
    path = make_cog(RasterSpec(grid(700, 700)), labels(700, 700)[None], BLOCKSIZE="1024")
    with rasterio.open(path) as file:
        assert file.overviews(1) == []


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("COMPRES", "LZW", "COMPRESS"),
        ("NBITS", "1", "COMPRESS"),
        ("TILING_SCHEME", "GoogleMapsCompatible", "BLOCKSIZE"),
        ("SPARSE_OK", "TRUE", "BLOCKSIZE"),
        ("OVERVIEWS", "NONE", "BLOCKSIZE"),
        ("COMPRESS", "JPEG", "DEFLATE"),
        ("OVERVIEW_RESAMPLING", "CUBIC", "NEAREST, MODE"),
        ("overview_resampling", "average", "NEAREST, MODE"),
    ],
)
def test_options_that_are_unknown_or_change_pixels_are_refused(name, value, hint):
    with pytest.raises(UsageError) as caught:
        check_creation_options({name: value})
    assert f"{name.upper()}={value}" in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_misspelt_option_gets_the_nearest_name():
    with pytest.raises(UsageError, match=r"did you mean COMPRESS\?"):
        check_creation_options({"COMPRES": "LZW"})


def test_a_value_that_gdal_would_refuse_is_a_named_error(grid, labels, make_cog):
    with pytest.raises(UsageError, match="BLOCKSIZE=13"):
        make_cog(RasterSpec(grid(70, 70)), labels(70, 70)[None], BLOCKSIZE="13")
