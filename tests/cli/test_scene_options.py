"""Scenes that are more than one file, where their maps go, and the options that say how a scene is read."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.batch.naming import place_and_stem
from geoseg_cli.catalog import sensors
from geoseg_cli.cli.request import ONE_FILE, Request
from geoseg_cli.errors import InputError, InputMissingError, UsageError
from geoseg_cli.job import PredictOptions
from geoseg_cli.scenes import SceneOptions
from tests.cli.conftest import Run
from tests.scenes.product_fixtures import make_landsat, write_band
from tests.scenes.safe_fixtures import ALL_MINUS_1000, Text, write_metadata, write_safe, zip_folder
from tests.test_predict import random_scene, read

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scenes.md"
SAFE_STEM = "S2A_MSIL2A_20230625T104621_N0509_R051_T31UFS_20230625T150000"
TEXT = Text(adds=ALL_MINUS_1000)
LABELS = np.random.default_rng(3).integers(0, 4, (120, 120))
"""Classes that the fake model sees in the product: reflectance is 0.5 for each step."""


def make_safe(folder: Path) -> Path:
    """A level 2A product with red alone, with the offset of today's baselines."""
    return write_safe(folder, TEXT, {"B04_10m": (LABELS * 5000 + 1000).astype(np.uint16)})


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def request(*scenes: Path, **more: Any) -> Request:
    given = dict.fromkeys(("bounds", "bounds_crs", "model", "bands", "sensor", "area", "output", "out_dir"))
    given |= {"overwrite": False, "no_sidecar": False}
    given |= dict.fromkeys(ONE_FILE) | {"crop": False, "scenes": list(scenes), **more}
    return Request.of(given, task="cloud", default_model="x", suffix="cloudmask")


def scenes_of(asked: Request) -> list[Path]:
    return [task.scene for task in asked.tasks()]


@pytest.mark.parametrize("form", ["folder", "metadata", "zip", "granule"])
def test_a_sentinel_2_product_is_mapped_beside_its_folder_and_stays_as_it_was(
    run: Run, tmp_path: Path, model: Path, form: str
) -> None:
    root = make_safe(tmp_path / "in")
    granule = next((root / "GRANULE").iterdir())
    before = everything_in(root)
    scene = {"folder": root, "metadata": root / "MTD_MSIL2A.xml", "granule": granule}.get(form)
    scene = scene or zip_folder(root, tmp_path / "in" / f"{SAFE_STEM}.SAFE.zip")
    done = run("cloudmask", scene, "--model", model, "-q")
    stem = granule.name if form == "granule" else SAFE_STEM
    assert (done.code, done.out) == (0, f"{tmp_path / 'in' / f'{stem}_cloudmask.tif'}\n")
    np.testing.assert_array_equal(read(Path(done.out.strip()))[0], LABELS)
    assert everything_in(root) == before


@pytest.mark.parametrize("form", ["folder", "MTL file"])
def test_a_landsat_scene_is_mapped_beside_its_folder(run: Run, tmp_path: Path, model: Path, form: str) -> None:
    landsat = make_landsat(tmp_path / "in" / "LC08.v2.scene")
    before = everything_in(landsat.folder)
    done = run("cloudmask", landsat.folder if form == "folder" else landsat.mtl, "--model", model)
    assert (done.code, done.out) == (0, f"{tmp_path / 'in' / 'LC08.v2.scene_cloudmask.tif'}\n")
    assert everything_in(landsat.folder) == before
    with rasterio.open(done.out.strip()) as made:
        assert made.shape == (6, 6)


def test_one_of_several_mtl_files_in_a_folder_gives_the_map_its_name(tmp_path: Path) -> None:
    for name in ("LC08_A", "LC09_B"):
        (tmp_path / f"{name}_MTL.txt").touch()
    assert place_and_stem(tmp_path / "LC08_A_MTL.txt") == (tmp_path, "LC08_A")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("scene.tif", "scene"),
        ("scene.v2.TIFF", "scene.v2"),
        ("T31UFS_B04.jp2", "T31UFS_B04"),
        ("item.json", "item"),
        ("HLS.S30.T10TEM.2023123T190911.v2.0", "HLS.S30.T10TEM.2023123T190911.v2.0"),
        ("S2A_X.SAFE.zip", "S2A_X"),
        ("S2A_X.zip", "S2A_X"),
        (".tif", ".tif"),
    ],
)
def test_the_stem_of_a_map_is_the_name_without_its_ending_and_with_its_other_dots(name: str, stem: str) -> None:
    assert place_and_stem(Path("scenes") / name) == (Path("scenes"), stem)


@given(st.from_regex(r"[A-Za-z0-9_-]{1,9}(\.[A-Za-z0-9_-]{1,9}){0,3}", fullmatch=True))
def test_only_the_last_ending_is_cut_from_any_name(stem: str) -> None:
    if Path(stem).suffix.lower() not in {".tif", ".safe"}:
        assert place_and_stem(Path(f"{stem}.tif")) == (Path(), stem)


@pytest.mark.parametrize(
    ("address", "stem"),
    [
        ("https://example.org/a/scene.tif", "scene"),
        ("https://example.org/a/scene.v1.tif?sig=a/b.c", "scene.v1"),
        ("s3://bucket/a/item.json", "item"),
        ("/vsicurl/https://example.org/x.tif", "x"),
    ],
)
def test_the_map_of_an_address_goes_into_the_current_folder(address: str, stem: str) -> None:
    assert place_and_stem(Path(address)) == (Path(), stem)


def test_a_file_inside_a_product_has_its_map_outside(tmp_path: Path) -> None:
    root = tmp_path / "X.SAFE"
    image = root / "GRANULE" / "G" / "IMG_DATA" / "R10m" / "T31_B04_10m.jp2"
    image.parent.mkdir(parents=True)
    assert place_and_stem(image) == (tmp_path, "T31_B04_10m")
    root = root.rename(tmp_path / "renamed")
    moved = tmp_path / "renamed" / image.relative_to(tmp_path / "X.SAFE")
    assert place_and_stem(moved)[0] == moved.parent, "a folder is no product because it is called GRANULE"
    write_metadata(root, TEXT, [])
    assert place_and_stem(moved) == (tmp_path, "T31_B04_10m")


def test_the_current_folder_can_be_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_safe(tmp_path)
    monkeypatch.chdir(root)
    for scene in (Path(), Path("MTD_MSIL2A.xml")):
        folder, stem = place_and_stem(scene)
        assert (folder.resolve(), stem) == (tmp_path, SAFE_STEM)


def test_a_folder_of_scenes_holds_files_products_and_zips_but_no_outputs(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    random_scene(folder / "a.tif", 4, 4)
    for name in ("a_landcover.tif", "a_cloudmask.tif", ".hidden.tif", "notes.txt", "b.jp2", "other.zip"):
        (folder / name).touch()
    (folder / "plain").mkdir()
    random_scene(folder / "plain" / "deeper.tif", 4, 4)
    root = make_safe(folder)
    packed = zip_folder(root, folder / "packed.zip")
    make_landsat(folder / "landsat")
    (folder / "empty.SAFE").mkdir()
    names = {path.name for path in scenes_of(request(folder))}
    assert names == {"a.tif", "b.jp2", root.name, packed.name, "landsat", "empty.SAFE", "deeper.tif"}


@pytest.mark.parametrize("kind", ["safe", "landsat", "bands", "hls"])
def test_a_folder_that_is_a_product_is_one_scene(tmp_path: Path, kind: str) -> None:
    plane = np.full((4, 4), 100, np.uint16)
    folder = tmp_path / kind
    if kind == "safe":
        folder = make_safe(tmp_path)
    elif kind == "landsat":
        make_landsat(folder)
    else:
        prefix = "HLS.S30.T10TEM.2023123T190911.v2.0." if kind == "hls" else "T31UFS_20230625_"
        for band in ("B03", "B04"):
            write_band(folder / f"{prefix}{band}.tif", plane)
    assert scenes_of(request(folder)) == [folder]


def test_a_folder_of_scenes_of_many_bands_is_no_product(tmp_path: Path) -> None:
    for name in ("one_B04.tif", "two_B04.tif"):
        random_scene(tmp_path / name, 4, 4)
        pixels = np.concatenate([read(tmp_path / name)] * 2)
        profile = {"crs": "EPSG:32631", "transform": Affine(10, 0, 0, 0, -10, 0), "driver": "GTiff", "count": 2}
        with rasterio.open(tmp_path / name, "w", height=4, width=4, dtype="uint16", **profile) as file:
            file.write(pixels)
    assert [path.name for path in scenes_of(request(tmp_path))] == ["one_B04.tif", "two_B04.tif"]


def test_a_product_that_cannot_be_read_is_named_and_not_taken_apart(run: Run, tmp_path: Path, model: Path) -> None:
    root = make_safe(tmp_path)
    (root / "MTD_MSIL2A.xml").write_text("<broken")
    done = run("cloudmask", root, "--model", model)
    assert done.code in (InputError.exit_code, 74)
    assert "MTD_MSIL2A.xml" in done.err
    assert "\n  -> " in done.err


def test_an_empty_folder_names_what_it_could_hold(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no GeoTIFF") as caught:
        scenes_of(request(tmp_path))
    assert "SAFE" in caught.value.hint


@pytest.mark.parametrize("option", ONE_FILE)
def test_one_file_name_for_a_folder_of_several_scenes_is_refused(tmp_path: Path, option: str) -> None:
    for name in ("a.tif", "b.tif"):
        random_scene(tmp_path / name, 4, 4)
    with pytest.raises(UsageError, match=f"--{option}"):
        scenes_of(request(tmp_path, **{option: Path("x.tif")}))


def test_a_product_and_its_zip_do_not_overwrite_each_others_map(tmp_path: Path) -> None:
    root = make_safe(tmp_path)
    zip_folder(root, tmp_path / f"{SAFE_STEM}.zip")
    with pytest.raises(UsageError, match="both be written"):
        scenes_of(request(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--gsd", "0"],
        ["--gsd", "-10"],
        ["--gsd", "nan"],
        ["--gsd", "fine"],
        ["--fill", "nir"],
        ["--fill", "nir="],
        ["--fill", "=0.1"],
        ["--fill", "nir=dark"],
        ["--fill", "nir=inf"],
        ["--fill", "nir=1200"],
        ["--fill", "nir=0.1", "--fill", "NIR=0.2"],
        ["--sensor", "sentinel-3"],
        ["--sensor", " "],
        ["--valid", "some"],
        ["--saturated", "drop"],
        ["--allow-driver", "WMS"],
        ["--bounds", "0 0 1 1", "--area", "a.geojson"],
        ["--bounds-crs", "EPSG:4326"],
        ["--bounds", "0 0 1 1", "--bounds-crs", "EPSG:none"],
        ["--bounds", "0 0 1 1", "--bounds-crs", ""],
        ["--crop"],
    ],
    ids=" ".join,
)
def test_wrong_reading_options_end_with_2_a_remedy_and_no_map(
    run: Run, tmp_path: Path, model: Path, arguments: list[str]
) -> None:
    random_scene(tmp_path / "scene.tif", 8, 8)
    before = everything_in(tmp_path)
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.strip()
    # Choices are refused by the option parser, which lists them.
    assert "\n  -> " in done.err or "not one of" in done.err
    assert everything_in(tmp_path) == before


@pytest.fixture
def options_of(run: Run, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the library is asked for a command line."""
    import geoseg_cli.predict

    seen: list[PredictOptions] = []

    def caught(scene: Path, output: Path, bundle: object, engine: object, options: PredictOptions, **_: object) -> None:
        seen.append(options)
        raise InputError("enough")

    monkeypatch.setattr(geoseg_cli.predict, "predict_scene", caught)
    random_scene(tmp_path / "scene.tif", 20, 20)

    def of(*arguments: object) -> PredictOptions:
        assert run("cloudmask", tmp_path / "scene.tif", "--model", model, *arguments).code == 65
        return seen.pop()

    return of


def test_without_options_the_library_decides(options_of: Any) -> None:
    assert options_of() == PredictOptions(creation_options={})


def test_every_reading_option_reaches_the_library(options_of: Any) -> None:
    found = options_of(
        *("--gsd", "12.5", "--bounds", "1 2 3 4", "--bounds-crs", "EPSG:4326", "--crop", "--sensor", "Landsat-8"),
        *("--fill", "swir16=0.25", "--fill", "B5 = 0", "--valid", "any", "--saturated", "nodata"),
        *("--allow-network", "--allow-driver", "VRT", "--nodata", "none", "--bands", "red, -", "--radiometry", "dn"),
        *("--require-crs", "--max-pixels", "1000", "--sidecars"),
    )
    assert found == PredictOptions(
        scene=SceneOptions(
            bands=("red", "-"), radiometry="dn", nodata=None, fill=(("swir16", 0.25), ("b5", 0.0)),
            sensor="landsat-8", valid="any", saturated=False, allow_network=True, drivers=("VRT",), require_crs=True,
            max_pixels=1000, sidecars=True,
        ),
        gsd=12.5, bounds=(1, 2, 3, 4), bounds_crs="EPSG:4326", crop=True,
    )  # fmt: skip
    area = options_of("--area", "field.gpkg", "--gsd", "native")
    assert (area.area, area.gsd, area.bounds) == (Path("field.gpkg"), "native", None)


def test_an_area_is_cropped_and_told(run: Run, tmp_path: Path, model: Path) -> None:
    expected = random_scene(tmp_path / "scene.tif", 40, 50)
    left, top = 499_980, 4_900_020
    ring = [[left + 100, top - 300], [left + 300, top - 300], [left + 300, top - 100], [left + 100, top - 100]]
    shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    crs = {"type": "name", "properties": {"name": "EPSG:32631"}}
    feature = {"type": "Feature", "properties": {}, "geometry": shape}
    (tmp_path / "field.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    )
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model, "--area", tmp_path / "field.geojson", "--crop")
    assert done.code == 0, done.err
    assert "area: field.geojson; output of 20 x 20 px" in done.err
    np.testing.assert_array_equal(read(Path(done.out.strip()))[0], expected[10:30, 10:30])


@pytest.mark.parametrize(("gsd", "told"), [("auto", "10 x 10 m"), ("15", "15 x 15 m"), ("native", None)])
def test_the_pixel_size_that_the_model_sees_is_told_and_the_map_keeps_the_scene_s(
    run: Run, tmp_path: Path, model: Path, gsd: str, told: str | None
) -> None:
    random_scene(tmp_path / "scene.tif", 12, 14, transform=Affine(30, 0, 5e5, 0, -30, 4e6))
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model, "--gsd", gsd)
    lines = [line for line in done.err.splitlines() if "shown to the model:" in line]
    assert lines == ([f"  shown to the model: pixels of {told}; the map has the scene's own"] if told else [])
    with rasterio.open(done.out.strip()) as made:
        assert (made.shape, made.res) == ((12, 14), (30, 30))


def test_a_south_up_scene_is_told_to_be_turned(run: Run, tmp_path: Path, model: Path) -> None:
    expected = random_scene(tmp_path / "s.tif", 30, 20, transform=Affine(10, 0, 5e5, 0, 10, 4e6))
    done = run("cloudmask", tmp_path / "s.tif", "--model", model)
    assert "orientation: north-up for the model: rows flipped" in done.err
    np.testing.assert_array_equal(read(tmp_path / "s_cloudmask.tif")[0], expected)


def test_a_virtual_raster_is_opened_only_when_asked_for(run: Run, tmp_path: Path, model: Path) -> None:
    expected = random_scene(tmp_path / "scene.tif", 10, 12)
    (tmp_path / "scene.vrt").write_text(
        '<VRTDataset rasterXSize="12" rasterYSize="10"><SRS>EPSG:32631</SRS>'
        "<GeoTransform>499980, 10, 0, 4900020, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><Description>red</Description><NoDataValue>65535</NoDataValue>'
        '<Scale>0.0001</Scale><SimpleSource><SourceFilename relativeToVRT="1">scene.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    refused = run("cloudmask", tmp_path / "scene.vrt", "--model", model)
    assert refused.code == 65
    assert "--allow-driver VRT" in refused.err
    done = run("cloudmask", tmp_path / "scene.vrt", "--model", model, "--allow-driver", "VRT", "-q")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(read(tmp_path / "scene_cloudmask.tif")[0], expected)


def test_an_address_is_refused_without_leave_and_its_secrets_stay_unsaid(run: Run, model: Path) -> None:
    done = run("cloudmask", "https://example.org/x.tif?sig=SECRET", "--model", model, "--json")
    assert done.code == 65
    assert "--allow-network" in done.err
    assert "SECRET" not in done.out + done.err
    assert json.loads(done.out)["scene"] == "https://example.org/x.tif"


class _WithRanges(SimpleHTTPRequestHandler):
    """Answers the requests for parts of a file that GDAL makes."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        content = (Path(self.directory) / self.path.split("?")[0].lstrip("/")).read_bytes()
        asked = self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            part: bytes | npt.NDArray[Any] = content[int(first) : int(last or len(content)) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        else:
            part = content
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(bytes(part))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server for the files of ``tmp_path``, on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_WithRanges, directory=str(tmp_path))) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_address[1]}"
        web.shutdown()


def test_an_address_is_mapped_into_the_current_folder(
    run: Run, tmp_path: Path, model: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = random_scene(tmp_path / "far.tif", 20, 30)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = run("cloudmask", f"{server}/far.tif", "--model", model, "--allow-network", "--json")
    assert done.code == 0, done.err
    item = json.loads((tmp_path / "here" / "far_cloudmask.json").read_text())
    assert item["links"][0] == {"rel": "derived_from", "href": f"{server}/far.tif", "title": "far.tif"}
    np.testing.assert_array_equal(read(tmp_path / "here" / "far_cloudmask.tif")[0], expected)
    assert json.loads(done.out)["scene"] == f"{server}/far.tif"


@pytest.mark.parametrize("command", [["classify"], ["cloudmask"], ["evaluate"], ["scene", "info"]], ids=" ".join)
def test_the_help_names_every_sensor(run: Run, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    text = run(*command, "--help").out
    assert [name for name in sensors() if name not in text] == []


def test_evaluate_knows_the_sensors_too(run: Run, tmp_path: Path, model: Path) -> None:
    done = run("evaluate", model, tmp_path, "--sensor", "sentinel-9")
    assert done.code == 2
    assert "landsat-8" in done.err


def test_the_page_about_scenes_names_only_options_that_exist_and_all_that_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    offered = set(re.findall(r"--[a-z-]+[a-z]", run("cloudmask", "--help").out + run("scene", "info", "--help").out))
    told = set(re.findall(r"--[a-z-]+[a-z]", PAGE.read_text(encoding="utf-8")))
    assert told <= offered
    reading = set(re.findall(r"--[a-z-]+[a-z]", run("cloudmask", "--help").out.partition("Reading the scene")[2]))
    assert reading <= told


def test_the_example_of_the_page_about_scenes_prints_what_stands_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = PAGE.read_text(encoding="utf-8").partition("```console\n$ geoseg ")[2].partition("```")[0]
    command, _, expected = block.partition("\n")
    monkeypatch.chdir(PAGE.parents[1])
    assert run(*command.split()).out == expected


ESCAPES = "a\x1b]0;owned\x07\x1b[31m\u202e.tif"
"""A name that a terminal would take for orders."""


def test_control_characters_in_a_name_reach_neither_the_terminal_nor_the_map(
    run: Run, model: Path, tmp_path: Path
) -> None:
    scene = tmp_path / ESCAPES
    random_scene(scene, 20, 30)
    given = (scene, "--model", model, "-o", tmp_path / "map.tif")
    done = run("cloudmask", *given, "-v")
    assert (done.code, done.out) == (0, f"{tmp_path / 'map.tif'}\n")
    assert "a\\x1b]0;owned\\x07\\x1b[31m\\u202e.tif" in done.err
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["GEOSEG_INPUT"] == "a\\x1b]0;owned\\x07\\x1b[31m\\u202e.tif"
    again = run("cloudmask", *given)
    gone = run("cloudmask", tmp_path / "b\x1b[2J.tif", "--model", model)
    several = run("cloudmask", tmp_path / "b\x1b[2J.tif", tmp_path / "c\x1b[2J.tif", "--model", model)
    told = run("scene", "info", scene)
    refused = run("scene", "info", tmp_path / "b\x1b[2J.tif")
    assert (again.code, gone.code, several.code, told.code, refused.code) == (73, 66, 1, 0, 66)
    for one in (done, again, gone, several, told, refused):
        assert not {"\x1b", "\x07", "\u202e"} & set(one.out + one.err)


def test_a_name_that_is_too_long_for_the_map_is_told(run: Run, model: Path, tmp_path: Path) -> None:
    scene = tmp_path / "a.tif"
    random_scene(scene, 20, 30)
    for options in ((), ("--dry-run",), ("--overwrite",)):
        done = run("cloudmask", scene, "--model", model, "-o", tmp_path / f"{'m' * 300}.tif", *options)
        assert done.code == 73
        assert "too long" in done.err


def test_a_band_that_was_filled_is_told_and_tagged(run: Run, tmp_path: Path, model: Path) -> None:
    random_scene(tmp_path / "scene.tif", 30, 30)
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model, "--fill", "nir=0.25", "-o", tmp_path / "map.tif")
    assert "nir filled with 0.25" in done.err
    with rasterio.open(tmp_path / "map.tif") as made:
        rows = {row["band"]: row for row in json.loads(made.tags()["GEOSEG_BANDS"])}
    assert rows["nir"] == {"band": "nir", "index": None, "name": None, "filled": 0.25}
    assert "filled" not in rows["red"]
