"""int8 at run time: the graph of a bundle that was quantised, in both engines that run it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from geoseg_cli import engines
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import EngineOptions, choose_engine, fidelity
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.engines.fidelity import Fidelity
from geoseg_cli.engines.golden import check_golden, read_golden
from geoseg_cli.engines.onnx_engine import OnnxEngine
from geoseg_cli.errors import EngineError, ModelError
from tests.engines.pixelwise import CHANNELS, draw_pixels, with_precisions, write_pixelwise_bundle
from tests.engines.quantised import evaluate, large_in_fp32, rounds_up_to_infinity, write_quantised_bundle

OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not OPENVINO, reason="the package openvino is not installed")
both_engines = pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=needs_openvino)])

pytestmark = pytest.mark.usefixtures("torch_knows_pixelwise")


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(0, "no driver"))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_quantised_bundle(tmp_path_factory.mktemp("quantised"))


@pytest.fixture
def bundle(written: Bundle, tmp_path: Path) -> Bundle:
    """One whose card a test may change."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in written.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return Bundle.open(folder)


def open_int8(bundle: Bundle, name: str) -> Any:
    return choose_engine(bundle, EngineOptions(name, "cpu", "int8"))[0]


@both_engines
def test_the_answer_is_that_of_the_rounded_numbers_and_not_of_fp32(written: Bundle, name: str) -> None:
    pixels = draw_pixels(3, CHANNELS, 24, 40, seed=20)
    engine = open_int8(written, name)
    assert (engine.name, engine.device, engine.precision) == (name, "cpu", "int8")
    found = engine.run(pixels)
    wanted, exact = (evaluate(onnx.load(written.file(asset)), pixels) for asset in ("onnx-int8", "onnx"))
    # Sums that end half-way between two steps may be rounded to either: few, and each moves a logit by one step.
    assert (np.abs(found - wanted) < 1e-3).mean() > 0.995
    rounding = np.abs(wanted - exact).max()
    assert np.abs(found - wanted).max() < 0.5 * rounding
    assert (np.abs(found - exact) > 1e-3).mean() > 0.9
    assert (found.argmax(1) == exact.argmax(1)).mean() > 0.97


@both_engines
def test_a_tile_has_the_same_answer_in_any_batch_and_with_any_threads(written: Bundle, name: str) -> None:
    pixels = draw_pixels(5, CHANNELS, 16, 16, seed=21)
    together = open_int8(written, name).run(pixels)
    alone = choose_engine(written, EngineOptions(name, "cpu", "int8", threads=1))[0]
    for tile in range(5):
        assert (alone.run(pixels[tile : tile + 1])[0] == together[tile]).all()


@both_engines
def test_golden_tiles_keep_as_many_classes_as_the_rounded_numbers_do(written: Bundle, name: str) -> None:
    agreement = check_golden(open_int8(written, name), written)
    pixels, logits = read_golden(written)
    rounded = evaluate(onnx.load(written.file("onnx-int8")), pixels)
    assert agreement.precision == "int8"
    assert agreement.labels > 0.97
    assert agreement.labels == pytest.approx((rounded.argmax(1) == logits.argmax(1)).mean(), abs=2e-3)


@both_engines
def test_a_tile_that_int8_makes_infinite_is_computed_again_in_fp32(tmp_path: Path, name: str) -> None:
    files = {"onnx": large_in_fp32(), "onnx-int8": rounds_up_to_infinity()}
    bundle = write_pixelwise_bundle(tmp_path, golden=b"", **files)
    pixels = np.full((3, CHANNELS, 8, 8), 0.6, np.float32)  # is rounded down to 0
    pixels[1, 0, 2, 3] = 0.9  # is rounded up to 1.5: 4.5e38 in place of 2.7e38
    logits = open_int8(bundle, name).run(pixels)
    assert (logits[[0, 2]] == 0).all()
    wanted = np.zeros_like(logits[1])
    wanted[0] = 0.6 * np.float64(3e38)
    wanted[0, 2, 3] = np.float32(0.9) * np.float64(3e38)
    np.testing.assert_allclose(logits[1], wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["auto", "onnx", pytest.param("openvino", marks=needs_openvino)])
def test_a_bundle_without_such_a_graph_is_refused_with_the_command_that_makes_it(pixelwise: Bundle, name: str) -> None:
    with pytest.raises(ModelError, match="bundle pixelwise has no onnx-int8") as caught:
        choose_engine(pixelwise, EngineOptions(name, "cpu", "int8"))
    assert caught.value.exit_code == 78
    command = f"geoseg export {pixelwise.folder} --precision int8 --calibration SCENE --into-bundle"
    assert caught.value.hint.endswith(command)


@pytest.mark.parametrize("name", ["torch", "tensorrt"])
def test_an_engine_that_never_runs_int8_does_not_ask_for_a_graph_in_int8(pixelwise: Bundle, name: str) -> None:
    with pytest.raises(EngineError, match=f"no engine runs on cpu: {name}: the {name} engine "):
        choose_engine(pixelwise, EngineOptions(name, "cpu", "int8"))


def test_a_graph_that_the_card_does_not_know_is_refused(bundle: Bundle) -> None:
    with bundle.file("onnx-int8").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ModelError, match="is not the file that the card describes"):
        choose_engine(bundle, EngineOptions(precision="int8"))


@pytest.mark.parametrize(
    ("engine", "device", "words"),
    [("torch", "cpu", "the torch engine does not run int8"), ("onnx", "cuda:0", "int8 runs on CPUs, not on cuda:0")],
)
def test_where_int8_does_not_run_it_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, engine: str, device: str, words: str
) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(1))
    with pytest.raises(EngineError, match=words):
        choose_engine(bundle, EngineOptions(engine, device, "int8"))


def test_a_machine_with_cuda_runs_int8_on_its_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(1))
    engine, _ = choose_engine(bundle, EngineOptions(precision="int8"))
    assert (engine.device, engine.precision) == ("cpu", "int8")


def with_figures(bundle: Bundle, **row: float) -> Bundle:
    """The bundle with figures of held-out tiles in its card, the same for both engines."""
    return with_precisions(bundle, {f"{name} int8": row for name in ("onnx", "openvino")})


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> list[Fidelity]:
    """What the golden tiles are said to show."""
    answers = [Fidelity(0.99976, 0.995)]
    monkeypatch.setattr(fidelity, "golden_fidelity", lambda *_: answers[-1])
    return answers


def choose_as_if(bundle: Bundle, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """What auto chooses where one engine beside torch is installed."""
    monkeypatch.setattr(engines, "_is_installed", lambda one: one in (name, "torch"))
    return choose_engine(bundle, EngineOptions(device="cpu"))


@both_engines
def test_auto_takes_int8_where_held_out_and_golden_tiles_show_the_classes_of_fp32(
    bundle: Bundle, golden: list[Fidelity], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    engine, reason = choose_as_if(with_figures(bundle, same=0.9993, least_iou=0.994, speed=1.4), name, monkeypatch)
    assert (engine.name, engine.precision) == (name, "int8")
    assert reason.startswith(f"{name} on cpu in int8: 99.97 % of the golden tiles' pixels as in fp32; ")


@both_engines
@pytest.mark.parametrize(
    ("row", "shown", "words"),
    [({"same": 0.998, "least_iou": 1, "speed": 2}, Fidelity(1, 1), "on held-out tiles 99.80 % of the pixels as in"),
     ({"same": 1, "least_iou": 0.98, "speed": 2}, Fidelity(1, 1), "on held-out tiles the IoU of a class with fp32 is"),
     ({"same": 1, "least_iou": 1, "speed": 2}, Fidelity(0.9989, 1), "on the golden tiles 99.89 % of the pixels as in"),
     ({"same": 1, "least_iou": 1, "speed": 0.93}, Fidelity(1, 1), "its speed is 0.93 times that of fp32"),
     ({"same": 1, "least_iou": 1, "speed": float("nan")}, Fidelity(1, 1), "its speed is nan times"),
     ({"same": 1, "least_iou": 1}, Fidelity(1, 1), "its speed was not measured"),
     ({}, Fidelity(1, 1), "its agreement with fp32 was not measured")],
)  # fmt: skip
def test_auto_takes_fp32_where_int8_is_not_shown_to_be_as_good_and_faster(
    bundle: Bundle, golden: list[Fidelity], monkeypatch: pytest.MonkeyPatch, name: str, row: dict[str, float],
    shown: Fidelity, words: str,
) -> None:  # fmt: skip
    golden.append(shown)
    engine, reason = choose_as_if(with_figures(bundle, **row), name, monkeypatch)
    assert (engine.name, engine.precision) == (name, "fp32")
    assert f"not in int8: {words}" in reason


def test_of_a_bundle_without_the_graph_nothing_is_told_of_int8(pixelwise: Bundle) -> None:
    assert "int8" not in choose_engine(pixelwise, EngineOptions(device="cpu"))[1]


@both_engines
def test_int8_by_name_runs_although_it_misses_the_gate_and_says_what_it_keeps(bundle: Bundle, name: str) -> None:
    engine, reason = choose_engine(
        with_figures(bundle, same=0.9912, least_iou=0.97, speed=1.1), EngineOptions(name, "cpu", "int8")
    )
    assert engine.precision == "int8"
    pixels, logits = (np.load(bundle.file("golden"))[key] for key in ("pixels", "logits"))
    same = (engine.run(pixels).argmax(1) == logits.argmax(1)).mean()
    assert 0.97 < same < 1
    share = np.floor(same * 10**4) / 100
    assert (
        f"in int8: {share:.2f} % of the golden tiles' pixels and 99.12 % of held-out tiles' pixels as in fp32" in reason
    )
    assert "auto would not choose it, which wants 99.9 % of the pixels and an IoU of 0.99 in every class" in reason


def test_int8_by_name_whose_held_out_tiles_nobody_measured_says_so(bundle: Bundle, golden: list[Fidelity]) -> None:
    _, reason = choose_engine(bundle, EngineOptions("onnx", "cpu", "int8"))
    assert "99.97 % of the golden tiles' pixels as in fp32" in reason
    assert "auto would not choose it: held-out tiles were not measured" in reason


def test_int8_by_name_runs_although_the_golden_tiles_are_damaged(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where no answer is kept
    bundle.file("golden").write_bytes(b"nothing")
    engine, reason = choose_engine(with_figures(bundle, same=1, least_iou=1), EngineOptions("onnx", "cpu", "int8"))
    assert engine.precision == "int8"
    assert "100.00 % of held-out tiles' pixels as in fp32; auto would not choose it: golden tiles were not" in reason


def test_the_fp32_graph_stays_unopened_until_a_tile_needs_it(written: Bundle) -> None:
    engine = OnnxEngine(written, precision="int8")
    engine.run(draw_pixels(2, CHANNELS, 8, 8))
    assert engine._exact is None
    engine.close()
