from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.bundle import Bundle, bundle_folders
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.engines.golden import Agreement, check_golden, compare_logits, read_golden
from geoseg_cli.engines.onnx_engine import OnnxEngine
from geoseg_cli.errors import ModelError
from tests.engines.pixelwise import CHANNELS, CLASSES, Pixelwise, draw_network, draw_pixels, write_pixelwise_bundle

SHIPPED = [pytest.param(folder, id=folder.name) for folder in bundle_folders()]
ASSETS = {"onnx": "onnx", "torch": "weights"}
"""Of the engines that are always there; tests/engines/test_openvino_engine.py looks at the third."""


def is_there(folder: Path, engine_name: str) -> bool:
    return ASSETS[engine_name] in Bundle.open(folder).card.assets


RUNNABLE = [
    pytest.param(folder, name, id=f"{folder.name}-{name}")
    for folder in bundle_folders()
    for name in ASSETS
    if is_there(folder, name)
]


@pytest.mark.parametrize(("folder", "engine_name"), RUNNABLE)
def test_every_shipped_bundle_reproduces_its_golden_tiles_in_every_engine(folder: Path, engine_name: str) -> None:
    bundle = Bundle.open(folder)
    engine, _ = choose_engine(bundle, EngineOptions(engine=engine_name, device="cpu"))
    agreement = check_golden(engine, bundle)
    assert agreement.trouble == ""
    engine.close()


@pytest.mark.parametrize("folder", SHIPPED)
def test_the_golden_tiles_of_a_shipped_bundle_show_several_classes(folder: Path) -> None:
    pixels, logits = read_golden(Bundle.open(folder))
    assert np.isfinite(pixels).all()
    assert len(np.unique(logits.argmax(1))) >= 2


@pytest.mark.gpu
@pytest.mark.parametrize("options", [("torch", "fp32"), ("torch", "fp16"), ("torch", "bf16"), ("onnx", "fp32")])
@pytest.mark.parametrize("folder", SHIPPED)
def test_every_shipped_bundle_reproduces_its_golden_tiles_on_cuda(folder: Path, options: tuple[str, str]) -> None:
    if not is_there(folder, options[0]):
        pytest.skip(f"{folder.name} has no file for {options[0]}")
    bundle = Bundle.open(folder)
    engine, _ = choose_engine(bundle, EngineOptions(options[0], "cuda:0", options[1]))
    assert check_golden(engine, bundle).trouble == ""
    engine.close()


def test_an_engine_that_answers_as_torch_did_agrees(pixelwise: Bundle) -> None:
    agreement = check_golden(OnnxEngine(pixelwise), pixelwise)
    assert agreement.labels == 1
    assert agreement.largest_difference < 1e-5
    assert agreement.trouble == ""


def test_a_graph_of_other_weights_does_not_agree(tmp_path: Path) -> None:
    golden = write_pixelwise_bundle(tmp_path / "a", draw_network(0)).file("golden").read_bytes()
    other = write_pixelwise_bundle(tmp_path / "b", draw_network(9), golden=golden)
    assert "differ by up to" in check_golden(OnnxEngine(other), other).trouble


def test_one_label_in_ten_thousand_may_differ_and_no_more() -> None:
    assert Agreement(0.9999, 1e-4).trouble == ""
    assert "99.980%" in Agreement(0.9998, 1e-4).trouble


def test_a_logit_may_differ_by_a_thousandth_in_fp32_only() -> None:
    assert Agreement(1.0, 1e-3).trouble == ""
    assert "0.0011" in Agreement(1.0, 1.1e-3).trouble
    assert Agreement(1.0, 5.0, "bf16").trouble == ""


def test_comparison_counts_labels_and_finds_the_largest_difference() -> None:
    wanted = np.zeros((1, 2, 2, 2), np.float32)
    wanted[:, 0] = 1
    found = wanted.copy()
    found[0, :, 1, 1] = (0.25, 1.5)
    assert compare_logits(wanted, found) == Agreement(0.75, 1.5)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_logit_that_is_not_a_number_is_trouble(precision: str) -> None:
    wanted = np.zeros((1, 2, 2, 2), np.float32)
    found = wanted.copy()
    found[0, 0, 0, 0] = np.nan
    assert "nan" in compare_logits(wanted, found, precision).trouble


def saved(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def one_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3, np.float32))
    return stream.getvalue()


PIXELS, LOGITS = draw_pixels(1, CHANNELS, 8, 8), draw_pixels(1, CLASSES, 8, 8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no golden"),
        (b"PK no archive", "is damaged, or is no archive of numbers"),
        (saved(pixels=PIXELS, logits=LOGITS)[:200], "is damaged"),
        (saved(pixels=PIXELS, logits=LOGITS).replace(b"NUMPY", b"NUMB!"), "is damaged"),
        (one_array(), "is no archive of numbers"),
        (saved(pixels=PIXELS), "it lacks pixels or logits"),
        (saved(pixels=np.array([object()]), logits=LOGITS), "holds no golden tiles"),
        (saved(pixels=PIXELS[:, :2], logits=LOGITS), "do not fit the card"),
        (saved(pixels=PIXELS, logits=LOGITS[:, :2]), "do not fit the card"),
        (saved(pixels=PIXELS.astype(np.float64), logits=LOGITS), "do not fit the card"),
    ],
)
def test_golden_tiles_that_cannot_be_compared_are_the_bundles_error(
    tmp_path: Path, network: Pixelwise, content: bytes, words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        read_golden(write_pixelwise_bundle(tmp_path, network, golden=content))
    assert not any(word in caught.value.message for word in ("pickle", "allow_"))
