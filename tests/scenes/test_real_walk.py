"""Every file and folder of the real scenes: read as what it is, with the right reflectance, or refused by name.

What is expected is written down by pattern; a path that no pattern foresees fails, and so does a pattern of no path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile

from geoseg_cli.errors import GeosegError
from geoseg_cli.scenes import Scene, open_scene
from tests.scenes.test_real_scenes import REFUSED, REFUSED_FOLDERS, SPEC, rasters, scene_folders


@dataclass(frozen=True)
class Kind:
    """A product that is read.

    Attributes:
        pattern: Of the paths that stand for it.
        rung, layout: What is said of it.
        red: Its file of the red band, below the folder that ``root`` leads to.
        scale, offset: Of its numbers, as the data's description has them.
        ups: How many folders the product's own is above the path.
    """

    pattern: str
    rung: str
    layout: str
    red: str
    scale: float = 1e-4
    offset: float = 0.0
    ups: int = 0


SAFE, LEVEL_1, LEVEL_2 = "Sentinel-2 L2A SAFE folder", "Landsat level 1 product", "Landsat level 2 product"
BANDS = "folder of single-band files"
IMAGES = "GRANULE/*/IMG_DATA/R10m/*_B04_10m.*"
SHIFTED = {"offset": -0.1}  # the only one of baseline 04.00 with images
ELEVATION = {"LC08_L1TP_016037": 62.17, "LC80200392015216LGN00": 64.74}

READ = [
    *(
        kind
        for product, more in (
            ("S2A_MSIL2A_20190212*", {}),
            ("S2B_MSIL2A_20191228*", {}),
            ("S2B_MSIL2A_20210122*", {}),
            ("S2B_MSIL2A_20230122*", SHIFTED),
        )
        for kind in (
            Kind(f"safe/{product}.SAFE/MTD_MSIL2A.xml", "metadata", SAFE, IMAGES, ups=1, **more),
            Kind(f"safe/{product}.SAFE/GRANULE/*/IMG_DATA/R10m", "baseline", BANDS, "*_B04_10m.*", **more),
            Kind(f"safe/{product}.SAFE/GRANULE/L2A_T?????_A??????_*T??????", "metadata", SAFE, IMAGES, ups=2, **more),
            Kind(f"safe/{product}.SAFE", "metadata", SAFE, IMAGES, **more),
        )
    ),
    Kind("*/LC08_L2S?_*_MTL.???*", "metadata", LEVEL_2, "*_SR_B4.TIF", 2.75e-5, -0.2, ups=1),
    Kind("*/LC08_L2S?_*_T?", "metadata", LEVEL_2, "*_SR_B4.TIF", 2.75e-5, -0.2),
    *(
        kind
        for name, degrees in ELEVATION.items()
        for scale, offset in [(2e-5 / math.sin(math.radians(degrees)), -0.1 / math.sin(math.radians(degrees)))]
        for kind in (
            Kind(f"scenes/landsat/{name}*/*_MTL.txt", "metadata", LEVEL_1, "*_B4.TIF", scale, offset, ups=1),
            Kind(f"scenes/landsat/{name}*", "metadata", LEVEL_1, "*_B4.TIF", scale, offset),
        )
    ),
    Kind("awkward/float_reflectance", "float", "Landsat folder without an MTL file", "*_B4_*.tif", 1.0),
]

NO_TIFF = [
    ("safe/aws/*/*.xml", "a tile of the Sentinel-2 archive on AWS, and no image is there"),
    ("safe/aws/*/*.json", "a tile of the Sentinel-2 archive on AWS, and no image is there"),
    ("safe/*/MTD_MSIL*.xml", "no image is there"),
    ("*.xml", "is no TIFF: it is an XML or HTML text"),
    ("*.gml", "is no TIFF: it is an XML or HTML text"),
    ("*/manifest.safe", "is no TIFF: it is an XML or HTML text"),
    ("*_labels_metadata.json", "is no TIFF: it is of another format"),
    ("*.IMD", "is no TIFF: it is of another format"),
    ("*/AUX_DATA/AUX_*", "is no TIFF: it is of another format"),
]
INSIDE = [
    ("*/IMG_DATA/R20m", "missing band"),
    ("*/IMG_DATA/R60m", "missing band"),
    ("safe/*/GRANULE/L??_T?????_A??????_*T??????", "no image is there"),
    ("*", "is a folder, and not one of a known product"),
]


@pytest.fixture(scope="module")
def paths(real_data: Path) -> dict[str, Path]:
    """Every file and folder, by its name below the data's own folder."""
    found = [path for part in ("scenes", "safe", "awkward") for path in sorted((real_data / part).rglob("*"))]
    return {path.relative_to(real_data).as_posix(): path for path in found}


def kind_of(name: str) -> Kind | None:
    return next((kind for kind in READ if PurePosixPath(name).match(kind.pattern)), None)


def says_of(path: Path, name: str, in_other_tables: frozenset[str]) -> str:
    """What a path that is no scene is refused with; some stand in the tables of scenes and of their folders."""
    if path.is_dir():
        table = REFUSED_FOLDERS if name in in_other_tables else INSIDE
    elif name in in_other_tables:
        return next(says for pattern, _, says in REFUSED if fnmatch(name, pattern))
    elif path.suffix in (".tif", ".jp2"):
        return says_of_image(path)
    else:
        table = NO_TIFF
    foreseen = next((says for pattern, says in table if fnmatch(name, pattern)), None)
    assert foreseen is not None, f"nothing is said of {name}"
    return foreseen


def says_of_image(path: Path) -> str:
    """What a single image out of a SAFE folder is refused with: no name of a band is in it."""
    driver = "JP2OpenJPEG" if path.suffix == ".jp2" else "GTiff"
    with rasterio.open(path, driver=driver) as file:
        return "8-bit rendered image" if file.dtypes[0] == "uint8" else "no band has a name that is known"


def red_of(path: Path, kind: Kind) -> npt.NDArray[np.float64]:
    """(H, W) reflectance of the red band, by reading its file without GDAL where that can be."""
    folder = path
    for _ in range(kind.ups):
        folder = folder.parent
    (file,) = folder.glob(kind.red)
    return read_numbers(file) * kind.scale + kind.offset


def read_numbers(file: Path) -> npt.NDArray[np.float64]:
    is_jp2 = file.suffix == ".jp2"
    if is_jp2 or file.name.endswith("_toa.tif"):  # JPEG 2000, and floats with a predictor: only GDAL reads them here
        with rasterio.open(file, driver="JP2OpenJPEG" if is_jp2 else "GTiff") as source:
            return np.asarray(source.read(1), np.float64)
    return np.asarray(tifffile.imread(file), np.float64)


def check_red(scene: Scene, expected: npt.NDArray[np.float64]) -> None:
    patch = scene.read(scene.grid.window)
    red = scene.to_reflectance(patch.pixels)[SPEC.bands.index("red")]
    assert red.shape == expected.shape
    np.testing.assert_allclose(red[patch.valid], expected[patch.valid], rtol=1e-3, atol=1e-6)


def test_every_path_is_read_as_what_it_is_or_refused_with_its_reason(real_data: Path, paths: dict[str, Path]) -> None:
    used = set()
    in_other_tables = frozenset({*rasters(real_data), *scene_folders(real_data)})
    for name, path in paths.items():
        if (kind := kind_of(name)) is not None:
            used.add(kind.pattern)
            with open_scene(path, SPEC) as scene:
                assert (scene.radiometry.rung, scene.product.layout) == (kind.rung, kind.layout), name
                check_red(scene, red_of(path, kind))
            continue
        says = says_of(path, name, in_other_tables)
        with pytest.raises(GeosegError) as caught:
            open_scene(path, SPEC).close()
        assert says in caught.value.message, name
        assert caught.value.exit_code == 65, name
        assert caught.value.hint, name
    assert used == {kind.pattern for kind in READ}
    assert len(paths) > 700
