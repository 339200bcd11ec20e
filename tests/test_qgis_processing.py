"""The Processing algorithm of ``docs/qgis`` in a QGIS without a window, installed as its README says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geoseg_cli.catalog import legends
from geoseg_cli.results.verify import verify_map
from tests.results.test_qgis import SYSTEM_PYTHON, environment, has_qgis

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "sample_scenes" / "l1c_13_bands.tif"
SCRIPT = ROOT / "docs" / "qgis" / "geoseg_processing.py"
PLUGINS = "/usr/share/qgis/python/plugins"

RUN = """
import json, os, sys
from qgis.PyQt.QtCore import QCoreApplication
from qgis.core import (QgsApplication, QgsProcessingContext, QgsProcessingException, QgsProcessingFeedback, QgsProject,
                       QgsRasterLayer)
parameters, plugins, stop_at = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
sys.path.append(plugins)
QgsApplication.setPrefixPath("/usr", True)
# As the program calls itself; its folder of profiles follows from it.
QCoreApplication.setOrganizationName("QGIS")
QCoreApplication.setApplicationName("QGIS3")
app = QgsApplication([], False)
app.initQgis()
from processing.core.Processing import Processing
import processing
Processing.initialize()
told = {"info": [], "warnings": [], "errors": []}

class Feedback(QgsProcessingFeedback):
    def pushConsoleInfo(self, text):
        told["info"].append(text)
        if stop_at and stop_at in text:
            self.cancel()
    def pushWarning(self, text):
        told["warnings"].append(text)
    def reportError(self, text, fatalError=False):
        told["errors"].append(text)

if "LAYER" in parameters:
    layer = QgsRasterLayer(parameters.pop("LAYER"), "scene")
    QgsProject.instance().addMapLayer(layer)
    parameters["SCENE"] = layer.id()
algorithm = QgsApplication.processingRegistry().algorithmById("script:geoseg")
assert algorithm is not None, "the algorithm is not registered"
shown, results = [], {}
# What QGIS sets for its own libraries on Windows and macOS; another Python and its GDAL end over it.
foreign = ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA")
os.environ |= dict.fromkeys(foreign, "/nowhere")
try:
    results = processing.runAndLoadResults("script:geoseg", parameters, feedback=Feedback())
except QgsProcessingException as error:
    told["errors"].append(str(error))
for layer in QgsProject.instance().mapLayers().values():
    if layer.renderer() is not None and layer.renderer().type() == "paletted":
        shown = [[c.value, c.color.name(), c.label] for c in layer.renderer().classes()]
print("DONE", json.dumps({"results": results, "shown": shown, **told}))
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A user's folder with the script where the README puts it."""
    if not has_qgis():
        pytest.skip(f"{SYSTEM_PYTHON} cannot import qgis.core")
    if not Path(PLUGINS, "processing").is_dir():
        pytest.skip(f"QGIS has no Processing in {PLUGINS}")
    scripts = (
        tmp_path / "home" / ".local" / "share" / "QGIS" / "QGIS3" / "profiles" / "default" / "processing" / "scripts"
    )
    scripts.mkdir(parents=True)
    shutil.copy(SCRIPT, scripts)
    return tmp_path / "home"


def program(folder: Path, text: str) -> Path:
    path = folder / "geoseg"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def geoseg(tmp_path: Path) -> Path:
    """The checkout's geoseg as a program of its own; as installed, it does not need QGIS's Python."""
    return program(tmp_path, f"PYTHONPATH='{ROOT}' exec '{sys.executable}' -m geoseg_cli \"$@\"")


def run(profile: Path, geoseg: Path, stop_at: str = "", **parameters: object) -> dict:
    env = environment() | {"HOME": str(profile), "GEOSEG_PROGRAM": str(geoseg)}
    env.pop("XDG_DATA_HOME", None)
    given = json.dumps({name: str(value) if isinstance(value, Path) else value for name, value in parameters.items()})
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", RUN, given, PLUGINS, stop_at], capture_output=True, text=True, timeout=240, env=env
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("DONE ")), None)
    assert line is not None, done.stdout + done.stderr
    return json.loads(line.removeprefix("DONE "))


@pytest.mark.qgis
@pytest.mark.parametrize("parameter", ["LAYER", "PRODUCT"])
def test_a_scene_becomes_a_map_with_its_style(profile: Path, geoseg: Path, tmp_path: Path, parameter: str) -> None:
    out = tmp_path / "clouds.tif"
    done = run(
        profile, geoseg, **{parameter: SCENE}, COMMAND=1, EXTRA=f"--confidence '{tmp_path / 'my c.tif'}'", OUTPUT=out
    )
    assert done["errors"] == []
    assert verify_map(out).is_intact
    assert (tmp_path / "my c.tif").exists()
    assert done["shown"] == [[one.value, one.color.lower(), one.title] for one in legends()["cloudsen12"].classes]
    said = "\n".join(done["info"])
    assert "radiometry: 0.0001 x number -0.1" in said
    assert "Thick cloud" in said


@pytest.mark.qgis
def test_model_and_command_reach_geoseg(profile: Path, tmp_path: Path) -> None:
    fake = program(tmp_path, f"printf '%s\\n' \"$@\" > '{tmp_path / 'asked'}'; echo '  warning: odd' >&2; exit 65")
    done = run(profile, fake, PRODUCT=SCENE, COMMAND=0, MODEL="mine", EXTRA="--nodata '0'", OUTPUT=tmp_path / "m.tif")
    words = f"classify {SCENE} --output {tmp_path / 'm.tif'} --overwrite --model mine --nodata 0"
    assert (tmp_path / "asked").read_text().splitlines() == words.split()
    assert done["warnings"] == ["  warning: odd"]
    assert "exit code 65" in "".join(done["errors"])


@pytest.mark.qgis
def test_what_geoseg_refuses_is_told_with_its_remedy(profile: Path, geoseg: Path, tmp_path: Path) -> None:
    done = run(profile, geoseg, PRODUCT=SCENE, EXTRA="--bands red", OUTPUT=tmp_path / "m.tif")
    told = "\n".join(done["errors"])
    assert "geoseg ended with exit code 65" in told
    assert "geoseg: " in told
    assert "  -> " in told
    assert (done["results"], (tmp_path / "m.tif").exists()) == ({}, False)


@pytest.mark.qgis
@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"PROGRAM": "/no/such/geoseg"}, "There is no program /no/such/geoseg"),
        ({"EXTRA": "--bands 'red"}, "further options cannot be understood"),
        ({"PRODUCT": None}, "either a scene layer or a product file"),
        ({"OUTPUT": "map.png"}, "must end with .tif"),
    ],
    ids=["program", "quotes", "no scene", "suffix"],
)
def test_what_cannot_run_is_told_before_it_is_started(
    profile: Path, geoseg: Path, tmp_path: Path, parameters: dict[str, object], said: str
) -> None:
    done = run(profile, geoseg, **({"PRODUCT": SCENE, "OUTPUT": tmp_path / "m.tif"} | parameters))
    assert said in "\n".join(done["errors"])


@pytest.mark.qgis
def test_cancelling_ends_the_program(profile: Path, tmp_path: Path) -> None:
    fake = program(
        tmp_path, f"sleep 200 & trap \"kill $!; echo ended > '{tmp_path}/gone'; exit 143\" TERM; echo begun >&2; wait"
    )
    started = time.monotonic()
    done = run(profile, fake, "begun", PRODUCT=SCENE, OUTPUT=tmp_path / "m.tif")
    assert time.monotonic() - started < 150
    assert (tmp_path / "gone").read_text() == "ended\n"
    assert done["errors"] == []


@pytest.mark.qgis
def test_a_cancelled_run_of_geoseg_leaves_nothing(profile: Path, geoseg: Path, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    done = run(profile, geoseg, "radiometry:", PRODUCT=SCENE, EXTRA="--tta d4 --tile 64", OUTPUT=folder / "m.tif")
    assert any(line.startswith("geoseg: interrupted; unfinished outputs are removed") for line in done["info"])
    assert list(folder.iterdir()) == []
