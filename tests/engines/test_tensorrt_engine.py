from __future__ import annotations

import ctypes.util
from typing import Any

import numpy as np
import onnxruntime
import pytest

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.engines.onnx_engine import OnnxEngine
from geoseg_cli.engines.tensorrt_engine import TensorRtEngine, find_cuda_obstacle
from geoseg_cli.errors import EngineError
from tests.engines.pixelwise import CHANNELS, draw_pixels

WITHOUT_TENSORRT = ctypes.util.find_library("nvinfer") is None


def test_tensorrt_does_not_run_on_a_cpu(pixelwise: Bundle) -> None:
    with pytest.raises(
        EngineError, match="no engine runs on cpu: tensorrt: the tensorrt engine runs on CUDA devices only"
    ):
        choose_engine(pixelwise, EngineOptions(engine="tensorrt", device="cpu"))


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_that_tensorrt_is_not_run_in_is_refused(pixelwise: Bundle, precision: str) -> None:
    with pytest.raises(EngineError, match=f"fp16 and fp32, not {precision}"):
        TensorRtEngine(pixelwise, "cuda:0", precision)


class InCudaKernels:
    """A session that runs without TensorRT, as ONNX Runtime does where its libraries are missing."""

    def __init__(self, content: bytes, options: Any, providers: list[Any], enable_fallback: int) -> None:
        assert [name for name, _ in providers] == [
            "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
        ]  # fmt: skip
        assert enable_fallback == 0

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_a_silent_fall_back_from_tensorrt_to_cuda_ends_with_69(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", InCudaKernels)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with pytest.raises(EngineError, match="TensorRT does not run on cuda:0: libraries do not load") as caught:
        TensorRtEngine(pixelwise, "cuda:0")
    assert caught.value.exit_code == 69
    assert "--engine onnx" in caught.value.hint


def test_the_reason_why_tensorrt_does_not_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cuda_obstacle(CudaProbe(0, "no driver")) == "no driver"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert "has no TensorRT" in find_cuda_obstacle(CudaProbe(1))


@pytest.mark.skipif(
    not WITHOUT_TENSORRT or "TensorrtExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="TensorRT may run here, or this onnxruntime was built without it",
)
def test_onnx_runtime_without_tensorrts_libraries_is_refused_and_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert "TensorRT does not run on cuda:0: " in find_cuda_obstacle(CudaProbe(1))
    assert capfd.readouterr().out == ""


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-3), ("auto", 0.1)])
def test_tensorrt_gives_the_logits_of_the_cpu(pixelwise: Bundle, precision: str, most: float) -> None:
    if obstacle := find_cuda_obstacle(CudaProbe(1)):
        pytest.skip(obstacle)
    pixels, exact = draw_pixels(7, CHANNELS, 96, 64), OnnxEngine(pixelwise)
    engine = TensorRtEngine(pixelwise, "cuda:0", precision)
    for tiles in (4, 7, 1):
        assert np.abs(engine.run(pixels[:tiles]) - exact.run(pixels[:tiles])).max() < most
