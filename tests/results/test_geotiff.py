"""Plain GeoTIFFs: the same pixels, tags and overviews as a COG, and no option that changes a pixel."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import Resampling

from geoseg_cli.errors import StorageError, UsageError
from geoseg_cli.results.creation_options import FREE_OPTIONS, NUMBERS, check_creation_options
from geoseg_cli.results.geotiff import check_geotiff, write_geotiff
from geoseg_cli.results.raster import RasterSpec
from geoseg_cli.results.verify import verify_map


@pytest.fixture
def make_plain(tmp_path, make_work):
    def make(spec, pixels, **options):
        work = make_work(spec, pixels)
        write_geotiff(work, tmp_path / "map.tif", options)
        return tmp_path / "map.tif"

    return make


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 700), (700, 1), (700, 2), (513, 511), (512, 512), (1400, 512), (1500, 2048)]
)
def test_every_size_is_tiled_with_the_same_pixels_for_two_readers(shape, grid, legend, labels, make_plain):
    pixels = labels(*shape)
    path = make_plain(RasterSpec(grid(*shape), palette=legend.palette()), pixels[None])
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), pixels)
        assert "LAYOUT" not in file.tags(ns="IMAGE_STRUCTURE")
        assert (len(file.overviews(1)) > 0) == (max(shape) > 512 and shape[1] > 1)
    with tifffile.TiffFile(path) as file:
        assert all(page.is_tiled for page in file.pages)
        assert np.array_equal(file.pages[0].asarray(), pixels)
    assert sorted(p.name for p in path.parent.iterdir()) == ["map.tif", "scratch.tif"]


def test_palette_tags_grid_and_nodata_survive_the_overviews(grid, legend, labels, make_plain):
    tags = {"TIFFTAG_SOFTWARE": "geoseg 1.0", "GEOSEG_CLASSES": '[{"title": "Tree <& cover>"}]', "GEOSEG_NOTE": "ü\nö"}
    wanted = grid(1100, 600)
    path = make_plain(
        RasterSpec(wanted, descriptions=("land_cover",), palette=legend.palette(), tags=tags), labels(1100, 600)[None]
    )
    with rasterio.open(path) as file:
        assert (file.nodata, file.descriptions, file.transform) == (255, ("land_cover",), wanted.transform)
        assert (file.crs, file.compression.name, file.overviews(1)) == (wanted.crs, "deflate", [2, 4])
        assert tags.items() <= file.tags().items()
        assert all(file.colormap(1)[one.value][:3] == one.rgb for one in legend.classes)


def test_overviews_of_classes_are_the_nearest_pixels_and_those_of_probabilities_averages(grid, labels, make_plain):
    pixels = labels(1200, 1000)
    path = make_plain(RasterSpec(grid(1200, 1000)), pixels[None])
    with rasterio.open(path, overview_level=0) as overview:
        assert np.array_equal(overview.read(1), pixels[::2, ::2])
    four = np.random.default_rng(0).integers(0, 201, (4, 1200, 1000)).astype(np.uint8)
    four[:, :, 500:] = 255
    path.unlink()
    make_plain(RasterSpec(grid(1200, 1000), bands=4, scale=1 / 250, overview_resampling="AVERAGE"), four)
    with rasterio.open(path, overview_level=0) as overview:
        halves = overview.read()
    means = four.reshape(4, 600, 2, 500, 2).mean(axis=(2, 4))
    assert (np.abs(halves - means) <= 0.5).all()


CASES = [
    (name, value)
    for name, values in FREE_OPTIONS["gtiff"].items()
    for value in values or [str(NUMBERS[name][0]), str(min(NUMBERS[name][1], 512))]
]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_every_option_that_is_let_through_is_known_to_the_driver_and_changes_no_pixel(
    name, value, grid, labels, make_plain, caplog
):
    pixels = labels(700, 600)
    companions = {"ZSTD_LEVEL": {"COMPRESS": "ZSTD"}, "LZMA_PRESET": {"COMPRESS": "LZMA"}}.get(name, {})
    with caplog.at_level(logging.WARNING, "rasterio"):
        path = make_plain(RasterSpec(grid(700, 600)), pixels[None], **{name: value}, **companions)
    assert caplog.records == []
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].is_tiled
        assert len(file.pages) == 2
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), pixels)


def test_names_and_values_in_any_case_reach_the_file(grid, labels, make_plain):
    path = make_plain(
        RasterSpec(grid(700, 600)), labels(700, 600)[None], compress="lzw", BlockXSize="256", blockysize="128",
        Predictor="2", endianness="big",
    )  # fmt: skip
    with rasterio.open(path) as file:
        assert (file.compression.name, file.block_shapes) == ("lzw", [(128, 256)])
    with tifffile.TiffFile(path) as file:
        assert file.byteorder == ">"
        assert {page.compression.name for page in file.pages} == {"LZW"}
        assert {page.predictor for page in file.pages} == {2}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NBITS", "1"), ("DISCARD_LSB", "1"), ("COMPRESS", "JPEG"), ("COMPRESS", "WEBP"), ("COMPRESS", "CCITTFAX4"),
        ("MAX_Z_ERROR", "1"), ("PROFILE", "BASELINE"), ("PHOTOMETRIC", "MINISWHITE"), ("ALPHA", "YES"), ("TFW", "YES"),
        ("SPARSE_OK", "TRUE"), ("TILED", "NO"), ("PREDICTOR", "3"), ("PREDICTOR", "YES"), ("COPY_SRC_OVERVIEWS", "YES"),
        ("BLOCKSIZE", "512"), ("LEVEL", "9"), ("OVERVIEW_RESAMPLING", "MODE"), ("BLOCKXSIZE", "100"), ("ZLEVEL", "13"),
        ("LZMA_PRESET", "10"), ("INTERLEAVE", "LINE"),
    ],
)  # fmt: skip
def test_options_that_are_unknown_or_change_something_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name}={value}"):
        check_creation_options({name.lower(): value}, "gtiff")


def test_settings_of_gdal_that_the_user_has_made_cannot_make_overviews_lossy_or_strange(grid, labels, make_plain):
    settings = {
        "COMPRESS_OVERVIEW": "JPEG", "JPEG_QUALITY_OVERVIEW": "10", "GDAL_TIFF_OVR_BLOCKSIZE": "64",
        "SPARSE_OK_OVERVIEW": "YES", "GDAL_NUM_THREADS": "4", "TIFF_USE_OVR": "YES", "PREDICTOR_OVERVIEW": "2",
    }  # fmt: skip
    pixels = labels(1100, 600)
    with rasterio.Env(**settings):
        path = make_plain(RasterSpec(grid(1100, 600)), pixels[None])
    assert sorted(p.name for p in path.parent.iterdir()) == ["map.tif", "scratch.tif"]
    with tifffile.TiffFile(path) as file:
        assert [page.compression.name for page in file.pages] == ["ADOBE_DEFLATE"] * 3
        assert np.array_equal(file.pages[1].asarray(), pixels[::2, ::2])


def test_blocks_larger_than_the_image_need_no_overviews(grid, labels, make_plain):
    path = make_plain(RasterSpec(grid(700, 700)), labels(700, 700)[None], BLOCKXSIZE="1024", BLOCKYSIZE="1024")
    with rasterio.open(path) as file:
        assert file.overviews(1) == []


def test_the_same_input_gives_the_same_bytes(tmp_path, grid, labels, make_work):
    work = make_work(
        RasterSpec(grid(700, 700), tags={"TIFFTAG_DATETIME": "2026:01:02 03:04:05"}), labels(700, 700)[None]
    )
    write_geotiff(work, tmp_path / "a.tif")
    write_geotiff(work, tmp_path / "b.tif", {"NUM_THREADS": "2"})
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.fixture
def written(tmp_path, grid, labels, make_work):
    work = make_work(RasterSpec(grid(1100, 600), tags={"GEOSEG_A": "1"}), labels(1100, 600)[None])
    write_geotiff(work, tmp_path / "map.tif")
    return work, tmp_path / "map.tif"


def test_a_flipped_bit_in_the_pixels_is_caught_or_harmless(written):
    work, path = written
    sound = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        start, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    with rasterio.open(path) as file:
        wanted = file.read()
    caught = 0
    for offset in np.linspace(start, start + size - 1, 30).astype(int):
        damaged = bytearray(sound)
        damaged[offset] ^= 1 << (offset % 8)
        path.write_bytes(damaged)
        try:
            check_geotiff(path, work)
        except StorageError:
            caught += 1
        else:
            with rasterio.open(path) as file:
                assert np.array_equal(file.read(), wanted)
    assert caught >= 27


def test_missing_overviews_other_tags_and_strips_are_caught(written, tmp_path, grid, labels):
    work, path = written
    with rasterio.open(path) as file:
        profile, pixels = file.profile, file.read()
    for name, changes in {"overviews": {}, "tags": {}, "layout": {"tiled": False, "blockysize": 1}}.items():
        made = {**profile, **changes}
        if name == "layout":
            made.pop("blockxsize")
        with rasterio.open(path, "w", **made) as file:
            file.write(pixels)
            file.update_tags(GEOSEG_A="2" if name == "tags" else "1")
            if name != "overviews":
                file.build_overviews([2, 4], Resampling.nearest)
        with pytest.raises(StorageError, match=f"other.*{name}"):
            check_geotiff(path, work)


def test_a_map_that_was_written_plain_is_intact_and_an_edited_cog_is_not(make_map, labels):
    pixels = labels(1100, 600)
    plain = make_map(pixels, "plain/map.tif", format="gtiff")
    verdict = verify_map(plain)
    assert (verdict.problems, verdict.format, verdict.to_json()["format"]) == ({}, "gtiff", "gtiff")
    cog = make_map(pixels, "cog/map.tif")
    assert verify_map(cog).format == "cog"
    with rasterio.open(cog, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(NOTE="edited")
    assert "structure" in verify_map(cog).problems
    with rasterio.open(plain, "r+") as file:
        block = file.read(1)
        block[3, 3] = 10 if block[3, 3] != 10 else 20
        file.write(block, 1)
    assert "pixels" in verify_map(plain).problems
