"""Turn an exported fp32 graph into one that computes in fp16 where that is fast and safe.

Inputs and outputs stay fp32. Three kinds of operators, as in the mixed precision of Micikevicius et al. 2018
(arXiv 1710.03740, section 3): products of matrices run in fp16; sums, powers, roots, norms and softmax run in fp32,
because their results leave the range of fp16 (6e-8 to 65504) or lose its 11 significant bits; all others run in what
they are given, in fp32 where that is mixed. Numbers that come from sizes, such as the logarithm of a count of tokens,
never pass through fp16, in which 65,536 tokens would be infinitely many. Values that were seen to come near the end
of the range stay fp32, too: running the graph does not show them, because ONNX Runtime leaves roundings away on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common as passes

from geoseg_cli.errors import ModelError

LARGEST_MAGNITUDE = 65504 / 4
"""Values that were seen to exceed it stay fp32; other scenes may have values four times as large."""

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Attention"})
_EXACT = frozenset(
    {"Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization",
     "BatchNormalization", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd",
     "ReduceLogSumExp", "CumSum", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Div", "Range", "Erf", "Tanh", "Softplus"}
)  # fmt: skip
# Inputs that may be fp16; by default all inputs of type float.
_DATA_INPUTS = {"Resize": 1, "Upsample": 1}
_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
_FLOATS = {True: ir.DataType.FLOAT16, False: ir.DataType.FLOAT}


def compute_in_half(model: ir.Model, magnitudes: Mapping[str, float]) -> int:
    """Change a graph so that it computes in fp16 where that is fast and safe; its inputs and outputs stay fp32.

    Args:
        model: An fp32 graph without control flow; changed in place.
        magnitudes: Name of a value -> the largest magnitude that was seen of it in fp32.

    Returns:
        Operators that run in fp16 now.

    Raises:
        ModelError: The graph has control flow, or values of unknown type.
    """
    passes.ShapeInferencePass()(model)
    model.graph.sort()
    halver = _Halver(model.graph, magnitudes)
    for node in list(model.graph):
        halver.convert(node)
    halver.restore_outputs()
    passes.RemoveUnusedNodesPass()(model)
    return halver.converted


class _Halver:
    """Walks a graph from its inputs on, and remembers which values are fp16 and which copies there are of each."""

    def __init__(self, graph: ir.Graph, magnitudes: Mapping[str, float]) -> None:
        self._graph = graph
        self._magnitudes = magnitudes
        self._halves: set[ir.Value] = set()
        self._copies: dict[tuple[ir.Value, bool], ir.Value] = {}
        self.converted = 0

    def convert(self, node: ir.Node) -> None:
        """Give a node inputs of one floating type and note the type of its outputs."""
        if any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in _attributes(node)):
            raise ModelError(f"the graph has control flow ({node.op_type})", "export it with --precision fp32")
        if node.op_type in ("Constant", "ConstantOfShape", "Cast"):
            return  # their attribute says what comes out
        inputs = self._data_inputs(node)
        if not inputs:
            return
        is_half = self._runs_in_half(node, [value for _, value in inputs])
        for index, value in inputs:
            node.replace_input_with(index, self._as(value, is_half, node))
        if is_half:
            self._note_outputs(node)

    def restore_outputs(self) -> None:
        """Make every output of the graph fp32 again, under its own name."""
        for index, output in enumerate(self._graph.outputs):
            if output in self._halves:
                name, shape = output.name, output.shape
                output.name = f"{name}_fp16"
                back = ir.node("Cast", [output], {"to": ir.DataType.FLOAT})
                back.outputs[0].name, back.outputs[0].shape = name, shape
                back.outputs[0].dtype = ir.DataType.FLOAT
                self._graph.append(back)
                self._graph.outputs[index] = back.outputs[0]

    def _data_inputs(self, node: ir.Node) -> list[tuple[int, ir.Value]]:
        """The inputs of a node that are floating, with their places."""
        limit = _DATA_INPUTS.get(node.op_type, len(node.inputs))
        found = []
        for index, value in enumerate(node.inputs[:limit]):
            if value is None:
                continue
            dtype = _type_of(value)
            if dtype in _FLOATS.values():
                found.append((index, value))
        return found

    def _runs_in_half(self, node: ir.Node, inputs: list[ir.Value]) -> bool:
        if node.op_type in _EXACT or _squares(node) or not all(map(self._fits, (*inputs, *node.outputs))):
            return False
        constants = [value for value in inputs if _array(value) is not None]
        if not all(_survives_half(value) for value in constants):
            return False
        if node.op_type in _PRODUCTS:
            return True
        moving = [value for value in inputs if value not in constants]
        return bool(moving) and all(value in self._halves for value in moving)

    def _fits(self, value: ir.Value) -> bool:
        return self._magnitudes.get(value.name or "", 0.0) <= LARGEST_MAGNITUDE

    def _as(self, value: ir.Value, is_half: bool, user: ir.Node) -> ir.Value:
        """The value in the wanted type; a copy of it is made once."""
        if (value in self._halves) == is_half:
            return value
        key = (value, is_half)
        if key not in self._copies:
            array = _array(value)
            copy = self._cast(value, is_half, user) if array is None else self._hold(value, array.astype(np.float16))
            self._copies[key] = copy
            if is_half:
                self._halves.add(copy)
        return self._copies[key]

    def _cast(self, value: ir.Value, is_half: bool, user: ir.Node) -> ir.Value:
        node = ir.node("Cast", [value], {"to": _FLOATS[is_half]})
        copy = node.outputs[0]
        copy.name, copy.shape, copy.dtype = f"{value.name}_fp{16 if is_half else 32}", value.shape, _FLOATS[is_half]
        producer = value.producer()
        if producer is None:  # an input of the graph
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)
        return copy

    def _hold(self, value: ir.Value, array: npt.NDArray[np.float16]) -> ir.Value:
        name = f"{value.name}_fp16"
        copy = ir.Value(name=name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16))
        copy.const_value = ir.tensor(array, name=name)
        self._graph.register_initializer(copy)
        return copy

    def _note_outputs(self, node: ir.Node) -> None:
        self.converted += 1
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.dtype = ir.DataType.FLOAT16
                self._halves.add(output)


def _attributes(node: ir.Node) -> list[ir.Attr]:
    return [attribute for attribute in node.attributes.values() if isinstance(attribute, ir.Attr)]


def _type_of(value: ir.Value) -> ir.DataType:
    if value.dtype is None:
        array = _array(value)
        if array is None:
            raise ModelError(f"the type of {value.name} in the graph is unknown", "export it with --precision fp32")
        return ir.DataType.from_numpy(array.dtype)
    return value.dtype


def _squares(node: ir.Node) -> bool:
    """Whether a node multiplies a value with itself: from 256 on, squares are no fp16 numbers."""
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _survives_half(value: ir.Value) -> bool:
    """Whether a constant keeps its meaning in fp16; tiny weights may vanish, a lone tiny number (an epsilon) not."""
    array = _array(value)
    assert array is not None
    size = np.abs(array.astype(np.float32))
    too_small = array.size == 1 and bool(0 < size.ravel()[0] < _SMALLEST_NORMAL)
    return bool((size <= np.finfo(np.float16).max).all()) and not too_small


def _array(value: ir.Value) -> npt.NDArray[Any] | None:
    """What a constant holds; None for any other value."""
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()
