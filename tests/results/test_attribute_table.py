"""``.aux.xml``: what GDAL makes of it, and that it changes nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rasterio

from geoseg_cli.catalog import LandClass, Legend
from geoseg_cli.results.attribute_table import read_attribute_table

needs_gdal = pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="needs GDAL's command line")


def gdalinfo(path, *options):
    done = subprocess.run(["gdalinfo", "-json", *options, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def gdal_table(path):
    """Rows of the attribute table that GDAL's command line prints, as texts."""
    done = subprocess.run(["gdalinfo", str(path)], capture_output=True, text=True, check=True)
    text = done.stdout[done.stdout.index("<GDALRasterAttributeTable") :]
    root = ET.fromstring(text[: text.index("</GDALRasterAttributeTable>") + len("</GDALRasterAttributeTable>")])
    names = [field.findtext("Name") for field in root.findall("FieldDefn")]
    return [dict(zip(names, (cell.text for cell in row), strict=True)) for row in root.findall("Row")]


@needs_gdal
def test_gdal_reads_values_names_colours_counts_and_hectares(make_map, labels, legend):
    pixels = labels(120, 90)
    path = make_map(pixels)
    rows = gdal_table(path)
    assert [int(row["Value"]) for row in rows] == list(legend.values)
    for row, cls in zip(rows, legend.classes, strict=True):
        assert row["Class"] == cls.title
        assert f"#{int(row['Red']):02X}{int(row['Green']):02X}{int(row['Blue']):02X}" == cls.color
        count = int((pixels == cls.value).sum())
        assert float(row["Count"]) == count
        # 100 m2 on the map; the fixture's UTM grid is at the central meridian, where the scale is 0.9996.
        assert float(row["Hectares"]) == pytest.approx(count * 0.01 / 0.9996**2, rel=1e-5)


@needs_gdal
def test_gdal_reads_category_names_by_value(make_map, labels, legend):
    info = gdalinfo(make_map(labels(20, 30)))
    names = info["bands"][0].get("category")
    if names is None:  # GDAL 3.6 prints them as text only
        path = make_map(labels(20, 30), "again/map.tif")
        text = subprocess.run(["gdalinfo", str(path)], capture_output=True, text=True, check=True).stdout
        block = text[text.index("Categories:") :].splitlines()[1:]
        names = [line.split(":", 1)[1].strip() for line in block if line.strip()[:1].isdigit()]
    stated = {value: name for value, name in enumerate(names[: max(legend.values) + 1]) if name}
    assert stated == {cls.value: cls.title for cls in legend.classes}


@needs_gdal
def test_gdal_sees_the_same_map_with_and_without_the_file(make_map, labels):
    path = make_map(labels(1100, 1200))
    with_it = gdalinfo(path)
    assert [str(path), f"{path}.aux.xml"] == with_it["files"]
    path.with_name("map.tif.aux.xml").unlink()
    alone = gdalinfo(path)
    same = ("size", "coordinateSystem", "geoTransform", "metadata", "cornerCoordinates")
    assert {key: with_it[key] for key in same} == {key: alone[key] for key in same}
    band, band_alone = with_it["bands"][0], alone["bands"][0]
    assert band["noDataValue"] == 255
    assert len(band["overviews"]) >= 1
    kept = ("block", "type", "colorInterpretation", "description", "noDataValue", "overviews", "colorTable", "metadata")
    assert {key: band.get(key) for key in kept} == {key: band_alone.get(key) for key in kept}


def test_rasterio_sees_the_same_map_with_and_without_the_file(make_map, labels):
    path = make_map(labels(1100, 700))

    def seen():
        with rasterio.open(path) as file:
            return (
                file.crs, file.transform, file.nodata, file.colormap(1), file.overviews(1), file.descriptions,
                file.tags(), file.tags(ns="IMAGE_STRUCTURE"), file.read().tobytes(),
            )  # fmt: skip

    with rasterio.open(path) as file:
        assert [name for name in file.files if name.endswith(".aux.xml")], "rasterio takes the file together with it"
    with_it = seen()
    path.with_name("map.tif.aux.xml").unlink()
    assert with_it == seen()


def test_a_grid_without_crs_has_no_column_of_hectares(make_map, labels, grid):
    path = make_map(labels(20, 30), grid=grid(20, 30, crs=None))
    _, rows, overrides = read_attribute_table(path.with_name("map.tif.aux.xml").read_text())
    assert {row.hectares for row in rows} == {None}
    assert overrides == ()


def test_titles_that_xml_would_misread_come_back_as_they_are(make_map, grid):
    titles = ['<b> & "c"', "Ünïcödé 湖", "a\x07bell", ""]
    wild = Legend("wild", tuple(LandClass(i, f"c{i}", title, "#010203") for i, title in enumerate(titles)))
    path = make_map(np.zeros((5, 6), np.uint8), legend=wild)
    names, rows, _ = read_attribute_table(path.with_name("map.tif.aux.xml").read_text(encoding="utf-8"))
    assert [row.title for row in rows] == ['<b> & "c"', "Ünïcödé 湖", "a\\x07bell", ""]
    assert names == {0: '<b> & "c"', 1: "Ünïcödé 湖", 2: "a\\x07bell"}


def test_counts_beyond_32_bits_are_kept(make_map, labels, legend):
    path = make_map(labels(5, 6))
    sidecar = path.with_name("map.tif.aux.xml")
    root = ET.fromstring(sidecar.read_text())
    root.find(".//Row").findall("F")[5].text = "4294967297"
    sidecar.write_text(ET.tostring(root, encoding="unicode"))
    _, rows, _ = read_attribute_table(sidecar.read_text())
    assert rows[0].pixels == 2**32 + 1
    if shutil.which("gdalinfo"):
        assert float(gdal_table(path)[0]["Count"]) == 2**32 + 1


@pytest.mark.parametrize(
    ("element", "name"),
    [
        ("<SRS>EPSG:3035</SRS>", "SRS"),
        ("<GeoTransform>0,1,0,0,0,-1</GeoTransform>", "GeoTransform"),
        ('<PAMRasterBand band="1"><NoDataValue>10</NoDataValue></PAMRasterBand>', "NoDataValue"),
        ('<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/etc/passwd</MDI></Metadata>', "Metadata OVERVIEWS"),
    ],
)
def test_what_would_override_the_map_is_named(make_map, labels, element, name):
    sidecar = make_map(labels(5, 6)).with_name("map.tif.aux.xml")
    text = sidecar.read_text().replace("</PAMDataset>", f"{element}</PAMDataset>")
    assert read_attribute_table(text)[2] == (name,)


@pytest.mark.parametrize(
    "text", ["", "<PAMDataset>", "<PAMDataset/>", '<!DOCTYPE a [<!ENTITY b "c">]><PAMDataset>&b;</PAMDataset>']
)
def test_other_texts_are_no_attribute_table(text):
    with pytest.raises(ValueError, match=r"it "):
        read_attribute_table(text)
