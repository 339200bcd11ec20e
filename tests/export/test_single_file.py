"""``export_file``: what may be asked, what is written, and what is not."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.onnx_scan import check_self_contained
from geoseg_cli.errors import EngineError, InputMissingError, ModelError, OutputError, StorageError, UsageError
from geoseg_cli.export import onnx_file
from geoseg_cli.export.onnx_file import open_graph
from geoseg_cli.export.pt2 import open_pt2
from geoseg_cli.export.single_file import ExportOptions, export_file
from geoseg_cli.export.source import Source, open_source
from geoseg_cli.networks import create_network, network_names
from tests.export.test_calibration import scene
from tests.export.toys import CHANNELS, CLASSES, AdaptivePool, Overflow, Plain, TokenLogarithm, draw, seeded, source_of


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}


def logits(source: Source, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        result: np.ndarray = source.module(torch.from_numpy(pixels)).numpy()
    return result


def test_an_onnx_file_of_a_bundle_answers_as_its_weights_do(plain_source: Source, tmp_path: Path) -> None:
    report = export_file(plain_source, tmp_path / "a.onnx")
    assert report.files == (tmp_path / "a.onnx",)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    assert (report.opset, report.parity.labels) == (20, 1.0)
    assert report.parity.shapes == (*report.shapes.checked, *[(1, CHANNELS, 64, 64)] * 3)
    assert report.shapes.traced not in report.parity.shapes
    pixels = draw(3, CHANNELS, 128, 224)
    np.testing.assert_allclose(open_graph(tmp_path / "a.onnx")(pixels), logits(plain_source, pixels), atol=1e-4)
    check_self_contained((tmp_path / "a.onnx").read_bytes(), "a.onnx")


def test_the_file_holds_the_card_and_how_it_came_about(
    plain_source: Source, small_bundle: Bundle, tmp_path: Path
) -> None:
    report = export_file(plain_source, tmp_path / "a.onnx", ExportOptions(opset=18))
    found = metadata(tmp_path / "a.onnx")
    assert found["geoseg"] == (small_bundle.folder / "item.json").read_text()
    facts = json.loads(found["geoseg_export"])
    assert facts["source"] == "small"
    assert (facts["precision"], facts["weights"], facts["channels"]) == ("fp32", "trained", CHANNELS)
    assert facts["label_agreement"] == report.parity.labels
    assert facts["compared_pixels"] == sum(facts["class_pixels"].values()) == report.parity.pixels
    assert list(facts["class_agreement"]) == [cls.name for cls in small_bundle.legend.classes]


def test_the_same_export_gives_the_same_bytes(plain_source: Source, tmp_path: Path) -> None:
    for name in "ab":
        export_file(plain_source, tmp_path / name, ExportOptions(precision="fp16"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_fp16_keeps_the_stated_share_of_labels_and_says_so(plain_source: Source, tmp_path: Path) -> None:
    report = export_file(plain_source, tmp_path / "a.onnx", ExportOptions(precision="fp16"))
    assert report.parity.labels >= 0.999
    assert report.parity.largest_difference > 1e-6
    facts = json.loads(metadata(tmp_path / "a.onnx")["geoseg_export"])
    assert (facts["precision"], facts["label_agreement"]) == ("fp16", report.parity.labels)
    pixels = draw(2, CHANNELS, 96, 64)
    found = open_graph(tmp_path / "a.onnx")(pixels)
    assert (found.argmax(1) == logits(plain_source, pixels).argmax(1)).mean() > 0.998
    half = [t for t in onnx.load(tmp_path / "a.onnx").graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert len(half) == len(list(plain_source.module.parameters()))


def test_fp16_keeps_layers_in_fp32_whose_values_would_overflow(tmp_path: Path) -> None:
    export_file(source_of(seeded(Overflow)), tmp_path / "a.onnx", ExportOptions(precision="fp16"))
    weights = onnx.load(tmp_path / "a.onnx").graph.initializer
    assert onnx.TensorProto.FLOAT16 not in {tensor.data_type for tensor in weights}


def test_int8_with_golden_tiles_says_that_they_judged_themselves(plain_source: Source, tmp_path: Path) -> None:
    options = ExportOptions(precision="int8", least_agreement=0.8)
    report = export_file(plain_source, tmp_path / "a.onnx", options)
    assert "the same 3 golden tiles" in report.calibration
    facts = json.loads(metadata(tmp_path / "a.onnx")["geoseg_export"])
    assert facts["calibration"] == report.calibration
    assert 0.8 <= facts["label_agreement"] == report.parity.labels < 1
    assert metadata(tmp_path / "a.onnx")["geoseg"] == plain_source.card
    check_self_contained((tmp_path / "a.onnx").read_bytes(), "a.onnx")


def test_int8_with_scenes_is_judged_by_tiles_that_it_was_not_calibrated_with(
    plain_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geoseg_cli.export.single_file as module

    seen: dict[str, list[Any]] = {"calibration": [], "judged": []}
    quantise, answer = module.quantise, module.answer
    monkeypatch.setattr(
        module, "quantise", lambda path, tiles, data: seen["calibration"].extend(tiles) or quantise(path, tiles, data)
    )
    monkeypatch.setattr(
        module, "answer", lambda network, batches: seen["judged"].extend(batches) or answer(network, batches)
    )
    options = ExportOptions(
        precision="int8", calibration=(scene(tmp_path / "scene.tif", 90, 150),), least_agreement=0.0
    )
    report = export_file(plain_source, tmp_path / "a.onnx", options)
    used = {tile.tobytes() for tile in seen["calibration"]}
    judged = {batch[0].tobytes() for batch in seen["judged"] if len(batch) == 1}
    assert used
    assert judged
    assert not used & judged
    assert "tiles of the scenes and 3 golden tiles" in report.calibration


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_less_agreement_than_asked_for_leaves_no_file(plain_source: Source, tmp_path: Path, precision: Any) -> None:
    with pytest.raises(ModelError, match=f"in {precision} 9.* get the class of fp32, less than 100.00%") as caught:
        export_file(plain_source, tmp_path / "a.onnx", ExportOptions(precision=precision, least_agreement=1.0))
    assert "--accept-agreement" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_baked_in_size_is_found_before_rounding_can_hide_it(
    plain_source: Source, tmp_path: Path, precision: Any
) -> None:
    trapped = replace(plain_source, module=seeded(TokenLogarithm, True))
    with pytest.raises(ModelError, match="does not answer as the network does"):
        export_file(trapped, tmp_path / "a.onnx", ExportOptions(precision=precision, least_agreement=0.0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("network", [("log", TokenLogarithm, (True,)), ("pool", AdaptivePool, (2,))])
def test_the_silent_traps_leave_an_older_file_as_it_was(tmp_path: Path, network: Any) -> None:
    _, build, arguments = network
    (tmp_path / "a.onnx").write_bytes(b"older")
    with pytest.raises(ModelError, match="does not answer as the network does"):
        export_file(source_of(seeded(build, *arguments)), tmp_path / "a.onnx", ExportOptions(overwrite=True))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a.onnx": b"older"}


def test_pt2_holds_the_card_and_any_size(plain_source: Source, tmp_path: Path) -> None:
    report = export_file(plain_source, tmp_path / "a.pt2", ExportOptions(format="pt2"))
    assert (report.opset, report.parity.labels) == (None, 1.0)
    texts = {"geoseg.json": "", "geoseg_export.json": ""}
    torch.export.load(tmp_path / "a.pt2", extra_files=texts)
    assert texts["geoseg.json"] == plain_source.card
    assert json.loads(texts["geoseg_export.json"])["source"] == "small"
    pixels = draw(3, CHANNELS, 128, 224)
    np.testing.assert_allclose(open_pt2(tmp_path / "a.pt2")(pixels), logits(plain_source, pixels), atol=1e-4)


def test_pt2_with_a_baked_in_size_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not answer as the network does|cannot be exported"):
        export_file(source_of(seeded(TokenLogarithm, True)), tmp_path / "a.pt2", ExportOptions(format="pt2"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_large_weights_are_published_together_with_the_graph(
    plain_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 100)
    options = ExportOptions(precision=precision, least_agreement=None if precision == "fp32" else 0.8)
    report = export_file(plain_source, tmp_path / "a.onnx", options)
    assert report.files == (tmp_path / "a.onnx", tmp_path / "a.onnx.data")
    assert {file.name for file in tmp_path.iterdir()} == {"a.onnx", "a.onnx.data"}
    pixels = draw(1, CHANNELS, 96, 64)
    found, wanted = open_graph(tmp_path / "a.onnx")(pixels), logits(plain_source, pixels)
    assert (found.argmax(1) == wanted.argmax(1)).mean() > (0.999 if precision == "fp32" else 0.8)
    assert "geoseg" in metadata(tmp_path / "a.onnx")


def test_a_data_file_that_is_in_the_way_stops_the_export(
    plain_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 100)
    (tmp_path / "a.onnx.data").write_bytes(b"older")
    with pytest.raises(OutputError, match=r"a\.onnx\.data exists"):
        export_file(plain_source, tmp_path / "a.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx.data"]


def no_export(*given: Any, **options: Any) -> None:
    raise AssertionError("the network was exported")


@pytest.mark.parametrize("target_format", ["onnx", "pt2"])
def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target_format: Any
) -> None:
    import geoseg_cli.export.single_file as module

    def fail(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_graph", fail)
    monkeypatch.setattr(module, "write_pt2", fail)
    with pytest.raises(StorageError, match=r"cannot write .*a: No space left on device"):
        export_file(source_of(seeded(Plain)), tmp_path / "a", ExportOptions(format=target_format))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def without_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be computed before what can be refused at once is refused."""
    monkeypatch.setattr(torch.onnx, "export", no_export)
    monkeypatch.setattr(torch.export, "export", no_export)


@pytest.mark.usefixtures("without_export")
@pytest.mark.parametrize("target_format", ["onnx", "pt2"])
def test_an_existing_file_is_refused_before_anything_is_computed(tmp_path: Path, target_format: Any) -> None:
    (tmp_path / "a").write_bytes(b"older")
    with pytest.raises(OutputError, match="exists already"):
        export_file(source_of(seeded(Plain)), tmp_path / "a", ExportOptions(format=target_format))
    assert (tmp_path / "a").read_bytes() == b"older"


@pytest.mark.usefixtures("without_export")
@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(EngineError, match=f"needs {package}") as caught:
        export_file(source_of(seeded(Plain)), tmp_path / "a.onnx")
    assert caught.value.hint.startswith("pip install 'geoseg[export]'")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_export")
def test_a_file_of_the_bundle_itself_is_never_replaced(small_source: Source, small_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="both input and output"):
        export_file(small_source, small_bundle.file("onnx"), ExportOptions(overwrite=True))
    small_bundle.file("onnx")


@pytest.mark.usefixtures("without_export")
def test_int8_of_a_bare_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="toy is a bare network"):
        export_file(source_of(seeded(Plain)), tmp_path / "a.onnx", ExportOptions(precision="int8"))


@pytest.mark.usefixtures("without_export")
def test_int8_without_golden_tiles_wants_scenes(small_source: Source, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no golden tiles") as caught:
        export_file(replace(small_source, tiles=()), tmp_path / "a.onnx", ExportOptions(precision="int8"))
    assert "--calibration" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"format": "pt2", "precision": "fp16"}, "a pt2 file holds fp32, not fp16"),
        ({"format": "pt2", "precision": "int8"}, "a pt2 file holds fp32, not int8"),
        ({"format": "pt2", "opset": 20}, "pt2 has none"),
        ({"calibration": (Path("a.tif"),)}, "--calibration belongs to int8, not fp32"),
        ({"least_agreement": 0.9}, "fp32 must agree"),
        ({"precision": "fp16", "least_agreement": 1.5}, "1.5 is no share"),
        ({"precision": "fp16", "least_agreement": float("nan")}, "nan is no share"),
        ({"opset": 17}, "opset 17 is older than what can be exported, 18 to 23"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        ExportOptions(**given)
    assert caught.value.hint


def test_a_bare_network_has_the_same_random_weights_every_time_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, second = (open_source("lale-s1", 5, 3) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    states = [source.module.state_dict() for source in (first, second)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert (first.channels, len(first.classes), first.bundle, first.card) == (5, 3, None, "")
    assert not first.module.training


@pytest.mark.parametrize(
    ("bands", "classes", "missing"),
    [(None, None, "--bands and --classes"), (3, None, "--classes"), (None, 3, "--bands")],
)
def test_a_bare_network_needs_its_bands_and_classes(bands: int | None, classes: int | None, missing: str) -> None:
    with pytest.raises(UsageError, match=f"lale-s1 is a bare network: {missing} must say") as caught:
        open_source("lale-s1", bands, classes)
    assert "--bands" in caught.value.hint
    assert "--classes" in caught.value.hint


def test_an_unknown_name_lists_the_networks_and_the_bundles() -> None:
    with pytest.raises(InputMissingError, match="no bundle and no network is called 'unet'") as caught:
        open_source("unet")
    for name in network_names():
        assert name in caught.value.hint


@pytest.mark.parametrize(("option", "numbers"), [("bands", (4, CHANNELS)), ("classes", (9, CLASSES))])
def test_numbers_that_do_not_fit_the_weights_are_refused(
    small_bundle: Bundle, option: str, numbers: tuple[int, int]
) -> None:
    with pytest.raises(ModelError, match=f"for --{option} {numbers[1]}, not {numbers[0]}"):
        open_source(str(small_bundle.folder), **{option: numbers[0]})
    open_source(str(small_bundle.folder), bands=CHANNELS, classes=CLASSES)


@pytest.fixture
def changed_bundle(small_bundle: Bundle, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Copy the bundle and change its card."""

    def change(edit: Callable[[dict[str, Any]], None]) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(small_bundle.folder, folder)
        card = json.loads((folder / "item.json").read_text())
        edit(card)
        (folder / "item.json").write_text(json.dumps(card))
        return folder

    return change


def test_a_bundle_without_weights_is_refused(changed_bundle: Any) -> None:
    folder = changed_bundle(lambda card: card["assets"].pop("weights"))
    with pytest.raises(ModelError, match="bundle small has no weights, only onnx, golden"):
        open_source(str(folder))


def test_weights_of_another_network_are_refused_with_the_shapes(changed_bundle: Any) -> None:
    def widen(card: dict[str, Any]) -> None:
        card["properties"]["mlm:hyperparameters"]["geoseg"]["network"]["config"]["stem_width"] = 16

    with pytest.raises(ModelError, match=r"of another shape: .* is \(8, 3, 3, 3\), not \(16, 3, 3, 3\)"):
        open_source(str(changed_bundle(widen)))


def test_a_bundle_without_golden_tiles_is_checked_with_noise(changed_bundle: Any, tmp_path: Path) -> None:
    source = open_source(str(changed_bundle(lambda card: card["assets"].pop("golden"))))
    report = export_file(replace(source, module=seeded(Plain)), tmp_path / "a.onnx")
    assert report.parity.shapes == report.shapes.checked


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"format": "pt2"}, {"opset": 18}, {"opset": 23}])
@pytest.mark.parametrize("name", ["lale-s1", "mscloudcam-small", "chromaformer-t", "lemevit-tiny"])
def test_every_architecture_is_exported_in_every_way(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(7)
    network = create_network(name, CHANNELS, CLASSES).eval()
    with torch.no_grad():  # some weights begin at zero and would hide what stands behind them
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    accept = {"least_agreement": 0.99} if options.get("precision") else {}
    report = export_file(source_of(network), tmp_path / "a", ExportOptions(**options, **accept))
    assert report.parity.labels >= (0.99 if accept else 0.9999)
