"""PlanetScope scenes: one GeoTIFF of four or eight bands, with an XML file for the radiance products.

Names, band orders, scale and fill are those of Planet's PSScene item description and imagery product specifications,
and so are the masks that may lie beside an image: the last of the eight bands of ``udm2`` is the older mask ``udm``,
whose bit 0 is set where nothing was imaged. Its bit 1 is cloud, and the others are of single bands of four and five:
they say nothing of images of eight.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal

from geoseg_cli.errors import InputError
from geoseg_cli.printable import counted
from geoseg_cli.scenes.band_files import driver_of, member_file, names_in
from geoseg_cli.scenes.bands import known_names
from geoseg_cli.scenes.product import Layer, Product, Quality, Statement
from geoseg_cli.scenes.radiometry import refuse_rendered
from geoseg_cli.scenes.raster_file import open_raster
from geoseg_cli.scenes.xml_text import elements, only_text, read_xml

SR_SCALE = 1e-4
"""Reflectance per stored number of the surface reflectance products."""

NODATA = 0

BAND_ORDERS = {
    4: ("blue", "green", "red", "nir"),
    8: ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
}
"""Planet's own names in the order of the file, by the number of bands."""

_COMMON = {"coastal_blue": "coastal", "green_i": "green05", "rededge": "rededge071"}
"""STAC common names where they differ from Planet's."""

_IMAGE = re.compile(
    r"(?:(?P<scene>.+?)_)??(?:3[AB]_)?(?P<kind>AnalyticMS|(?:ortho_)?analytic_[48]b)(?P<rest>(?:_[A-Za-z0-9]+)*)\.tiff?",
    re.IGNORECASE,
)
_XML = re.compile(
    r"(?:(?P<scene>.+?)_)??(?:3[AB]_)?(?P<kind>AnalyticMS|(?:ortho_)?analytic_[48]b)(?P<rest>(?:_[A-Za-z0-9]+)*)\.xml",
    re.IGNORECASE,
)
_MASK = re.compile(
    r"(?:(?P<scene>.+?)_)??(?:3[AB]_)?(?:(?:ortho_)?(?P<kind>udm2)|AnalyticMS_DN_(?P<old>udm))"
    r"(?P<rest>(?:_[A-Za-z0-9]+)*)\.tiff?",
    re.IGNORECASE,
)
_MASK_BANDS = {"udm2": 8, "udm": 1}
_BLACKFILL = 1
_TOOLS = frozenset({"clip", "file", "format", "reproject", "cog"})
"""Words of what was done to the files of an order: an image and a mask of the same ground have the same."""

_REST = frozenset({"sr", "4b", "8b", "harmonized", "clip", "file", "format", "reproject", "cog", "metadata", "xml"})
"""Words that may follow; others, as in AnalyticMS_DN_udm, name other products."""

_AGAIN = "download the product again"


def find(path: Path) -> Product | None:
    """Describe a PlanetScope scene.

    Args:
        path: Absolute path of its GeoTIFF, such as ``20210825_153054_80_2442_3B_AnalyticMS_SR_8b.tif``, of its
            metadata file beside it, or of a folder that holds one such GeoTIFF.

    Returns:
        None where it is none, and for a folder of several scenes.

    Raises:
        InputError: A folder holds several images of one scene, or the XML file cannot be understood.
        GeosegError: The GeoTIFF cannot be opened.
    """
    if path.is_dir():
        image = _image_in(path)
        return _described(path, image) if image else None
    if _words(_XML, path.name) is not None and path.is_file():
        image = _image_in(path.parent, path.name)
        return _described(path, image) if image else None
    is_image = _words(_IMAGE, path.name) is not None and driver_of(path) == "GTiff"
    return _described(path, path) if is_image else None


def is_mask(name: str) -> bool:
    """Whether a file name is that of a mask that comes with a scene: ``..._udm2.tif``."""
    return _MASK.fullmatch(name) is not None


def _image_in(folder: Path, xml: str | None = None) -> Path | None:
    """The one image in a folder, or the one that a metadata file belongs to."""
    names = [name for name in names_in(folder) if _words(_IMAGE, name) is not None]
    if xml is not None:
        names = [name for name in names if _belong(name, xml)]
    scenes = {_scene(_IMAGE, name) for name in names}
    if len(scenes) != 1:
        return None
    if len(names) > 1:
        raise InputError(
            f"{folder} holds several images of one scene: {names[0]} and {names[1]}",
            f"give one of them: {folder / names[0]}",
        )
    return member_file(folder, names[0], "a link in it")


def _words(pattern: re.Pattern[str], name: str) -> frozenset[str] | None:
    """What a file name says of the product, in lower case; None where it names no analytic product of PlanetScope."""
    found = pattern.fullmatch(name)
    if found is None:
        return None
    words = frozenset(f"{found['kind']}{found['rest']}".casefold().split("_"))
    return words if words - {"analyticms", "analytic", "ortho"} <= _REST else None


def _scene(pattern: re.Pattern[str], name: str) -> str:
    found = pattern.fullmatch(name)
    return (found["scene"] or "") if found else ""


def _belong(image: str, xml: str) -> bool:
    """Whether a metadata file is that of an image: scenes with eight bands have one more for four of them."""
    ours, theirs = _words(_IMAGE, image), _words(_XML, xml)
    if ours is None or theirs is None or _scene(_IMAGE, image) != _scene(_XML, xml):
        return False
    return ("8b" in ours) == ("8b" in theirs)


def _described(path: Path, image: Path) -> Product:
    file = open_raster(str(image), "GTiff")
    try:
        refuse_rendered(image, file.dtypes, any(scale != 1 for scale in file.scales) or any(file.offsets))
        names, warnings = _names(image, file.descriptions)
        # Products hold whole numbers: floats under such a name were computed from one.
        is_original = not any(dtype.startswith("float") for dtype in file.dtypes)
    finally:
        file.close()
    nodata: Literal["file"] | float = NODATA if is_original else "file"
    layers = tuple(Layer(name, str(image), number=number, nodata=nodata) for number, name in enumerate(names, start=1))
    is_surface = "sr" in (_words(_IMAGE, image.name) or ())
    xml = _xml_beside(image) if is_original and not is_surface else None
    statement = _radiance(xml, len(names)) if xml else None
    if is_original and is_surface:
        statement = _surface(len(names))
    title = f"PlanetScope {'surface reflectance' if is_surface else 'radiance'} product"
    quality = _quality(image) if is_original else None
    mask = Path(quality.layer.file) if quality else None
    members = tuple(member for member in (image, xml, mask) if member)
    return Product(title, path, layers, None, statement, quality, members, warnings=warnings)


def _quality(image: Path) -> Quality | None:
    """The mask beside an image, the newer of two; None where there is none of the same scene and cut.

    Raises:
        InputError: There are two of one kind, or it has another number of bands than such masks have.
    """
    tools = (_words(_IMAGE, image.name) or frozenset()) & _TOOLS
    found: dict[str, str] = {}
    for name in names_in(image.parent):
        match = _MASK.fullmatch(name)
        if match is None or (match["scene"] or "") != _scene(_IMAGE, image.name):
            continue
        kind, words = (match["kind"] or match["old"]).casefold(), set(match["rest"].casefold().split("_")[1:])
        if words == tools and (other := found.setdefault(kind, name)) != name:
            raise InputError(f"{image}: both {other} and {name} may be its mask", "keep only the one that came with it")
    kind = next((kind for kind in _MASK_BANDS if kind in found), None)
    if kind is None:
        return None
    path = member_file(image.parent, found[kind], "a link in it")
    file = open_raster(str(path), "GTiff")
    file.close()
    if len(file.dtypes) != _MASK_BANDS[kind]:
        raise InputError(f"{path} has {counted(len(file.dtypes), 'band')}, such a mask has {_MASK_BANDS[kind]}", _AGAIN)
    layer = Layer("udm1", str(path), number=_MASK_BANDS[kind], nodata=None)
    return Quality(layer, (), _BLACKFILL, f"blackfill bit of {path.name}")


def _names(image: Path, descriptions: tuple[str | None, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Common name of each band, ``""`` where nothing tells, and warnings."""
    stated = tuple(_common((text or "").strip().casefold()) for text in descriptions)
    if any(stated):
        return stated, ()
    count = len(descriptions)
    told = {4: {"4b"}, 8: {"8b"}}.get(count, set())
    says = (_words(_IMAGE, image.name) or frozenset()) & {"4b", "8b"}
    # Names from before the satellites with eight bands state no number.
    if count in BAND_ORDERS and (says == told or not says):
        order = ", ".join(BAND_ORDERS[count])
        return tuple(map(_common, BAND_ORDERS[count])), (f"bands by the order of the product: {order}",)
    said = f"its name says {', '.join(says)}" if says else "PlanetScope products have 4 or 8"
    return ("",) * count, (f"{image.name} has {counted(count, 'band')} without names, but {said}",)


def _common(name: str) -> str:
    """Common name of one of Planet's names; other known names as they are, ``""`` for unknown ones."""
    if name in BAND_ORDERS[8]:
        return _COMMON.get(name, name)
    return name if name in known_names() else ""


def _surface(count: int) -> Statement:
    reason = f"{SR_SCALE:g} x DN, as PlanetScope surface reflectance products (SR in the name) are defined"
    return Statement("product", reason, (SR_SCALE,) * count, (0.0,) * count)


def _xml_beside(image: Path) -> Path | None:
    found = [name for name in names_in(image.parent) if _belong(image.name, name)]
    if len(found) > 1:
        raise InputError(
            f"{image}: both {found[0]} and {found[1]} may be its metadata file", "keep only the one that came with it"
        )
    return member_file(image.parent, found[0], "a link in it") if found else None


def _radiance(xml: Path, count: int) -> Statement | None:
    """What the XML file says; None for a file without coefficients.

    Raises:
        InputError: A coefficient is stated twice or is absurd, or the file is of another number of bands.
    """
    coefficients = _coefficients(xml)
    if not coefficients:
        return None
    if set(coefficients) != set(range(1, count + 1)):
        raise InputError(f"{xml} is of {counted(len(coefficients), 'band')}, the image has {count}", _AGAIN)
    listed = tuple(coefficients[number] for number in range(1, count + 1))
    shown = ", ".join(f"{value:.4g}" for value in listed)
    reason = f"({shown}) x DN, as reflectanceCoefficient of the bands in {xml.name} says"
    return Statement("metadata", reason, listed, (0.0,) * count)


def _coefficients(xml: Path) -> dict[int, float]:
    """``reflectanceCoefficient`` of each band by ``bandNumber``."""
    found: dict[int, float] = {}
    for block in elements(read_xml(xml), "bandSpecificMetadata"):
        text = only_text(block, str(xml), "reflectanceCoefficient")
        if text is None:
            continue
        number = only_text(block, str(xml), "bandNumber") or ""
        if not re.fullmatch("[1-9]", number) or int(number) in found:
            raise InputError(f"{xml}: a reflectanceCoefficient belongs to no band, or a band has two", _AGAIN)
        found[int(number)] = _coefficient(xml, text)
    return found


def _coefficient(xml: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Stored numbers have 16 bits: beyond 0.01 a tenth of them would already mean 65 times white.
    if not 0 < value < 0.01:
        raise InputError(f"{xml}: reflectanceCoefficient {text[:40]!r} is no factor from 0 to 0.01", _AGAIN)
    return value
