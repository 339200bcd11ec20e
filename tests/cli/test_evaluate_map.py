"""``geoseg evaluate MAP REFERENCE``: tables and files, what is refused with which code, options of the other use."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.test_evaluate_map import write_map, write_shapes
from tests.test_labels import UTM, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A map of 60 pixels of class 1 and 40 of class 2, and a reference that calls 20 of the latter 3."""
    called = np.where(np.arange(100).reshape(10, 10) < 60, 1, 2)
    write_map(tmp_path / "map.tif", called.astype(np.uint8))
    write(tmp_path / "ref.tif", np.where(np.arange(100).reshape(10, 10) < 80, called, 3).astype(np.uint8))
    return tmp_path


def test_tables_go_to_stdout_and_notes_to_stderr(run: Run, folder: Path) -> None:
    done = run("evaluate", folder / "map.tif", folder / "ref.tif", "--block", 5)
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "map.tif against ref.tif: 100 pixels compared"
    # Chance agreement (60 * 60 + 20 * 40 + 20 * 0) / 100^2 = 0.44, so kappa = (0.8 - 0.44) / 0.56.
    assert {"accuracy 0.800", "kappa 0.643", "mean IoU 0.500", "mean recall 0.667"} <= set(lines)
    assert "Thick cloud 60 60 1.000 1.000 1.000 1.000 1.000" in lines
    assert "Cloud shadow 0 0 20 0" in lines
    assert "No intervals: 4 blocks of 5 x 5 px, 5 are needed." in lines
    assert "Boundary F1: boundary pixels at most 2 px apart." in lines
    assert "ref.tif: its values are taken for those of the map's legend, cloudsen12" in done.err
    assert run("evaluate", folder / "map.tif", folder / "ref.tif", "-q").err == ""


def test_files_appear_beside_the_tables_and_are_not_replaced_unasked(run: Run, folder: Path) -> None:
    names = [folder / name for name in ("m.csv", "m.png", "m.json")]
    files = [part for option, path in zip(("--csv", "--png", "--json"), names, strict=True) for part in (option, path)]
    arguments = ("evaluate", folder / "map.tif", folder / "ref.tif", *files)
    done = run(*arguments)
    assert done.code == 0
    assert "100 pixels compared" in done.out
    rows = list(csv.reader((folder / "m.csv").open()))
    assert rows[0][0] == r"reference\map"
    assert rows[4] == ["cloud_shadow", "0", "0", "20", "0"]
    assert json.loads((folder / "m.json").read_text())["total"]["confusion"][3] == [0, 0, 20, 0]
    with Image.open(folder / "m.png") as picture:
        assert picture.format == "PNG"
    assert run(*arguments).code == 73
    assert run(*arguments, "--overwrite").code == 0


def test_json_on_stdout_is_the_whole_report_and_nothing_else(run: Run, folder: Path) -> None:
    done = run("evaluate", folder / "map.tif", folder / "ref.tif", "--json", "-", "--block", 2)
    report = json.loads(done.out)
    assert report["total"]["overall_accuracy"] == 0.8
    low, high = report["total"]["overall_accuracy_95"]
    assert low < 0.8 < high
    assert str(folder) not in done.out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--tile", 64), 2, "--tile is for a bundle"),
        (("--per", "place"), 2, "--per is for a bundle"),
        (("--fit-temperature",), 2, "--fit-temperature is for a bundle"),
        (("--report", "x.html"), 2, "--report is for a bundle"),
        (("--legend", ""), 2, "--legend is empty"),
        (("--legend", "0=clear"), 65, "classes of the map: 0 clear"),
        (("--legend", "cloudsen"), 2, "no such legend"),
        (("--map", "1"), 2, "no pair"),
        (("--map", "absent.csv"), 66, "absent.csv"),
        (("--map", "1=fog,2=2,3=3"), 65, "no class of the map"),
        (("--map", "1=1"), 65, "3  20 px"),
        (("--attribute", " "), 2, "--attribute is empty"),
        (("--tolerance", 0), 2, "--tolerance 0"),
        (("--block", -5), 2, "--block -5"),
        (("--csv", "absent/m.csv"), 73, "there is no folder"),
        (("--ignore", "1,2,3"), 65, "no pixel has a class"),
    ],
)
def test_options_that_make_no_sense_end_the_run(
    run: Run, folder: Path, options: tuple[object, ...], code: int, said: str
) -> None:
    done = run("evaluate", folder / "map.tif", folder / "ref.tif", *options)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("first", "second", "code", "said"),
    [
        ("none.tif", "ref.tif", 66, "there is no map"),
        ("map.tif", "none.tif", 66, "none.tif"),
        ("map.tif", "none.geojson", 66, "there is no"),
        ("map.tif", ".", 65, "is a folder"),
        ("notes.txt", "ref.tif", 65, "is no TIFF"),
        ("map.tif", "notes.txt", 65, "is no TIFF"),
        ("short.tif", "ref.tif", 74, "truncated"),
        ("plain.tif", "ref.tif", 65, "does not say what its values mean"),
        ("map.tif", "places.shp", 65, "ogr2ogr -f GPKG places.gpkg places.shp"),
        ("map.tif", "places.fgb", 65, "ogr2ogr -f GPKG places.gpkg places.fgb"),
        ("map.tif", "places.parquet", 65, "ogr2ogr -f GPKG places.gpkg places.parquet"),
    ],
)
def test_files_that_cannot_be_used_have_their_codes(
    run: Run, folder: Path, first: str, second: str, code: int, said: str
) -> None:
    (folder / "notes.txt").write_text("a text")
    (folder / "short.tif").write_bytes((folder / "map.tif").read_bytes()[:150])
    write(folder / "plain.tif", np.ones((10, 10), np.uint8))
    done = run("evaluate", folder / first, folder / second)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


@pytest.mark.parametrize("option", [("--csv", "x.csv"), ("--map", "1=1"), ("--tolerance", 3), ("--ignore-unknown",)])
def test_options_of_maps_are_refused_for_a_bundle(
    run: Run, folder: Path, model: Path, option: tuple[object, ...]
) -> None:
    done = run("evaluate", model, folder, *option)
    assert done.code == 2
    assert f"{option[0]} is for a map" in done.err


@pytest.mark.parametrize("name", ["map.tif", "ref.tif"])
def test_an_output_must_not_replace_an_input(run: Run, folder: Path, name: str) -> None:
    before = (folder / name).read_bytes()
    done = run("evaluate", folder / "map.tif", folder / "ref.tif", "--csv", folder / name, "--overwrite")
    assert done.code == 2
    assert (folder / name).read_bytes() == before


def test_nothing_is_written_where_the_reference_is_refused(run: Run, folder: Path) -> None:
    done = run("evaluate", folder / "map.tif", folder / "ref.tif", "--map", "1=1", "--json", folder / "m.json")
    assert done.code == 65
    assert sorted(path.name for path in folder.iterdir()) == ["map.tif", "ref.tif"]


def test_points_are_compared_and_their_number_told(run: Run, folder: Path) -> None:
    from shapely import Point

    points = [Point(UTM @ (col + 0.5, 9.5)) for col in range(6)]
    path = write_shapes(folder / "ref.geojson", points, ["thin_cloud"] * 5 + ["clear"], name="seen")
    done = run("evaluate", folder / "map.tif", path, "--attribute", "seen")
    assert done.code == 0
    assert "6 pixels compared" in done.out
    assert "from 1000 resamplings of 6 shapes." in done.out
    assert "oundary" not in done.out


def test_a_picture_shows_the_classes_that_occur_and_no_more_than_can_be_looked_at(run: Run, folder: Path) -> None:
    for classes, code in ((64, 0), (65, 2)):
        labels = (np.arange(100) % classes).reshape(10, 10).astype(np.uint8)
        path = write(folder / f"{classes}.tif", labels)
        legend = ",".join(f"{value}=c{value}" for value in range(100))
        done = run("evaluate", path, path, "--legend", legend, "--png", folder / f"{classes}.png")
        assert done.code == code
    assert "--png draws at most 64 classes, 65 occur" in done.err
    assert not (folder / "65.png").exists()
