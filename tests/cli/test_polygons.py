"""``geoseg polygons`` and ``geoseg areas``: what they print and write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import typer
from affine import Affine
from rasterio.crs import CRS
from typer.testing import CliRunner

from geoseg_cli.bundle import find_bundle
from geoseg_cli.catalog import legends
from geoseg_cli.cli import areas, polygons
from geoseg_cli.errors import InputError, UsageError

app = typer.Typer()
app.command("polygons")(polygons.command)
app.command("areas")(areas.command)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def cloud_map(tmp_path: Path) -> Path:
    """6 x 8 pixels of 10 m: 40 clear, 6 thick cloud in two parts, 1 thin cloud, 1 nodata."""
    labels = np.zeros((6, 8), np.uint8)
    labels[1:3, 1:3] = labels[4, 6:] = 1
    labels[5, 0], labels[0, 7] = 2, 255
    path = tmp_path / "mask.tif"
    where = {"crs": CRS.from_epsg(32631), "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    with rasterio.open(
        path, "w", driver="GTiff", height=6, width=8, count=1, dtype="uint8", nodata=255, **where
    ) as file:
        file.write(labels, 1)
        file.update_tags(GEOSEG_CLASSES=json.dumps(legends()["cloudsen12"].stac_classes()))
    return path


def test_standard_output_is_the_path_and_the_rest_is_told_beside_it(cloud_map: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    out = tmp_path / "mask.gpkg"
    done = run("polygons", cloud_map, "-o", out)
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    assert "4 polygons" in done.stderr
    assert "1 Thick cloud: 2 polygons, 6 pixels, 0.06 ha" in done.stderr
    assert out.is_file()
    assert run("polygons", cloud_map, "-o", out, "--overwrite", "-q").stderr == ""


def test_the_json_report_counts_what_was_asked_for(cloud_map: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    out = tmp_path / "mask.fgb"
    done = run("polygons", cloud_map, "-o", out, "--json", "--classes", "thick_cloud,2", "--min-area", 0.015)
    report = json.loads(done.stdout)
    assert report["output"] == str(out)
    # Thin cloud is one pixel of 0.01 ha and becomes clear.
    assert (report["polygons"], report["merged"]) == (2, 1)
    assert [row["polygons"] for row in report["classes"]] == [0, 2, 0, 0]


@pytest.mark.parametrize("classes", ["", " , "])
def test_empty_classes_are_refused(cloud_map: Path, tmp_path: Path, classes: str) -> None:
    done = run("polygons", cloud_map, "-o", tmp_path / "x.gpkg", "--classes", classes)
    assert isinstance(done.exception, UsageError)


def test_areas_are_printed_as_table_and_json(cloud_map: Path) -> None:
    table = run("areas", cloud_map).stdout.splitlines()
    assert table[0].split() == ["value", "class", "pixels", "share", "hectares"]
    assert table[2].split() == ["1", "Thick", "cloud", "6", "12.8%", "0.06"]
    rows = json.loads(run("areas", cloud_map, "--json").stdout)
    assert [row["pixels"] for row in rows["classes"]] == [40, 6, 1, 0]
    assert rows["adjusted"] is None


def test_sampled_places_add_error_adjusted_areas(cloud_map: Path, tmp_path: Path) -> None:
    counts = tmp_path / "matrix.csv"
    counts.write_text("map/reference,clear,thick_cloud,thin_cloud\nclear,8,0,2\nthick_cloud,0,5,0\nthin_cloud,1,0,1\n")
    adjusted = json.loads(run("areas", cloud_map, "--accuracy", counts, "--json").stdout)["adjusted"]
    clear, thick, thin, _ = adjusted["classes"]
    # 40, 6 and 1 pixels: a fifth of clear and half of thin cloud are thin cloud in truth, half of thin cloud is clear.
    assert clear["adjusted_ha"] / thick["adjusted_ha"] == pytest.approx(32.5 / 6, rel=1e-4)
    assert thin["adjusted_ha"] / thick["adjusted_ha"] == pytest.approx(8.5 / 6, rel=1e-4)
    text = run("areas", cloud_map, "--accuracy", counts).stdout
    assert "95 % interval" in text
    assert "drawn at random within each class of this very map" in text


def test_their_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, geoseg_cli.cli.polygons, geoseg_cli.cli.areas;"
        "print(*{'torch', 'rasterio', 'numpy', 'shapely', 'pyogrio', 'pyproj'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_the_card_of_the_bundle_that_made_a_map_adjusts_its_areas(cloud_map: Path) -> None:
    card = find_bundle("cloud-lale").card
    with rasterio.open(cloud_map, "r+") as file:
        file.update_tags(
            GEOSEG_LEGEND="cloudsen12", GEOSEG_MODEL=card.id, GEOSEG_MODEL_SHA256=card.assets["weights"].checksum[4:]
        )
    done = run("areas", cloud_map, "--accuracy", "card", "--json")
    adjusted = json.loads(done.stdout)["adjusted"]
    assert card.extras.confusion is not None
    (hit, *_), *_ = counts = np.array(card.extras.confusion.counts)
    assert adjusted["classes"][0]["users_accuracy"] == pytest.approx(hit / counts[0].sum())
    assert "other places than this map" in adjusted["note"]
    assert card.extras.confusion.data in adjusted["note"]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({}, "does not say which bundle"),
        ({"GEOSEG_MODEL": "cloud-lale", "GEOSEG_MODEL_SHA256": "00"}, "other weights"),
    ],
)
def test_a_map_of_unknown_origin_has_no_card(cloud_map: Path, tags: dict[str, str], words: str) -> None:
    with rasterio.open(cloud_map, "r+") as file:
        file.update_tags(**tags)
    done = run("areas", cloud_map, "--accuracy", "card")
    assert isinstance(done.exception, InputError)
    assert words in done.exception.message
