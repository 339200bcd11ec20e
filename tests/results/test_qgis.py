"""QGIS itself opens a map: what it shows are the classes and colours of the legend."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.catalog import legends

SYSTEM_PYTHON = "/usr/bin/python3"
"""Distributions install QGIS for their own Python."""

SHOW = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer
QgsApplication.setPrefixPath("/usr", True)
app = QgsApplication([], False)
app.initQgis()
layer = QgsRasterLayer(sys.argv[1], "map")
renderer = layer.renderer()
classes = [[c.value, c.color.name(), c.color.alpha(), c.label] for c in renderer.classes()]
provider = layer.dataProvider()
image = layer.previewAsImage(__import__("qgis.PyQt.QtCore", fromlist=["QSize"]).QSize(layer.width(), layer.height()))
shown = [[image.pixelColor(col, row).getRgb() for col in range(image.width())] for row in range(image.height())]
print("SHOWN", json.dumps({
    "valid": layer.isValid(), "type": renderer.type(), "classes": classes, "crs": layer.crs().authid(),
    "nodata": provider.sourceNoDataValue(1), "size": [layer.height(), layer.width()], "pixels": shown,
}))
"""


@cache
def has_qgis() -> bool:
    if not Path(SYSTEM_PYTHON).exists():
        return False
    done = subprocess.run([SYSTEM_PYTHON, "-c", "import qgis.core"], capture_output=True, env=environment())
    return done.returncode == 0


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {"QT_QPA_PLATFORM": "offscreen"}


def shown_by_qgis(path: Path, home: Path) -> dict:
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", SHOW, str(path)],
        capture_output=True, text=True, timeout=120, env=environment() | {"HOME": str(home)},
    )  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("SHOWN ")), None)
    assert line is not None, done.stderr
    return json.loads(line.removeprefix("SHOWN "))


@pytest.mark.qgis
@pytest.mark.parametrize("name", ["esa-worldcover", "cloudsen12"])
def test_qgis_shows_the_names_and_colours_of_the_legend(make_map, tmp_path, name):
    if not has_qgis():
        pytest.skip(f"{SYSTEM_PYTHON} cannot import qgis.core")
    legend = legends()[name]
    pixels = np.resize(np.array([*legend.values, legend.nodata], np.uint8), (24, 31))
    shown = shown_by_qgis(make_map(pixels, legend=legend), tmp_path)
    assert (shown["valid"], shown["type"], shown["crs"]) == (True, "paletted", "EPSG:32631")
    assert (shown["nodata"], shown["size"]) == (255, [24, 31])
    assert shown["classes"] == [[cls.value, cls.color.lower(), 255, cls.title] for cls in legend.classes]
    drawn = np.array(shown["pixels"])
    for cls in legend.classes:
        assert (drawn[pixels == cls.value][:, :3] == cls.rgb).all(), cls.title
    clear = drawn[pixels == legend.nodata]
    assert (clear[:, 3] == 0).all() or (clear[:, :3] == 255).all(), "nothing is drawn where there is no answer"


@pytest.mark.qgis
def test_without_the_style_qgis_has_no_names(make_map, tmp_path, legend):
    """Otherwise the test above would hold with an empty style too."""
    if not has_qgis():
        pytest.skip(f"{SYSTEM_PYTHON} cannot import qgis.core")
    path = make_map(np.resize(np.array(legend.values, np.uint8), (8, 11)))
    path.with_suffix(".qml").unlink()
    path.with_name("map.tif.aux.xml").unlink()
    labels = [row[3] for row in shown_by_qgis(path, tmp_path)["classes"]]
    assert not set(labels) & {cls.title for cls in legend.classes}
