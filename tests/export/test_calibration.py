"""Tiles for int8, what they show of a graph, and the quantised graph."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio

from geoseg_cli.bundle import Bundle
from geoseg_cli.errors import InputMissingError
from geoseg_cli.export.calibration import MOST_SCENE_TILES, measure_magnitudes, read_scene_tiles
from geoseg_cli.export.int8 import quantise
from geoseg_cli.export.onnx_file import build_graph, open_graph, save_graph
from geoseg_cli.scenes import SceneOptions
from tests.export.toys import BANDS, CHANNELS, Plain, draw, seeded
from tests.test_predict import write_scene


def scene(path: Path, height: int, width: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    return write_scene(path, rng.integers(0, 4, (height, width)), np.ones((height, width), bool))


def test_tiles_are_what_the_network_is_fed(tmp_path: Path, small_bundle: Bundle) -> None:
    path = scene(tmp_path / "a.tif", 64, 64)
    (tile,) = read_scene_tiles([path], small_bundle, SceneOptions())
    with rasterio.open(path) as file:
        red = file.read(1) * file.scales[0]
    assert tile.dtype == np.float32
    assert tile.shape == (CHANNELS, 64, 64)
    np.testing.assert_allclose(tile[0], (np.clip(red, -0.2, 2.0) - BANDS.mean[0]) / BANDS.stddev[0], rtol=1e-3)
    assert (tile[1:] == 0).all()  # the scene has no nir: no values, and no presence


def test_tiles_are_spread_over_the_scenes(tmp_path: Path, small_bundle: Bundle) -> None:
    scenes = [scene(tmp_path / f"{number}.tif", 400, 500, number) for number in range(3)]
    tiles = read_scene_tiles(scenes, small_bundle, SceneOptions())
    assert len(tiles) == 3 * (MOST_SCENE_TILES // 3)
    assert len({tile.tobytes() for tile in tiles}) == len(tiles)


def test_a_small_scene_is_mirrored_up_to_a_tile(tmp_path: Path, small_bundle: Bundle) -> None:
    (tile,) = read_scene_tiles([scene(tmp_path / "a.tif", 20, 30)], small_bundle, SceneOptions())
    assert tile.shape == (CHANNELS, 32, 32)
    assert (tile[:, 20:, :] == tile[:, 19:7:-1, :]).all()


def test_tiles_without_a_valid_pixel_are_left_out(tmp_path: Path, small_bundle: Bundle) -> None:
    valid = np.zeros((64, 200), bool)
    valid[5, 198] = True  # in the last tile alone
    path = write_scene(tmp_path / "a.tif", np.ones((64, 200), int), valid)
    assert len(read_scene_tiles([path], small_bundle, SceneOptions())) == 1


def test_a_scene_that_is_not_there_is_named(small_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"none\.tif"):
        read_scene_tiles([tmp_path / "none.tif"], small_bundle, SceneOptions())


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exact") / "fp32.onnx"
    save_graph(build_graph(seeded(Plain), (2, CHANNELS, 32, 48)), path)
    return path


def test_magnitudes_are_the_largest_of_all_tiles(exact: Path) -> None:
    tiles = [draw(CHANNELS, 32, 32, seed=seed) * (1 + seed) for seed in range(3)]
    found = measure_magnitudes(exact, tiles)
    run = open_graph(exact)
    largest = max(float(np.abs(run(tile[None])).max()) for tile in tiles)
    assert found["logits"] == pytest.approx(largest, rel=1e-5)
    convolution = next(node for node in onnx.load(exact).graph.node if node.op_type == "Conv")
    assert found[convolution.output[0]] > 0


def test_weights_become_int8_per_channel_and_the_outer_layers_stay_fp32(exact: Path, tmp_path: Path) -> None:
    save_graph(quantise(exact, [draw(CHANNELS, 32, 32)]), tmp_path / "int8.onnx")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    onnx.checker.check_model(tmp_path / "int8.onnx", full_check=True)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    kinds = {
        node.op_type: makers[node.input[1]].op_type if node.input[1] in makers else "fp32"
        for node in graph.node
        if node.op_type in ("Conv", "MatMul")
    }
    assert kinds == {"Conv": "fp32", "MatMul": "DequantizeLinear"}
    product = makers[next(node for node in graph.node if node.op_type == "MatMul").input[1]]
    assert types[product.input[0]] == onnx.TensorProto.INT8
    scale = next(tensor for tensor in graph.initializer if tensor.name == product.input[1])
    assert list(scale.dims) == [8]
    weights = onnx.numpy_helper.to_array(next(t for t in graph.initializer if t.name == product.input[0]))
    assert np.abs(weights.astype(int)).max() <= 64  # 7 bits


def test_a_quantised_graph_takes_any_size_and_answers_nearly_as_before(exact: Path, tmp_path: Path) -> None:
    save_graph(quantise(exact, [draw(CHANNELS, 32, 32, seed=seed) for seed in range(4)]), tmp_path / "int8.onnx")
    pixels = draw(2, CHANNELS, 40, 57)
    wanted, found = open_graph(exact)(pixels), open_graph(tmp_path / "int8.onnx")(pixels)
    assert found.shape == wanted.shape
    assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_quantising_says_nothing_and_leaves_the_root_logger_as_it_was(
    exact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    quantise(exact, [draw(CHANNELS, 32, 32)])
    measure_magnitudes(exact, [draw(CHANNELS, 32, 32)])
    assert (root.level, list(root.handlers)) == before
    assert capfd.readouterr() == ("", "")
