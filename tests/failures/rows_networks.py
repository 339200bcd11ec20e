"""Failures of networks, devices and classes: rows 32 to 39."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from onnx import TensorProto, helper, numpy_helper

from tests.engines.pixelwise import CLASSES, Pixelwise, make_graph, write_pixelwise_bundle
from tests.failures.case import Case, Failure, Made
from tests.failures.scenes import NEAREST, draw, red, write_red
from tests.failures.shell import Shell

FREE = ("batch", "height", "width")


def with_graph(folder: Path, graph: Any, made: Made | None = None) -> Made:
    """A sound scene, and a bundle whose graph is replaced."""
    write_pixelwise_bundle(folder.parent / "model", NEAREST, onnx=graph.SerializeToString())
    return made or red(folder)


def not_a_number(folder: Path) -> Made:
    write_pixelwise_bundle(folder.parent / "model", Pixelwise(NEAREST.weight, NEAREST.bias * np.nan))
    return red(folder)


def fixed(folder: Path, sizes: tuple[Any, ...], height: int = 90, width: int = 70) -> Made:
    return with_graph(folder, make_graph(NEAREST, sizes), red(folder, height, width))


def with_tail(nodes: tuple[Any, ...], shape: tuple[Any, ...], kind: int = TensorProto.FLOAT, **constants: Any) -> Any:
    """The network with something behind it that turns ``raw`` into ``logits`` of another shape or type."""
    graph = make_graph(NEAREST, outputs=["raw"])
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), key) for key, v in constants.items())
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info("logits", kind, shape))
    return graph


def one_channel() -> Any:
    """A sigmoid's single plane."""
    n, h, w = FREE
    cut = helper.make_node("Slice", ["raw", "zero", "one", "one"], ["plane"])
    return with_tail((cut, helper.make_node("Sigmoid", ["plane"], ["logits"])), (n, 1, h, w),
                     zero=np.array([0]), one=np.array([1]))  # fmt: skip


def chosen_already() -> Any:
    n, h, w = FREE
    return with_tail((helper.make_node("ArgMax", ["raw"], ["logits"], axis=1, keepdims=0),), (n, h, w),
                     TensorProto.INT64)  # fmt: skip


def channels_last() -> Any:
    n, h, w = FREE
    return with_tail((helper.make_node("Transpose", ["raw"], ["logits"], perm=[0, 2, 3, 1]),), (n, h, w, CLASSES))


def a_quarter() -> Any:
    """Every fourth pixel, under names of axes that say nothing."""
    pool = helper.make_node("MaxPool", ["raw"], ["logits"], kernel_shape=[1, 1], strides=[4, 4])
    return with_tail((pool,), ("batch", CLASSES, "rows", "columns"))


def one_answer_for_all() -> Any:
    """The mean of the scene, as a network that names a whole picture gives it."""
    return with_tail((helper.make_node("GlobalAveragePool", ["raw"], ["logits"]),), ("batch", CLASSES, "a", "b"))


def overviews_hold_classes(shell: Shell, made: Made) -> None:
    with rasterio.open(shell.output) as file:
        levels = range(len(file.overviews(1)))
    assert levels
    for level in levels:
        with rasterio.open(shell.output, overview_level=level) as file:
            assert set(np.unique(file.read(1))) <= {0, 1, 2, 3, 255}


NONSENSE = (
    ("one_channel", "a sigmoid's single plane for 4 classes", one_channel),
    ("chosen_already", "the classes themselves instead of logits", chosen_already),
    ("channels_last", "(N, H, W, K) instead of (N, K, H, W)", channels_last),
    ("a_quarter", "logits at a quarter of the size", a_quarter),
    ("one_answer_for_all", "one answer for the whole tile", one_answer_for_all),
)

ROWS = (
    Failure(
        32, "The GPU's memory is not enough",
        "Halves the batch down to one tile; then ends with 69 and what to do. Never goes over to the CPU unasked.",
        elsewhere=("tests/engines/test_onnx_engine.py::test_memory_that_runs_out_halves_the_batch_in_a_new_session",
                   "tests/engines/test_onnx_engine.py::test_one_tile_too_large_for_the_device_ends_with_69",
                   "tests/engines/test_torch_engine.py::test_memory_that_runs_out_halves_the_batch_and_the_smaller_one_is_kept"),
    ),
    Failure(
        33, "CUDA was asked for and does not run",
        "Ends with 69 and the reason; with --device auto it says why it is the CPU. `geoseg doctor` tells what is"
        " missing, and how to repair two wheels of ONNX Runtime that overwrote each other.",
        (Case("no_such_device", "--device cuda:99", red, ("--device", "cuda:99"), code=69, message=("cuda",),
              remedy=("--device cpu",), names="cuda"),),
        ("tests/engines/test_choose_engine.py::test_cuda_by_name_never_becomes_a_cpu",
         "tests/engines/test_choose_engine.py::test_two_wheels_of_onnx_runtime_are_reported_with_the_repair",
         "tests/engines/test_onnx_engine.py::test_a_silent_fall_back_from_cuda_to_the_cpu_ends_with_69"),
    ),
    Failure(
        34, "The network gives NaN or infinity",
        "A tile of reduced precision is computed again in fp32. What is still not finite becomes nodata and is counted;"
        " more than 0.1 % ends the run with 69: the engine does not run this network here. (70 is for mistakes of"
        " geoseg.)",
        (Case("everywhere", "a network whose weights are NaN", not_a_number, code=69, message=("non-finite numbers",),
              remedy=("--precision fp32",), has_old_map=True),),
        ("tests/test_mosaic.py::test_non_finite_logits_become_nodata_and_are_counted",
         "tests/engines/test_torch_engine.py::test_a_tile_that_overflows_in_reduced_precision_is_computed_again_in_fp32",
         "tests/engines/test_openvino_engine.py::test_a_tile_that_bf16_makes_infinite_is_computed_again_in_fp32",
         "tests/engines/test_int8.py::test_a_tile_that_int8_makes_infinite_is_computed_again_in_fp32"),
    ),
    Failure(
        35, "A graph of fixed size",
        "On a CPU ONNX Runtime is given a batch and tiles of that size, mirrored where the scene ends; larger tiles"
        " are refused.",
        (
            *(Case("_".join(map(str, sizes)), f"a graph that takes {list(sizes)}",
                   lambda f, sizes=sizes: fixed(f, sizes))
              for sizes in ((1, 3, 64, 64), (4, 3, "h", "w"), ("n", 3, 64, 64), (2, 3, 64, 64))),
            Case("tile_is_larger", "a graph of 64 x 64 px, --tile 96", lambda f: fixed(f, (1, 3, 64, 64)),
                 ("--tile", "96"), code=78, message=("64 x 64",), remedy=("--tile 64",), names="pixelwise"),
            Case("scene_is_smaller", "a graph of 64 x 64 px, a scene of 20 x 30 px",
                 lambda f: fixed(f, (1, 3, 64, 64), 20, 30)),
        ),
    ),
    Failure(
        36, "The answer has another form than the card says",
        "Refused. The card states classes and order of axes; nothing is guessed from shapes.",
        tuple(
            Case(name, f"a graph that gives {given}", lambda f, make=make: with_graph(f, make()), code=78,
                 message=("the graph",), remedy=("export the bundle again",), names="pixelwise")
            for name, given, make in NONSENSE
        ),
        ("tests/engines/test_onnx_engine.py::test_a_graph_with_other_channels_or_classes_is_refused",
         "tests/engines/test_openvino_engine.py::test_a_graph_that_does_not_fit_the_card_is_refused"),
    ),
    Failure(
        37, "The map depends on batch, threads or chance",
        "Networks run in evaluation mode; on a CPU every tile runs alone.",
        tuple(
            Case(f"batch_{size}", f"--batch {size}", lambda f: red(f, 200, 150), ("--batch", str(size)))
            for size in (1, 8)
        ),
        ("tests/cli/test_process.py::test_labels_do_not_depend_on_batch_or_threads",
         "tests/engines/test_torch_engine.py::test_dropout_is_off",
         "tests/engines/test_onnx_engine.py::test_a_tile_gets_the_same_bytes_in_every_batch_and_with_any_threads"),
    ),
    Failure(
        38, "Overviews with classes that do not exist", "Overviews hold classes of the legend only.",
        (Case("overviews", "1,100 x 700 px of random classes", lambda f: write_red(f / "scene.tif", draw(1_100, 700)),
              after=overviews_hold_classes),),
        ("tests/results/test_cog.py::test_overviews_hold_nothing_but_classes",
         "tests/results/test_cog.py::test_overviews_that_invent_classes_are_caught"),
    ),
    Failure(
        39, "Class values that the file cannot hold",
        "Maps are uint8, or uint16 where a class value or their number needs it; what neither holds is refused when the"
        " bundle is opened. No number is converted by wrapping; values are compared when the map is read back.",
        elsewhere=("tests/test_numbers.py::test_more_classes_than_uint16_holds_are_refused_when_the_bundle_is_opened",
                   "tests/test_wide_legends.py::test_every_class_of_a_large_legend_comes_back_as_its_value_however_it_is_tiled",
                   "tests/test_numbers.py::test_a_legend_has_no_value_and_no_nodata_that_its_type_would_wrap",
                   "tests/test_numbers.py::test_a_raster_takes_no_numbers_that_would_have_to_be_converted",
                   "tests/test_numbers.py::test_a_share_that_would_wrap_around_in_uint8_is_never_stored",
                   "tests/test_catalog.py::test_values_that_cannot_be_told_apart_in_a_map_are_refused",
                   "tests/results/test_raster.py::test_checksums_counts_and_values_are_those_of_the_pixels"),
    ),
)  # fmt: skip
