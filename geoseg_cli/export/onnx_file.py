"""Export a network as an ONNX graph of any batch, height and width, and prove it against torch."""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.engines.golden import compare_logits
from geoseg_cli.errors import EngineError, ModelError
from geoseg_cli.export.card import INPUT_NAME, OUTPUT_NAME

if TYPE_CHECKING:
    from torch import Tensor, nn

FloatArray = npt.NDArray[np.float32]

_STRIDE_PX = 32
_OPSET = 20
_ONLY_ERRORS = 3
_CHATTY = ("torch.onnx", "onnxscript", "onnx_ir")


def write_onnx(module: nn.Module, path: Path, channels: int, size_multiple: int = _STRIDE_PX) -> None:
    """Export a network as an ONNX graph and compare it with torch.

    The graph is compared at three shapes other than the traced one before the file takes its place, because an
    exporter can bake a traced size in without any error.

    Args:
        module: (N, C, H, W) -> (N, K, H, W) float32 in evaluation mode, on the CPU.
        path: File to write; replaced if it exists.
        channels: C.
        size_multiple: Heights and widths that the network takes are multiples of this.

    Raises:
        ModelError: The network cannot be exported, or the graph answers differently; there is then no new file.
        EngineError: A package that the export needs is not installed.
    """
    _require_packages()
    unit = math.lcm(size_multiple, _STRIDE_PX)
    traced, *others = (
        (2, channels, 4 * unit, 6 * unit),
        (1, channels, 2 * unit, 2 * unit),
        (3, channels, 3 * unit, 5 * unit),
        (1, channels, 5 * unit + size_multiple, unit + size_multiple),
    )
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as part:
        staged = Path(part) / path.name
        with _evaluating(module), _quiet_exporter():
            _export(module, staged, traced)
        check_parity(module, staged, [_draw_pixels(shape) for shape in others])
        staged.replace(path)


def check_parity(module: nn.Module, path: Path, batches: list[FloatArray]) -> None:
    """Compare an ONNX graph with the network it was exported from.

    Args:
        module: The network.
        path: The graph.
        batches: Pixels, (N, C, H, W) float32 each.

    Raises:
        ModelError: Logits differ by more than :mod:`geoseg_cli.engines.golden` allows in fp32, or in shape, or the
            graph does not take a shape.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS + 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for pixels in batches:
        trouble = _find_difference(session, pixels, run_torch(module, pixels))
        if trouble:
            raise ModelError(
                f"the exported graph does not answer as the network does for pixels {pixels.shape}: {trouble}",
                "look for a size that the network's code turns into a constant while it is traced",
            )


def run_torch(module: nn.Module, pixels: FloatArray) -> FloatArray:
    """Logits (N, K, H, W) of a network for pixels (N, C, H, W), float32, tile by tile in evaluation mode on the CPU."""
    import torch

    with _evaluating(module), torch.inference_mode():
        logits: list[Tensor] = [module(torch.from_numpy(tile)[None]) for tile in pixels]
    return np.concatenate([one.numpy() for one in logits])


def _find_difference(session: Any, pixels: FloatArray, wanted: FloatArray) -> str:
    try:
        found = session.run([OUTPUT_NAME], {INPUT_NAME: pixels})[0]
    except Exception as error:  # ONNX Runtime's errors have no common class below Exception
        return str(error).split("\n", 1)[0]
    if found.shape != wanted.shape:
        return f"logits are {found.shape}, not {wanted.shape}"
    return compare_logits(wanted, found).trouble


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise EngineError(f"the export to ONNX needs {error.name}", "pip install 'geoseg[export]'") from error


def _export(module: nn.Module, path: Path, shape: tuple[int, ...]) -> None:
    import torch

    from geoseg_cli.export.graph import average_channels_by_product, forget_origin

    try:
        program = torch.onnx.export(
            module,
            (torch.from_numpy(_draw_pixels(shape)),),
            dynamo=True,
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=_OPSET,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        # The exporter's own message fills a page; its cause is the sentence that says what went wrong.
        cause = str(error.__cause__ or error).strip().split("\n", 1)[0]
        raise ModelError(f"the network cannot be exported to ONNX: {cause}", "use operations that ONNX has") from error
    assert program is not None
    average_channels_by_product(program.model)
    forget_origin(program.model)
    program.save(path, external_data=False)


def _draw_pixels(shape: tuple[int, ...]) -> FloatArray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's remarks on itself: packages that it misses, and parts of torch that will change."""
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
