"""Make the file of an ONNX graph smaller without changing a number that it computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["store_exact_halves"]

WORTH_WHILE = 256
"""Numbers that a constant must hold before it is stored in another type: a cast takes some bytes itself."""


def store_exact_halves(model: ir.Model) -> int:
    """Store constants whose numbers all are fp16 numbers as such, and cast them back to fp32 where they are used.

    Bundles hold weights rounded to fp16, so nearly all of a graph halves. The cast is exact; engines fold it when they
    load the graph, which runs as before.

    Args:
        model: An fp32 graph; changed in place.

    Returns:
        Constants that were changed.
    """
    changed = 0
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < WORTH_WHILE:
            continue
        exact = tensor.numpy()
        with np.errstate(over="ignore"):
            half = exact.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), exact):
            continue
        stored = ir.Value(
            name=f"{name}_half", type=ir.TensorType(ir.DataType.FLOAT16), shape=ir.Shape(half.shape),
            const_value=ir.tensor(half, name=f"{name}_half"),
        )  # fmt: skip
        cast = ir.node("Cast", [stored], attributes={"to": int(ir.DataType.FLOAT)})
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del model.graph.initializers[name]
        model.graph.register_initializer(stored)
        cast.outputs[0].name, cast.outputs[0].dtype, cast.outputs[0].shape = name, ir.DataType.FLOAT, value.shape
        model.graph.insert_before(model.graph[0], cast)
        changed += 1
    return changed
