"""``MAP.tif.aux.xml``: names and attribute table of a map's classes, as GDAL keeps what a TIFF has no place for.

Of GDAL's persistent metadata (PAM) only ``CategoryNames`` and ``GDALRasterAttributeTable`` are written: everything
else would be believed more than the map itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from geoseg_cli.printable import printable
from geoseg_cli.results.areas import ClassArea
from geoseg_cli.results.description import MapDescription

INTEGER, REAL, STRING = 0, 1, 2
"""GDALRATFieldType."""
GENERIC, PIXEL_COUNT, NAME, VALUE, RED, GREEN, BLUE = 0, 1, 2, 5, 6, 7, 8
"""GDALRATFieldUsage; VALUE is MinMax: one value a row."""

HARMLESS = frozenset({"CategoryNames", "GDALRasterAttributeTable", "Histograms", "Description"})
"""What a band's persistent metadata may hold without changing how the map is read; QGIS adds a histogram."""

_FIELDS = (
    ("Value", INTEGER, VALUE),
    ("Class", STRING, NAME),
    ("Red", INTEGER, RED),
    ("Green", INTEGER, GREEN),
    ("Blue", INTEGER, BLUE),
    # A double: GDAL's integers have 32 bits, and large maps have more pixels.
    ("Count", REAL, PIXEL_COUNT),
    ("Hectares", REAL, GENERIC),
)


@dataclass(frozen=True, slots=True)
class AttributeRow:
    """One class of an attribute table.

    Attributes:
        value: In the raster.
        title: What a person reads.
        rgb: Red, green and blue, 0 to 255.
        pixels: Number of pixels.
        hectares: Area on the ellipsoid; None where the map does not tell where on Earth it lies.
    """

    value: int
    title: str
    rgb: tuple[int, int, int]
    pixels: int
    hectares: float | None


def attribute_rows(description: MapDescription) -> tuple[AttributeRow, ...]:
    """The rows of a map's table, in the legend's order."""
    return tuple(
        AttributeRow(cls.value, printable(cls.title), cls.rgb, area.pixels, _rounded(area))
        for cls, area in zip(description.legend.classes, description.areas, strict=True)
    )


def attribute_table(description: MapDescription) -> str:
    """The ``.aux.xml`` of a map."""
    root = Element("PAMDataset")
    band = SubElement(root, "PAMRasterBand", band="1")
    rows = attribute_rows(description)
    titles = {row.value: row.title for row in rows}
    names = SubElement(band, "CategoryNames")
    for value in range(max(titles) + 1):
        SubElement(names, "Category").text = titles.get(value, "")
    _add_table(band, rows, description.has_hectares)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def read_attribute_table(text: str) -> tuple[dict[int, str], tuple[AttributeRow, ...], tuple[str, ...]]:
    """Parse an ``.aux.xml``, which GDAL or QGIS may have written anew.

    Returns:
        The category names by value, the rows of the table, and what in the file overrides the map itself.

    Raises:
        ValueError: It is no such file, or has no table.
    """
    root = parse_sidecar(text)
    band = root.find("PAMRasterBand[@band='1']")
    table = band.find("GDALRasterAttributeTable") if band is not None else None
    if band is None or table is None:
        raise ValueError("it has no attribute table")
    titles = {value: node.text or "" for value, node in enumerate(band.findall("CategoryNames/Category"))}
    fields = [node.findtext("Name", "") for node in table.findall("FieldDefn")]
    rows = []
    for node in table.findall("Row"):
        cells = dict(zip(fields, (cell.text or "" for cell in node.findall("F")), strict=True))
        rows.append(_row(cells))
    return {value: title for value, title in titles.items() if title}, tuple(rows), _overrides(root)


def parse_sidecar(text: str) -> Element:
    """Parse an XML sidecar; entities are refused, because nothing that geoseg writes has one.

    Raises:
        ValueError: It is no XML, or has declarations of entities.
    """
    if re.search(r"<!ENTITY", text):
        raise ValueError("it declares entities")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error


def _rounded(area: ClassArea) -> float | None:
    """Square metres are enough, and the same on every machine."""
    return None if area.hectares is None else round(area.hectares, 4)


def _add_table(band: Element, rows: tuple[AttributeRow, ...], has_hectares: bool) -> None:
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    fields = _FIELDS if has_hectares else _FIELDS[:-1]
    for index, (name, kind, usage) in enumerate(fields):
        field = SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", str(kind)), ("Usage", str(usage))):
            SubElement(field, tag).text = text
    for index, row in enumerate(rows):
        node = SubElement(table, "Row", index=str(index))
        cells = (row.value, row.title, *row.rgb, row.pixels, *((row.hectares,) if has_hectares else ()))
        for cell in cells:
            SubElement(node, "F").text = str(cell)


def _row(cells: dict[str, str]) -> AttributeRow:
    try:
        red, green, blue = (int(cells[name]) for name in ("Red", "Green", "Blue"))
        hectares = float(cells["Hectares"]) if "Hectares" in cells else None
        return AttributeRow(
            int(cells["Value"]), cells["Class"], (red, green, blue), int(float(cells["Count"])), hectares
        )
    except KeyError as error:
        raise ValueError(f"its table has no column {error.args[0]}") from error


def _overrides(root: Element) -> tuple[str, ...]:
    """Elements that readers would believe more than the map."""
    found = [node.tag for node in root if node.tag not in ("PAMRasterBand", "Metadata")]
    found += [
        node.tag for band in root.iter("PAMRasterBand") for node in band if node.tag not in HARMLESS | {"Metadata"}
    ]
    found += [f"Metadata {node.get('domain')}" for node in root.iter("Metadata") if node.get("domain")]
    return tuple(dict.fromkeys(found))
