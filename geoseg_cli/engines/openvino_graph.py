"""Graphs in OpenVINO: loading the package without its telemetry, reading, rewriting, compiling for one tile shape."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

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


REWRITES: Final = 1
"""Counts what is done to graphs as they are read; compiled ones of another number are not used."""


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
    return openvino.Core().compile_model(fixed, CPU, settings)
