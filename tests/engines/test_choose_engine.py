from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from geoseg_cli import engines
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import EngineOptions, available_engines, choose_engine
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.errors import EngineError, ModelError, UsageError
from tests.engines.pixelwise import write_pixelwise_bundle

NO_DRIVER = CudaProbe(0, "no CUDA device (libcuda.so.1 not found)")

pytestmark = pytest.mark.usefixtures("torch_knows_pixelwise")


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: NO_DRIVER)


def without_package(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    monkeypatch.setattr(engines, "_is_installed", lambda name: name not in missing)


def test_without_cuda_onnx_runs_on_the_cpu_and_the_reason_says_why(pixelwise: Bundle) -> None:
    engine, reason = choose_engine(pixelwise)
    assert (engine.name, engine.device, engine.precision) == ("onnx", "cpu", "fp32")
    assert reason == "onnx on cpu: no CUDA device (libcuda.so.1 not found)"


def test_the_driver_is_not_asked_when_the_cpu_was_asked_for(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", None)
    _, reason = choose_engine(pixelwise, EngineOptions(device="cpu"))
    assert reason == "onnx on cpu: the CPU was asked for"


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_an_engine_asked_for_by_name_runs(pixelwise: Bundle, name: str) -> None:
    engine, reason = choose_engine(pixelwise, EngineOptions(engine=name))
    assert engine.name == name
    assert reason == f"{name} on cpu: {name} was asked for"


def test_bf16_means_torch(pixelwise: Bundle) -> None:
    engine, _ = choose_engine(pixelwise, EngineOptions(precision="bf16"))
    assert (engine.name, engine.precision) == ("torch", "bf16")


def test_fp16_without_cuda_runs_nowhere_and_every_reason_is_told(pixelwise: Bundle) -> None:
    with pytest.raises(EngineError, match="torch: fp16 does not run on a CPU; onnx: the onnx engine runs fp32"):
        choose_engine(pixelwise, EngineOptions(precision="fp16"))


def test_a_bundle_without_a_graph_runs_in_torch(tmp_path: Path) -> None:
    engine, reason = choose_engine(write_pixelwise_bundle(tmp_path, onnx=b""))
    assert engine.name == "torch"
    assert reason.endswith("onnx: bundle pixelwise has no onnx")


def test_a_missing_package_leads_to_the_other_engine(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "onnx")
    engine, reason = choose_engine(pixelwise)
    assert engine.name == "torch"
    assert reason.endswith("onnx: the package onnxruntime is not installed")


def test_no_package_at_all_ends_with_69(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "onnx", "torch")
    with pytest.raises(EngineError, match="no engine runs on cpu") as caught:
        choose_engine(pixelwise)
    assert caught.value.exit_code == 69


@pytest.mark.parametrize(("name", "package"), [("torch", "torch"), ("onnx", "onnxruntime")])
def test_an_engine_by_name_without_its_package_ends_with_69(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    without_package(monkeypatch, name)
    with pytest.raises(EngineError, match=f"the package {package} is not installed"):
        choose_engine(pixelwise, EngineOptions(engine=name))


def test_an_engine_by_name_whose_file_the_bundle_lacks_is_the_bundles_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no onnx"):
        choose_engine(write_pixelwise_bundle(tmp_path, onnx=b""), EngineOptions(engine="onnx"))


def test_a_changed_file_is_never_avoided_by_running_the_other_engine(pixelwise: Bundle) -> None:
    path = pixelwise.file("onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ModelError, match="SHA-256"):
        choose_engine(pixelwise)


@pytest.mark.parametrize("name", ["auto", "torch", "onnx"])
def test_cuda_by_name_never_becomes_a_cpu(pixelwise: Bundle, name: str) -> None:
    with pytest.raises(EngineError, match=r"libcuda\.so\.1 not found") as caught:
        choose_engine(pixelwise, EngineOptions(engine=name, device="cuda"))
    assert caught.value.exit_code == 69


def refuse_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver with one device that neither package can use."""
    opened = engines._open_engine

    def open_engine(name: str, bundle: Bundle, device: str, options: EngineOptions) -> engines.Engine:
        if device != "cpu":
            raise EngineError(f"{name} cannot use {device}")
        return opened(name, bundle, device, options)

    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(1))
    monkeypatch.setattr(engines, "_open_engine", open_engine)


def test_cuda_that_no_package_can_use_becomes_a_cpu_only_when_nothing_was_asked_for(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_cuda(monkeypatch)
    engine, reason = choose_engine(pixelwise)
    assert (engine.name, engine.device) == ("onnx", "cpu")
    assert reason == "onnx on cpu: torch: torch cannot use cuda:0; onnx: onnx cannot use cuda:0"
    with pytest.raises(EngineError, match="no engine runs on cuda:0: torch: torch cannot use cuda:0"):
        choose_engine(pixelwise, EngineOptions(device="cuda"))


def test_a_device_out_of_range_names_the_count(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(2))
    with pytest.raises(EngineError, match=r"offers 2 CUDA device\(s\)"):
        choose_engine(pixelwise, EngineOptions(device="cuda:5"))


@pytest.mark.parametrize("wrong", [{"engine": "tensorflow"}, {"precision": "int8"}, {"threads": -1}, {"device": "gpu"}])
def test_an_option_that_means_nothing_is_a_usage_error(pixelwise: Bundle, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        choose_engine(pixelwise, EngineOptions(**wrong))  # type: ignore[arg-type]


def test_onnx_on_the_cpu_does_not_load_torch(pixelwise: Bundle) -> None:
    code = (
        "import sys, pathlib, numpy\n"
        "from geoseg_cli.bundle import Bundle\n"
        "from geoseg_cli.engines import EngineOptions, choose_engine\n"
        "engine, _ = choose_engine(Bundle.open(pathlib.Path(sys.argv[1])), EngineOptions(device='cpu'))\n"
        "engine.run(numpy.zeros((1, 3, 8, 8), numpy.float32))\n"
        "print(engine.name, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, pixelwise.folder], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["onnx", "False"]
    assert done.stderr == ""


def test_both_engines_are_reported_with_their_devices_and_the_reason_why_cuda_is_not_among_them() -> None:
    found = {status.name: status for status in available_engines()}
    assert set(found) == {"torch", "onnx"}
    for status in found.values():
        assert status.runs
        assert status.devices == ("cpu",)
        assert status.version
        assert status.reason == NO_DRIVER.reason


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "torch")
    torch = next(status for status in available_engines() if status.name == "torch")
    assert not torch.runs
    assert torch.reason == "the package torch is not installed"


def test_two_wheels_of_onnx_runtime_are_reported_with_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_has_distribution", lambda name: True)
    onnx = next(status for status in available_engines() if status.name == "onnx")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in onnx.reason
    assert "--force-reinstall" in onnx.reason


def test_a_package_that_does_not_load_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"{name}: a library is missing")

    monkeypatch.setattr(engines.importlib, "import_module", fail)
    for status in available_engines():
        assert not status.runs
        assert "a library is missing" in status.reason


def test_a_status_fits_into_json() -> None:
    from dataclasses import asdict

    json.dumps([asdict(status) for status in available_engines()])
