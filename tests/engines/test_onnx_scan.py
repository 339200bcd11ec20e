from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from geoseg_cli.engines.onnx_scan import check_self_contained
from geoseg_cli.errors import ModelError
from tests.engines.pixelwise import draw_network, make_graph

GRAPH = make_graph(draw_network())
CONTENT = GRAPH.SerializeToString()


def copy_of_graph() -> onnx.ModelProto:
    return onnx.ModelProto.FromString(CONTENT)


def nest(body: onnx.NodeProto) -> onnx.ModelProto:
    """A graph with ``body`` inside a branch of an If inside a branch of another If."""
    branch = helper.make_graph([body], "inner", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    for depth in range(2):
        choice = helper.make_node("If", ["condition"], ["out"], then_branch=branch, else_branch=branch)
        output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        branch = helper.make_graph([choice], f"depth{depth}", [], [output])
    return helper.make_model(branch)


def test_an_ordinary_graph_passes() -> None:
    check_self_contained(CONTENT, "x")


def test_a_graph_with_an_operator_of_onnx_runtime_passes() -> None:
    model = copy_of_graph()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    check_self_contained(model.SerializeToString(), "x")


def place_outside(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


def test_external_weights_are_refused() -> None:
    model = copy_of_graph()
    place_outside(model.graph.initializer[0])
    with pytest.raises(ModelError, match="other files"):
        check_self_contained(model.SerializeToString(), "x")


def test_external_data_hidden_in_a_constant_of_a_nested_graph_is_refused() -> None:
    model = nest(helper.make_node("Constant", [], ["out"], value=outside_tensor()))
    with pytest.raises(ModelError, match="other files"):
        check_self_contained(model.SerializeToString(), "x")


def outside_tensor() -> onnx.TensorProto:
    tensor = helper.make_tensor("secret", TensorProto.FLOAT, [1], [0.0])
    place_outside(tensor)
    return tensor


def hide(place: str) -> onnx.ModelProto:
    """A graph with an outside tensor where the schema of ONNX allows one."""
    model = copy_of_graph()
    inner = onnx.GraphProto(initializer=[outside_tensor()])
    sparse = onnx.SparseTensorProto(values=outside_tensor())
    attributes = {
        "t": {"t": outside_tensor()},
        "g": {"g": inner},
        "tensors": {"tensors": [outside_tensor()]},
        "graphs": {"graphs": [inner]},
        "sparse_tensor": {"sparse_tensor": sparse},
        "sparse_tensors": {"sparse_tensors": [onnx.SparseTensorProto(indices=outside_tensor())]},
    }
    if place in attributes:
        model.graph.node[0].attribute.append(onnx.AttributeProto(name="a", **attributes[place]))
    elif place == "sparse initializer":
        model.graph.sparse_initializer.append(sparse)
    else:
        model.training_info.add(**{place: inner})
    return model


@pytest.mark.parametrize(
    "place",
    ["t", "g", "tensors", "graphs", "sparse_tensor", "sparse_tensors", "sparse initializer", "initialization",
     "algorithm"],
)  # fmt: skip
def test_external_data_is_found_wherever_the_schema_allows_it(place: str) -> None:
    with pytest.raises(ModelError, match="other files"):
        check_self_contained(hide(place).SerializeToString(), "x")


def test_external_data_hidden_in_a_function_is_refused() -> None:
    model = copy_of_graph()
    constant = helper.make_node("Constant", [], ["out"], value=outside_tensor())
    model.functions.append(helper.make_function("", "F", [], ["out"], [constant], [helper.make_opsetid("", 17)]))
    with pytest.raises(ModelError, match="other files"):
        check_self_contained(model.SerializeToString(), "x")


def test_a_foreign_domain_is_refused_by_its_name() -> None:
    model = copy_of_graph()
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    with pytest.raises(ModelError, match=r"evil\.ops"):
        check_self_contained(model.SerializeToString(), "x")


def test_a_foreign_operator_in_a_nested_graph_is_refused_even_if_its_domain_is_not_imported() -> None:
    model = nest(helper.make_node("Steal", [], ["out"], domain="evil.ops"))
    assert "evil.ops" not in {entry.domain for entry in model.opset_import}
    with pytest.raises(ModelError, match=r"evil\.ops"):
        check_self_contained(model.SerializeToString(), "x")


def verdict(content: bytes) -> str:
    """What the check says; any other error than a refusal fails the test."""
    try:
        check_self_contained(content, "x")
    except ModelError as error:
        return error.message
    return "passed"


def test_a_graph_cut_anywhere_is_called_truncated_unless_the_cut_lies_between_two_fields() -> None:
    verdicts = [verdict(CONTENT[:length]) for length in range(len(CONTENT))]
    assert set(verdicts) == {"passed", "x is no ONNX file, or is truncated"}
    assert verdicts.count("passed") < 10


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(content: bytes) -> None:
    assert verdict(content) == "passed" or verdict(content).startswith("x ")


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255))
def test_a_changed_byte_passes_or_is_refused(position: int, value: int) -> None:
    changed = verdict(CONTENT[:position] + bytes([value]) + CONTENT[position + 1 :])
    assert changed == "passed" or changed.startswith("x ")


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    def wrap(inner: bytes, field: int) -> bytes:
        size, length = len(inner), b""
        while size >= 0x80:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([field << 3 | 2]) + length + bytes([size]) + inner

    content = b""
    for _ in range(3000):  # graph > node > attribute > graph > ...
        content = wrap(wrap(wrap(content, 6), 5), 1)
    check_self_contained(wrap(content, 7), "x")
