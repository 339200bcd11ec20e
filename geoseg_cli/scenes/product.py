"""What a layout on disk comes down to: which file holds which band, and what the product itself says of them.

Each layout is one module with a function that turns a path into a :class:`Product`; no pixel is read for it.
:mod:`geoseg_cli.scenes.stack` reads the pixels of any product.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from geoseg_cli.scenes.sidecars import Sidecars

Driver = Literal["GTiff", "JP2OpenJPEG", "ENVI", "VRT", "netCDF", "Zarr"]
"""GDAL drivers that may be asked for; the driver is never left for GDAL to guess."""


@dataclass(frozen=True, slots=True)
class BandMask:
    """A file of the product whose bands tell, each by any number but 0, which pixels of one band are lost.

    Attributes:
        file: What GDAL opens.
        driver: With which driver.
        lost: Its bands, from 1, of what is lost in any case.
        saturated: Its bands of what is lost where the user says that saturated numbers are.
        reason: What decides, as a part of a sentence.
    """

    file: str
    driver: Driver
    lost: tuple[int, ...]
    saturated: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One band of a product.

    Attributes:
        name: What the product calls the band (``B04``, ``SR_B4``, ``red``); ``""`` where nothing says.
        file: What GDAL opens: an absolute path, or one inside an archive (``/vsizip/...``).
        driver: With which driver.
        number: Band number in that file, from 1.
        nodata: Number that means nothing; None where every number means something, ``"file"`` for what the file says.
        mask: What the product itself says of the file's pixels; None where it says nothing of this band alone.
        sidecars: What lies beside the file, where the user wants it to count.
    """

    name: str
    file: str
    driver: Driver = "GTiff"
    number: int = 1
    nodata: float | Literal["file"] | None = "file"
    mask: BandMask | None = None
    sidecars: Sidecars | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What the metadata of a product says its numbers mean: reflectance = number x scale + offset.

    Attributes:
        rung: ``metadata`` for the product's own files, ``stac`` for an item, ``product`` for what the published
            definition of a product fixes for all its files, known by their names.
        reason: The formula and where it stands, as a part of a sentence.
        scales, offsets: One per layer of the product; None for a layer about which nothing is said.
        contradiction: What else the metadata say that cannot be true as well, as a part of a sentence.
    """

    rung: Literal["metadata", "stac", "product"]
    reason: str
    scales: tuple[float | None, ...]
    offsets: tuple[float | None, ...]
    contradiction: str = ""


@dataclass(frozen=True, slots=True)
class Quality:
    """The product's own band that tells lost pixels.

    Attributes:
        layer: Where it is stored.
        lost_values: Numbers that mean "no data here".
        lost_bits: Bits of which any one means "no data here".
        reason: What decides, as a part of a sentence: ``fill bit of QA_PIXEL``.
    """

    layer: Layer
    lost_values: tuple[int, ...]
    lost_bits: int
    reason: str


@dataclass(frozen=True, slots=True)
class Product:
    """Bands of one place and time, in one file or many.

    Attributes:
        layout: What it is, as a person says it: ``Sentinel-2 L2A SAFE folder``.
        path: Absolute path that the user gave.
        layers: Its bands; those that the network does not want are never opened.
        sensor: Name in ``data/sensors.toml`` that the bands' names belong to; None where the names must tell.
        statement: What its metadata says the numbers mean.
        quality: Its own quality band.
        members: Files that must not change while it is read, metadata included.
        name: Product name that may hold the processing baseline; the path's own parts are looked at as well.
        warnings: What the user should know.
    """

    layout: str
    path: Path
    layers: tuple[Layer, ...]
    sensor: str | None = None
    statement: Statement | None = None
    quality: Quality | None = None
    members: tuple[Path, ...] = ()
    name: str = ""
    warnings: tuple[str, ...] = ()
