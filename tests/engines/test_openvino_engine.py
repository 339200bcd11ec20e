from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg_cli.ahead import usable_cores
from geoseg_cli.bundle import Bundle, find_bundle
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.engines.golden import check_golden, read_golden
from geoseg_cli.errors import EngineError, ModelError
from tests.engines.pixelwise import (
    CHANNELS,
    CLASSES,
    Pixelwise,
    draw_network,
    draw_pixels,
    first_pixel_alone,
    make_graph,
    write_pixelwise_bundle,
)

# Not pytest.importorskip: openvino must be imported as the engine imports it.
if importlib.util.find_spec("openvino") is None:
    pytest.skip("the package openvino is not installed", allow_module_level=True)

from geoseg_cli.engines import openvino_engine, openvino_graph
from geoseg_cli.engines.onnx_engine import OnnxEngine
from geoseg_cli.engines.openvino_cache import CompiledGraphs
from geoseg_cli.engines.openvino_engine import OpenVinoEngine, find_cuda_obstacle

needs_bf16 = pytest.mark.skipif(not openvino_graph.has_bf16(), reason="this processor has no bf16")
WITH_GRAPH = ("landcover-lale", "cloud-lale", "cloud-mscloudcam")


def test_logits_are_those_of_the_network(pixelwise: Bundle, network: Pixelwise) -> None:
    engine = OpenVinoEngine(pixelwise)
    pixels = draw_pixels(3, CHANNELS, 17, 40)
    logits = engine.run(pixels)
    assert (engine.name, engine.device, engine.precision) == ("openvino", "cpu", "fp32")
    assert logits.dtype == np.float32
    assert logits.flags.c_contiguous
    np.testing.assert_allclose(logits, network.answer(pixels), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 96)])
def test_a_tile_gets_the_same_bytes_in_every_batch_and_with_any_threads(
    pixelwise: Bundle, size: tuple[int, int]
) -> None:
    pixels = draw_pixels(5, CHANNELS, *size)
    whole = OpenVinoEngine(pixelwise, threads=1).run(pixels)
    for threads in (2, 3, 20):
        engine = OpenVinoEngine(pixelwise, threads=threads)
        alone = np.concatenate([engine.run(pixels[tile : tile + 1]) for tile in range(5)])
        assert (engine.run(pixels) == whole).all()
        assert (alone == whole).all()
        engine.close()


@pytest.mark.skipif(usable_cores() < 2, reason="one core runs one thread")
def test_a_network_whose_sums_openvino_would_divide_among_threads_gets_the_same_bytes_with_any_threads() -> None:
    bundle = find_bundle("cloud-mscloudcam")
    pixels, _ = read_golden(bundle)
    pixels = np.concatenate([pixels, pixels[::-1]])
    one, many = (OpenVinoEngine(bundle, threads=threads) for threads in (1, 0))
    assert many.batch_tiles > one.batch_tiles == 1
    assert (one.run(pixels) == many.run(pixels)).all()


@pytest.mark.parametrize("name", WITH_GRAPH)
def test_a_shipped_bundle_gets_the_labels_of_torch_and_of_onnx_runtime(name: str) -> None:
    bundle = find_bundle(name)
    engine = OpenVinoEngine(bundle)
    assert check_golden(engine, bundle).trouble == ""
    pixels, _ = read_golden(bundle)
    by_onnx = OnnxEngine(bundle).run(pixels).argmax(1)
    assert (engine.run(pixels).argmax(1) == by_onnx).mean() >= 0.9999


@needs_bf16
@pytest.mark.parametrize("name", WITH_GRAPH)
def test_bf16_gives_99_of_100_golden_pixels_the_class_of_fp32(name: str) -> None:
    bundle = find_bundle(name)
    engine = OpenVinoEngine(bundle, precision="bf16")
    agreement = check_golden(engine, bundle)
    assert engine.precision == agreement.precision == "bf16"
    assert agreement.trouble == ""
    assert agreement.largest_difference > 1e-3  # otherwise it was not bf16


@needs_bf16
def test_a_tile_that_bf16_makes_infinite_is_computed_again_in_fp32(tmp_path: Path) -> None:
    network = Pixelwise(np.eye(CLASSES, CHANNELS, dtype=np.float32), np.zeros(CLASSES, np.float32))
    bundle = write_pixelwise_bundle(tmp_path, network)
    pixels = draw_pixels(3, CHANNELS, 16, 16)
    # Between the largest numbers of bf16 and of fp32.
    pixels[1, 0, 4, 5] = 3.4e38
    reduced = OpenVinoEngine(bundle, precision="bf16")
    assert not np.isfinite(reduced._run(pixels, "bf16")[1]).all()
    logits, exact = reduced.run(pixels), OpenVinoEngine(bundle).run(pixels)
    assert (logits[1] == exact[1]).all()
    assert (logits[[0, 2]] != exact[[0, 2]]).any()


@needs_bf16
def test_without_room_for_temporary_files_bf16_ends_with_69_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    bundle = find_bundle("cloud-lale")
    engine = OpenVinoEngine(bundle, precision="bf16", kept=CompiledGraphs(tmp_path / "cache"))
    with pytest.raises(EngineError, match="temporary folder") as caught:
        engine.run(read_golden(bundle)[0])
    assert caught.value.exit_code == 69
    assert "--engine onnx" in caught.value.hint


def test_pixels_that_may_not_be_written_or_lie_apart_are_read_all_the_same(
    pixelwise: Bundle, network: Pixelwise
) -> None:
    pixels = draw_pixels(2, CHANNELS, 16, 32)
    locked = pixels.copy()
    locked.setflags(write=False)
    engine = OpenVinoEngine(pixelwise)
    assert (engine.run(locked) == engine.run(pixels)).all()
    strided = pixels[:, :, ::2, ::2]
    np.testing.assert_allclose(engine.run(strided), network.answer(strided), atol=1e-5)


def test_an_answer_does_not_change_when_the_next_one_is_computed(pixelwise: Bundle) -> None:
    engine = OpenVinoEngine(pixelwise)
    first = engine.run(draw_pixels(4, CHANNELS, 16, 16, seed=1))
    kept = first.copy()
    engine.run(draw_pixels(4, CHANNELS, 16, 16, seed=2))
    assert (first == kept).all()


def test_only_the_last_few_shapes_stay_compiled(pixelwise: Bundle, network: Pixelwise) -> None:
    engine = OpenVinoEngine(pixelwise)
    for side in (8, 16, 24, 32, 40, 8):
        pixels = draw_pixels(1, CHANNELS, side, side + 1)
        np.testing.assert_allclose(engine.run(pixels), network.answer(pixels), atol=1e-5)
    assert [key[2] for key in engine._queues] == [24, 32, 40, 8]


@pytest.mark.parametrize(("threads", "tiles"), [(1, 1), (10**6, min(usable_cores(), 32)), (0, min(usable_cores(), 32))])
def test_as_many_tiles_run_at_once_as_there_are_threads_up_to_the_cores(
    pixelwise: Bundle, threads: int, tiles: int
) -> None:
    assert OpenVinoEngine(pixelwise, threads=threads).batch_tiles == tiles


@pytest.mark.parametrize(("device", "precision"), [("cuda:0", "auto"), ("cpu", "fp16")])
def test_what_does_not_run_is_refused_with_a_remedy(pixelwise: Bundle, device: str, precision: str) -> None:
    with pytest.raises(EngineError) as caught:
        OpenVinoEngine(pixelwise, device, precision)
    assert caught.value.exit_code == 69
    assert "--" in caught.value.hint


def test_bf16_without_bf16_in_the_processor_is_refused(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: False)
    with pytest.raises(EngineError, match="this processor has no bf16: "):
        OpenVinoEngine(pixelwise, precision="bf16")


def test_a_bundle_without_a_graph_is_the_bundles_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no onnx"):
        OpenVinoEngine(write_pixelwise_bundle(tmp_path, onnx=b""))


def bundle_with(folder: Path, **graph: Any) -> Bundle:
    return write_pixelwise_bundle(folder, onnx=make_graph(draw_network(), **graph).SerializeToString())


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ({"sizes": ("batch", "channels", "height", "width")}, r"the card wants pixels"),
        ({"name": "image"}, "image .*the card wants pixels"),
    ],
)
def test_a_graph_that_does_not_fit_the_card_is_refused(tmp_path: Path, graph: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        OpenVinoEngine(bundle_with(tmp_path, **graph))
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (("batch", CHANNELS, 256, 256), r"pixels tensor\(float\) \['any', 3, 256, 256\]"),
        ((1, CHANNELS, "height", "width"), r"\[1, 3, 'any', 'any'\]"),
    ],
)
def test_a_graph_of_fixed_size_is_left_to_another_engine(tmp_path: Path, sizes: tuple[Any, ...], words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        OpenVinoEngine(bundle_with(tmp_path, sizes=sizes))
    assert "--engine onnx" in caught.value.hint


def test_a_truncated_graph_is_refused(tmp_path: Path) -> None:
    content = make_graph(draw_network()).SerializeToString()
    with pytest.raises(ModelError, match="truncated"):
        OpenVinoEngine(write_pixelwise_bundle(tmp_path, onnx=content[: len(content) // 2]))


def test_a_graph_that_openvino_cannot_run_leaves_it_to_another_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="OpenVINO cannot run the graph of bundle pixelwise: ") as caught:
        OpenVinoEngine(bundle_with(tmp_path, op_type="Conf"))
    assert "--engine onnx" in caught.value.hint


def never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "read_model", None)


def test_weights_in_another_file_are_refused_before_openvino_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_graph(draw_network())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="weights.bin")
    never_read(monkeypatch)
    with pytest.raises(ModelError, match="other files"):
        OpenVinoEngine(write_pixelwise_bundle(tmp_path, onnx=model.SerializeToString()))


def test_operators_from_elsewhere_are_refused_before_openvino_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_read(monkeypatch)
    with pytest.raises(ModelError, match=r"'org\.example'"):
        OpenVinoEngine(bundle_with(tmp_path, domain="org.example"))


def test_pixels_that_the_graph_cannot_take_end_with_69_and_the_engine_still_runs(
    pixelwise: Bundle, network: Pixelwise
) -> None:
    engine = OpenVinoEngine(pixelwise)
    with pytest.raises(EngineError, match=r"OpenVINO failed: .+"):
        engine.run(draw_pixels(1, CHANNELS + 1, 8, 8))
    pixels = draw_pixels(2, CHANNELS, 8, 8)
    np.testing.assert_allclose(engine.run(pixels), network.answer(pixels), atol=1e-5)


def test_an_answer_of_another_size_is_refused_and_not_left_as_the_memory_was(
    tmp_path: Path, network: Pixelwise
) -> None:
    bundle = write_pixelwise_bundle(tmp_path / "b", network, onnx=first_pixel_alone(network))
    with pytest.raises(EngineError, match="the answer to a tile of"):
        OpenVinoEngine(bundle).run(draw_pixels(1, CHANNELS, 8, 8))


def test_a_closed_engine_runs_no_more(pixelwise: Bundle) -> None:
    engine = OpenVinoEngine(pixelwise)
    engine.run(draw_pixels(1, CHANNELS, 8, 8))
    engine.close()
    with pytest.raises(AssertionError):
        engine.run(draw_pixels(1, CHANNELS, 8, 8))


def test_what_its_answers_depend_on_counts_how_graphs_are_rewritten(pixelwise: Bundle) -> None:
    assert f"rewriting {openvino_graph.REWRITES}," in OpenVinoEngine(pixelwise).fingerprint


def test_an_engine_that_never_ran_can_be_closed(pixelwise: Bundle) -> None:
    OpenVinoEngine(pixelwise).close()


def test_cuda_is_never_there_and_the_machines_own_reason_comes_first() -> None:
    assert find_cuda_obstacle(CudaProbe(0, "no driver")) == "no driver"
    assert "CPUs only" in find_cuda_obstacle(CudaProbe(1))


def test_a_run_sends_nothing_writes_only_its_cache_and_loads_no_other_framework(
    pixelwise: Bundle, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys, pathlib, socket, numpy\n"
        "def refuse(*_, **__): raise SystemExit('a connection was opened')\n"
        "socket.socket = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from geoseg_cli.bundle import Bundle\n"
        "from geoseg_cli.engines import EngineOptions, available_engines, choose_engine\n"
        "options = EngineOptions(engine='openvino', device='cpu')\n"
        "engine, _ = choose_engine(Bundle.open(pathlib.Path(sys.argv[1])), options)\n"
        "engine.run(numpy.zeros((1, 3, 8, 8), numpy.float32))\n"
        "names = ('torch', 'onnxruntime', 'openvino_telemetry', 'openvino.tools.ovc')\n"
        "print(engine.name, [name for name in names if name in sys.modules], [*pathlib.Path.home().rglob('*')])\n"
        "available_engines()\n"
        "print('openvino_telemetry' in sys.modules)\n"
    )
    # Where CI is set the package keeps its telemetry to itself.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", code, pixelwise.folder],
        capture_output=True, text=True, check=True, cwd=home,
        env={**environment, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["openvino [] []", "False"]
