"""``MAP.qml``: the style that QGIS takes for a map of the same name, classes with their colours and titles."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Comment, Element, SubElement

from geoseg_cli.catalog import Legend
from geoseg_cli.printable import printable
from geoseg_cli.results.attribute_table import parse_sidecar

MARK = "written by geoseg"
"""Tells a style of ours from one that a user saved: QGIS keeps no comments."""

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION = "3.22"
"""Oldest QGIS that the style was loaded in."""

StyleEntry = tuple[int, str, str]
"""Value, colour as ``#rrggbb``, label."""


def style_entries(legend: Legend) -> tuple[StyleEntry, ...]:
    """What the style says of each class, in the legend's order."""
    return tuple((cls.value, cls.color.lower(), printable(cls.title)) for cls in legend.classes)


def qgis_style(legend: Legend) -> str:
    """The ``.qml`` of a map with this legend."""
    root = Element("qgis", version=_VERSION, styleCategories="Symbology")
    root.append(Comment(f" {MARK} "))
    renderer = SubElement(
        SubElement(root, "pipe"), "rasterrenderer",
        type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor="",
    )  # fmt: skip
    palette = SubElement(renderer, "colorPalette")
    for value, color, label in style_entries(legend):
        SubElement(palette, "paletteEntry", value=str(value), color=color, alpha="255", label=label)
    ElementTree.indent(root)
    return _HEAD + ElementTree.tostring(root, encoding="unicode") + "\n"


def read_style(text: str) -> tuple[StyleEntry, ...]:
    """The entries of a paletted style, which QGIS may have written anew.

    Raises:
        ValueError: It is no style, or not one of classes.
    """
    renderer = next(parse_sidecar(text).iter("rasterrenderer"), None)
    if renderer is None or renderer.get("type") != "paletted":
        raise ValueError("it shows no classes")
    return tuple(
        (int(entry.get("value", "")), entry.get("color", "").lower(), entry.get("label", ""))
        for entry in renderer.iter("paletteEntry")
    )
