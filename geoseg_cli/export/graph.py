"""Changes to an exported ONNX graph that keep what it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

_CHANNEL_AXIS = 1


def forget_origin(model: ir.Model) -> None:
    """Take out what tells of the machine that a graph was made on: the exporter writes call stacks into it."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()


def average_channels_by_product(model: ir.Model) -> int:
    """Write means over the channels of a map as matrix products with 1 / C.

    ONNX Runtime's mean over axis 1 is about 15 times slower for one tile than for two, and tiles run alone.

    Returns:
        Means that were rewritten.
    """
    means = [node for node in model.graph if _is_channel_mean(node)]
    for node in means:
        _replace_mean(model.graph, node)
    return len(means)


def _is_channel_mean(node: ir.Node) -> bool:
    if node.op_type != "ReduceMean" or len(node.inputs) != 2 or node.attributes.get_int("keepdims", 1) != 1:
        return False
    source, axes = node.inputs
    if source is None or axes is None or source.shape is None or ir.convenience.get_const_tensor(axes) is None:
        return False
    is_map = len(source.shape) == 4 and isinstance(source.shape[_CHANNEL_AXIS], int)
    return is_map and _constant(axes).tolist() == [_CHANNEL_AXIS]


def _constant(value: ir.Value) -> Any:
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy()


def _replace_mean(graph: ir.Graph, node: ir.Node) -> None:
    """Put (1, C) @ (N, C, H * W), brought back to (N, 1, H, W), in the place of a mean of (N, C, H, W)."""
    source, mean = node.inputs[0], node.outputs[0]
    assert source is not None
    assert source.shape is not None
    channels = source.shape[_CHANNEL_AXIS]
    assert isinstance(channels, int)
    tape = ir.tape.Tape()
    # Within a Reshape, 0 copies the size of the same axis.
    flat = tape.op("Reshape", [source, _hold(tape, np.array([0, 0, -1]))])
    share = _hold(tape, np.full((1, channels), 1 / channels, np.float32))
    product = tape.op("MatMul", [share, flat])
    size = tape.op("Shape", [source], {"start": 2})
    shape = tape.op("Concat", [_hold(tape, np.array([0, 1])), size], {"axis": 0})
    back = tape.op("Reshape", [product, shape])
    back.shape, back.type, back.name = mean.shape, mean.type, mean.name
    ir.convenience.replace_nodes_and_values(graph, node, [node], tape.nodes, [mean], [back])


def _hold(tape: ir.tape.Tape, array: Any) -> ir.Value:
    return tape.op("Constant", [], {"value": ir.tensor(array)})
