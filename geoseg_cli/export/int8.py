"""Quantise an exported graph to int8, with the ranges that real tiles give its values.

Static quantisation in the QDQ form of ONNX: convolutions and products with weights run in int8, activations as uint8
with one range per tensor, weights as int8 with one range per channel. Attention, norms, softmax, resizing, the first
layer and the last stay fp32. Means over channels that :mod:`geoseg_cli.export.graph` writes as products must not be
there yet: in int8 they destroy the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg_cli.export.calibration import TileReader, quiet_root_logger
from geoseg_cli.export.parity import FloatArray

if TYPE_CHECKING:
    import onnx_ir as ir

_OPERATORS = ["Conv", "ConvTranspose", "MatMul", "Gemm"]


def quantise(source: Path, tiles: Sequence[FloatArray], has_external_data: bool = False) -> ir.Model:
    """Quantise a graph.

    Args:
        source: A graph in fp32; files on the way appear beside it and stay.
        tiles: (C, H, W) float32 each, normalised pixels like those that the graph will meet; at least one.
        has_external_data: Whether the weights of ``source`` are in a file of their own.

    Returns:
        The quantised graph.
    """
    import onnx_ir as ir
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    target = source.with_name("quantised.onnx")
    with quiet_root_logger():
        quantize_static(
            source,
            target,
            TileReader(tiles),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=_find_outer_layers(source),
            per_channel=True,
            # Products of 8 and 7 bits: on processors without VNNI the sum of two products of 8 and 8 overflows.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=has_external_data,
            extra_options={"MatMulConstBOnly": True},
        )
    model = ir.load(target)
    ir.external_data.load_to_model(model)
    return model


def _find_outer_layers(path: Path) -> list[str]:
    """Names of the first and the last layer with weights.

    In fp32 they cost little. Measured on real scenes, where calibration had not seen the tiles: with them LALE keeps
    98.8 % of its labels, without them 99.3 %.
    """
    import onnx_ir as ir

    layers = [node for node in ir.load(path).graph if node.op_type in _OPERATORS and _has_weights(node)]
    return [layer.name for layer in (*layers[:1], *layers[-1:]) if layer.name]


def _has_weights(node: ir.Node) -> bool:
    import onnx_ir as ir

    weights = node.inputs[1]
    return weights is not None and ir.convenience.get_const_tensor(weights) is not None
