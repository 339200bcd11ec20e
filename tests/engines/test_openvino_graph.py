from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from geoseg_cli.bundle import Bundle
from geoseg_cli.export.graph import average_channels_by_product
from tests.engines.pixelwise import draw_pixels

if importlib.util.find_spec("openvino") is None:
    pytest.skip("the package openvino is not installed", allow_module_level=True)

from geoseg_cli.engines import openvino_graph
from geoseg_cli.engines.openvino_graph import (
    compile_for,
    convolve_channel_means,
    fine_nodes,
    has_bf16,
    openvino,
    read_model,
    settings_for,
)

CHANNELS = 12
SHIPPED = Path(__file__).resolve().parents[2] / "models" / "landcover-lale"
NEEDS_BF16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no bf16")


def mean_graph(keepdims: int = 1, rank: int = 4) -> onnx.ModelProto:
    """y = x - mean of x over axis 1, as PyTorch's exporter writes it."""
    sizes = ["batch", CHANNELS, "height", "width"][:rank]
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=keepdims),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def exported_mean(share: float | None = None) -> bytes:
    """The mean as the export writes it; ``share`` replaces the 1 / C of its product."""
    model = ir.serde.deserialize_model(mean_graph())
    assert average_channels_by_product(model) == 1
    proto = ir.serde.serialize_model(model)
    if share is not None:
        constants = [node for node in proto.graph.node if node.op_type == "Constant"]
        for node in constants:
            tensor = node.attribute[0].t
            if list(tensor.dims) == [1, CHANNELS]:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.full((1, CHANNELS), share, np.float32)))
    content: bytes = proto.SerializeToString()
    return content


def kinds(model: object) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]  # type: ignore[attr-defined]


def run(model: object, pixels: np.ndarray) -> np.ndarray:
    answer: np.ndarray = compile_for(model, pixels.shape[1:], settings_for("fp32", 1))(pixels)[0]
    return answer


def test_a_mean_over_channels_becomes_a_convolution_with_the_same_answer() -> None:
    model = read_model(exported_mean())
    assert "Convolution" in kinds(model)
    assert "MatMul" not in kinds(model)
    pixels = draw_pixels(1, CHANNELS, 9, 13)
    np.testing.assert_allclose(run(model, pixels), pixels - pixels.mean(axis=1, keepdims=True), atol=1e-6)


def test_a_product_with_other_weights_stays_a_product() -> None:
    model = read_model(exported_mean(share=0.5))
    assert "MatMul" in kinds(model)
    pixels = draw_pixels(1, CHANNELS, 9, 13)
    np.testing.assert_allclose(run(model, pixels), pixels - pixels.sum(axis=1, keepdims=True) / 2, atol=1e-5)


def test_every_mean_of_a_shipped_bundle_is_found() -> None:
    path = SHIPPED / "model.onnx"
    shares = [
        value
        for value in onnx.load(path).graph.node
        if value.op_type == "Constant"
        and list(value.attribute[0].t.dims)[:1] == [1]
        and len(value.attribute[0].t.dims) == 2
        and np.ptp(onnx.numpy_helper.to_array(value.attribute[0].t)) == 0
    ]
    assert shares
    assert convolve_channel_means(openvino.Core().read_model(path)) == len(shares)


def sides_of_convolutions(model: object, names: set[str]) -> Counter[int]:
    """Rows of what the convolutions of these names give, and how many give as many; no means of channels."""
    return Counter(
        node.output(0).get_shape()[2]
        for node in model.get_ordered_ops()  # type: ignore[attr-defined]
        if node.get_friendly_name() in names and node.get_type_name() in ("Convolution", "GroupConvolution")
        and node.output(0).get_shape()[1] > 1
    )  # fmt: skip


def test_the_fine_part_of_lale_is_its_stem_its_mixers_and_what_they_hand_to_the_decoder() -> None:
    model = read_model((SHIPPED / "model.onnx").read_bytes())
    model.reshape([1, model.input(0).get_partial_shape()[1].get_length(), 96, 160])
    # the stem halves twice, seven mixers follow, of two convolutions each; one halves, seven more; each is projected
    assert sides_of_convolutions(model, fine_nodes(model, 96)) == {48: 1, 24: 16, 12: 16}


def test_the_fine_part_of_a_swin_encoder_is_what_cuts_the_patches() -> None:
    model = read_model((SHIPPED.parent / "cloud-mscloudcam" / "model.onnx").read_bytes())
    model.reshape([1, model.input(0).get_partial_shape()[1].get_length(), 96, 160])
    assert sides_of_convolutions(model, fine_nodes(model, 96)) == {24: 1}


def test_a_graph_without_a_coarse_map_has_no_fine_part() -> None:
    model = read_model(exported_mean())
    model.reshape([1, CHANNELS, 32, 32])
    assert fine_nodes(model, 32) == set()


def test_a_bias_is_no_coarse_map_of_a_small_image(pixelwise: Bundle) -> None:
    model = read_model(pixelwise.file("onnx").read_bytes())
    model.reshape([1, pixelwise.input_spec.channels, 16, 16])
    assert sides_of_convolutions(model, fine_nodes(model, 16)) == {}


@NEEDS_BF16
def test_in_bf16_the_fine_part_runs_in_fp32_and_the_rest_in_bf16() -> None:
    model = read_model((SHIPPED / "model.onnx").read_bytes())
    channels = model.input(0).get_partial_shape()[1].get_length()
    compiled = compile_for(model, (channels, 96, 96), settings_for("bf16", 1)).get_runtime_model()
    precisions = [
        (node.output(0).get_shape()[2], node.get_rt_info()["runtimePrecision"])
        for node in compiled.get_ordered_ops()
        if node.get_rt_info()["layerType"] in ("Convolution", "GroupConvolution") and node.output(0).get_shape()[1] > 1
    ]
    assert {precision for side, precision in precisions if side <= 6} == {"bf16"}
    assert sum(precision == "f32" for _, precision in precisions) == 33


@NEEDS_BF16
def test_the_fine_part_in_fp32_takes_most_of_what_bf16_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, golden = read_model((SHIPPED / "model.onnx").read_bytes()), np.load(SHIPPED / "golden.npz")
    pixels = golden["pixels"][:1]

    def differ() -> float:
        answer = compile_for(model, pixels.shape[1:], settings_for("bf16", 1))(pixels)[0]
        return float((answer.argmax(1) != golden["logits"][:1].argmax(1)).mean())

    with_fine_part = differ()
    monkeypatch.setattr(openvino_graph, "fine_nodes", lambda model, rows: set())
    assert 0 < with_fine_part < 0.6 * differ()


def test_the_converter_can_still_be_imported_by_who_wants_it() -> None:
    assert sys.modules.get("openvino.tools.ovc", openvino) is not None
