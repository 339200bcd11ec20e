"""``classify`` and ``cloudmask``: what goes where, what is refused, what is left behind."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg_cli.cli.commands import COMMANDS, load_command
from tests.cli.conftest import Run
from tests.test_predict import random_scene, read, write_scene


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    folder.mkdir()
    random_scene(folder / "scene.tif", 90, 70)
    return folder / "scene.tif"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_stdout_carries_only_the_output_path(run: Run, scene: Path, model: Path) -> None:
    done = run("cloudmask", scene, "--model", model)
    assert (done.code, done.out) == (0, f"{scene.parent / 'scene_cloudmask.tif'}\n")
    assert "radiometry" in done.err
    assert "Thick cloud" in done.err
    sidecars = {"scene_cloudmask.tif.aux.xml", "scene_cloudmask.qml", "scene_cloudmask.json"}
    assert names(scene.parent) == {"scene.tif", "scene_cloudmask.tif"} | sidecars


def test_no_sidecar_writes_the_map_alone_and_the_report_lists_what_lies_beside(
    run: Run, scene: Path, model: Path
) -> None:
    report = json.loads(run("cloudmask", scene, "--model", model, "--json").out)
    beside = {Path(path).name for path in report["sidecars"].values()}
    assert names(scene.parent) == {"scene.tif", "scene_cloudmask.tif"} | beside
    alone = json.loads(run("cloudmask", scene, "--model", model, "--json", "--overwrite", "--no-sidecar").out)
    assert alone["sidecars"] == {}
    assert names(scene.parent) == {"scene.tif", "scene_cloudmask.tif"}, "those of the older map went with it"


def test_a_report_cannot_be_sent_to_where_the_item_goes(
    run: Run, scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``geoseg cloudmask scene.tif --json > scene_cloudmask.json``: the item would take the report's place."""
    report = scene.with_name("scene_cloudmask.json")
    for extra, code in ((["--overwrite"], 2), (["--no-sidecar"], 0)):
        with open(report, "w") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            done = run("cloudmask", scene, "--model", model, "--json", *extra)
        assert done.code == code, done.err
    assert json.loads(report.read_text())["sidecars"] == {}


def test_quiet_says_nothing_but_the_path(run: Run, scene: Path, model: Path) -> None:
    done = run("cloudmask", scene, "--model", model, "-q")
    assert done.err == ""
    assert done.out.endswith("scene_cloudmask.tif\n")


def test_json_is_one_report_a_line(run: Run, scene: Path, model: Path) -> None:
    random_scene(scene.with_name("other.tif"), 30, 30)
    done = run("cloudmask", scene.parent, "--model", model, "--json")
    # Lines come as scenes end, which is not always as they began.
    reports = sorted(map(json.loads, done.out.splitlines()), key=lambda report: str(report["outputs"]["labels"]))
    assert [Path(report["outputs"]["labels"]).name for report in reports] == [
        "other_cloudmask.tif",
        "scene_cloudmask.tif",
    ]
    assert reports[1]["size_px"] == [90, 70]
    assert reports[1]["bands"][0] == {"band": "red", "index": 1, "name": "red"}
    assert sum(row["pixels"] for row in reports[1]["classes"]) == reports[1]["valid_pixels"]


def test_no_progress_bar_and_no_escape_codes_when_stderr_is_no_terminal(run: Run, scene: Path, model: Path) -> None:
    done = run("cloudmask", scene, "--model", model)
    assert "\x1b" not in done.err
    assert "%|" not in done.err


def test_a_dry_run_prints_the_plan_and_writes_nothing(run: Run, scene: Path, model: Path) -> None:
    done = run("cloudmask", scene, "--model", model, "--dry-run")
    assert (done.code, done.out) == (0, "")
    assert "tiles: 4 of 64 x 64 px" in done.err
    assert names(scene.parent) == {"scene.tif"}
    plan = json.loads(run("cloudmask", scene, "--model", model, "--dry-run", "--json").out)
    assert (plan["tiles"], plan["tile_px"]) == (4, [64, 64])


def test_a_folder_stands_for_its_scenes_without_earlier_outputs(run: Run, scene: Path, model: Path) -> None:
    random_scene(scene.with_name("b.TIFF"), 20, 20)
    (scene.parent / "notes.txt").write_text("no scene")
    first = run("cloudmask", scene.parent, "--model", model)
    assert first.out.count("\n") == 2
    again = run("cloudmask", scene.parent, "--model", model, "--overwrite")
    assert (again.code, sorted(again.out.split())) == (0, sorted(first.out.split()))


def test_one_bad_scene_of_several_is_named_and_the_others_are_done(run: Run, scene: Path, model: Path) -> None:
    bad = scene.with_name("bad.tif")
    bad.write_text("this is text")
    done = run("cloudmask", bad, scene, "--model", model, "--json")
    reports = [json.loads(line) for line in done.out.splitlines()]
    failure, report = sorted(reports, key=lambda report: report["status"] != "failed")
    assert done.code == 1
    assert failure["error"]["exit_code"] == 65
    assert report["outputs"]["labels"].endswith("scene_cloudmask.tif")
    assert "bad.tif: failed (code 65)" in done.err
    assert "1 of 2 scenes failed" in done.err


def test_one_scene_of_a_folder_is_told_in_the_singular(run: Run, scene: Path, model: Path) -> None:
    done = run("cloudmask", scene.parent, "--model", model)
    assert "\n1 scene: 1 done" in done.err
    assert run("batch", "status", scene.parent).out == "1 scene: 1 done\n"
    bad = scene.parent / "bad"
    bad.mkdir()
    (bad / "bad.tif").write_bytes(scene.read_bytes()[:300])
    assert "1 of 1 scene failed" in run("cloudmask", bad, "--model", model).err


def test_out_dir_collects_the_outputs(run: Run, scene: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    done = run("cloudmask", scene, "--model", model, "--out-dir", tmp_path / "maps")
    assert done.out == f"{tmp_path / 'maps' / 'scene_cloudmask.tif'}\n"


def test_options_reach_the_run(run: Run, scene: Path, model: Path, tmp_path: Path) -> None:
    done = run(
        *("cloudmask", scene, "--model", model, "--json", "-o", tmp_path / "map.tif", "--tile", 32, "--overlap", 8),
        *("--blend", "trim", "--batch", 3, "--co", "COMPRESS=ZSTD", "--probabilities", tmp_path / "p.tif"),
        *(
            "--confidence",
            tmp_path / "c.tif",
            "--entropy",
            tmp_path / "e.tif",
            "--bounds",
            "499990,4899300,500500,4900010",
        ),
    )
    report = json.loads(done.out)
    assert (report["tile_px"], report["overlap_px"], report["blend"], report["batch"]) == ([32, 32], 8, "trim", 3)
    assert set(report["outputs"]) == {"labels", "probabilities", "confidence", "entropy"}
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.compression.name == "zstd"
        assert (made.read(1)[0] == 255).all()


def test_band_names_on_the_command_line_decide(run: Run, tmp_path: Path, model: Path) -> None:
    rng = np.random.default_rng(2)
    red, other = rng.integers(0, 4, (20, 20)), rng.integers(0, 4, (20, 20))
    scene = tmp_path / "unnamed.tif"
    with rasterio.open(
        scene, "w", driver="GTiff", dtype="uint16", count=2, height=20, width=20, crs="EPSG:32631",
        transform=Affine(10, 0, 5e5, 0, -10, 4e6),
    ) as file:  # fmt: skip
        file.write((np.stack([other, red]) * 5000).astype(np.uint16))
    refused = run("cloudmask", scene, "--model", model, "--radiometry", "dn")
    assert refused.code == 65
    assert "wanted" in refused.err
    assert "--bands" in refused.err
    done = run("cloudmask", scene, "--model", model, "--radiometry", "dn", "--bands", "-,B04", "-q")
    assert done.code == 0
    np.testing.assert_array_equal(read(tmp_path / "unnamed_cloudmask.tif")[0], red)


def test_numbers_of_unknown_meaning_are_refused_with_the_ways_to_say_it(run: Run, tmp_path: Path, model: Path) -> None:
    random_scene(tmp_path / "scene.tif", 20, 20)
    with rasterio.open(tmp_path / "scene.tif", "r+") as file:
        file.scales = (1.0,)
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model)
    assert done.code == 65
    assert "--radiometry dn-1000" in done.err


def test_source_date_epoch_makes_the_output_reproducible(
    run: Run, scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = []
    for _ in range(2):
        run("cloudmask", scene, "--model", model, "--overwrite")
        made.append(scene.with_name("scene_cloudmask.tif").read_bytes())
    assert made[0] == made[1]
    with rasterio.open(scene.with_name("scene_cloudmask.tif")) as file:
        assert file.tags()["TIFFTAG_DATETIME"] == "2023:11:14 22:13:20"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "a.tif", "--out-dir", "b"],
        ["--batch", "0"],
        ["--batch", "many"],
        ["--nodata", "black"],
        ["--bounds", "1 2 3"],
        ["--bounds", "3 2 1 4"],
        ["--co", "COMPRESS"],
        ["--co", "COMPRES=LZW"],
        ["--tile", "33"],
        ["--tile", "64", "--overlap", "40"],
        ["--blend", "cosine"],
        ["--nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_writes_nothing(run: Run, scene: Path, model: Path, arguments: list[str]) -> None:
    done = run("cloudmask", scene, "--model", model, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err
    assert names(scene.parent) == {"scene.tif"}


def test_one_output_name_for_several_scenes_is_refused(run: Run, scene: Path, model: Path) -> None:
    for option in ("--output", "--probabilities", "--confidence", "--entropy", "--seams", "--polygons"):
        assert run("cloudmask", scene, scene, "--model", model, option, "x.tif").code == 2


def test_scenes_whose_maps_would_replace_each_other_are_refused(run: Run, scene: Path, model: Path) -> None:
    other = scene.parent / "deeper"
    other.mkdir()
    shutil.copy(scene, other)
    (scene.parent / "maps").mkdir()
    for more in ([], ["--overwrite"]):
        done = run("cloudmask", scene, other / scene.name, "--model", model, "--out-dir", scene.parent / "maps", *more)
        assert done.code == 2
        assert "both" in done.err
    assert names(scene.parent / "maps") == set()


def test_a_bundle_for_another_task_is_refused(run: Run, scene: Path, model: Path) -> None:
    done = run("classify", scene, "--model", model)
    assert done.code == 2
    assert "is for cloud" in done.err


def _missing(folder: Path) -> Path:
    return folder / "absent.tif"


def _folder(folder: Path) -> Path:
    (folder / "inner").mkdir()
    return folder / "inner"


def _text(folder: Path) -> Path:
    (folder / "text.tif").write_text("this is text")
    return folder / "text.tif"


def _truncated(folder: Path) -> Path:
    random_scene(folder / "cut.tif", 400, 400)
    content = (folder / "cut.tif").read_bytes()
    (folder / "cut.tif").write_bytes(content[: len(content) // 2])
    return folder / "cut.tif"


def _vrt(folder: Path) -> Path:
    (folder / "vrt.tif").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"'
        ' subClass="VRTRawRasterBand"><SourceFilename>/etc/passwd</SourceFilename></VRTRasterBand></VRTDataset>'
    )
    return folder / "vrt.tif"


def _control_points(folder: Path) -> Path:
    path = folder / "gcps.tif"
    random_scene(path, 20, 20)
    points = [
        rasterio.control.GroundControlPoint(r, c, 5e5 + 10 * c, 4e6 - 10 * r) for r, c in ((0, 0), (0, 9), (9, 0))
    ]
    pixels = read(path)
    with rasterio.open(path, "w", driver="GTiff", dtype="uint16", count=1, height=20, width=20) as file:
        file.write(pixels)
        file.gcps = (points, rasterio.crs.CRS.from_epsg(32631))
        file.set_band_description(1, "red")
    return path


def _rendered(folder: Path) -> Path:
    path = folder / "rgb.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=3, height=20, width=20, crs="EPSG:32631",
        transform=Affine(10, 0, 5e5, 0, -10, 4e6), photometric="RGB",
    ) as file:  # fmt: skip
        file.write(np.full((3, 20, 20), 9, np.uint8))
        for index, name in enumerate(("red", "green", "blue"), start=1):
            file.set_band_description(index, name)
    return path


def _wrong_bands(folder: Path) -> Path:
    random_scene(folder / "green.tif", 20, 20)
    with rasterio.open(folder / "green.tif", "r+") as file:
        file.set_band_description(1, "green")
    return folder / "green.tif"


def _coarse(folder: Path) -> Path:
    random_scene(folder / "coarse.tif", 20, 20, transform=Affine(300, 0, 5e5, 0, -300, 4e6))
    return folder / "coarse.tif"


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (_missing, 66, "absent.tif"),
        (_folder, 66, "no GeoTIFF"),
        (_text, 65, "text.tif"),
        (_truncated, 74, "cut.tif"),
        (_vrt, 65, "vrt.tif"),
        (_control_points, 65, "gdalwarp"),
        (_rendered, 65, "8-bit"),
        (_wrong_bands, 65, "red"),
        (_coarse, 65, "--gsd"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).strip("_"),
)
def test_bad_input_has_its_code_a_remedy_and_leaves_nothing(
    run: Run, tmp_path: Path, model: Path, make: object, code: int, words: str
) -> None:
    assert callable(make)
    folder = tmp_path / "in"
    folder.mkdir()
    scene = make(folder)
    before = names(folder)
    done = run("cloudmask", scene, "--model", model)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "\n  -> " in done.err, "no remedy"
    assert "Traceback" not in done.err
    assert names(folder) == before


def test_a_folder_without_scenes_is_named(run: Run, tmp_path: Path) -> None:
    from geoseg_cli.catalog import legends
    from tests.fakes.bundles import card_fields

    model = tmp_path / "land"
    model.mkdir()
    legend = legends()["esa-worldcover"].subset([10, 30, 40, 50])
    (model / "item.json").write_text(json.dumps(card_fields(legend, task="land-cover")))
    done = run("classify", tmp_path, "--model", model)
    assert done.code == 66
    assert "\n  -> " in done.err


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_tiny_scenes_are_mapped(run: Run, tmp_path: Path, model: Path, shape: tuple[int, int]) -> None:
    expected = random_scene(tmp_path / "s.tif", *shape)
    done = run("cloudmask", tmp_path / "s.tif", "--model", model, "-q")
    assert done.code == 0
    np.testing.assert_array_equal(read(tmp_path / "s_cloudmask.tif")[0], expected)


def test_a_scene_without_crs_is_mapped_with_a_warning(run: Run, tmp_path: Path, model: Path) -> None:
    expected = random_scene(tmp_path / "s.tif", 30, 30, crs=None)
    done = run("cloudmask", tmp_path / "s.tif", "--model", model)
    assert done.code == 0
    assert done.err.count("no CRS:") == 1
    np.testing.assert_array_equal(read(tmp_path / "s_cloudmask.tif")[0], expected)


def test_nan_is_nodata_whatever_the_file_says(run: Run, tmp_path: Path, model: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (40, 40))
    pixels = (labels * 0.5).astype(np.float32)
    pixels[3:9, 5:20] = np.nan
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", dtype="float32", count=1, height=40, width=40, nodata=np.nan,
        crs="EPSG:32631", transform=Affine(10, 0, 5e5, 0, -10, 4e6),
    ) as file:  # fmt: skip
        file.write(pixels, 1)
        file.set_band_description(1, "B04")
    assert run("cloudmask", tmp_path / "s.tif", "--model", model, "-q").code == 0
    np.testing.assert_array_equal(read(tmp_path / "s_cloudmask.tif")[0], np.where(np.isnan(pixels), 255, labels))


def test_an_existing_output_needs_overwrite(run: Run, scene: Path, model: Path) -> None:
    output = scene.with_name("scene_cloudmask.tif")
    output.write_bytes(b"old")
    done = run("cloudmask", scene, "--model", model)
    assert done.code == 73
    assert "--overwrite" in done.err
    assert output.read_bytes() == b"old"
    assert run("cloudmask", scene, "--model", model, "--overwrite").code == 0
    assert output.read_bytes() != b"old"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["absent.tif"], 66),
        (["no-scene.tif"], 65),
        (["picture.tif"], 65),
        (["scene.tif", "-o", "old.tif"], 73),
        (["scene.tif", "-o", "absent/map.tif"], 73),
        (["scene.tif", "-o", "map.tif", "--confidence", "old.tif"], 73),
        (["scene.tif", "-o", "scene.tif", "--overwrite"], 2),
    ],
)
def test_no_engine_is_waited_for_where_a_scene_or_an_output_is_no_good(
    run: Run, scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    import geoseg_cli.engines

    started: list[object] = []
    monkeypatch.setattr(geoseg_cli.engines, "choose_engine", lambda bundle, options: started.append(bundle))
    monkeypatch.chdir(scene.parent)
    Path("old.tif").write_bytes(b"old")
    Path("no-scene.tif").write_bytes(b"no scene")
    with rasterio.open("picture.tif", "w", driver="GTiff", count=3, height=9, width=9, dtype="uint8") as file:
        file.write(np.ones((3, 9, 9), np.uint8))
    done = run("cloudmask", *arguments, "--model", model, "--engine", "onnx")
    assert (done.code, started) == (code, []), done.err


@pytest.mark.parametrize("which", ["scene_cloudmask.tif", "confidence.tif"])
def test_a_map_that_is_given_as_scene_is_called_a_map(run: Run, scene: Path, model: Path, which: str) -> None:
    confidence = scene.with_name("confidence.tif")
    assert run("cloudmask", scene, "--model", model, "--confidence", confidence).code == 0
    for command in (("cloudmask", "--model", model), ("scene", "info")):
        done = run(*command, scene.with_name(which))
        assert done.code == 65
        assert f"{which} is no scene: its tags say that geoseg" in done.err
        assert "-> give what it was made from, scene.tif; geoseg areas" in done.err


def test_the_scene_itself_is_never_the_output(run: Run, scene: Path, model: Path) -> None:
    before = scene.read_bytes()
    assert run("cloudmask", scene, "--model", model, "-o", scene, "--overwrite").code == 2
    assert scene.read_bytes() == before


def test_a_missing_output_folder_is_named(run: Run, scene: Path, model: Path, tmp_path: Path) -> None:
    done = run("cloudmask", scene, "--model", model, "--out-dir", tmp_path / "nowhere")
    assert done.code == 73
    assert "mkdir" in done.err


def test_a_folder_without_write_permission_is_named(
    run: Run, scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission bits do not stop root, so the answer of the operating system is replaced."""
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and allowed(path, mode))
    done = run("cloudmask", scene, "--model", model)
    assert done.code == 77
    assert names(scene.parent) == {"scene.tif"}


def test_a_disk_without_room_is_refused_before_anything_is_computed(
    run: Run, scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geoseg_cli.results.commit

    monkeypatch.setattr(geoseg_cli.results.commit, "free_bytes", lambda folder: 100)
    done = run("cloudmask", scene, "--model", model)
    assert done.code == 74
    assert "make room" in done.err
    assert names(scene.parent) == {"scene.tif"}


def test_a_bug_is_one_line_and_70_with_a_traceback_only_on_request(
    run: Run, scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geoseg_cli.engines

    def broken(bundle: object, options: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(geoseg_cli.engines, "choose_engine", broken)
    done = run("cloudmask", scene, "--model", model)
    assert done.code == 70
    assert "ZeroDivisionError" in done.err
    assert "Traceback" not in done.err
    with pytest.raises(ZeroDivisionError):
        run("cloudmask", scene, "--model", model, "-vv")


def test_a_name_with_blanks_signs_and_a_colon_works(run: Run, scene: Path, model: Path) -> None:
    odd = scene.with_name("http:x #1 %20 ü.tif")
    shutil.copy(scene, odd)
    done = run("cloudmask", odd, "--model", model, "-q")
    assert done.code == 0
    assert done.out == f"{odd.with_name('http:x #1 %20 ü_cloudmask.tif')}\n"


def test_all_nodata_gives_an_all_nodata_map(run: Run, tmp_path: Path, model: Path) -> None:
    write_scene(tmp_path / "s.tif", np.zeros((50, 50), int), np.zeros((50, 50), bool))
    assert run("cloudmask", tmp_path / "s.tif", "--model", model).code == 0
    assert (read(tmp_path / "s_cloudmask.tif") == 255).all()


def test_every_help_text_renders(run: Run) -> None:
    for command in ([], ["classify"], ["cloudmask"], ["models"], ["models", "list"], ["models", "show"], ["doctor"]):
        done = run(*command, "--help")
        assert done.code == 0
        assert "Usage" in done.out


def test_doctor_says_how_several_gpus_are_used_together(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from geoseg_cli import engines
    from geoseg_cli.engines import EngineStatus

    gpus = ("cpu", "cuda:0", "cuda:1", "cuda:2")
    found = [EngineStatus("torch", True, gpus, "2"), EngineStatus("onnx", True, gpus[:2], "1", "a reason")]
    monkeypatch.setattr(engines, "available_engines", lambda: found)
    lines = run("doctor").out.splitlines()
    assert "engine torch: runs on cpu, cuda:0, cuda:1, cuda:2; together: --device cuda:0,1,2" in lines
    assert "engine onnx: runs on cpu, cuda:0 (a reason)" in lines


def test_the_version_is_printed_by_the_tool_and_its_commands(run: Run) -> None:
    from geoseg_cli.version import __version__

    for arguments in (["--version"], ["classify", "--version"], ["cloudmask", "--version"]):
        assert run(*arguments).out == f"geoseg {__version__}\n"


def test_values_that_are_empty_or_no_numbers_are_refused(run: Run, scene: Path, model: Path) -> None:
    for option, value in (("--bounds", ""), ("--bands", " "), ("--batch", "²"), ("--bounds", "-inf -inf inf inf")):
        assert run("cloudmask", scene, "--model", model, option, value).code == 2
    assert run("cloudmask", scene, "--model", "").code == 2


def test_a_nodata_that_no_pixel_can_hold_is_refused(run: Run, scene: Path, model: Path) -> None:
    for value in ("-9999", "0.5", "70000", "nan"):
        done = run("cloudmask", scene, "--model", model, "--nodata", value)
        assert done.code == 2
        assert "uint16" in done.err


def test_a_dry_run_refuses_what_the_run_would_refuse(run: Run, scene: Path, model: Path) -> None:
    assert run("cloudmask", scene, "--model", model, "--dry-run", "-o", scene).code == 2
    assert run("cloudmask", scene, "--model", model, "--dry-run", "--co", "LEVEL=x").code == 2
    scene.with_name("scene_cloudmask.tif").write_bytes(b"old")
    assert run("cloudmask", scene, "--model", model, "--dry-run").code == 73


@pytest.mark.parametrize("option", ["BLOCKSIZE=abc", "BLOCKSIZE=-512", "BLOCKSIZE=17", "LEVEL=99", "NUM_THREADS=foo"])
def test_creation_options_that_gdal_would_choke_on_are_refused_at_once(
    run: Run, scene: Path, model: Path, option: str
) -> None:
    assert run("cloudmask", scene, "--model", model, "--co", option).code == 2
    assert names(scene.parent) == {"scene.tif"}


def test_a_map_never_replaces_another_scene_of_the_run(run: Run, scene: Path, model: Path) -> None:
    other = scene.with_name("scene_cloudmask.tif")
    shutil.copy(scene, other)
    before = other.read_bytes()
    assert run("cloudmask", scene, other, "--model", model, "--overwrite").code == 2
    assert other.read_bytes() == before


def test_a_pipe_is_no_place_for_a_map(run: Run, scene: Path, model: Path) -> None:
    pipe = scene.with_name("pipe.tif")
    os.mkfifo(pipe)
    done = run("cloudmask", scene, "--model", model, "-o", pipe, "--overwrite")
    assert done.code == 73
    assert pipe.is_fifo()


def test_a_bug_in_one_scene_does_not_cost_the_others_their_maps(
    run: Run, scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geoseg_cli.predict

    good = geoseg_cli.predict.predict_scene

    def sometimes(path: Path, *rest: object, **more: object) -> object:
        if path.name == "bad.tif":
            raise ZeroDivisionError("oops")
        return good(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(geoseg_cli.predict, "predict_scene", sometimes)
    shutil.copy(scene, scene.with_name("bad.tif"))
    done = run("cloudmask", scene.with_name("bad.tif"), scene, "--model", model)
    assert done.code == 1
    assert "ZeroDivisionError" in done.err
    assert done.out == f"{scene.parent / 'scene_cloudmask.tif'}\n"


def test_a_single_failing_scene_has_its_json_too(run: Run, tmp_path: Path, model: Path) -> None:
    done = run("cloudmask", tmp_path / "absent.tif", "--model", model, "--json")
    assert done.code == 66
    assert json.loads(done.out)["error"]["exit_code"] == 66


def test_the_world_file_of_the_scene_survives_a_map_of_the_same_stem(run: Run, scene: Path, model: Path) -> None:
    scene = scene.rename(scene.with_suffix(".tiff"))
    world = scene.with_suffix(".tfw")
    world.write_text("10\n0\n0\n-10\n0\n0\n")
    done = run("cloudmask", scene, "--model", model, "-o", scene.with_suffix(".tif"))
    assert done.code == 0
    assert world.exists()
    assert "scene.tfw beside the scene is not read" in done.err


@pytest.mark.parametrize(("bands", "nodata"), [(2, None), (3, None), (4, 65_535), (5, None)])
def test_pixels_below_a_transparent_alpha_band_are_nodata(
    run: Run, tmp_path: Path, model: Path, bands: int, nodata: int | None
) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (30, 40))
    opaque = np.ones((30, 40), bool)
    opaque[5:20, 8:30] = False
    planes = np.zeros((bands, 30, 40), np.uint16)
    planes[0], planes[-1] = labels * 5000, opaque * 65_534
    path = tmp_path / "alpha.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=bands, height=30, width=40, crs="EPSG:32631", nodata=nodata,
        transform=Affine(10, 0, 5e5, 0, -10, 4e6), alpha="UNSPECIFIED",
    ) as file:  # fmt: skip
        # Before the pixels: TIFF tells alpha in its header.
        file.colorinterp = [rasterio.enums.ColorInterp.undefined] * (bands - 1) + [rasterio.enums.ColorInterp.alpha]
        file.set_band_description(1, "red")
        file.write(planes)
    assert run("cloudmask", path, "--model", model, "--radiometry", "dn", "-q").code == 0
    np.testing.assert_array_equal(read(tmp_path / "alpha_cloudmask.tif")[0], np.where(opaque, labels, 255))


def test_a_dry_run_tells_what_memory_the_run_would_take(run: Run, scene: Path, model: Path) -> None:
    done = run("cloudmask", scene, "--model", model, "--dry-run", "--max-memory", "1.5G")
    assert "MiB of 1,536 MiB" in done.err
    assert "what is read of the scene:" in done.err
    plan = json.loads(run("cloudmask", scene, "--model", model, "--dry-run", "--json", "--batch", 3).out)["memory"]
    assert plan["batch"] == 3
    assert plan["total_bytes"] == sum(plan["parts_bytes"].values())


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "1e400", "2X"])
def test_memory_that_is_no_size_is_refused(run: Run, scene: Path, model: Path, text: str) -> None:
    done = run("cloudmask", scene, "--model", model, "--max-memory", text)
    assert done.code == 2
    assert "is no size" in done.err


def test_too_little_memory_is_refused_before_anything_is_written(run: Run, scene: Path, model: Path) -> None:
    done = run("cloudmask", scene, "--model", model, "--max-memory", "1M")
    assert done.code == 2
    assert "use --max-memory" in done.err
    assert names(scene.parent) == {"scene.tif"}


@pytest.mark.parametrize("option", [("--clouds-as", "class"), ("--cloud-model", "cloud-lale")])
def test_what_says_how_clouds_are_masked_needs_the_wish_to_mask_them(
    run: Run, tmp_path: Path, option: tuple[str, str]
) -> None:
    done = run("classify", tmp_path / "scene.tif", *option)
    assert done.code == 2
    assert "add --mask-clouds" in done.err


def test_a_bundle_for_land_cover_cannot_mask(run: Run, tmp_path: Path) -> None:
    done = run("classify", tmp_path / "scene.tif", "--mask-clouds", "--cloud-model", "landcover-lale")
    assert done.code == 2
    assert "choose another --cloud-model" in done.err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_begins_its_own_help(name: str) -> None:
    own = load_command(name).help
    assert own is not None
    assert " ".join(own.split("\n\n")[0].split()) == COMMANDS[name]


def test_the_help_of_all_commands_imports_none_of_them() -> None:
    program = (
        "import sys\nfrom geoseg_cli.cli import main\n"
        "try:\n    main(['--help'], 'geoseg')\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('geoseg_cli.cli.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stderr))
    assert not {f"geoseg_cli.cli.{name}" for name in COMMANDS} & loaded
    assert all(name in done.stdout for name in COMMANDS)
