"""An int8 graph as a file of a bundle: what the card says of it, what runs it, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg_cli.bundle import INT8_GRAPH, Bundle, sha256_of
from geoseg_cli.engines.fidelity import compare_labels, held_out_fidelity, held_out_speed
from geoseg_cli.engines.onnx_engine import OnnxEngine
from geoseg_cli.errors import AccessError, ModelError, UsageError
from geoseg_cli.export.into_bundle import GRAPH_FILE, Int8Report, put_int8_into
from geoseg_cli.export.readme import describe_in_words
from geoseg_cli.export.single_file import ExportOptions
from geoseg_cli.export.source import Source, open_source
from tests.export.test_calibration import scene
from tests.export.toys import BANDS, CLASSES, Plain, seeded, source_of

INT8 = ExportOptions(precision="int8", least_agreement=0.5)


def copy_source(bundle: Bundle, folder: Path) -> Source:
    """The small bundle in a folder that may be changed, with a network that exports in a second."""
    shutil.copytree(bundle.folder, folder)
    return replace(open_source(str(folder)), module=seeded(Plain))


def with_scene(folder: Path) -> ExportOptions:
    return replace(INT8, calibration=(scene(folder / "a|scene.tif", 150, 200),))


def metrics(folder: Path) -> dict[str, Any]:
    item = json.loads((folder / "item.json").read_text())
    found: dict[str, Any] = item["properties"]["mlm:hyperparameters"]["geoseg"]["metrics"]
    return found


@pytest.fixture(scope="module")
def done(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Int8Report]:
    """A bundle with a graph that was calibrated with half of the tiles of a scene."""
    folder = tmp_path_factory.mktemp("into")
    source = copy_source(small_bundle, folder / "small")
    report = put_int8_into(source, with_scene(folder))
    return Bundle.open(folder / "small"), report


def test_the_card_names_the_graph_with_its_hash_and_what_it_was_calibrated_with(
    done: tuple[Bundle, Int8Report], small_bundle: Bundle
) -> None:
    bundle, report = done
    graph = bundle.file(INT8_GRAPH)
    assert report.export.files == (bundle.folder / GRAPH_FILE,)
    assert (graph.name, bundle.sha256(INT8_GRAPH)) == (GRAPH_FILE, sha256_of(bundle.folder / GRAPH_FILE))
    asset = json.loads((bundle.folder / "item.json").read_text())["assets"][INT8_GRAPH]
    assert (asset["roles"], asset["mlm:artifact_type"]) == (["mlm:model"], "onnx")
    assert [band["name"] for band in asset["bands"]] == list(BANDS.bands)
    assert asset["description"].startswith("calibrated with every other of ")
    assert "golden tiles, judged by the rest (scenes: a_scene.tif); " in asset["description"]
    assert f"{report.export.parity.labels:.3%} of {report.export.parity.pixels:,} pixels keep" in asset["description"]
    for name in ("weights", "onnx", "golden"):
        assert bundle.file(name).read_bytes() == small_bundle.file(name).read_bytes()
    names = {path.name for path in bundle.folder.iterdir()}
    assert names == {path.name for path in small_bundle.folder.iterdir()} | {GRAPH_FILE}


def test_the_file_tells_nothing_of_where_it_was_made(done: tuple[Bundle, Int8Report]) -> None:
    content = done[0].file(INT8_GRAPH).read_bytes()
    for word in (str(Path(__file__).resolve().parents[2]), str(done[0].folder), "site-packages", ".part-"):
        assert word.encode() not in content


def test_the_readme_follows_the_card(done: tuple[Bundle, Int8Report]) -> None:
    bundle, _ = done
    text = (bundle.folder / "README.md").read_text()
    assert text == describe_in_words(bundle.card)
    assert "| `--precision int8` | calibrated with every other of " in text


def test_the_figures_are_those_of_tiles_that_had_no_part_in_the_calibration(done: tuple[Bundle, Int8Report]) -> None:
    bundle, report = done
    assert "onnx" in {one.engine for one in report.figures}
    samples = report.export.held_out
    engine = OnnxEngine(bundle, precision="int8")
    # The scene has no pixel without a value, but its dark ones look like that: the mean of this bundle is 0.
    counts = np.concatenate([((one.pixels[:, 0] != 0) | (one.pixels[:, 1] != 0)).ravel() for one in samples])
    found = np.concatenate([engine.run(one.pixels).argmax(1).ravel() for one in samples])[counts]
    wanted = np.concatenate([one.wanted.argmax(1).ravel() for one in samples])[counts]
    assert len(wanted) > 20_000
    assert held_out_fidelity(bundle, "onnx", "int8") == compare_labels(wanted, found, CLASSES)
    assert 0.5 < (wanted == found).mean() < 1
    for one in report.figures:
        row = metrics(bundle.folder)["precisions"][f"{one.engine} int8"]
        assert row["tiles"] == one.tiles == len(samples) >= 2
        assert held_out_speed(bundle, one.engine, "int8") == round(one.speed, 3) > 0


def test_without_scenes_there_are_no_figures_that_auto_would_go_by(
    done: tuple[Bundle, Int8Report], small_bundle: Bundle, tmp_path: Path
) -> None:
    """And those of the graph that it replaces are gone, while others stay."""
    source = copy_source(done[0], tmp_path / "small")
    path = tmp_path / "small" / "item.json"
    item = json.loads(path.read_text())
    rows = item["properties"]["mlm:hyperparameters"]["geoseg"]["metrics"]["precisions"]
    rows["openvino bf16"] = {"same": 0.5, "least_iou": 0.5}
    path.write_text(json.dumps(item))
    assert "onnx int8" in rows
    report = put_int8_into(replace(source, bundle=Bundle.open(path.parent)), INT8)
    assert report.figures == ()
    assert metrics(path.parent)["precisions"] == {"openvino bf16": {"same": 0.5, "least_iou": 0.5}}
    bundle = Bundle.open(path.parent)
    assert bundle.sha256(INT8_GRAPH) == sha256_of(bundle.file(INT8_GRAPH)) != done[0].sha256(INT8_GRAPH)


def test_pixels_without_a_value_do_not_count(small_bundle: Bundle, tmp_path: Path) -> None:
    from geoseg_cli.export.into_bundle import _compare
    from geoseg_cli.export.parity import Sample

    pixels = np.ones((1, 3, 32, 32), np.float32)
    pixels[0, :2, :, 20:] = 0  # no value in any band, but a plane that says that the scene has a band
    engine = OnnxEngine(small_bundle)
    wanted = engine.run(pixels)
    wanted[0, :, :, 20:] = np.roll(wanted[0, :, :, 20:], 1, axis=0)
    assert _compare(engine, small_bundle, [Sample(pixels, wanted)]).same == 1
    wanted[0, :, 0, 0] = np.roll(wanted[0, :, 0, 0], 1)
    assert _compare(engine, small_bundle, [Sample(pixels, wanted)]).same == 1 - 1 / (32 * 20)


def refused(source: Source, options: ExportOptions, error: type[Exception], words: str) -> None:
    """Refused, and the folder of the bundle is as it was."""
    folder = source.bundle.folder if source.bundle else None
    before = {path.name: path.read_bytes() for path in folder.iterdir()} if folder else {}
    with pytest.raises(error, match=words):
        put_int8_into(source, options)
    assert folder is None or {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_cannot_go_into_a_bundle_is_refused_and_changes_nothing(small_bundle: Bundle, tmp_path: Path) -> None:
    source = copy_source(small_bundle, tmp_path / "small")
    refused(source_of(seeded(Plain)), INT8, UsageError, "puts an int8 graph into a bundle")
    refused(source, replace(INT8, precision="fp16"), UsageError, "puts an int8 graph into a bundle")
    refused(source, replace(INT8, least_agreement=1.0), ModelError, "get the class of fp32, less than 100.00%")
    path = tmp_path / "small" / "item.json"
    item = json.loads(path.read_text())
    del item["assets"]["onnx"]
    path.write_text(json.dumps(item))
    refused(replace(source, bundle=Bundle.open(path.parent)), INT8, ModelError, "has no graph in fp32")


def test_a_folder_that_may_not_be_written_to_is_found_before_the_export(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copy_source(small_bundle, tmp_path / "small")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("geoseg_cli.export.into_bundle.tempfile.TemporaryDirectory", deny)
    monkeypatch.setattr("geoseg_cli.export.into_bundle.export_file", None)
    with pytest.raises(AccessError, match=f"cannot write .*{GRAPH_FILE}: Permission denied"):
        put_int8_into(source, INT8)
