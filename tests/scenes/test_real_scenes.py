"""Every GeoTIFF of the real data: the right reflectance, or the named refusal.

Pixels are read again with tifffile, which shares no code with GDAL; band orders and scales are those that the
data's own description states.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import GeosegError, GridError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import SceneOptions, check_resolution, open_scene

WANTED = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11", "swir22": "B12"}
SPEC = InputSpec(tuple(WANTED), ("swir16", "swir22"), (0.0,) * 6, (1.0,) * 6)

L2A = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"
L1C = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"


DN = SceneOptions(radiometry="dn")
SHIFTED = SceneOptions(radiometry="dn-1000")
NAMED = SceneOptions(tuple(L2A.split()), "dn")


@dataclass(frozen=True)
class Readable:
    """A file whose values are known: reflectance = 0.0001 x number + offset."""

    pattern: str
    bands: str
    offset: float = 0.0
    nodata: int | None = None
    options: SceneOptions = DN


READABLE = [
    Readable("scenes/s2_l2a_alberta_20190522/S2_L2A_20190522_alberta.tif", "B02 B03 B04 B08 B11", nodata=0),
    Readable("scenes/s2_toa_boa_belgium_20190411/S2_TOA_*.tif", "B02 B03 B04 B08 B8A B09 B11", nodata=65535),
    Readable("scenes/s2_toa_boa_belgium_20190411/S2_BOA_iCOR_*.tif", "B02 B03 B04 B08", nodata=65535),
    Readable("scenes/s2_toa_boa_belgium_20190411/S2_BOA_SMAC_*.tif", "B02 B03 B04 B08"),
    Readable("scenes/s2_terramesh/S2_L2A_*.tif", L2A),
    Readable("scenes/s2_terramesh/S2_L1C_20230610*.tif", L1C),
    Readable("scenes/s2_terramesh/S2_L1C_20210723*.tif", L1C, -0.1, options=SHIFTED),
    Readable("scenes/s2_terramesh/S2_L1C_20200111*.tif", L1C, -0.1, options=SHIFTED),
    Readable("scenes/s2_l2a_boadella/*.tif", L2A),
    Readable("scenes/s2_l1c_eurosat/*.tif", "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A"),
    Readable("awkward/tiny/*.tif*", L2A, options=NAMED),
    Readable(
        "awkward/web_mercator/*.tif",
        "B04 B03 B02 B08",
        nodata=32767,
        # Its fourth band is a scene class; here it plays the near infrared to reach the pixels of the others.
        options=SceneOptions(("red", "green", "blue", "nir"), "dn"),
    ),
    Readable(
        "awkward/two_dates_in_one_file/*.tif",
        "- - - - B04 B03 B02 B08",
        options=SceneOptions(("-", "-", "-", "-", "red", "green", "blue", "nir"), "dn"),
    ),
]

REFUSED = [
    ("scenes/s2_l2a_alberta_20190522/*_SCL.tif", 65, "8-bit rendered image"),
    ("scenes/s2_l2a_alberta_20190522/*_CLP.tif", 65, "8-bit rendered image"),
    ("scenes/s2_l2a_alberta_20190522/*_angles.tif", 65, "no band has a name"),
    ("scenes/s2_l1c_18SVG_20160112_20m_60m/*.tif", 65, "missing bands blue, green, red"),
    ("scenes/s2_l2a_bigearthnet/*.tif", 65, "no band has a name"),
    ("scenes/l8_toa_boa_belgium_20200613/*.tif", 65, "ambiguous"),
    ("*_SR_QA_AEROSOL.TIF", 65, "8-bit rendered image"),
    ("scenes/landsat/*.TIF", 65, "no band has a name"),
    ("awkward/*_no_mtl/*", 65, "no band has a name"),
    ("awkward/polar_epsg3031/*.TIF", 65, "no band has a name"),
    ("awkward/swath_edge/*.TIF", 65, "no band has a name"),
    ("awkward/geotiff_named_jp2/*.jp2", 65, "no band has a name"),
    ("awkward/*.jp2", 65, "no band has a name"),
    ("awkward/float_*/*.tif", 65, "no band has a name"),
    ("awkward/mixed_resolution/*.tif", 65, "no band has a name"),
    ("awkward/tiny/*.tif*", 65, "no band has a name"),
    ("awkward/web_mercator/*.tif", 65, "no band has a name"),
    ("awkward/two_dates_in_one_file/*.tif", 65, "no band has a name"),
    ("awkward/unnamed_float_bands/*.tif", 65, "no band has a name"),
    ("awkward/uint8_stretched/*.tif", 65, "8-bit rendered image"),
    ("awkward/other_sensor/*.tif", 65, "8-bit rendered image"),
    ("awkward/full_size_class_raster/*.tif", 65, "8-bit rendered image"),
    ("scenes/s2_*/*.tif", 65, "nothing says what its"),
]


def rasters(real_data: Path) -> dict[str, Path]:
    files = [path for part in ("scenes", "awkward") for path in sorted((real_data / part).rglob("*"))]
    kept = [path for path in files if path.suffix.lower() in (".tif", ".tiff", ".jp2")]
    return {path.relative_to(real_data).as_posix(): path for path in kept}


@pytest.mark.parametrize("case", READABLE, ids=lambda case: case.pattern)
def test_random_pixels_have_the_right_reflectance(real_data: Path, case: Readable) -> None:
    found = {name: path for name, path in rasters(real_data).items() if fnmatch(name, case.pattern)}
    assert found
    for path in found.values():
        check_pixels(path, case)


def check_pixels(path: Path, case: Readable) -> None:
    stored = tifffile.imread(path)
    order = case.bands.split()
    if stored.shape[0] == len(order):
        stored = np.moveaxis(stored, 0, -1)
    held = [name for name in WANTED.values() if name in order]
    numbers = stored[..., [order.index(name) for name in held]].astype(np.float64)
    with open_scene(path, SPEC, case.options) as scene:
        assert (scene.grid.height, scene.grid.width) == stored.shape[:2]
        assert scene.present == tuple(name in order for name in WANTED.values())
        rng = np.random.default_rng(0)
        for row, col in rng.integers(0, stored.shape[:2], (50, 2)):
            window = Window(int(row), int(col), 1, 1)
            patch = scene.read(window)
            here = numbers[row, col]
            assert patch.valid.item() == (case.nodata is None or case.nodata not in here)
            reflectance = scene.to_reflectance(patch.pixels).ravel()
            assert reflectance == pytest.approx(here * 1e-4 + case.offset, abs=1e-6)


def test_every_file_that_does_not_say_enough_is_refused_by_name(real_data: Path) -> None:
    for name, path in rasters(real_data).items():
        code, says = next((code, says) for pattern, code, says in REFUSED if fnmatch(name, pattern))
        with pytest.raises(GeosegError) as caught:
            open_scene(path, SPEC).close()
        assert says in caught.value.message, name
        assert caught.value.exit_code == code
        assert caught.value.hint


def test_only_scenes_that_carry_the_offset_raise_the_doubt(real_data: Path) -> None:
    doubted = set()
    for name, path in rasters(real_data).items():
        if fnmatch(name, "scenes/s2_*.tif"):
            try:
                with open_scene(path, SPEC, DN) as scene:
                    doubted |= {path.name[:15] for text in scene.warnings if "+1000" in text}
            except GeosegError:
                continue
    assert doubted == {"S2_L1C_20200111", "S2_L1C_20210723"}


def test_a_model_of_10_m_refuses_thinned_landsat_scenes(real_data: Path) -> None:
    folder = real_data / "scenes/landsat/LC08_L2SP_005009_20150710_20200908_02_T2"
    red = InputSpec(("red",), (), (0.0,), (1.0,))
    with open_scene(next(folder.glob("*_SR_B4.TIF")), red, SceneOptions(("red",), "dn")) as scene:
        with pytest.raises(GridError, match="the model needs 10 m"):
            check_resolution(scene.grid, 10.0)
        assert check_resolution(scene.grid, 500.0) == ()


READ_FOLDERS = {
    "awkward/float_reflectance": ("float", "Landsat folder without an MTL file"),
    "awkward/polar_epsg3031/LC08_*": ("metadata", "Landsat level 2 product"),
    "safe/S2A_MSIL2A_20190212*": ("metadata", "Sentinel-2 L2A SAFE folder"),
    "safe/S2B_MSIL2A_20191228*": ("metadata", "Sentinel-2 L2A SAFE folder"),
    "safe/S2B_MSIL2A_20210122*": ("metadata", "Sentinel-2 L2A SAFE folder"),
    "safe/S2B_MSIL2A_20230122*": ("metadata", "Sentinel-2 L2A SAFE folder"),
    "scenes/landsat/LC08_L1TP_*": ("metadata", "Landsat level 1 product"),
    "scenes/landsat/LC80200392015216LGN00": ("metadata", "Landsat level 1 product"),
    "scenes/landsat/LC08_L2SP_*": ("metadata", "Landsat level 2 product"),
}
REFUSED_FOLDERS = [
    ("awkward/geotiff_named_jp2", "nothing says what its uint16 numbers mean"),
    ("awkward/jp2_without_crs", "nothing says what its uint16 numbers mean"),
    ("awkward/landsat_c1_no_mtl/*", "nothing says what its uint16 numbers mean"),
    ("scenes/s2_l2a_bigearthnet/*", "nothing says what its uint16 numbers mean"),
    ("awkward/mixed_resolution", "does not lie on the grid of the other bands"),
    ("awkward/non_square_pixels_no_mtl", "hold the same band"),
    ("awkward/swath_edge", "bands of different sensors"),
    ("scenes/s2_l1c_18SVG_20160112_20m_60m", "missing bands blue, green, red"),
    ("safe/S2*", "no image is there"),
    ("safe/aws/*", "a tile of the Sentinel-2 archive on AWS, and no image is there"),
    ("*", "is a folder, and not one of a known product"),
]


def scene_folders(real_data: Path) -> dict[str, Path]:
    parts = [path for part in ("scenes", "awkward", "safe") for path in sorted((real_data / part).rglob("*"))]
    folders = [path for path in parts if path.is_dir()]
    inside = [path for path in folders if path.parent.suffix == ".SAFE" or "GRANULE" in path.parts]
    return {path.relative_to(real_data).as_posix(): path for path in folders if path not in inside}


def test_every_folder_is_read_as_what_it_is_or_refused_with_its_reason(real_data: Path) -> None:
    for name, path in scene_folders(real_data).items():
        wanted = next((wanted for pattern, wanted in READ_FOLDERS.items() if fnmatch(name, pattern)), None)
        if wanted is not None:
            with open_scene(path, SPEC) as scene:
                assert (scene.radiometry.rung, scene.product.layout) == wanted, name
                assert scene.present == (True,) * 6
            continue
        says = next(says for pattern, says in REFUSED_FOLDERS if fnmatch(name, pattern))
        with pytest.raises(GeosegError) as caught:
            open_scene(path, SPEC).close()
        assert says in caught.value.message, name
        assert caught.value.exit_code == 65
        assert caught.value.hint


TERRAMESH = "scenes/s2_terramesh/S2_L1C_20230610*.tif"


def test_the_same_numbers_with_and_without_the_offset_are_the_same_reflectance(real_data: Path, tmp_path: Path) -> None:
    """A chip of before baseline 04.00, once as it is and once as a later baseline would store it."""
    source = next(real_data.glob(TERRAMESH))
    old = tmp_path / "S2A_MSIL1C_20230610T000000_N0301_R000_T32TQM_20230610T000000.SAFE" / "chip.tif"
    new = tmp_path / "S2A_MSIL1C_20230610T000000_N0509_R000_T32TQM_20230610T000000.SAFE" / "chip.tif"
    with rasterio.open(source) as file:
        numbers, profile, names = file.read(), file.profile, file.descriptions
    for path, stored in ((old, numbers), (new, numbers + 1000)):
        path.parent.mkdir()
        with rasterio.open(path, "w", **profile) as file:
            file.write(stored.astype(profile["dtype"]))
            file.descriptions = names
    whole = []
    for path in (old, new):
        with open_scene(path, SPEC) as scene:
            assert scene.radiometry.rung == "baseline"
            whole.append(scene.to_reflectance(scene.read(scene.grid.window).pixels))
    assert np.abs(whole[0] - whole[1]).max() <= 1e-4
