"""Failures of what numbers and bands mean: rows 5 to 14."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from tests.conftest import TEN_METRES, write_scene
from tests.failures.case import Case, Failure, Made
from tests.failures.scenes import TAG, draw, numbers, reflectance, write_red

OLD_NAME = "S2B_MSIL1C_20200101T104619_N0208_R051_T31UFS_20200101T114500.tif"
NEW_NAME = "S2B_MSIL1C_20240101T104619_N0510_R051_T31UFS_20240101T114500.tif"


def floats(folder: Path, tag: float | None, missing: float) -> Made:
    labels = draw(90, 70)
    write_scene(folder / "scene.tif", reflectance(labels, missing)[None], ["red"], nodata=tag)
    return Made(folder / "scene.tif", labels)


def nan_beside_nodata(folder: Path) -> Made:
    labels = draw(90, 70)
    pixels = reflectance(labels, -9999)
    pixels[5:9, 10:30] = np.nan
    write_scene(folder / "scene.tif", pixels[None], ["red"], nodata=-9999)
    labels[5:9, 10:30] = 255
    return Made(folder / "scene.tif", labels)


def two_files(folder: Path, keep: str = "all") -> Made:
    """Red as uint16 with nodata 0, near infrared as float32 with nodata -1, missing in different places."""
    seen, unseen = draw(90, 70, 1), draw(90, 70, 2)
    scene = folder / "scene"
    scene.mkdir()
    write_scene(scene / "scene_B04.tif", numbers(seen, 0)[None], tags=[TAG], nodata=0)
    infrared = np.where(unseen == 255, -1, 2000.0).astype(np.float32)
    write_scene(scene / "scene_B08.tif", infrared[None], tags=[TAG], nodata=-1)
    both = np.where(unseen == 255, 255, seen)
    # Where red alone is missing the model is shown its average, 0.1: class 0.
    either = np.where(seen == 255, np.where(unseen == 255, 255, 0), seen)
    return Made(scene, (both if keep == "all" else either).astype(np.uint8))


def masked(folder: Path) -> Made:
    labels = draw(90, 70)
    shown = np.where(labels == 255, 2, labels).astype(np.uint8)
    write_scene(folder / "scene.tif", numbers(shown)[None], ["red"], [TAG], labels != 255)
    return Made(folder / "scene.tif", labels)


def transparent(folder: Path) -> Made:
    labels = draw(90, 70)
    shown = np.where(labels == 255, 2, labels).astype(np.uint8)
    planes = np.stack([numbers(shown), np.where(labels == 255, 0, 65_535).astype(np.uint16)])
    kinds = rasterio.enums.ColorInterp
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", dtype="uint16", count=2, height=90, width=70, crs="EPSG:32631",
        transform=TEN_METRES, alpha="UNSPECIFIED",
    ) as file:  # fmt: skip
        file.colorinterp = [kinds.undefined, kinds.alpha]  # before the pixels: TIFF tells alpha in its header
        file.set_band_description(1, "red")
        file.scales = (TAG[0], TAG[0])
        file.write(planes)
    return Made(folder / "scene.tif", labels)


def plain(folder: Path, name: str = "scene.tif", shift: int = 0, tag: tuple[float, float] | None = None) -> Made:
    """Whole labels as digital numbers, ``shift`` higher."""
    labels = draw(90, 70, share_valid=1.0)
    write_scene(folder / name, numbers(labels)[None] + np.uint16(shift), ["red"], [tag] if tag else [])
    return Made(folder / name, labels)


def bands(folder: Path, names: tuple[str | None, ...]) -> Made:
    """Two bands, red the second."""
    labels = draw(90, 70, share_valid=1.0)
    pixels = np.stack([numbers(draw(90, 70, 5, 1.0)), numbers(labels)])
    write_scene(folder / "scene.tif", pixels, names, [TAG, TAG])
    return Made(folder / "scene.tif", labels)


def infrared_alone(folder: Path) -> Made:
    write_scene(folder / "scene.tif", numbers(draw(90, 70, share_valid=1.0))[None], ["nir"], [TAG])
    return Made(folder / "scene.tif", np.full((90, 70), 2, np.uint8))


def composite(folder: Path, driver: str, **profile: Any) -> Made:
    path = folder / "scene.tif"
    with rasterio.open(
        path, "w", driver=driver, dtype="uint8", count=3, height=90, width=70, crs="EPSG:32631", transform=TEN_METRES,
        **profile,
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(0, 256, (3, 90, 70)).astype(np.uint8))
    return Made(path)


def of_size(folder: Path, metres: float) -> Made:
    """One class and missing pixels: that answer is known at any pixel size."""
    labels = np.where(draw(90, 70) == 255, 255, 2).astype(np.uint8)
    return write_red(folder / "scene.tif", labels, transform=Affine(metres, 0, 600_000, 0, -metres, 5_700_000))


ROWS = (
    Failure(
        5, "NaN, with or without a nodata number", "Both are nodata.",
        (
            Case("nan_as_nodata", "float32 reflectance, nodata tag NaN", lambda f: floats(f, np.nan, np.nan)),
            Case("nan_without_a_tag", "float32 reflectance with NaN, no tag", lambda f: floats(f, None, np.nan)),
            Case("nan_beside_another_nodata", "float32 with nodata -9999 and some NaN", nan_beside_nodata),
            Case("infinity", "float32 reflectance with infinity, no tag", lambda f: floats(f, None, np.inf)),
        ),
        ("tests/scenes/test_raster_file.py::test_nan_and_infinity_are_never_valid",),
    ),
    Failure(
        6, "Bands of different number types", "Each is read as it is stored.",
        (Case("two_types", "folder of B04 (uint16) and B08 (float32)", two_files),),
        ("tests/scenes/test_stack.py::test_bands_of_different_types_become_float32",
         "tests/scenes/test_raster_file.py::test_bands_of_different_types_are_read_as_float32"),
    ),
    Failure(
        7, "Bands with different nodata numbers",
        "Each band has its own; --valid says whether all bands or any must have a value.",
        (
            Case("all_bands_count", "folder of B04 (nodata 0) and B08 (nodata -1)", two_files, ("--valid", "all")),
            Case("any_band_counts", "the same", lambda f: two_files(f, "any"), ("--valid", "any")),
        ),
        ("tests/scenes/test_raster_file.py::test_each_band_has_its_own_nodata",),
    ),
    Failure(
        8, "A mask band or alpha instead of nodata", "Both are honoured.",
        (
            Case("mask_band", "GeoTIFF with an internal mask", masked),
            Case("alpha_band", "GeoTIFF with an alpha band", transparent),
        ),
        ("tests/scenes/test_raster_file.py::test_mask_band_and_nodata_both_take_pixels_away",
         "tests/scenes/test_planetscope.py::test_where_nothing_was_imaged_pixels_are_lost_and_clouds_are_not"),
    ),
    Failure(
        9, "Scale and offset tags ignored, or applied twice",
        "Resolved once and told with the reason; sources that disagree stop the run.",
        (
            Case("tags_decide", "scale and offset tags of (DN - 1000) / 10000",
                 lambda f: plain(f, shift=1000, tag=(1e-4, -0.1)), message=("radiometry:",)),
            Case("tags_and_name_disagree", "tags without the offset, a name of baseline 05.10",
                 lambda f: plain(f, NEW_NAME, tag=TAG), code=65, message=("two sources disagree", "baseline 05.10"),
                 remedy=("--radiometry dn",)),
            Case("the_user_decides", "the same", lambda f: plain(f, NEW_NAME, tag=TAG), ("--radiometry", "dn"),
                 message=("--radiometry overrides",)),
        ),
        ("tests/scenes/test_radiometry.py::test_sources_that_disagree_stop_the_run_until_the_user_decides",
         "tests/scenes/test_radiometry.py::test_of_sources_that_agree_the_first_decides",
         "tests/scenes/test_safe.py::test_a_name_whose_baseline_contradicts_the_offsets_is_refused"),
    ),
    Failure(
        10, "The +1000 of Sentinel-2 missed or subtracted twice",
        "Metadata, tags or the product's name decide; where nothing does, the scene is refused.",
        (
            Case("before_baseline_4", "DN under a name of baseline 02.08", lambda f: plain(f, OLD_NAME)),
            Case("since_baseline_4", "DN + 1000 under a name of baseline 05.10", lambda f: plain(f, NEW_NAME, 1000)),
            Case("undecided", "DN that nothing explains", plain, code=65, message=("nothing says what its uint16",),
                 remedy=("--radiometry dn-1000",)),
        ),
        ("tests/cli/test_mixed_baselines.py::test_scenes_of_mixed_baselines_in_one_folder_give_the_same_map_each",
         "tests/scenes/test_stac_item.py::test_an_offset_that_earth_search_applied_is_not_applied_again",
         "tests/scenes/test_safe.py::test_old_and_new_baselines_and_a_zip_give_the_same_reflectance_for_the_same_ground"),
    ),
    Failure(
        11, "Bands in another order", "Names decide, never the count alone.",
        (
            Case("named", "nir, red instead of red, nir, with descriptions", lambda f: bands(f, ("nir", "red"))),
            Case("unnamed", "two bands without descriptions", lambda f: bands(f, (None, None)), code=65,
                 message=("name",), remedy=("--bands",)),
            Case("named_by_the_user", "the same", lambda f: bands(f, (None, None)), ("--bands", "nir,red")),
        ),
        ("tests/test_predict.py::test_named_bands_in_another_order_give_the_same_map",),
    ),
    Failure(
        12, "A band is missing", "Refuses and names it; --fill gives a number for it, on request only.",
        (
            Case("required", "nir without red", infrared_alone, code=65, message=("red",), remedy=("--fill red=",)),
            Case("filled", "the same", infrared_alone, ("--fill", "red=0.5"), message=("filled with 0.5",)),
        ),
        ("tests/cli/test_scene_options.py::test_a_band_that_was_filled_is_told_and_tagged",),
    ),
    Failure(
        13, "A picture for the eye given to a model of reflectance", "Refuses it.",
        (
            Case("rgb", "8-bit RGB GeoTIFF", lambda f: composite(f, "GTiff", photometric="RGB"), code=65,
                 message=("8-bit rendered image",), remedy=("16-bit or float",)),
            Case("jpeg_in_tiff", "8-bit GeoTIFF compressed as JPEG", lambda f: composite(
                     f, "GTiff", photometric="YCBCR", compress="JPEG", tiled=True, blockxsize=64, blockysize=64),
                 code=65, message=("8-bit rendered image",), remedy=("16-bit or float",)),
            Case("jpeg", "JPEG file named .tif", lambda f: composite(f, "JPEG"), code=65, message=("a JPEG image",),
                 remedy=("GeoTIFF",)),
        ),
        ("tests/scenes/test_radiometry.py::test_eight_bit_images_are_refused_unless_tags_scale_them",
         "tests/scenes/test_planetscope.py::test_an_eight_bit_picture_under_a_products_name_is_refused"),
    ),
    Failure(
        14, "Pixels of another size than the model's",
        "Up to 25 %: nothing. Beyond: the model sees them at its own size, or a warning with --gsd native. More than"
        " four times: refused.",
        (
            Case("twice_as_large", "pixels of 20 m, model of 10 m", lambda f: of_size(f, 20),
                 message=("shown to the model: pixels of 10 x 10 m",)),
            Case("twice_as_large_as_they_are", "the same", lambda f: of_size(f, 20), ("--gsd", "native"),
                 message=("warning:", "expect more errors")),
            Case("far_too_large", "pixels of 60 m", lambda f: of_size(f, 60), code=65,
                 message=("60 x 60 m", "10 m"), remedy=("--gsd 10",)),
        ),
        ("tests/scenes/test_raster_file.py::test_pixels_of_another_size_raise_one_warning",
         "tests/scenes/test_raster_file.py::test_pixels_of_a_far_size_are_refused_with_the_cure"),
    ),
)  # fmt: skip
