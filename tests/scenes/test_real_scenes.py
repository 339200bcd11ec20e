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
