from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.engines.onnx_engine import IDENTITY_GRAPH, OnnxEngine, find_cuda_obstacle
from geoseg_cli.engines.onnx_session import CPU, CudaSession
from geoseg_cli.errors import EngineError, ModelError
from tests.engines.pixelwise import (
    ANY_SIZE,
    CHANNELS,
    CLASSES,
    Pixelwise,
    draw_network,
    draw_pixels,
    first_pixel_alone,
    make_graph,
    write_pixelwise_bundle,
)


def test_logits_are_those_of_the_network(pixelwise: Bundle, network: Pixelwise) -> None:
    engine = OnnxEngine(pixelwise)
    pixels = draw_pixels(3, CHANNELS, 17, 40)
    logits = engine.run(pixels)
    assert (engine.name, engine.device, engine.precision) == ("onnx", "cpu", "fp32")
    assert logits.dtype == np.float32
    assert logits.flags.c_contiguous
    np.testing.assert_allclose(logits, network.answer(pixels), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 96)])
def test_a_tile_gets_the_same_bytes_in_every_batch_and_with_any_threads(
    pixelwise: Bundle, size: tuple[int, int]
) -> None:
    pixels = draw_pixels(5, CHANNELS, *size)
    whole = OnnxEngine(pixelwise, threads=1).run(pixels)
    for threads in (2, 3, 20):
        engine = OnnxEngine(pixelwise, threads=threads)
        alone = np.concatenate([engine.run(pixels[tile : tile + 1]) for tile in range(5)])
        assert (engine.run(pixels) == whole).all()
        assert (alone == whole).all()
        engine.close()


@pytest.mark.parametrize(("threads", "tiles"), [(1, 1), (2, 2), (8, 8), (64, 8)])
def test_as_many_tiles_run_at_once_as_there_are_threads_up_to_eight(
    pixelwise: Bundle, threads: int, tiles: int
) -> None:
    assert OnnxEngine(pixelwise, threads=threads).batch_tiles == tiles


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_reduced_precision_is_refused_with_a_remedy(pixelwise: Bundle, precision: str) -> None:
    with pytest.raises(EngineError) as caught:
        OnnxEngine(pixelwise, precision=precision)
    assert "--engine torch" in caught.value.hint


def bundle_with(folder: Path, **graph: Any) -> Bundle:
    return write_pixelwise_bundle(folder, onnx=make_graph(draw_network(), **graph).SerializeToString())


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ({"sizes": ("batch", "channels", "height", "width")}, r"'channels'.*\[any, 3, any, any\]"),
        ({"name": "image"}, "image .*the card wants pixels"),
    ],
)
def test_a_graph_that_does_not_fit_the_card_is_refused(tmp_path: Path, graph: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        OnnxEngine(bundle_with(tmp_path, **graph))
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("sizes", [(1, 16, 24), (4, "height", "width"), ("batch", 16, 24), (2, 20, "width")])
@pytest.mark.parametrize("shape", [(16, 24), (5, 3), (16, 1)])
def test_a_graph_of_fixed_size_answers_as_one_of_any_size(
    tmp_path: Path, sizes: tuple[Any, ...], shape: tuple[int, int]
) -> None:
    batch, height, width = sizes
    network, pixels = draw_network(), draw_pixels(3, CHANNELS, *shape)
    engine = OnnxEngine(bundle_with(tmp_path, sizes=(batch, CHANNELS, height, width)))
    np.testing.assert_allclose(engine.run(pixels), network.answer(pixels), atol=1e-5)


def test_a_tile_larger_than_a_fixed_size_is_refused_with_the_size_that_fits(tmp_path: Path) -> None:
    engine = OnnxEngine(bundle_with(tmp_path, sizes=("batch", CHANNELS, 16, 24)))
    with pytest.raises(ModelError, match="tiles of 16 x 24 px, not of 17 x 24 px") as caught:
        engine.run(draw_pixels(1, CHANNELS, 17, 24))
    assert "--tile 16" in caught.value.hint


def test_a_graph_with_other_channels_or_classes_is_refused(tmp_path: Path) -> None:
    more = Pixelwise(np.ones((CLASSES, 5), np.float32), np.ones(CLASSES, np.float32))
    graph = make_graph(more, ("batch", 5, "height", "width")).SerializeToString()
    with pytest.raises(ModelError, match=r"input is pixels.*5.*wants pixels.*\[any, 3, any, any\]"):
        OnnxEngine(write_pixelwise_bundle(tmp_path / "channels", onnx=graph))
    fewer = Pixelwise(np.ones((2, CHANNELS), np.float32), np.ones(2, np.float32))
    model = make_graph(fewer)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    with pytest.raises(ModelError, match=r"output is logits.*2.*wants logits.*\[any, 4, any, any\]"):
        OnnxEngine(write_pixelwise_bundle(tmp_path / "classes", onnx=model.SerializeToString()))


def test_a_truncated_graph_is_refused(tmp_path: Path) -> None:
    content = make_graph(draw_network()).SerializeToString()
    with pytest.raises(ModelError, match="truncated"):
        OnnxEngine(write_pixelwise_bundle(tmp_path, onnx=content[: len(content) // 2]))


def test_a_graph_that_the_runtime_refuses_is_the_models_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ONNX Runtime refuses the graph"):
        OnnxEngine(bundle_with(tmp_path, op_type="Conf"))


def test_weights_in_another_file_are_refused_before_the_runtime_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_graph(draw_network())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="weights.bin")
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    with pytest.raises(ModelError, match="other files"):
        OnnxEngine(write_pixelwise_bundle(tmp_path, onnx=model.SerializeToString()))


def test_an_answer_of_another_size_is_refused_and_not_spread_over_the_tile(tmp_path: Path, network: Pixelwise) -> None:
    bundle = write_pixelwise_bundle(tmp_path / "b", network, onnx=first_pixel_alone(network))
    with pytest.raises(ModelError, match=r"answers \[1, 4, 1, 1\] where \[1, 4, 8, 8\] is wanted") as caught:
        OnnxEngine(bundle).run(draw_pixels(1, 3, 8, 8))
    assert caught.value.exit_code == 78


def test_names_in_the_graph_that_are_no_text_are_refused(tmp_path: Path, network: Pixelwise) -> None:
    content = make_graph(network).SerializeToString().replace(b"height", b"he\xb1ght")
    bundle = write_pixelwise_bundle(tmp_path / "b", network, onnx=content)
    with pytest.raises(ModelError, match="no text"):
        OnnxEngine(bundle)


def test_pixels_that_the_graph_cannot_take_end_with_69(pixelwise: Bundle) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime failed"):
        OnnxEngine(pixelwise).run(draw_pixels(1, CHANNELS + 1, 8, 8))


def test_a_closed_engine_runs_no_more(pixelwise: Bundle) -> None:
    engine = OnnxEngine(pixelwise)
    engine.close()
    with pytest.raises(AssertionError):
        engine.run(draw_pixels(1, CHANNELS, 8, 8))


class FallenBack:
    """A session that runs on the CPU whatever was asked for, as ONNX Runtime does without CUDA's libraries."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_a_silent_fall_back_from_cuda_to_the_cpu_ends_with_69(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("libcudnn.so.9 not found"))
    with pytest.raises(EngineError, match=r"does not run on cuda:0: libcudnn\.so\.9 not found") as caught:
        OnnxEngine(pixelwise, "cuda:0")
    assert caught.value.exit_code == 69
    assert capsys.readouterr().out == ""


def test_cuda_is_there_only_if_a_session_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cuda_obstacle(CudaProbe(0, "no driver")) == "no driver"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "has no CUDA" in find_cuda_obstacle(CudaProbe(1))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    assert "do not load" in find_cuda_obstacle(CudaProbe(1))


def test_the_graph_that_tries_cuda_is_a_graph() -> None:
    session = onnxruntime.InferenceSession(IDENTITY_GRAPH, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([7], np.float32)})[0].tolist() == [7]


class SmallDevice(CudaSession):
    """A CUDA session whose memory holds three tiles; keeps the sizes that were tried."""

    def __init__(self, network: Pixelwise, message: str = "out of memory", holds: int = 3, **shape: bool) -> None:
        self.network, self.message, self.holds = network, message, holds
        self.tried: list[int] = []
        self.opened = 0
        super().__init__(b"", "cuda:0", [CPU], 1, ("pixels", "logits"), **shape)

    def _open(self) -> object:
        self.opened += 1
        return object()

    def _run_part(self, pixels: np.ndarray, logits: np.ndarray) -> None:
        self.tried.append(len(pixels))
        if len(pixels) > self.holds:
            raise RuntimeError(self.message)
        logits[...] = self.network.answer(pixels)[: len(logits)]


def answer_of(device: CudaSession, pixels: np.ndarray) -> np.ndarray:
    logits = np.full((len(pixels), CLASSES, *pixels.shape[2:]), np.nan, np.float32)
    device.run(pixels, logits)
    return logits


@pytest.mark.parametrize(
    "message", ["Failed to allocate memory for requested buffer", "CUDA failure 2: out of memory ; GPU=0"]
)
def test_memory_that_runs_out_halves_the_batch_in_a_new_session(network: Pixelwise, message: str) -> None:
    device, pixels = SmallDevice(network, message), draw_pixels(9, CHANNELS, 4, 4)
    assert (answer_of(device, pixels) == network.answer(pixels)).all()
    assert device.tried == [9, 4, 2, 2, 2, 2, 1]
    assert device.opened == 3


def test_one_tile_too_large_for_the_device_ends_with_69(network: Pixelwise) -> None:
    with pytest.raises(EngineError, match=r"one tile of \(3, 4, 4\)") as caught:
        answer_of(SmallDevice(network, holds=0), draw_pixels(2, CHANNELS, 4, 4))
    assert "--tile" in caught.value.hint


def test_an_error_that_is_not_about_memory_is_not_tried_again(network: Pixelwise) -> None:
    device = SmallDevice(network, "illegal instruction")
    with pytest.raises(EngineError, match="ONNX Runtime failed: illegal instruction"):
        answer_of(device, draw_pixels(9, CHANNELS, 4, 4))
    assert device.tried == [9]


def test_where_one_shape_alone_is_built_every_batch_has_that_of_the_first(network: Pixelwise) -> None:
    device = SmallDevice(network, has_one_shape=True)
    for tiles in (3, 1, 7, 2):
        pixels = draw_pixels(tiles, CHANNELS, 4, 4)
        assert (answer_of(device, pixels) == network.answer(pixels)).all()
    assert device.tried == [3, 3, 3, 3, 3, 3]
    assert device.opened == 1


def test_one_shape_that_does_not_fit_is_halved_as_well(network: Pixelwise) -> None:
    device, pixels = SmallDevice(network, has_one_shape=True), draw_pixels(5, CHANNELS, 4, 4)
    assert (answer_of(device, pixels) == network.answer(pixels)).all()
    assert device.tried == [5, 2, 2, 2]


@pytest.mark.gpu
def test_cuda_gives_the_logits_of_the_cpu(pixelwise: Bundle) -> None:
    pixels = draw_pixels(7, *ANY_SIZE[1:2], 96, 64)
    engine = OnnxEngine(pixelwise, "cuda:0")
    assert engine.device == "cuda:0"
    assert np.abs(engine.run(pixels) - OnnxEngine(pixelwise).run(pixels)).max() < 1e-3
