"""The same ground as baseline 03.00 stores it, as 04.00 and later do, and without the offset again: one reflectance.

For every layout that Sentinel-2 comes in. What is stored is 10 000 x reflectance, with 1000 more from 04.00 on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import xarray

from geoseg_cli.scenes import SceneOptions, open_scene
from tests.conftest import write_scene
from tests.scenes.product_fixtures import spec_of
from tests.scenes.safe_fixtures import ALL_MINUS_1000, Text, write_image, write_safe, zip_folder
from tests.scenes.test_aws_tile import write_tile
from tests.scenes.test_stac_item import COG, write_item

BANDS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
GROUND = {
    band: np.random.default_rng(number).integers(1, 9000, (120, 120), dtype=np.uint16)
    for number, band in enumerate(BANDS.values())
}
"""Numbers before baseline 04.00; none is 0, which would be nodata."""

ONE_DN = 1e-4
FORMS = {"03.00": 0, "04.00": 1000, "05.10": 1000, "harmonised": 0}
"""What is added to the numbers."""

Planes = Mapping[str, npt.NDArray[np.uint16]]
Scene = tuple[Path | xarray.DataArray, SceneOptions]
AUTO, AS_DN = SceneOptions(), SceneOptions(radiometry="dn")


def product_name(level: str, form: str) -> str:
    """Of a product whose numbers were harmonised the name still tells the baseline that they had."""
    digits = "0510" if form == "harmonised" else form.replace(".", "")
    return f"S2A_MSI{level}_20230625T104621_N{digits}_R051_T31UFS_20230625T150000.SAFE"


def in_metadata(level: str, folder: Path, form: str, planes: Planes) -> Path:
    """A SAFE folder. Of harmonised numbers the metadata say that nothing is to be added."""
    baseline = "05.10" if form == "harmonised" else form
    adds = {"harmonised": dict.fromkeys(range(13), 0), "03.00": None}.get(form, ALL_MINUS_1000)
    # A product name would say that the offset is still in the numbers.
    name = "harmonised" if form == "harmonised" else product_name(level, form)
    images = {(band if level == "L1C" else f"{band}_10m"): plane for band, plane in planes.items()}
    return write_safe(folder, Text(level, baseline, adds, name=name), images)


def safe_l1c(folder: Path, form: str, planes: Planes) -> Scene:
    return in_metadata("L1C", folder, form, planes), AUTO


def safe_l2a(folder: Path, form: str, planes: Planes) -> Scene:
    return in_metadata("L2A", folder, form, planes), AUTO


def safe_zip(folder: Path, form: str, planes: Planes) -> Scene:
    return zip_folder(in_metadata("L2A", folder, form, planes), folder / "product.zip"), AUTO


def geotiff(folder: Path, form: str, planes: Planes) -> Scene:
    """Cut out of a product, under its name; harmonised with the scale written into the file."""
    tags = [(1e-4, 0.0)] * 4 if form == "harmonised" else []
    stem = "scene" if form == "harmonised" else product_name("L2A", form).removesuffix(".SAFE")
    return write_scene(folder / f"{stem}.tif", np.stack([*planes.values()]), list(planes), tags), AUTO


def float_geotiff(folder: Path, form: str, planes: Planes) -> Scene:
    """What somebody computed: the name counts no more."""
    reflectance = ((np.stack([*planes.values()]) - float(FORMS[form])) / 10_000).astype(np.float32)
    name = product_name("L2A", form).removesuffix(".SAFE")
    return write_scene(folder / f"{name}.tif", reflectance, list(planes)), AUTO


def single_bands(folder: Path, form: str, planes: Planes) -> Scene:
    inside = folder / product_name("L2A", form)
    for band, plane in planes.items():
        write_image(inside / f"T31UFS_20230625T104621_{band}_10m.jp2", plane)
    return inside, AS_DN if form == "harmonised" else AUTO


def aws(folder: Path, form: str, planes: Planes) -> Scene:
    digits = product_name("L2A", form).split("_N")[1][:4]
    images = {f"{band}_10m": plane for band, plane in planes.items()}
    return write_tile(folder / "0", "L2A", images, digits), AS_DN if form == "harmonised" else AUTO


def stac(folder: Path, form: str, planes: Planes) -> Scene:
    """As Earth Search lists it: of harmonised numbers the offset of the baseline still stands there."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers_mean = [{"scale": 1e-4, "offset": 0.0 if form == "03.00" else -0.1, "nodata": 0}]
    assets: dict[str, Any] = {}
    for (common, band), plane in zip(BANDS.items(), planes.values(), strict=True):
        write_scene(folder / f"{band}.tif", plane[None])
        described = {"eo:bands": [{"name": band, "common_name": common}], "raster:bands": numbers_mean}
        assets[common] = {"href": f"{band}.tif", "type": COG, **described}
    properties = {
        "platform": "sentinel-2a",
        "s2:processing_baseline": "05.10" if form == "harmonised" else form,
        "earthsearch:boa_offset_applied": form == "harmonised",
    }
    return write_item(folder, assets, properties), AUTO


def envi(folder: Path, form: str, planes: Planes) -> Scene:
    inside = folder / product_name("L2A", form)
    inside.mkdir(parents=True)
    profile = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 600_000, 0, -10, 5_700_000)}
    size = {"height": 120, "width": 120, "count": 4, "dtype": "uint16"}
    with rasterio.open(inside / "scene.img", "w", driver="ENVI", **size, **profile) as file:
        file.write(np.stack([*planes.values()]))
        file.descriptions = list(planes)
    return inside / "scene.img", AS_DN if form == "harmonised" else AUTO


def array(folder: Path, form: str, planes: Planes) -> Scene:
    rioxarray = pytest.importorskip("rioxarray")
    path, options = geotiff(folder, form, planes)
    opened: xarray.DataArray = rioxarray.open_rasterio(path).load()
    return opened, options


LAYOUTS: dict[str, Callable[[Path, str, Planes], Scene]] = {
    layout.__name__: layout
    for layout in (*(safe_l1c, safe_l2a, safe_zip, geotiff, float_geotiff, single_bands, aws, stac, envi, array),)
}


def reflectance_of(scene: Path | xarray.DataArray, options: SceneOptions) -> npt.NDArray[np.float32]:
    with open_scene(scene, spec_of(*BANDS), options) as opened:
        patch = opened.read(opened.grid.window)
        assert patch.valid.all()
        return opened.to_reflectance(patch.pixels)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_ground_is_one_reflectance_whatever_baseline_stored_it(tmp_path: Path, layout: str) -> None:
    right = np.stack([*GROUND.values()]) / 10_000
    for form, add in FORMS.items():
        (folder := tmp_path / form).mkdir()
        planes = {band: plane + np.uint16(add) for band, plane in GROUND.items()}
        found = reflectance_of(*LAYOUTS[layout](folder, form, planes))
        assert float(np.abs(found - right).max()) < ONE_DN, f"{layout} {form}"
