"""Export a network as an ONNX graph of any batch, height and width, and prove it against torch."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg_cli.errors import EngineError, ModelError, UsageError
from geoseg_cli.export.card import INPUT_NAME, OUTPUT_NAME
from geoseg_cli.export.parity import (
    LEAST_AGREEMENT,
    STRIDE_PX,
    FloatArray,
    Run,
    Shape,
    Shapes,
    answer,
    compare,
    draw_pixels,
    evaluating,
    require_agreement,
    summarise,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

DEFAULT_OPSET = 20
OPSETS = (18, 23)
"""Oldest and newest set of operators that torch's exporter writes."""
EXTERNAL_DATA_BYTES = 2**31 - 2**26
"""Weights beyond this go into a file of their own: a protocol buffer ends at 2 GiB, and the graph needs some of it."""

_ONLY_ERRORS = 3
_CHATTY = ("torch", "onnxscript", "onnx_ir")
FREE_AXES = {0: "batch", 2: "height", 3: "width"}
"""Axes of the input that take any size."""


def write_onnx(
    module: nn.Module, path: Path, channels: int, size_multiple: int = STRIDE_PX, stores_halves: bool = False
) -> None:
    """Export a network as an ONNX graph in fp32 and compare it with torch.

    The graph is compared at three shapes other than the traced one before the file takes its place. Weights over
    2 GiB go into ``<path>.data`` beside it.

    Args:
        module: (N, C, H, W) -> (N, K, H, W) float32 in evaluation mode, on the CPU.
        path: File to write; replaced if it exists.
        channels: C.
        size_multiple: Heights and widths that the network takes are multiples of this.
        stores_halves: Whether constants that are fp16 numbers are stored as such; the graph computes the same.

    Raises:
        ModelError: The network cannot be exported, or the graph answers differently; there is then no new file.
        EngineError: A package that the export needs is not installed.
    """
    from geoseg_cli.export.graph import average_channels_by_product
    from geoseg_cli.export.small import store_exact_halves

    shapes = Shapes.choose(channels, size_multiple)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as part:
        staged = Path(part) / path.name
        model = build_graph(module, shapes.traced)
        average_channels_by_product(model)
        if stores_halves:
            store_exact_halves(model)
        save_graph(model, staged, needs_external_data(module))
        check_parity(module, staged, [draw_pixels(shape) for shape in shapes.checked])
        # The graph goes last: it names the file of its weights.
        for file in sorted(staged.parent.iterdir(), key=lambda file: file == staged):
            file.replace(path.parent / file.name)


def check_parity(module: nn.Module, path: Path, batches: list[FloatArray]) -> None:
    """Compare an ONNX graph in fp32 with the network it was exported from.

    Args:
        module: The network.
        path: The graph.
        batches: Pixels, (N, C, H, W) float32 each.

    Raises:
        ModelError: Logits differ by more than :mod:`geoseg_cli.export.parity` allows in fp32, or in shape, or the
            graph does not take a shape.
    """
    parity = compare(open_graph(path), answer(module, batches))
    require_agreement(parity, "fp32", LEAST_AGREEMENT["fp32"])


def check_opset(opset: int) -> None:
    """Refuse a set of operators that cannot be written.

    Raises:
        UsageError: It is too old or too new.
    """
    oldest, newest = OPSETS
    if not oldest <= opset <= newest:
        age, nearest = ("older", oldest) if opset < oldest else ("newer", newest)
        raise UsageError(
            f"opset {opset} is {age} than what can be exported, {oldest} to {newest}",
            f"use --opset {nearest}, or leave it away for {DEFAULT_OPSET}",
        )


def require_packages() -> None:
    """Make sure that the packages are installed that write ONNX.

    Raises:
        EngineError: One is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        hint = "pip install 'geoseg[export]', or 'geoseg[train]' for training"
        raise EngineError(f"the export to ONNX needs {error.name}", hint) from error


def build_graph(module: nn.Module, shape: Shape, opset: int = DEFAULT_OPSET) -> ir.Model:
    """Export a network as a graph in memory.

    Args:
        module: (N, C, H, W) -> (N, K, H, W) float32, on the CPU.
        shape: (N, C, H, W) to trace it at.
        opset: Version of the operators, 18 to 23.

    Returns:
        A graph in fp32 whose batch, height and width are free.

    Raises:
        ModelError: The network cannot be exported, or only for the traced size.
        EngineError: A package that the export needs is not installed.
    """
    require_packages()
    import torch

    from geoseg_cli.export.graph import forget_origin
    from geoseg_cli.networks.heads import merged

    try:
        with evaluating(module), quiet_exporter():
            program = torch.onnx.export(
                merged(module),
                (torch.from_numpy(draw_pixels(shape)),),
                dynamo=True,
                dynamic_shapes=(FREE_AXES,),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        # The exporter's own message fills a page; its cause is the sentence that says what went wrong.
        cause = summarise(error.__cause__ or error)
        raise ModelError(f"the network cannot be exported to ONNX: {cause}", "use operations that ONNX has") from error
    assert program is not None
    _check_graph(program.model, opset)
    forget_origin(program.model)
    return program.model


def save_graph(model: ir.Model, path: Path, has_external_data: bool = False) -> None:
    """Save a graph; with external data its weights go into ``<path>.data``."""
    import onnx_ir as ir

    ir.save(model, path, external_data=external_data_path(path).name if has_external_data else None)


def needs_external_data(module: nn.Module, bytes_per_weight: int = 4) -> bool:
    """Whether a network's weights are too large for one file."""
    weights: int = sum(tensor.numel() for tensor in module.state_dict().values())
    return weights * bytes_per_weight > EXTERNAL_DATA_BYTES


def external_data_path(path: Path) -> Path:
    """Where the weights of a graph lie that are too large for it."""
    return path.with_name(path.name + ".data")


def append_metadata(path: Path, entries: Mapping[str, str]) -> None:
    """Add entries to ``metadata_props`` of a graph without reading it.

    Protocol buffers that stand one behind the other are one buffer, whose lists are joined
    (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
    """
    import onnx

    addition = onnx.ModelProto()
    onnx.helper.set_model_props(addition, dict(entries))
    with path.open("ab") as stream:
        stream.write(addition.SerializeToString())


def open_graph(path: Path) -> Run:
    """Open a graph with ONNX Runtime on the CPU.

    Raises:
        ModelError: The runtime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS + 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        raise ModelError(
            f"ONNX Runtime refuses the exported graph: {summarise(error)}", "try another --opset"
        ) from error

    def run(pixels: FloatArray) -> FloatArray:
        logits: FloatArray = session.run([OUTPUT_NAME], {INPUT_NAME: pixels})[0]
        return logits

    return run


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence remarks of exporters on themselves: packages that they miss, and parts of torch that will change."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def refuse_fixed_axes(fixed: Sequence[str], shape: tuple[object, ...]) -> ModelError:
    """The error for a graph that takes only the traced size along some axes of its input."""
    sizes = " x ".join(str(size) for size in shape)
    return ModelError(
        f"the exported graph takes only the traced {' and '.join(fixed)}: its input is {sizes or 'of unknown shape'}",
        "look for a size that the network's code turns into a constant while it is traced",
    )


def _check_graph(model: ir.Model, opset: int) -> None:
    """Make sure that the exporter did as it was told: where it cannot, it may fall back without an error."""
    shape = model.graph.inputs[0].shape
    fixed = [name for axis, name in FREE_AXES.items() if shape is None or isinstance(shape[axis], int)]
    if fixed:
        raise refuse_fixed_axes(fixed, tuple(shape or ()))
    found = model.opset_imports.get("")
    if found != opset:
        raise ModelError(f"the network cannot be exported to opset {opset}, only to {found}", f"use --opset {found}")
