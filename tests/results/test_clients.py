"""Other programs open a published map, with all that lies beside it, and see the same."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
import tifffile
from rio_cogeo import cog_validate


@pytest.fixture
def pixels(labels):
    return labels(1100, 1300)


@pytest.fixture
def path(make_map, pixels):
    return make_map(pixels)


def test_tifffile_reads_pixels_palette_and_tags_and_only_classes_in_every_level(path, pixels, legend):
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        assert len(levels) >= 2
        np.testing.assert_array_equal(levels[0].asarray(), pixels)
        page = levels[0].keyframe
        assert page.photometric == tifffile.PHOTOMETRIC.PALETTE
        table = page.colormap >> 8
        for cls in legend.classes:
            assert tuple(table[:, cls.value]) == cls.rgb
        assert page.software == "geoseg 9.8.7"
        assert "GEOSEG_CLASSES" in page.tags["GDAL_METADATA"].value
        for level in levels[1:]:
            assert set(np.unique(level.asarray())) <= {*legend.values, legend.nodata}


def test_rio_cogeo_finds_a_valid_cog_beside_its_sidecars(path):
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])


@pytest.mark.skipif(shutil.which("gdal_translate") is None, reason="needs GDAL's command line")
def test_gdal_translates_it_and_counts_the_same_pixels(path, pixels, tmp_path, legend):
    other = tmp_path / "other.tif"
    subprocess.run(["gdal_translate", "-q", str(path), str(other)], check=True)
    with rasterio.open(other) as file:
        np.testing.assert_array_equal(file.read(1), pixels)
        assert {value: color[:3] for value, color in file.colormap(1).items() if value in legend.values} == {
            cls.value: cls.rgb for cls in legend.classes
        }
    done = subprocess.run(["gdalinfo", "-json", "-checksum", str(path)], capture_output=True, text=True, check=True)
    again = subprocess.run(["gdalinfo", "-json", "-checksum", str(other)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["bands"][0]["checksum"] == json.loads(again.stdout)["bands"][0]["checksum"]


def test_palette_tags_table_style_and_item_name_the_same_classes(path, legend):
    """Each read by a parser of its own, and none of ours."""
    import xml.etree.ElementTree as ET

    expected = [(cls.value, cls.title, cls.color.upper()) for cls in legend.classes]
    with rasterio.open(path) as file:
        tags, palette = json.loads(file.tags()["GEOSEG_CLASSES"]), file.colormap(1)
    assert [(row["value"], row["title"], f"#{row['color_hint']}") for row in tags] == expected
    assert ["#{:02X}{:02X}{:02X}".format(*palette[cls.value]) for cls in legend.classes] == [c for _, _, c in expected]
    table = [[cell.text for cell in row] for row in ET.parse(path.with_name("map.tif.aux.xml")).iter("Row")]
    assert [(int(v), title, f"#{int(r):02X}{int(g):02X}{int(b):02X}") for v, title, r, g, b, *_ in table] == expected
    style = [entry.attrib for entry in ET.parse(path.with_suffix(".qml")).iter("paletteEntry")]
    assert [(int(row["value"]), row["label"], row["color"].upper()) for row in style] == expected
    item = json.loads(path.with_suffix(".json").read_text())["assets"]["labels"]["classification:classes"]
    assert [(row["value"], row["title"], f"#{row['color_hint']}") for row in item] == expected
    assert [row["count"] for row in item] == [int(float(row[5])) for row in table]
