"""Graphs in OpenVINO: loading the package without its telemetry, reading, rewriting, compiling for one tile shape."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np

_CONVERTER: Final = "openvino.tools.ovc"


def _load_openvino() -> Any:
    """Import openvino without its converter of other frameworks' models.

    The package imports the converter if it can. That sends an event to its makers and writes an identifier under the
    user's home, unless the user has opted out, and costs a quarter of a second. Who needs ``openvino.convert_model``
    in the same process imports openvino first, or ``openvino.tools.ovc``.
    """
    if "openvino" in sys.modules or _CONVERTER in sys.modules:
        return importlib.import_module("openvino")
    # None makes an import fail, which openvino takes for a package that came without the converter.
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_CONVERTER]


openvino = _load_openvino()

CPU: Final = "CPU"
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision -> what OpenVINO calls that of the layers whose graph does not say another one."""


def has_bf16() -> bool:
    """Whether OpenVINO names bf16 among what this processor computes in."""
    return "BF16" in openvino.Core().get_property(CPU, "OPTIMIZATION_CAPABILITIES")


def describe_processor() -> str:
    """Name and abilities of the processor as OpenVINO sees them."""
    core = openvino.Core()
    abilities = sorted(core.get_property(CPU, "OPTIMIZATION_CAPABILITIES"))
    return f"{core.get_property(CPU, 'FULL_DEVICE_NAME')} ({', '.join(abilities)})"


REWRITES: Final = 3
"""Counts what is done to graphs as they are read and compiled; compiled ones of another number are not used."""
_COARSE: Final = 16
"""Image pixels along a side of a map's pixel, where the map is coarse enough for bf16."""


def read_model(content: bytes) -> Any:
    """Read an ONNX file and write its channel means as convolutions.

    Raises:
        RuntimeError: OpenVINO cannot run it.
    """
    model = openvino.Core().read_model(content)
    convolve_channel_means(model)
    return model


def convolve_channel_means(model: Any) -> int:
    """Write means over the channels of a map, exported as (1, C) @ (N, C, H * W), as 1 x 1 convolutions.

    That product is the fastest mean of ONNX Runtime (:mod:`geoseg_cli.export.graph`). In OpenVINO it costs a change
    of memory layout before and after: LALE in fp32 is 3.4 times as fast without, in bf16 1.3 times.

    Returns:
        Means that were rewritten.
    """
    means = [node for node in model.get_ordered_ops() if _is_channel_mean(node)]
    for product in means:
        weight, flat = (side.get_source_output().get_node() for side in product.inputs())
        (back,) = (target.get_node() for target in product.output(0).get_target_inputs())
        kernel = openvino.opset13.constant(weight.data.reshape(1, -1, 1, 1))
        source = flat.input(0).get_source_output()
        mean = openvino.opset13.convolution(source, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        back.output(0).replace(mean.output(0))
    model.validate_nodes_and_infer_types()
    return len(means)


def _is_channel_mean(node: Any) -> bool:
    if node.get_type_name() != "MatMul" or node.get_attributes() != {"transpose_a": False, "transpose_b": False}:
        return False
    weight, flat = (side.get_source_output().get_node() for side in node.inputs())
    targets = [target.get_node() for target in node.output(0).get_target_inputs()]
    if weight.get_type_name() != "Constant" or len(targets) != 1:
        return False
    if [one.get_type_name() for one in (flat, targets[0])] != ["Reshape", "Reshape"]:
        return False
    shapes = [one.get_partial_shape() for one in (flat.input(0), targets[0].output(0))]
    is_mean = weight.data.ndim == 2 and (weight.data == np.float32(1 / weight.data.shape[1])).all()
    return bool(is_mean) and weight.data.shape[0] == 1 and _are_maps(shapes, weight.data.shape[1])


def _are_maps(shapes: list[Any], channels: int) -> bool:
    """Whether (N, C, H, W) goes in and (N, 1, H, W) comes out."""
    ranks_fit = all(shape.rank.is_static and shape.rank.get_length() == 4 for shape in shapes)
    return ranks_fit and [shape[1] for shape in shapes] == [channels, 1]


def settings_for(precision: str, streams: int) -> dict[str, Any]:
    """What a graph is compiled and imported with.

    Args:
        precision: ``fp32``, ``bf16``, or ``int8`` for a graph that says itself which layers that is.
        streams: Tiles at the same time, each on one thread: with more of them sums are divided, and their last digits
            depend on the number.
    """
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        # Two programs that pin their threads take the same cores and leave others idle.
        "ENABLE_CPU_PINNING": False,
    }


def compile_for(model: Any, shape: tuple[int, ...], settings: dict[str, Any]) -> Any:
    """Compile a graph for one tile at a time.

    In bf16 what is before the first coarse map stays in fp32: :func:`fine_nodes`.

    Args:
        model: Of :func:`read_model`; stays as it is.
        shape: (C, H, W) of a tile. A fixed one is measured to run 1.2 to 1.5 times as fast as a free one.
        settings: Of :func:`settings_for`.

    Raises:
        RuntimeError: It does not fit.
    """
    fixed = model.clone()
    fixed.reshape([1, *shape])
    answer = fixed.output(0).get_partial_shape()
    # OpenVINO does not say so where an answer does not fill the array that was made for it.
    if answer.is_dynamic or [size.get_length() for size in answer][2:] != list(shape[1:]):
        raise RuntimeError(f"the answer to a tile of {list(shape)} has the shape {answer}")
    if settings["INFERENCE_PRECISION_HINT"] == PRECISIONS["bf16"] and (names := fine_nodes(fixed, shape[1])):
        fixed = _keep_precise(fixed, names)
    return openvino.Core().compile_model(fixed, CPU, settings)


def fine_nodes(model: Any, rows: int) -> set[str]:
    """Name the nodes that see nothing coarser than an eighth of the pixels' rows, and no attention.

    That is an encoder's first stages, and what they hand on to a decoder. bf16 has eight binary digits, fewer than the
    radiometry of a satellite's pixels, and what they lose there every later layer sees. Few of the products are there,
    so fp32 costs little (docs/precision.md).

    Args:
        model: A graph of fixed shapes.
        rows: Of the image, in pixels.

    Returns:
        Names of nodes, also of their constants; none where the graph has neither coarse maps nor products of matrices.
    """
    nodes = model.get_ordered_ops()
    shown = {side.get_node().get_friendly_name() for side in model.inputs}
    coarse = set[str]()
    for node in nodes:
        before = _names_before(node)
        if before & shown:
            shown.add(node.get_friendly_name())
            if before & coarse or _is_product(node) or _is_coarse_map(node, rows):
                coarse.add(node.get_friendly_name())
    return {node.get_friendly_name() for node in nodes} - coarse if coarse else set()


def _names_before(node: Any) -> set[str]:
    """Of the nodes whose numbers a node takes; those whose sizes it takes do not count."""
    sources = [side.get_source_output() for side in node.inputs()]
    return {source.get_node().get_friendly_name() for source in sources if source.get_element_type().is_real()}


def _is_product(node: Any) -> bool:
    return bool(node.get_type_name() == "MatMul")


def _is_coarse_map(node: Any, rows: int) -> bool:
    if node.get_output_size() != 1:
        return False
    shape = node.output(0).get_partial_shape()
    return bool(shape.is_static and len(shape) == 4 and shape[2].get_length() == -(-rows // _COARSE))


def _keep_precise(model: Any, names: set[str]) -> Any:
    """Mark nodes that are computed in fp32 whatever the rest is computed in.

    The mark is an attribute of OpenVINO's own files ("precise"), which its Python package cannot set on a graph in
    memory.

    Raises:
        RuntimeError: There is no room for the files.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="geoseg-") as folder:
            return _marked(model, names, Path(folder))
    except OSError as error:
        raise RuntimeError(f"the graph cannot be written to a temporary folder: {error}") from error


def _marked(model: Any, names: set[str], folder: Path) -> Any:
    layers, weights = folder / "graph.xml", folder / "graph.bin"
    openvino.serialize(model, layers, weights)
    tree = ElementTree.parse(layers)
    for layer in tree.iter("layer"):
        if layer.get("name") in names and layer.get("type") not in ("Const", "Parameter"):
            _mark_precise(layer)
    tree.write(layers)
    # OpenVINO maps the file of weights into memory; the copy does not need it any more.
    return openvino.Core().read_model(layers, weights).clone()


def _mark_precise(layer: ElementTree.Element) -> None:
    attributes = layer.find("rt_info")
    if attributes is None:
        attributes = ElementTree.Element("rt_info")
        layer.insert(int(layer.find("data") is not None), attributes)
    ElementTree.SubElement(attributes, "attribute", name="precise", version="0")
