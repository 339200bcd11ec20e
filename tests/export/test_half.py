"""The change of a graph to fp16: what stays fp32, and that it stays right where fp16 would not be."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.export.half import LARGEST_MAGNITUDE, compute_in_half
from geoseg_cli.export.onnx_file import build_graph, open_graph, save_graph
from tests.export.toys import CHANNELS, Plain, TokenLogarithm, draw, seeded

HALF, FULL = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
SHAPE = (2, CHANNELS, 32, 48)


def halve(network: nn.Module, path: Path, magnitudes: dict[str, float] | None = None) -> onnx.ModelProto:
    model = build_graph(network, SHAPE)
    compute_in_half(model, magnitudes or {})
    save_graph(model, path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value of a graph, by ONNX's own inference, which knows nothing of ours."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    found = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def input_types(model: onnx.ModelProto, operator: str) -> list[int]:
    types = types_of(model)
    return [types[node.input[0]] for node in model.graph.node if node.op_type == operator]


def test_products_run_in_fp16_and_inputs_and_outputs_stay_fp32(tmp_path: Path) -> None:
    model = halve(seeded(Plain), tmp_path / "a.onnx")
    assert input_types(model, "Conv") == [HALF, HALF]
    assert input_types(model, "MatMul") == [HALF]
    for tensor in (*model.graph.input, *model.graph.output):
        assert tensor.type.tensor_type.elem_type == FULL
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in sizes] == ["batch", CHANNELS, "height", "width"]
    assert model.graph.output[0].name == "logits"


def test_means_roots_and_squares_stay_fp32(tmp_path: Path) -> None:
    model = halve(seeded(Plain), tmp_path / "a.onnx")
    for operator in ("ReduceMean", "Sqrt", "Reciprocal"):
        assert set(input_types(model, operator)) == {FULL}, operator
    squares = [
        node for node in model.graph.node
        if node.op_type == "Pow" or (node.op_type == "Mul" and node.input[0] == node.input[1])
    ]  # fmt: skip
    types = types_of(model)
    assert squares
    assert {types[node.input[0]] for node in squares} == {FULL}


def test_weights_take_half_the_room(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(CHANNELS, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval()
    exact = build_graph(network, SHAPE)
    save_graph(exact, tmp_path / "fp32.onnx")
    halve(network, tmp_path / "fp16.onnx")
    large, small = ((tmp_path / f"{name}.onnx").stat().st_size for name in ("fp32", "fp16"))
    assert 0.45 < small / large < 0.6


def test_the_answer_is_that_of_fp32_but_for_roundings(tmp_path: Path) -> None:
    network = seeded(Plain)
    halve(network, tmp_path / "a.onnx")
    pixels = draw(2, CHANNELS, 40, 56)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels)).numpy()
    off = np.abs(open_graph(tmp_path / "a.onnx")(pixels) - wanted).max()
    # 11 significant bits: below 2^-11 of the largest there was nothing rounded, above 2^-7 too much.
    assert 2**-16 < off / np.abs(wanted).max() < 2**-7


def test_a_count_of_tokens_beyond_fp16_keeps_its_logarithm(tmp_path: Path) -> None:
    """1028 x 1028 pixels are 66,049 tokens, more than the largest fp16 number."""
    network = seeded(TokenLogarithm, False)
    model = halve(network, tmp_path / "a.onnx")
    assert input_types(model, "Log") == [FULL]
    pixels = draw(1, CHANNELS, 1028, 1028)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(open_graph(tmp_path / "a.onnx")(pixels), wanted, atol=0.02)


def two_layers(magnitudes: dict[str, float], tmp_path: Path) -> list[int]:
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        two (float[N, 3, H, W] pixels) => (float[N, 2, H, W] logits)
        <float[4, 3, 1, 1] first = {1,2,3,4,5,6,7,8,9,10,11,12}, float[2, 4, 1, 1] second = {1,2,3,4,5,6,7,8}>
        { between = Conv(pixels, first)  logits = Conv(between, second) }"""
    )
    model = ir.from_proto(graph)
    compute_in_half(model, magnitudes)
    save_graph(model, tmp_path / "a.onnx")
    return input_types(onnx.load(tmp_path / "a.onnx"), "Conv")


@pytest.mark.parametrize(
    ("magnitudes", "wanted"),
    [
        ({}, [HALF, HALF]),
        ({"between": LARGEST_MAGNITUDE}, [HALF, HALF]),
        ({"between": LARGEST_MAGNITUDE * 1.01}, [FULL, FULL]),
        ({"between": math.inf}, [FULL, FULL]),
        ({"logits": 1e6}, [HALF, FULL]),
        ({"pixels": 1e6}, [FULL, HALF]),
    ],
)
def test_layers_with_large_values_stay_fp32(tmp_path: Path, magnitudes: dict[str, float], wanted: list[int]) -> None:
    assert two_layers(magnitudes, tmp_path) == wanted


def run_text(text: str, tmp_path: Path, **inputs: np.ndarray) -> np.ndarray:
    """Halve a graph that is given as text and run it."""
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]>\n{text}'))
    compute_in_half(model, {})
    save_graph(model, tmp_path / "a.onnx")
    onnx.checker.check_model(tmp_path / "a.onnx", full_check=True)
    result: np.ndarray = onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, inputs)[0]
    return result


@pytest.mark.parametrize("constant", ["1e-7", "1e30", "-1e37"])
def test_a_constant_that_fp16_cannot_hold_keeps_its_operator_in_fp32(tmp_path: Path, constant: str) -> None:
    text = f"""one (float[2, 2] x) => (float[2, 2] y) <float[2, 2] eye = {{1, 0, 0, 1}}, float tiny = {{{constant}}}>
    {{ product = MatMul(x, eye)  y = Mul(product, tiny) }}"""
    x = np.array([[1, 2], [3, 0]], np.float32)
    np.testing.assert_allclose(run_text(text, tmp_path, x=x), x * np.float32(constant), rtol=1e-6)


def test_a_product_of_a_value_with_itself_stays_fp32_and_other_products_do_not(tmp_path: Path) -> None:
    text = """two (float[2, 2] x) => (float[2, 2] y, float[2, 2] z) <float[2, 2] eye = {1, 0, 0, 1}>
    { a = MatMul(x, eye)  b = MatMul(a, eye)  y = Mul(a, a)  z = Mul(a, b) }"""
    x = np.diag(np.float32([300, 2]))
    np.testing.assert_array_equal(run_text(text, tmp_path, x=x), x * x)
    assert input_types(onnx.load(tmp_path / "a.onnx"), "Mul") == [FULL, HALF]


def test_an_input_that_is_also_an_output_and_a_constant_answer_stay_as_they_are(tmp_path: Path) -> None:
    text = """id (float[2] x) => (float[2] y) { y = Identity(x) }"""
    x = np.array([1e-7, 1e30], np.float32)
    assert (run_text(text, tmp_path, x=x) == x).all()


def test_a_value_that_is_needed_in_both_types_is_right_in_both(tmp_path: Path) -> None:
    text = """both (float[2, 2] x) => (float[2, 2] y) <float[2, 2] eye = {1, 0, 0, 1}>
    { a = MatMul(x, eye)  b = Exp(a)  c = MatMul(a, eye)  d = MatMul(b, eye)  e = Add(c, d)  y = Add(e, b) }"""
    x = np.array([[1, 2], [3, 0]], np.float32)
    np.testing.assert_allclose(run_text(text, tmp_path, x=x), x + 2 * np.exp(x), rtol=2**-9)


class Branching(nn.Module):
    """Chooses by a value inside the graph."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cond(pixels.sum() > 0, lambda x: x + 1.0, lambda x: x - 1.0, (pixels,))


def test_control_flow_is_refused() -> None:
    with pytest.raises(ModelError, match=r"control flow \(If\)") as caught:
        compute_in_half(build_graph(Branching(), SHAPE), {})
    assert "fp32" in caught.value.hint
