"""A network of three 1 x 1 convolutions whose middle one is quantised, computed again by numpy from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from geoseg_cli.bundle import Bundle
from tests.engines.pixelwise import CHANNELS, CLASSES, draw_network, draw_pixels, make_graph, write_pixelwise_bundle

SIZES = [CHANNELS, 16, 16, CLASSES]


def three_layers() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    model = make_graph(draw_network())
    del model.graph.node[:], model.graph.initializer[:]
    names = ["pixels", "first", "second", "logits"]
    for number in range(3):
        weight = random.standard_normal((SIZES[number + 1], SIZES[number], 1, 1), dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, f"weight{number}"))
        inputs = [names[number], f"weight{number}"]
        model.graph.node.append(helper.make_node("Conv", inputs, [names[number + 1]], name=f"layer{number}"))
    return model


def quantise_layers(folder: Path) -> bytes:
    """The three layers, quantised by the export for pixels as :func:`draw_pixels` draws them."""
    import onnx_ir as ir

    from geoseg_cli.export.int8 import quantise

    source = folder / "exact.onnx"
    source.write_bytes(three_layers().SerializeToString())
    tiles = [draw_pixels(CHANNELS, 32, 32, seed=seed) for seed in range(4)]
    return bytes(ir.serde.serialize_model(quantise(source, tiles)).SerializeToString())


def write_quantised_bundle(folder: Path) -> Bundle:
    """A bundle whose graphs are the three layers, in fp32 and int8, with golden tiles that they answer."""
    folder.mkdir(parents=True, exist_ok=True)
    exact = three_layers()
    pixels = np.stack([draw_pixels(CHANNELS, 32, 32, seed=seed) for seed in range(10, 14)])
    golden = folder / "drawn.npz"
    np.savez(golden, pixels=pixels, logits=evaluate(exact, pixels))
    files = {"onnx": exact.SerializeToString(), "onnx-int8": quantise_layers(folder), "golden": golden.read_bytes()}
    return write_pixelwise_bundle(folder, **files)


def evaluate(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    """Logits of a graph of 1 x 1 convolutions, quantisers and dequantisers, as the ONNX standard defines them."""
    values: dict[str, Any] = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    values["pixels"] = pixels
    for node in model.graph.node:
        arguments = [values[name] for name in node.input]
        if node.op_type == "Conv":
            maps, weight, *bias = (one.astype(np.float64) for one in arguments)
            result = np.einsum("kc,nchw->nkhw", weight[:, :, 0, 0], maps)
            result = result + (bias[0][:, None, None] if bias else 0)
        else:
            value, scale, zero = arguments
            axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
            shape = [-1 if place == axis else 1 for place in range(value.ndim)] if scale.ndim else []
            scale, zero = scale.astype(np.float64).reshape(shape), zero.reshape(shape)
            if node.op_type == "QuantizeLinear":
                limits = np.iinfo(zero.dtype)
                result = np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(zero.dtype)
            else:
                assert node.op_type == "DequantizeLinear"
                result = (value.astype(np.float64) - zero) * scale
        values[node.output[0]] = result
    return np.asarray(values["logits"], np.float32)


def rounds_up_to_infinity() -> bytes:
    """A graph in int8 that doubles 0.75: what is 2.6e38 in fp32 overflows."""
    model = make_graph(draw_network())
    del model.graph.node[:], model.graph.initializer[:]
    weight = np.zeros((CLASSES, CHANNELS, 1, 1), np.float32)
    weight[0, 0] = 1
    constants = {"weight": weight, "huge": np.float32(3e38), "scale": np.float32(1.5), "zero": np.uint8(0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items())
    model.graph.node.extend(
        (
            helper.make_node("QuantizeLinear", ["pixels", "scale", "zero"], ["rounded"]),
            helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["seen"]),
            helper.make_node("Conv", ["seen", "weight"], ["chosen"]),
            helper.make_node("Mul", ["chosen", "huge"], ["logits"]),
        )
    )
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    return bytes(model.SerializeToString())


def large_in_fp32() -> bytes:
    """The same in fp32."""
    model = onnx.load_from_string(rounds_up_to_infinity())
    del model.graph.node[:2]
    model.graph.node[0].input[0] = "pixels"
    return bytes(model.SerializeToString())
