"""Makes small Sentinel-2 products: real JPEG 2000 images, lossless, under the names and metadata of the format."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

SIDES_PX = {10: 120, 20: 60, 60: 20}
"""Rows and columns of an image by its pixel size in metres."""

NATIVE_M = {
    **dict.fromkeys(("B02", "B03", "B04", "B08"), 10),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20),
    **dict.fromkeys(("B01", "B09", "B10"), 60),
}
"""Pixel size of each band of the sensor."""

IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
LEFT_M, TOP_M = 600_000.0, 5_700_000.0

Images = Mapping[str, npt.NDArray[Any]]
"""Pixels (H, W) of each image, by the end of its name: ``B02`` in L1C, ``B02_10m`` in L2A."""


@dataclass(frozen=True)
class Text:
    """What the metadata say; the parts of the format that geoseg reads and some that it must not stumble over.

    Attributes:
        baseline: PROCESSING_BASELINE; None to leave it out.
        adds: Offset of each ``band_id``; None to leave the list out.
        divisor: Quantification value.
        nodata: Whether the special values name NODATA.
        tiles: Names of the granules.
        name: Product name; None for one that fits.
    """

    level: str = "L2A"
    baseline: str | None = "05.09"
    adds: Mapping[int, float] | None = None
    divisor: float = 10_000
    nodata: bool = True
    tiles: tuple[str, ...] = ("T31UFS",)
    name: str | None = None

    @property
    def product(self) -> str:
        """Name of the product folder."""
        digits = (self.baseline or "00.00").replace(".", "")
        return self.name or f"S2A_MSI{self.level}_20230625T104621_N{digits}_R051_T31UFS_20230625T150000.SAFE"

    @property
    def file_name(self) -> str:
        return f"MTD_MSI{self.level}.xml"

    def stem(self, image: str, tile: str | None = None) -> str:
        """Path of an image in the product, without its ending."""
        tile = tile or self.tiles[0]
        folder = f"R{image.rpartition('_')[2]}/" if self.level == "L2A" else ""
        return f"GRANULE/{self.level}_{tile}_A041826_20230625T104624/IMG_DATA/{folder}{tile}_20230625T104621_{image}"

    def xml(self, images: Iterable[str], extra: str = "") -> str:
        """The document; ``extra`` goes where the images are listed."""
        level = f"Level-{self.level[1:]}"
        granules = "".join(self._granule(images, tile, extra) for tile in self.tiles)
        baseline = f"<PROCESSING_BASELINE>{self.baseline}</PROCESSING_BASELINE>" if self.baseline else ""
        return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{level}_User_Product xmlns:n1="https://example.org/{level}.xsd"><n1:General_Info>
<Product_Info><PRODUCT_URI>{self.product}</PRODUCT_URI>{baseline}
<Product_Organisation><Granule_List>{granules}</Granule_List></Product_Organisation></Product_Info>
<Product_Image_Characteristics>{self._special("NODATA", 0) if self.nodata else ""}{self._special("SATURATED", 65535)}
{self._quantification()}{self._offsets()}</Product_Image_Characteristics>
</n1:General_Info></n1:{level}_User_Product>
"""

    def _granule(self, images: Iterable[str], tile: str, extra: str) -> str:
        files = "".join(f"<IMAGE_FILE>{self.stem(image, tile)}</IMAGE_FILE>" for image in images)
        return f'<Granule granuleIdentifier="TL_{tile}" imageFormat="JPEG2000">{files}{extra}</Granule>'

    def _special(self, name: str, value: int) -> str:
        inner = f"<SPECIAL_VALUE_TEXT>{name}</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>{value}</SPECIAL_VALUE_INDEX>"
        return f"<Special_Values>{inner}</Special_Values>"

    def _quantification(self) -> str:
        if self.level == "L1C":
            return f'<QUANTIFICATION_VALUE unit="none">{self.divisor}</QUANTIFICATION_VALUE>'
        boa = f'<BOA_QUANTIFICATION_VALUE unit="none">{self.divisor}</BOA_QUANTIFICATION_VALUE>'
        return f"{boa}<AOT_QUANTIFICATION_VALUE>1000.0</AOT_QUANTIFICATION_VALUE>"

    def _offsets(self) -> str:
        if self.adds is None:
            return ""
        tag, group = ("RADIO_ADD_OFFSET", "Radiometric_Offset_List")
        if self.level == "L2A":
            tag, group = ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST")
        items = "".join(f'<{tag} band_id="{number}">{value}</{tag}>' for number, value in self.adds.items())
        return f"<{group}>{items}</{group}>"


ALL_MINUS_1000 = dict.fromkeys(range(13), -1000)


def native_images(level: str, rng: np.random.Generator, add: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Random numbers from 1 on, each band at its own pixel size, with a scene classification of class 4."""
    bands = [band for band in IDS if level == "L1C" or band != "B10"]
    sides = {band: SIDES_PX[NATIVE_M[band]] for band in bands}
    ends = {band: band if level == "L1C" else f"{band}_{NATIVE_M[band]}m" for band in bands}
    images: dict[str, npt.NDArray[Any]] = {
        ends[band]: rng.integers(1, 9000, (side, side), dtype=np.uint16) + np.uint16(add)
        for band, side in sides.items()
    }
    return images if level == "L1C" else {**images, "SCL_20m": np.full((60, 60), 4, np.uint8)}


def write_safe(folder: Path, text: Text, images: Images, listed: Iterable[str] | None = None) -> Path:
    """Write a product folder.

    Args:
        folder: Where to put the product folder.
        text: What its metadata say.
        images: What is there.
        listed: Images that the metadata list; None for those that are there.
    """
    root = folder / text.product
    write_metadata(root, text, images if listed is None else listed)
    for name, pixels in images.items():
        write_image(root / f"{text.stem(name)}.jp2", pixels)
    return root


def write_metadata(root: Path, text: Text, listed: Iterable[str], extra: str = "") -> Path:
    """Write the product metadata."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / text.file_name
    path.write_text(text.xml(listed, extra), encoding="utf-8")
    return path


def touch_images(root: Path, text: Text, names: Iterable[str], ending: str = ".jp2") -> None:
    """Make empty files in the place of images, for tests that open none."""
    for name in names:
        path = root / f"{text.stem(name)}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_image(path: Path, pixels: npt.NDArray[Any], driver: str = "JP2OpenJPEG") -> None:
    """Write an image of a tile; its pixel size follows from its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape
    size_m = 1200 / height
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    profile = {"crs": "EPSG:32631", "transform": Affine(size_m, 0, LEFT_M, 0, -size_m, TOP_M), **lossless}
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        rasterio.open(
            path, "w", driver=driver, height=height, width=width, count=1, dtype=pixels.dtype, **profile
        ) as f,
    ):
        f.write(pixels, 1)


def zip_folder(root: Path, path: Path, method: int = zipfile.ZIP_STORED) -> Path:
    """Pack a product folder as ESA does: the folder itself is in the zip, with an entry of its own."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr(f"{root.name}/", "")
        for member in sorted(root.rglob("*")):
            if member.is_file():
                file.write(member, f"{root.name}/{member.relative_to(root).as_posix()}")
    return path


def write_masks(
    root: Path,
    text: Text,
    masks: Mapping[str, npt.NDArray[Any]],
    listed: Iterable[str] | None = None,
    driver: str = "JP2OpenJPEG",
) -> None:
    """Write quality masks of bands, (8, H, W) of 0 and 1, and granule metadata that list them.

    Args:
        root: Product folder.
        text: What its metadata say.
        masks: By band, ``B02``.
        listed: Bands that the granule metadata list; None for those whose masks are written.
        driver: What the masks are stored with.
    """
    granule = "/".join(text.stem("x").split("/")[:2])
    names = {band: f"{granule}/QI_DATA/MSK_QUALIT_{band}.jp2" for band in (masks if listed is None else listed)}
    rows = "".join(
        f'<MASK_FILENAME bandId="{IDS.index(band)}" type="MSK_QUALIT">{name}</MASK_FILENAME>'
        f'<MASK_FILENAME bandId="{IDS.index(band)}" type="MSK_DETFOO">{name}</MASK_FILENAME>'
        for band, name in names.items()
    )
    (root / granule).mkdir(parents=True, exist_ok=True)
    (root / granule / "MTD_TL.xml").write_text(f"<Level><Pixel_Level_QI>{rows}</Pixel_Level_QI></Level>")
    for band, pixels in masks.items():
        path = root / names[band]
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = pixels.shape
        size_m = 1200 / height
        shape = {"count": count, "height": height, "width": width, "dtype": "uint8"}
        grid = {"crs": "EPSG:32631", "transform": Affine(size_m, 0, LEFT_M, 0, -size_m, TOP_M)}
        lossless = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
        with rasterio.open(path, "w", driver=driver, **shape, **grid, **lossless) as file:
            file.write(pixels.astype(np.uint8))
