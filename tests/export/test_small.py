"""A smaller file of a graph computes the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from geoseg_cli.export.onnx_file import write_onnx
from geoseg_cli.export.small import store_exact_halves


def network(is_rounded: bool) -> nn.Module:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 5, 1)).eval()
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(value.half().float() if is_rounded else value)
    return module


def answer(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((1, 4, 64, 64)).astype(np.float32)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: pixels})[0])


def test_weights_that_are_fp16_numbers_take_half_the_file_and_compute_the_same(tmp_path: Path) -> None:
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    write_onnx(network(is_rounded=True), whole, 4)
    write_onnx(network(is_rounded=True), small, 4, stores_halves=True)
    assert np.array_equal(answer(whole), answer(small))
    kinds = {one.data_type for one in onnx.load(small).graph.initializer if len(one.raw_data) >= 1024}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_weights_that_are_no_fp16_numbers_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "whole.onnx"
    write_onnx(network(is_rounded=False), path, 4)
    before = onnx.load(path).SerializeToString()
    model = ir.load(path)
    assert store_exact_halves(model) == 0
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize("value", [65505.0, 1e30, 1 + 2**-20])
def test_a_constant_with_one_number_beyond_fp16_stays_fp32(tmp_path: Path, value: float) -> None:
    module = network(is_rounded=True)
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = value  # type: ignore[index, union-attr]
    path = tmp_path / "one.onnx"
    write_onnx(module, path, 4, stores_halves=True)
    large = {one.data_type for one in onnx.load(path).graph.initializer if len(one.raw_data) >= 1024}
    assert onnx.TensorProto.FLOAT in large
