"""A scene in one raster file: the bands' names are its descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from geoseg_cli.errors import InputError
from geoseg_cli.printable import printable
from geoseg_cli.scenes.network import redacted
from geoseg_cli.scenes.product import Driver, Layer, Product
from geoseg_cli.scenes.radiometry import refuse_rendered
from geoseg_cli.scenes.raster_file import RasterFile, open_raster, vrt_sources
from geoseg_cli.scenes.sidecars import read_sidecars, supplement

_TITLES: dict[Driver, str] = {"GTiff": "GeoTIFF", "JP2OpenJPEG": "JPEG 2000 file", "ENVI": "ENVI file", "VRT": "VRT"}


def find(
    path: Path | str, driver: Driver = "GTiff", max_pixels: int | None = None, with_sidecars: bool = False
) -> Product:
    """Describe a raster file.

    Args:
        path: Absolute path of a file, or what GDAL calls one on a network.
        driver: What it is to be read with.
        max_pixels: Largest rows x columns that is opened.
        with_sidecars: Whether files beside it count for what it does not say itself.

    Raises:
        GeosegError: It cannot be opened, was rendered for the eye, or is an output of geoseg.
    """
    file = open_raster(str(path), driver, "auto", max_pixels)
    try:
        sidecars = read_sidecars(Path(path)) if with_sidecars else None
        if sidecars is not None:
            supplement(file, sidecars, with_nodata=True)
        members = (*_members(path, driver), *(sidecars.files if sidecars else ()))
        _refuse_output(Path(path), file.tags)
        refuse_rendered(Path(path), file.dtypes, _has_tags(file))
        layers = tuple(
            Layer(name or "", str(path), driver, number, sidecars=sidecars)
            for number, name in enumerate(file.descriptions, start=1)
        )
        return Product(_TITLES.get(driver, driver), Path(redacted(str(path))), layers, members=members)
    finally:
        file.close()


def _refuse_output(path: Path, tags: Mapping[str, str]) -> None:
    """Refuse what geoseg wrote itself: maps, and the rasters beside them."""
    if "GEOSEG_VERSION" not in tags:
        return
    # Anybody can write a tag, of any length.
    version, source = (printable(tags.get(name, "")[:120]) for name in ("GEOSEG_VERSION", "GEOSEG_INPUT"))
    raise InputError(
        f"{redacted(str(path))} is no scene: its tags say that geoseg {version} wrote it",
        f"give what it was made from, {source or 'a scene'}; geoseg areas, polygons, preview and report take maps",
    )


def _members(path: Path | str, driver: Driver) -> tuple[Path, ...]:
    """Files on disk that the pixels come from."""
    if str(path).startswith("/vsi"):
        return ()
    return vrt_sources(Path(path)) if driver == "VRT" else (Path(path),)


def _has_tags(file: RasterFile) -> bool:
    return any(scale != 1 for scale in file.scales) or any(file.offsets)
