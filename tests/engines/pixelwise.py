"""A bundle whose network is one 1 x 1 convolution, so that numpy knows every answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from geoseg_cli.bundle import Bundle, InputSpec
from geoseg_cli.catalog import Legend, legends

BANDS = InputSpec(bands=("red", "nir"), optional=("nir",), mean=(0.1, 0.3), stddev=(0.2, 0.4))
CHANNELS, CLASSES = 3, 4
ANY_SIZE = ("batch", CHANNELS, "height", "width")


@dataclass(frozen=True)
class Pixelwise:
    """logits = weight (K, C) @ pixels + bias (K)."""

    weight: np.ndarray
    bias: np.ndarray

    def answer(self, pixels: np.ndarray) -> np.ndarray:
        """Logits (N, K, H, W) of pixels (N, C, H, W), summed in float64."""
        logits = np.einsum("kc,nchw->nkhw", self.weight.astype(np.float64), pixels.astype(np.float64))
        return (logits + self.bias[:, None, None]).astype(np.float32)


def draw_network(seed: int = 0) -> Pixelwise:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((CLASSES, CHANNELS), dtype=np.float32)
    return Pixelwise(weight, random.standard_normal(CLASSES, dtype=np.float32))


def draw_pixels(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def make_graph(
    network: Pixelwise, sizes: tuple[Any, ...] = ANY_SIZE, name: str = "pixels", **node: Any
) -> onnx.ModelProto:
    """The network as ONNX; ``node`` replaces what the convolution is made of."""
    tensors = {"weight": network.weight[:, :, None, None], "bias": network.bias}
    convolution = helper.make_node(
        **{"op_type": "Conv", "inputs": [name, "weight", "bias"], "outputs": ["logits"], **node}
    )
    graph = helper.make_graph(
        [convolution],
        "pixelwise",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (sizes[0], len(network.bias), *sizes[2:]))],
        [numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def first_pixel_alone(network: Pixelwise) -> bytes:
    """A graph that answers one pixel, by sizes that depend on the numbers: no shape inference can tell."""
    model = make_graph(network)
    model.graph.node[0].output[0] = "all"
    constants = {"zero": np.float32(0), "ones": np.ones(2, np.int64), "starts": np.zeros(2, np.int64),
                 "axes": np.array([2, 3])}  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items())
    model.graph.node.extend(
        (
            helper.make_node("Mul", ["pixels", "zero"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Add", ["whole", "ones"], ["ends"]),
            helper.make_node("Slice", ["all", "starts", "ends", "axes"], ["logits"]),
        )
    )
    return bytes(model.SerializeToString())


def with_precisions(bundle: Bundle, figures: dict[str, dict[str, float]]) -> Bundle:
    """The bundle with figures of held-out tiles in its card: "engine precision" -> names -> numbers."""
    path = bundle.folder / "item.json"
    card = json.loads(path.read_text())
    card["properties"]["mlm:hyperparameters"]["geoseg"]["metrics"] = {"precisions": figures}
    path.write_text(json.dumps(card))
    return Bundle.open(bundle.folder)


def write_pixelwise_bundle(
    folder: Path, network: Pixelwise | None = None, legend: Legend | None = None, **files: bytes
) -> Bundle:
    """Write the bundle; ``files`` replaces the content of assets, and an empty one leaves the asset out."""
    network = network or draw_network()
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"weights": _weights(folder, network), "onnx": make_graph(network).SerializeToString(),
                "golden": _golden(folder, network)} | files  # fmt: skip
    assets = {name: _store(folder / f"{name}.bin", content) for name, content in contents.items() if content}
    (folder / "item.json").write_text(json.dumps(_card(assets, legend or legends()["cloudsen12"])))
    return Bundle.open(folder)


def _weights(folder: Path, network: Pixelwise) -> bytes:
    path = folder / "weights.bin"
    save_file({"weight": np.ascontiguousarray(network.weight[:, :, None, None]), "bias": network.bias}, path)
    return path.read_bytes()


def _golden(folder: Path, network: Pixelwise) -> bytes:
    path = folder / "golden.npz"
    pixels = draw_pixels(2, CHANNELS, 16, 16)
    np.savez(path, pixels=pixels, logits=network.answer(pixels))
    content = path.read_bytes()
    path.unlink()
    return content


def _store(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return {"href": path.name, "file:checksum": f"1220{digest}", "file:size": len(content)}


def _card(assets: dict[str, Any], legend: Legend) -> dict[str, Any]:
    shape = {"dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"}
    scaling = [{"type": "z-score", "mean": m, "stddev": s} for m, s in zip(BANDS.mean, BANDS.stddev, strict=True)]
    classes = len(legend.classes)
    plane = {"name": "has_nir", "format": "geoseg-presence", "expression": "nir"}
    source = {"name": "pixels", "bands": ["red", "nir", plane], "input": {"shape": [-1, CHANNELS, -1, -1], **shape},
              "value_scaling": [*scaling, {"type": None}]}  # fmt: skip
    target = {"name": "logits", "tasks": ["semantic-segmentation"], "result": {"shape": [-1, classes, -1, -1], **shape},
              "classification:classes": legend.stac_classes()}  # fmt: skip
    extras = {"task": "cloud", "legend": legend.name, "tile_px": 64, "overlap_px": 16, "size_multiple": 1,
              "gsd_m": 10.0, "network": {"name": "pixelwise"}}  # fmt: skip
    properties = {"mlm:name": "pixelwise", "mlm:architecture": "one convolution", "mlm:total_parameters": 16,
                  "mlm:tasks": ["semantic-segmentation"], "mlm:input": [source], "mlm:output": [target],
                  "mlm:hyperparameters": {"geoseg": extras}}  # fmt: skip
    return {"type": "Feature", "id": "pixelwise", "properties": properties, "assets": assets}
