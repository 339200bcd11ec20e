from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pystac.validation import RegisteredValidator
from safetensors.torch import load_file
from torch import Tensor, nn

from geoseg_cli.bundle import Bundle, InputSpec
from geoseg_cli.catalog import legends
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.engines.golden import check_golden, compare_logits
from geoseg_cli.engines.onnx_engine import OnnxEngine
from geoseg_cli.engines.torch_engine import TorchEngine
from geoseg_cli.errors import EngineError, ModelError
from geoseg_cli.export import CardFields, write_bundle, write_onnx
from geoseg_cli.export.readme import describe_in_words
from geoseg_cli.networks import create_network

BANDS = InputSpec(
    bands=("blue", "red", "nir", "swir16"),
    optional=("nir", "swir16"),
    mean=(0.05, 0.1, 0.3, 0.2),
    stddev=(0.04, 0.07, 0.1, 0.09),
)
CHANNELS, CLASSES = 6, 4
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class SmallNetwork(nn.Module):
    """Stride, attention-free context, a mean over channels, dropout and resizing: what exporters stumble over."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(CHANNELS, 8, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.5)
        self.up = nn.Conv2d(8, CLASSES, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.down(pixels).relu()
        features = features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + 1e-6)
        context = features.mean(dim=(2, 3), keepdim=True)
        logits = self.up(self.drop(features + context))
        return nn.functional.interpolate(logits, size=pixels.shape[2:], mode="bilinear", align_corners=False)


def make_network() -> SmallNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return SmallNetwork()


def make_fields(**changes: Any) -> CardFields:
    values: dict[str, Any] = {
        "name": "cloud-small",
        "title": "Small",
        "description": "A network for tests.",
        "task": "cloud",
        "architecture": "three layers",
        "network": "small",
        "input_spec": BANDS,
        "legend": legends()["cloudsen12"],
        "licence": "MIT",
        "gsd_m": 10.0,
        "tile_px": 128,
        "overlap_px": 16,
        "size_multiple": 2,
        "config": {"depths": [1, 2]},
        "training": {"samples": 3},
        "metrics": {"iou": 0.5},
        "limits": ("no snow",),
        "created": MOMENT,
    }
    return CardFields(**(values | changes))


def draw_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


GOLDEN = draw_pixels(2, CHANNELS, 32, 32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundle"), make_network().train(), make_fields(), GOLDEN)


@pytest.fixture(scope="module")
def item(bundle: Bundle) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((bundle.folder / "item.json").read_text())
    return loaded


def rounded() -> SmallNetwork:
    """The network with every weight rounded as a bundle keeps it: matrices and kernels to bf16, the rest to fp16."""
    network = make_network()
    kept = {
        name: (value.bfloat16() if value.ndim > 1 else value).half() for name, value in network.state_dict().items()
    }
    network.load_state_dict(kept)
    return network


def answer(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        result: np.ndarray = network.eval()(torch.from_numpy(pixels)).numpy()
    return result


def test_the_reader_of_bundles_gets_back_what_was_said(bundle: Bundle) -> None:
    fields, extras = make_fields(), bundle.card.extras
    assert bundle.name == fields.name
    assert bundle.input_spec == BANDS
    assert bundle.input_spec.channels == CHANNELS
    assert bundle.legend == fields.legend
    assert (extras.task, extras.tile_px, extras.overlap_px, extras.gsd_m) == ("cloud", 128, 16, 10.0)
    assert (extras.network.name, extras.network.config) == ("small", {"depths": [1, 2]})
    assert (extras.training["samples"], extras.metrics, extras.limits) == (3, {"iou": 0.5}, ["no snow"])
    parameters = 8 * CHANNELS * 9 + 8 + CLASSES * 8 + CLASSES
    assert bundle.card.properties.total_parameters == parameters


def test_every_file_is_named_with_its_size_and_multihash(bundle: Bundle, item: dict[str, Any]) -> None:
    assert set(item["assets"]) == {"weights", "onnx", "golden"}
    assert {path.name for path in bundle.folder.iterdir()} == {
        "item.json", "model.safetensors", "model.onnx", "golden.npz", "README.md"
    }  # fmt: skip
    for name, asset in item["assets"].items():
        content = (bundle.folder / asset["href"]).read_bytes()
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        assert asset["file:size"] == len(content)
        assert bundle.file(name).stat().st_mode & 0o444 == 0o444


def test_the_weights_are_those_of_the_module_in_half_the_bytes(bundle: Bundle) -> None:
    wanted = make_network().state_dict()
    found = load_file(bundle.file("weights"))
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == (torch.float16 if value.is_floating_point() else value.dtype)
        # fp16 keeps 11 significant bits, bf16 8.
        bits = 8 if value.ndim > 1 else 11
        torch.testing.assert_close(found[name].to(value.dtype), value, rtol=2**-bits, atol=1e-7)


def test_matrices_and_kernels_are_the_same_numbers_in_bf16(bundle: Bundle) -> None:
    found = load_file(bundle.file("weights"))
    products = {name: value.float() for name, value in found.items() if value.ndim > 1}
    assert products
    for name, value in products.items():
        # below the least normal fp16 number its own steps are the coarser ones
        is_normal = value.abs() >= 2**-14
        assert torch.equal(value.bfloat16().float()[is_normal], value[is_normal]), name
    assert any(not torch.equal(value.bfloat16().float(), value.float()) for value in found.values() if value.ndim == 1)


def test_the_card_says_how_little_rounding_the_weights_changed(bundle: Bundle) -> None:
    exact, kept = answer(make_network(), GOLDEN), answer(rounded(), GOLDEN)
    said = bundle.card.extras.training["rounding"]
    assert (said["dtype"], said["matrices"]) == ("float16", "bfloat16")
    assert said["golden_label_agreement"] == round(float((exact.argmax(1) == kept.argmax(1)).mean()), 6)
    assert said["golden_largest_logit_difference"] == pytest.approx(float(np.abs(exact - kept).max()), abs=1e-5)
    assert 0 < said["golden_largest_logit_difference"] < 0.01


def test_weights_beyond_fp16_are_refused(tmp_path: Path) -> None:
    network = make_network()
    with torch.no_grad():
        next(network.parameters()).fill_(1e6)
    with pytest.raises(ModelError, match="65504"):
        write_bundle(tmp_path / "new", network, make_fields(), GOLDEN)
    assert not list(tmp_path.rglob("*.onnx"))


def test_the_readme_says_what_the_card_says(bundle: Bundle) -> None:
    text = (bundle.folder / "README.md").read_text()
    assert text == describe_in_words(bundle.card)
    for words in (bundle.name, "geoseg cloudmask", "no snow", "float16", *bundle.input_spec.bands):
        assert words in text
    for cls in bundle.legend.classes:
        assert f"| {cls.value} | {cls.title} | {cls.color} |" in text


def test_the_golden_logits_are_those_of_the_module_in_evaluation_mode(bundle: Bundle) -> None:
    with np.load(bundle.file("golden")) as arrays:
        assert (arrays["pixels"] == GOLDEN).all()
        np.testing.assert_allclose(arrays["logits"], answer(rounded(), GOLDEN), atol=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (32, 32), (64, 130), (98, 34)])
def test_the_graph_answers_as_the_module_does_at_sizes_that_were_not_traced(
    bundle: Bundle, size: tuple[int, int]
) -> None:
    pixels = draw_pixels(3, CHANNELS, *size, seed=4)
    agreement = compare_logits(answer(rounded(), pixels), OnnxEngine(bundle).run(pixels))
    assert agreement.trouble == ""
    assert agreement.largest_difference < 1e-4


def test_the_card_is_a_valid_stac_item(item: dict[str, Any]) -> None:
    validator = RegisteredValidator.get_validator()
    validator.validate_core(item, "Feature", "1.1.0")  # raises if it is not


def test_the_validator_of_stac_items_finds_a_mistake(item: dict[str, Any]) -> None:
    broken = item | {"bbox": [0]}
    with pytest.raises(Exception, match="bbox"):
        RegisteredValidator.get_validator().validate_core(broken, "Feature", "1.1.0")


def test_the_card_keeps_the_rules_of_mlm_that_stac_itself_does_not_know(item: dict[str, Any]) -> None:
    """The rules of https://stac-extensions.github.io/mlm/v1.5.2/schema.json, written out."""
    properties = item["properties"]
    source, target = properties["mlm:input"][0], properties["mlm:output"][0]
    assert "https://stac-extensions.github.io/mlm/v1.5.2/schema.json" in item["stac_extensions"]
    assert properties["mlm:tasks"] == target["tasks"] == ["semantic-segmentation"]
    assert (properties["mlm:pretrained"], properties["mlm:pretrained_source"]) == (False, None)
    # Bands that an input names must be defined, in STAC 1.1 by `bands` of the item and of an asset.
    assert [band["name"] for band in properties["bands"]] == ["blue", "red", "nir", "swir16"]
    assert "bands" in source["input"]["dim_order"]
    assert "bands" not in target["result"]["dim_order"]
    # A scaling in a list has a type and all of that type's numbers; there is no scaling that does nothing.
    assert len(source["value_scaling"]) == CHANNELS == source["input"]["shape"][1]
    assert all(set(scaling) == {"type", "mean", "stddev"} for scaling in source["value_scaling"])
    assert source["bands"][4:] == [
        {"name": "has_nir", "format": "geoseg-presence", "expression": "nir"},
        {"name": "has_swir16", "format": "geoseg-presence", "expression": "swir16"},
    ]
    # Classes follow classification v1.1, which wants a value and a description.
    assert all(isinstance(row["value"], int) and row["description"] for row in target["classification:classes"])
    # Exactly the assets that are models have a type of artifact.
    for asset in item["assets"].values():
        assert ("mlm:model" in asset["roles"]) == ("mlm:artifact_type" in asset)
    assert item["assets"]["weights"]["mlm:artifact_type"] == "safetensors.torch.save_file"


def test_times_are_in_utc(item: dict[str, Any]) -> None:
    assert item["properties"]["created"] == "2026-01-02T03:04:05Z"
    assert item["properties"]["end_datetime"] == "9999-12-31T23:59:59Z"


def test_nothing_tells_where_a_bundle_was_made(bundle: Bundle) -> None:
    home = str(Path(__file__).resolve().parent.parent).encode()
    for path in bundle.folder.iterdir():
        content = path.read_bytes()
        assert home not in content
        assert b".py" not in content
        assert b"site-packages" not in content


def test_the_graph_is_one_file_of_standard_operators_and_free_sizes(bundle: Bundle) -> None:
    model = onnx.load(bundle.file("onnx"), load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in sizes] == ["batch", CHANNELS, "height", "width"]


def test_means_over_channels_are_matrix_products_and_other_means_stay(bundle: Bundle) -> None:
    operators = [node.op_type for node in onnx.load(bundle.file("onnx")).graph.node]
    assert operators.count("ReduceMean") == 1
    assert operators.count("MatMul") == 1


def test_the_same_network_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    again = write_bundle(tmp_path, make_network(), make_fields(), GOLDEN)
    for path in bundle.folder.iterdir():
        assert (again.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_bundle_is_written_over_an_older_one_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "NOTES.md").write_text("read me")
    write_bundle(tmp_path, make_network(), make_fields(), GOLDEN)
    newer = write_bundle(tmp_path, make_network(), make_fields(title="Newer"), GOLDEN[:1])
    assert json.loads((tmp_path / "item.json").read_text())["properties"]["title"] == "Newer"
    assert check_golden(OnnxEngine(newer), newer).trouble == ""
    assert (tmp_path / "NOTES.md").read_text() == "read me"
    assert not list(tmp_path.glob(".part-*"))


def test_the_mode_of_the_module_is_what_it_was(tmp_path: Path) -> None:
    network = make_network().train()
    write_onnx(network, tmp_path / "a.onnx", CHANNELS, 2)
    assert network.training
    write_onnx(network.eval(), tmp_path / "a.onnx", CHANNELS, 2)
    assert not network.training


class TwoFaced(nn.Conv2d):
    """Answers otherwise while it is exported."""

    def forward(self, pixels: Tensor) -> Tensor:
        logits = super().forward(pixels)
        return logits + 0.01 if torch.compiler.is_exporting() else logits


class OneSize(nn.Conv2d):
    """Bakes the traced number of rows in without any error."""

    def forward(self, pixels: Tensor) -> Tensor:
        logits = super().forward(pixels)
        if not torch.compiler.is_exporting():
            return logits
        return logits[:, :, :64]


@pytest.mark.parametrize(
    ("network", "words"), [(TwoFaced, "differ by up to 0.01"), (OneSize, r"logits are \(.*\), not \(")]
)
def test_a_graph_that_answers_otherwise_leaves_no_file(tmp_path: Path, network: type[nn.Conv2d], words: str) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelError, match=words) as caught:
        write_onnx(network(CHANNELS, CLASSES, 1), path, CHANNELS)
    assert caught.value.exit_code == 78
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"older")
    with pytest.raises(ModelError):
        write_onnx(network(CHANNELS, CLASSES, 1), path, CHANNELS)
    assert path.read_bytes() == b"older"


def test_a_failed_bundle_leaves_the_older_one_whole(tmp_path: Path) -> None:
    older = write_bundle(tmp_path, make_network(), make_fields(), GOLDEN)
    with pytest.raises(ModelError):
        write_bundle(tmp_path, TwoFaced(CHANNELS, CLASSES, 1), make_fields(), GOLDEN)
    for asset in ("weights", "onnx", "golden"):
        older.file(asset)
    assert len(list(tmp_path.iterdir())) == 5


class Unexportable(nn.Conv2d):
    """Chooses its path by the values of the pixels."""

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels) if pixels.sum() > 0 else super().forward(-pixels)


def test_a_network_that_cannot_be_exported_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be exported to ONNX") as caught:
        write_onnx(Unexportable(CHANNELS, CLASSES, 1), tmp_path / "a.onnx", CHANNELS)
    assert "\n" not in caught.value.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("golden", [draw_pixels(1, CHANNELS + 1, 8, 8), draw_pixels(1, CHANNELS, 8, 8)])
def test_a_module_that_does_not_fit_the_card_is_refused(tmp_path: Path, golden: np.ndarray) -> None:
    network = nn.Conv2d(golden.shape[1], CLASSES + (golden.shape[1] == CHANNELS), 1)
    with pytest.raises(ModelError, match="6 channels and 4 classes"):
        write_bundle(tmp_path / "new", network, make_fields(), golden)
    assert not (tmp_path / "new").exists()


def test_an_export_without_its_packages_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(EngineError, match="needs onnxscript") as caught:
        write_onnx(make_network(), tmp_path / "a.onnx", CHANNELS)
    assert "geoseg[export]" in caught.value.hint


def test_an_export_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    write_onnx(make_network(), tmp_path / "a.onnx", CHANNELS, 2)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "multiple"),
    [("lale-s1", {}, 1), ("lale-s1", {"reach": [3, 1]}, 1), ("lale-s1-k7", {}, 1), ("mscloudcam-small", {}, 1),
     ("chromaformer-t", {}, 32), ("lemevit-tiny", {}, 1)],
)  # fmt: skip
def test_every_architecture_gives_the_same_answer_in_every_engine(
    tmp_path: Path, name: str, config: dict[str, Any], multiple: int
) -> None:
    torch.manual_seed(7)
    network = create_network(name, bands=CHANNELS, classes=CLASSES, **config)
    with torch.no_grad():  # some weights begin at zero and would hide what stands behind them
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    fields = make_fields(network=name, config=config, size_multiple=multiple)
    written = write_bundle(tmp_path, network, fields, draw_pixels(1, CHANNELS, 64, 64))
    by_onnx, by_torch = OnnxEngine(written), TorchEngine(written)
    for tiles, size in ((2, (96, 160)), (1, (256, 256)), (3, (32, 32))):
        pixels = draw_pixels(tiles, CHANNELS, *size, seed=8)
        wanted = by_torch.run(pixels)
        assert compare_logits(wanted, by_onnx.run(pixels)).trouble == ""
        alone = np.concatenate([by_onnx.run(pixels[tile : tile + 1]) for tile in range(tiles)])
        assert (alone == by_onnx.run(pixels)).all()
    for engine_name in ("onnx", "torch"):
        engine, _ = choose_engine(written, EngineOptions(engine=engine_name, device="cpu"))
        assert check_golden(engine, written).trouble == ""
