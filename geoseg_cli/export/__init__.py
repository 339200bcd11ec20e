"""Write a network as an ONNX graph and as a whole bundle.

A bundle written here holds what :mod:`geoseg_cli.bundle` reads: weights, the graph, golden tiles with the logits that
torch gave for them, and the card that names them all with their checksums.
"""

from __future__ import annotations

import copy
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import CARD_FILE, README_FILE, Bundle, ModelCard
from geoseg_cli.engines.golden import compare_logits
from geoseg_cli.errors import ModelError
from geoseg_cli.export.card import CardFields, NetworkFacts, describe_bundle
from geoseg_cli.export.onnx_file import check_parity, write_onnx
from geoseg_cli.export.parity import run_torch
from geoseg_cli.export.readme import describe_in_words

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CardFields", "check_parity", "write_bundle", "write_onnx"]

FloatArray = npt.NDArray[np.float32]

_FILES = {"weights": "model.safetensors", "onnx": "model.onnx", "golden": "golden.npz"}


def write_bundle(folder: Path, module: nn.Module, fields: CardFields, golden_pixels: FloatArray) -> Bundle:
    """Write a bundle; a folder that holds one keeps its other files.

    Parameters are rounded first: to fp16, which halves their file (statistics of batch norms stay fp32: a variance can
    be large), and what is multiplied with pixels to bf16 as well, so that an engine that computes in bf16 has the very
    weights that fp32 has. Graph, golden tiles and every figure measured later are those of the rounded weights, and
    the card says how little the rounding changed.

    Args:
        folder: Where to; made if need be.
        module: The trained network, (N, C, H, W) -> (N, K, H, W) in evaluation mode, on the CPU.
        fields: The rest of the card.
        golden_pixels: (N, C, T, T) float32, normalised tiles of which the bundle keeps torch's logits, so that every
            engine can be compared with them anywhere; two of 128 px are enough.

    Returns:
        The bundle, opened.

    Raises:
        ModelError: The module does not fit the fields, or the graph does not answer as the module does.
        EngineError: A package that the export needs is not installed.
    """
    exact = run_torch(module, golden_pixels)
    _check_shapes(fields, golden_pixels, exact)
    module = _round(module, fields.name)
    logits = run_torch(module, golden_pixels)
    fields = replace(fields, training=fields.training | {"rounding": _rounding(exact, logits)})
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
        staged = {asset: Path(part) / name for asset, name in _FILES.items()}
        _write_weights(module, staged["weights"])
        write_onnx(module, staged["onnx"], fields.input_spec.channels, fields.size_multiple, stores_halves=True)
        check_parity(module, staged["onnx"], [golden_pixels])
        np.savez_compressed(staged["golden"], pixels=golden_pixels, logits=logits)
        card = Path(part) / CARD_FILE
        item = describe_bundle(fields, _inspect(module), staged)
        card.write_text(json.dumps(item, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (Path(part) / README_FILE).write_text(describe_in_words(ModelCard.model_validate(item)), encoding="utf-8")
        (Path(part) / README_FILE).replace(folder / README_FILE)
        # The card goes last: until then the old one disowns the new files by their checksums.
        for path in (*staged.values(), card):
            path.replace(folder / path.name)
    return Bundle.open(folder)


def _write_weights(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    parameters = {name for name, _ in module.named_parameters()}
    kept = {name: value.half() if name in parameters else value for name, value in state.items()}
    save_file(kept, path, metadata={"format": "pt"})
    # safetensors makes files that only their owner may read.
    path.chmod(0o644)


def _round(module: nn.Module, name: str) -> nn.Module:
    """A copy whose parameters are fp16 numbers, and matrices and kernels bf16 numbers as well, held in fp32."""
    import torch

    rounded = copy.deepcopy(module)
    with torch.no_grad():
        for value in rounded.parameters():
            # gains and biases, of one dimension, are fp32 numbers in every engine
            short = value.bfloat16().float() if value.ndim > 1 else value
            value.copy_(short.half().float())
            if not torch.isfinite(value).all():
                raise ModelError(f"{name}: weights exceed 65504, the largest fp16 number", "train with weight decay")
    return rounded


def _rounding(exact: FloatArray, rounded: FloatArray) -> dict[str, Any]:
    agreement = compare_logits(exact, rounded)
    return {
        "dtype": "float16",
        "matrices": "bfloat16",
        "golden_label_agreement": round(agreement.labels, 6),
        "golden_largest_logit_difference": round(agreement.largest_difference, 6),
    }


def _inspect(module: nn.Module) -> NetworkFacts:
    import torch

    parameters = sum(parameter.numel() for parameter in module.parameters())
    return NetworkFacts(parameters, torch.__version__.split("+")[0])


def _check_shapes(fields: CardFields, pixels: FloatArray, logits: FloatArray) -> None:
    channels, classes = fields.input_spec.channels, len(fields.legend.classes)
    if pixels.shape[1] != channels or logits.shape != (len(pixels), classes, *pixels.shape[2:]):
        raise ModelError(
            f"{fields.name}: golden pixels {pixels.shape} give logits {logits.shape}; the card says {channels} channels"
            f" and {classes} classes",
            "make the module, the golden tiles, the input bands and the legend agree",
        )
