"""Sentinel-2 products in the SAFE format: levels 1C and 2A, as a folder or a zip that nobody has unpacked.

``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml`` lists the images and says what their numbers mean. The images are
opened one by one, so that it is plain which band is which. ESA writes JPEG 2000; some mirrors write GeoTIFF under the
same names, and both are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from geoseg_cli.errors import InputError, InputMissingError, StorageError
from geoseg_cli.scenes.archive import Archive, list_archive, refuse_unsafe
from geoseg_cli.scenes.integrity import FileIdentity
from geoseg_cli.scenes.product import Driver, Layer, Product
from geoseg_cli.scenes.safe_masks import GRANULE_METADATA, band_mask, listed_masks
from geoseg_cli.scenes.sentinel2_metadata import (
    BAND_IDS,
    Level,
    level_of,
    name_of,
    nodata_of,
    scene_classification,
    statement_of,
)
from geoseg_cli.scenes.xml_text import MAX_XML_BYTES, elements, local_name, parse_xml, read_xml

_METADATA = re.compile(r"MTD_MSIL(1C|2A)\.xml|S2[A-D]_(OPER|USER)_MTD_SAFL1C_[A-Za-z0-9_]+\.xml", re.IGNORECASE)
"""The second form is that of products before November 2016."""

_PRODUCT_NAME = re.compile(r"S2[A-D]_(MSIL|OPER_PRD_MSIL|USER_PRD_MSIL)(1C|2A)_")
_IMAGE = re.compile(r"_(B\d[0-9A]|SCL)(?:_([126]0)m)?$")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_DRIVERS: tuple[tuple[str, Driver], ...] = ((".jp2", "JP2OpenJPEG"), (".tif", "GTiff"))

_AGAIN = "download the product again"
_DISTRUST = "download the product again, from a source that you trust"


@dataclass(frozen=True, slots=True)
class _Image:
    """A file of the product.

    Attributes:
        file: What GDAL opens.
        driver: With which driver.
        member: The file that must not change while it is read.
    """

    file: str
    driver: Driver
    member: Path


@dataclass(frozen=True)
class _Folder:
    """A product that lies unpacked. ``granule`` is the tile that the user named; None for the only one."""

    root: Path
    metadata: Path
    granule: str | None = None
    kind: str = "folder"

    def read_metadata(self) -> Element:
        """The parsed product metadata.

        Raises:
            InputError: The file leads out of the product, or is no XML that may be read.
        """
        self._refuse_escape(self.metadata)
        return read_xml(self.metadata)

    def read_further(self, name: str) -> Element | None:
        """Another XML file of the product, by its path in it; None where it is not there.

        Raises:
            InputError: It leads out of the product, or is no XML that may be read.
        """
        path = self.root / name
        if not os.path.isfile(path):
            return None
        self._refuse_escape(path)
        return read_xml(path)

    def image(self, stem: str) -> _Image | None:
        """The image of a name without its ending; None where there is none.

        Raises:
            InputError: It leads out of the product.
        """
        for ending, driver in _DRIVERS:
            path = self.root / (stem + ending)
            try:
                FileIdentity.of(path)
            except InputMissingError:
                continue
            self._refuse_escape(path)
            return _Image(str(path), driver, path)
        return None

    @cached_property
    def _real_root(self) -> Path:
        return Path(os.path.realpath(self.root))

    def _refuse_escape(self, path: Path) -> None:
        """Refuse a link that leads out of the product: a product may come from anyone."""
        if not Path(os.path.realpath(path)).is_relative_to(self._real_root):
            raise InputError(
                f"{path} is a link that leads out of the product", f"copy what it stands for: cp -rL {self.root} COPY"
            )


@dataclass(frozen=True)
class _Zip:
    """A product in a zip file. ``prefix`` is the folder of the metadata in it, with a slash at its end."""

    archive: Archive
    prefix: str
    metadata: Path
    granule: str | None = None
    kind: str = "zip"

    def read_metadata(self) -> Element:
        refuse_unsafe(self.archive)
        name = self.prefix + self.metadata.name
        return parse_xml(self.archive.read(name, MAX_XML_BYTES), str(self.metadata))

    def read_further(self, name: str) -> Element | None:
        """As of a folder."""
        name = self.prefix + name
        if name not in self.archive.names:
            return None
        return parse_xml(self.archive.read(name, MAX_XML_BYTES), f"{self.archive.path}/{name}")

    def image(self, stem: str) -> _Image | None:
        """The image of a name without its ending; None where there is none.

        Raises:
            InputError: It leads out of the product.
        """
        for ending, driver in _DRIVERS:
            name = f"{self.prefix}{stem}{ending}"
            if name in self.archive.names:
                return _Image(self.archive.gdal_name(name), driver, self.archive.path)
        return None


_Files = _Folder | _Zip
"""The files of a product, wherever they lie."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the metadata says.

    Attributes:
        level: Processing level.
        name: Product name; ``""`` where it is not one.
        stems: Names of each band's images by pixel size in metres, 0 where the name has none; SCL is among them.
        nodata: Number that means nothing; None where none is named.
    """

    level: Level
    name: str
    stems: Mapping[str, Mapping[int, str]]
    nodata: float | None


def find(path: Path) -> Product | None:
    """Describe a Sentinel-2 product.

    Args:
        path: Absolute path of a SAFE folder (of any name), of one of its granule folders, of its
            ``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml``, or of a zip file of it.

    Returns:
        A layer for each band of which an image is there, the one with the smallest pixels; for level 2A the scene
        classification as quality band. None where ``path`` is something else.

    Raises:
        InputError: No image is there, it has several granules, or it is made to lead out of itself.
        RadiometryError: The metadata contradict themselves about the numbers.
        AccessError, StorageError: It cannot be read.
    """
    files = _locate(path)
    return None if files is None else _describe(path, files)


def _locate(path: Path) -> _Files | None:
    # os.path.isfile says no where Path.is_file raises.
    if _METADATA.fullmatch(path.name) and os.path.isfile(path):
        return _Folder(path.parent, path)
    if path.suffix.lower() == ".zip" and os.path.isfile(path):
        return _locate_in_zip(path)
    if name := _one_metadata_file(_names_in(path), path):
        return _Folder(path, path / name)
    if path.parent.name == "GRANULE":
        root = path.parent.parent
        if name := _one_metadata_file(_names_in(root), root):
            return _Folder(root, root / name, path.name)
    return None


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


def _locate_in_zip(path: Path) -> _Zip | None:
    archive = list_archive(path)
    if archive is None:
        if _PRODUCT_NAME.match(path.name):
            raise StorageError(f"{path} is truncated or damaged: it has no readable directory", "download it again")
        return None
    name = _one_metadata_file(archive.names, path)
    if name is None:
        return None
    prefix, slash, file_name = name.rpartition("/")
    return _Zip(archive, prefix + slash, path / file_name)


def _one_metadata_file(names: Sequence[str] | frozenset[str], where: Path) -> str | None:
    """The product metadata among files; None where there are none.

    Raises:
        InputError: There are several.
    """
    found = sorted(name for name in names if _METADATA.fullmatch(name.rpartition("/")[2]))
    if len(found) > 1:
        hint = "unpack it and name one product folder" if where.suffix.lower() == ".zip" else "name one of these files"
        raise InputError(f"{where} holds several products: {', '.join(found)[:300]}", hint)
    return found[0] if found else None


def _describe(path: Path, files: _Files) -> Product:
    root = files.read_metadata()
    listed = _listed(root, files)
    images = {band: found for band in listed.stems if (found := _finest(listed.stems[band], files))}
    bands = [band for band in BAND_IDS if band in images]
    if not bands:
        raise InputError(_no_images(path, listed, files), f"{_AGAIN}, with its images")
    nodata: float | Literal["file"] = "file" if listed.nodata is None else listed.nodata
    masks, absent = _masks(listed, bands, files)
    layers = tuple(
        Layer(
            band,
            images[band][1].file,
            images[band][1].driver,
            nodata=nodata,
            mask=band_mask(masks[band].file, masks[band].driver) if band in masks else None,
        )
        for band in bands
    )
    held = [images[band][1] for band in (*bands, *(["SCL"] if "SCL" in images else []))]
    members = (image.member for image in (*held, *masks.values()))
    first = () if files.kind == "zip" else (files.metadata,)
    return Product(
        f"Sentinel-2 {listed.level} SAFE {files.kind}",
        path,
        layers,
        "sentinel-2",
        statement_of(root, listed.level, bands, files.metadata),
        scene_classification(images["SCL"][1].file, images["SCL"][1].driver) if "SCL" in images else None,
        tuple(dict.fromkeys((*first, *members))),
        listed.name,
        (*_warnings(listed, images), *absent),
    )


def _masks(listed: _Listed, bands: Sequence[str], files: _Files) -> tuple[dict[str, _Image], tuple[str, ...]]:
    """Quality masks of the bands that are there, and what to say of those that are listed and are not."""
    granules = {"/".join(stem.split("/")[:2]) for sizes in listed.stems.values() for stem in sizes.values()}
    name = f"{granules.pop()}/{GRANULE_METADATA}"
    root = files.read_further(name)
    if root is None:
        return {}, ()
    stems = {band: stem for band, stem in listed_masks(root, name).items() if band in bands}
    found = {band: image for band, stem in stems.items() if (image := files.image(stem)) is not None}
    absent = [band for band in stems if band not in found]
    if not absent:
        return found, ()
    return found, (f"the product lists quality masks (MSK_QUALIT) of {', '.join(absent)} that are not there",)


def _finest(stems: Mapping[int, str], files: _Files) -> tuple[int, _Image] | None:
    """Pixel size in metres and image of the finest that is there."""
    for size in sorted(stems):
        image = files.image(stems[size])
        if image is not None:
            return size, image
    return None


def _no_images(path: Path, listed: _Listed, files: _Files) -> str:
    stems = [stem for sizes in listed.stems.values() for stem in sizes.values()]
    if not stems:
        return f"{path}: {files.metadata.name} lists no image"
    return (
        f"{path}: no image is there; {files.metadata.name} lists {len(stems)} of {', '.join(listed.stems)}"
        f" ({stems[0]}.jp2 ...)"
    )


def _warnings(listed: _Listed, images: Mapping[str, tuple[int, _Image]]) -> tuple[str, ...]:
    warnings = []
    absent = [band for band in listed.stems if band not in images]
    if absent:
        warnings.append(f"the product lists images of {', '.join(absent)} that are not there")
    coarse = [f"{band} at {size} m" for band, (size, _) in images.items() if size > min(listed.stems[band])]
    if coarse:
        warnings.append(f"finer images are listed but not there; used are {', '.join(coarse)}")
    if listed.nodata is None:
        warnings.append("the product metadata name no nodata number; say so with --nodata 0 if 0 means nothing")
    return tuple(warnings)


def _listed(root: Element, files: _Files) -> _Listed:
    where = str(files.metadata)
    level = level_of(root, where)
    stems = _stems(_only_granule(_image_names(root, where), files), where)
    return _Listed(level, name_of(root, where), stems, nodata_of(root, where))


def _image_names(root: Element, where: str) -> list[str]:
    """Names of all images as paths from the product folder, without their endings.

    Raises:
        InputError: One leads out of the folder.
    """
    names = []
    for granule in elements(root, "Granule", "Granules"):
        for element in elements(granule, "IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID"):
            name = (element.text or "").strip()
            if local_name(element) == "IMAGE_ID":
                # Until 2016 an image was named without its folder.
                name = f"GRANULE/{granule.get('granuleIdentifier', '')}/IMG_DATA/{name}"
            parts = name.split("/")
            if not all(_PLAIN_NAME.fullmatch(part) and part.strip(".") for part in parts):
                raise InputError(f"{where}: the image name {name[:120]!r} may lead out of the product", _DISTRUST)
            names.append(name)
    return names


def _only_granule(names: Sequence[str], files: _Files) -> list[str]:
    """Names of the images of one tile.

    Raises:
        InputError: There are several, and the user named none of them.
    """
    granules = list(dict.fromkeys("/".join(name.split("/")[:2]) for name in names))
    if files.granule is not None:
        granules = [granule for granule in granules if granule == f"GRANULE/{files.granule}"]
    if len(granules) > 1:
        unpack = "unpack it and " if files.kind == "zip" else ""
        raise InputError(
            f"{files.metadata} holds {len(granules)} granules; geoseg reads one at a time",
            f"{unpack}name one: {granules[0]} ... {granules[-1]} in the product folder",
        )
    return [name for name in names if name.startswith(f"{granules[0]}/")] if granules else []


def _stems(names: Sequence[str], where: str) -> dict[str, dict[int, str]]:
    stems: dict[str, dict[int, str]] = {}
    for name in names:
        found = _IMAGE.search(name)
        if found is None or found[1] not in (*BAND_IDS, "SCL"):
            continue
        sizes = stems.setdefault(found[1], {})
        if sizes.setdefault(int(found[2] or 0), name) != name:
            raise InputError(f"{where} lists two images of {found[1]}: {name} and another", _AGAIN)
    return stems
