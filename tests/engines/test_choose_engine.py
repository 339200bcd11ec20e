from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli import engines
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import EngineOptions, asset_of, available_engines, choose_engine, fidelity
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.engines.fake_engine import FakeEngine
from geoseg_cli.engines.fidelity import Fidelity
from geoseg_cli.errors import EngineError, ModelError, UsageError
from tests.engines.pixelwise import with_precisions, write_pixelwise_bundle

NO_DRIVER = CudaProbe(0, "no CUDA device (libcuda.so.1 not found)")
OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not OPENVINO, reason="the package openvino is not installed")

pytestmark = pytest.mark.usefixtures("torch_knows_pixelwise")


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: NO_DRIVER)


def without_package(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    monkeypatch.setattr(engines, "_is_installed", lambda name: name not in missing)


@needs_openvino
def test_without_cuda_openvino_runs_on_the_cpu_and_the_reason_says_why(pixelwise: Bundle) -> None:
    engine, reason = choose_engine(pixelwise)
    assert (engine.name, engine.device, engine.precision) == ("openvino", "cpu", "fp32")
    assert reason == (
        "openvino on cpu: no CUDA device (libcuda.so.1 not found);"
        " not in bf16: its agreement with fp32 was not measured"
    )


@needs_openvino
def test_who_asks_for_fp32_gets_fp32_and_is_told_nothing_of_bf16(pixelwise: Bundle) -> None:
    engine, reason = choose_engine(pixelwise, EngineOptions(precision="fp32"))
    assert (engine.name, engine.precision) == ("openvino", "fp32")
    assert reason == "openvino on cpu: no CUDA device (libcuda.so.1 not found)"


def test_without_openvino_onnx_runs_on_the_cpu(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "openvino")
    engine, reason = choose_engine(pixelwise)
    assert (engine.name, engine.device, engine.precision) == ("onnx", "cpu", "fp32")
    assert reason.endswith("; openvino: the package openvino is not installed")


def test_the_driver_is_not_asked_when_the_cpu_was_asked_for(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", None)
    _, reason = choose_engine(pixelwise, EngineOptions(device="cpu", precision="fp32"))
    assert "on cpu: the CPU was asked for" in reason


def measured(bundle: Bundle, same: float, least_iou: float) -> Bundle:
    """The bundle with figures of held-out tiles in its card."""
    return with_precisions(bundle, {"openvino bf16": {"same": same, "least_iou": least_iou}})


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> list[Fidelity]:
    """What the golden tiles are said to show, on a processor that is said to have bf16."""
    from geoseg_cli.engines import openvino_engine

    answers = [Fidelity(0.99976, 0.995)]
    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: True)
    monkeypatch.setattr(fidelity, "golden_fidelity", lambda *_: answers[-1])
    return answers


@needs_openvino
@pytest.mark.parametrize("name", ["auto", "openvino"])
def test_bf16_is_chosen_where_held_out_and_golden_tiles_show_the_classes_of_fp32(
    pixelwise: Bundle, golden: list[Fidelity], name: str
) -> None:
    engine, reason = choose_engine(measured(pixelwise, 0.9993, 0.994), EngineOptions(engine=name, device="cpu"))
    assert (engine.name, engine.precision) == ("openvino", "bf16")
    why = "the CPU was asked for" if name == "auto" else "openvino was asked for"
    assert reason == f"openvino on cpu in bf16: 99.97 % of the golden tiles' pixels as in fp32; {why}"
    engine.close()


@needs_openvino
def test_bf16_is_not_chosen_for_golden_tiles_alone(pixelwise: Bundle, golden: list[Fidelity]) -> None:
    """Measured: cloud-lale keeps 99.99 % of its golden pixels and 99.8 % of held-out ones."""
    engine, reason = choose_engine(measured(pixelwise, 0.998, 0.9931))
    assert (engine.name, engine.precision) == ("openvino", "fp32")
    assert reason.endswith("not in bf16: on held-out tiles 99.80 % of the pixels as in fp32, less than 99.9 %")


@needs_openvino
@pytest.mark.parametrize(
    ("shown", "words"),
    [(Fidelity(0.9989, 1.0), "99.89 % of the pixels as in fp32, less than 99.9 %"),
     (Fidelity(0.9997, 0.9881), "the IoU of a class with fp32 is 0.988, less than 0.99")],
)  # fmt: skip
def test_bf16_is_not_chosen_for_held_out_tiles_alone(
    pixelwise: Bundle, golden: list[Fidelity], shown: Fidelity, words: str
) -> None:
    golden.append(shown)
    engine, reason = choose_engine(measured(pixelwise, 0.9993, 0.994))
    assert (engine.name, engine.precision) == ("openvino", "fp32")
    assert reason.endswith(f"not in bf16: on the golden tiles {words}")


@needs_openvino
def test_bf16_is_not_chosen_on_a_processor_without_it(
    pixelwise: Bundle, golden: list[Fidelity], monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg_cli.engines import openvino_engine

    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: False)
    engine, reason = choose_engine(measured(pixelwise, 0.9993, 0.994))
    assert (engine.name, engine.precision) == ("openvino", "fp32")
    assert "not in bf16: this processor has no bf16" in reason


@needs_openvino
def test_fp32_by_name_is_never_bf16(pixelwise: Bundle, golden: list[Fidelity]) -> None:
    bundle = measured(pixelwise, 1.0, 1.0)
    for name in ("auto", "openvino"):
        assert choose_engine(bundle, EngineOptions(engine=name, precision="fp32"))[0].precision == "fp32"


def opened_in_order(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, precision: str, device: str) -> list[str]:
    """Engines that are tried when none runs."""
    tried = []

    def refuse(name: str, bundle: Bundle, device: str, options: EngineOptions) -> engines.Engine:
        tried.append(name)
        raise EngineError("it does not run")

    monkeypatch.setattr(engines, "_open_engine", refuse)
    monkeypatch.setattr(engines, "_is_installed", lambda name: True)
    with pytest.raises(EngineError, match=f"no engine runs on {device}"):
        choose_engine(bundle, EngineOptions(device=device, precision=precision))
    return tried


@pytest.mark.parametrize(
    ("precision", "device", "order"),
    [("auto", "cpu", ["openvino", "onnx", "torch"]), ("fp32", "cpu", ["openvino", "onnx", "torch"]),
     ("bf16", "cpu", ["openvino", "torch", "onnx"]), ("auto", "cuda:0", ["torch", "onnx"])],
)  # fmt: skip
def test_engines_are_tried_in_the_order_of_their_measured_speed(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch, precision: str, device: str, order: list[str]
) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(1))
    assert opened_in_order(pixelwise, monkeypatch, precision, device) == order


def test_a_package_whose_libraries_are_missing_leads_to_the_next_engine(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_is_installed", lambda name: True)
    monkeypatch.setitem(sys.modules, "geoseg_cli.engines.openvino_engine", None)
    engine, reason = choose_engine(pixelwise)
    assert engine.name == "onnx"
    assert "openvino: the package openvino does not load: " in reason


@pytest.mark.parametrize("name", ["torch", "onnx", pytest.param("openvino", marks=needs_openvino)])
def test_an_engine_asked_for_by_name_runs(pixelwise: Bundle, name: str) -> None:
    engine, reason = choose_engine(pixelwise, EngineOptions(engine=name, precision="fp32"))
    assert engine.name == name
    assert reason == f"{name} on cpu: {name} was asked for"


def test_bf16_without_openvino_means_torch(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "openvino")
    engine, _ = choose_engine(pixelwise, EngineOptions(precision="bf16"))
    assert (engine.name, engine.precision) == ("torch", "bf16")


def test_fp16_without_cuda_runs_nowhere_and_every_reason_is_told(pixelwise: Bundle) -> None:
    with pytest.raises(EngineError, match="torch: fp16 does not run on a CPU; onnx: the onnx engine runs fp32"):
        choose_engine(pixelwise, EngineOptions(precision="fp16"))


def test_a_bundle_without_a_graph_runs_in_torch(tmp_path: Path) -> None:
    engine, reason = choose_engine(write_pixelwise_bundle(tmp_path, onnx=b""))
    assert engine.name == "torch"
    assert reason.endswith("; onnx: bundle pixelwise has no onnx")


def test_a_missing_package_leads_to_the_other_engine(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "onnx", "openvino")
    engine, reason = choose_engine(pixelwise)
    assert engine.name == "torch"
    assert reason.endswith("onnx: the package onnxruntime is not installed")


def test_no_package_at_all_ends_with_69(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "onnx", "openvino", "torch")
    with pytest.raises(EngineError, match="no engine runs on cpu") as caught:
        choose_engine(pixelwise)
    assert caught.value.exit_code == 69


@pytest.mark.parametrize(
    ("name", "package"),
    [("torch", "torch"), ("onnx", "onnxruntime"), ("openvino", "openvino"), ("tensorrt", "onnxruntime")],
)
def test_an_engine_by_name_without_its_package_ends_with_69(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    without_package(monkeypatch, name)
    with pytest.raises(EngineError, match=f"the package {package} is not installed"):
        choose_engine(pixelwise, EngineOptions(engine=name))


def test_an_engine_by_name_whose_file_the_bundle_lacks_is_the_bundles_error(tmp_path: Path) -> None:
    bundle = write_pixelwise_bundle(tmp_path, onnx=b"")
    for name in ("onnx", *(["openvino"] if OPENVINO else [])):
        with pytest.raises(ModelError, match="has no onnx"):
            choose_engine(bundle, EngineOptions(engine=name))


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
    without_package(monkeypatch, "openvino")
    engine, reason = choose_engine(pixelwise)
    assert (engine.name, engine.device) == ("onnx", "cpu")
    told = "onnx on cpu: torch: torch cannot use cuda:0; onnx: onnx cannot use cuda:0; openvino: the package openvino"
    assert reason == f"{told} is not installed"
    with pytest.raises(EngineError, match="no engine runs on cuda:0: torch: torch cannot use cuda:0"):
        choose_engine(pixelwise, EngineOptions(device="cuda"))


def test_a_device_out_of_range_names_the_count(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(2))
    with pytest.raises(EngineError, match=r"offers 2 CUDA device\(s\)"):
        choose_engine(pixelwise, EngineOptions(device="cuda:5"))


class Opened(FakeEngine):
    """An engine on whatever device was asked for."""

    def __init__(self, name: str, device: str) -> None:
        super().__init__(4, lambda pixels: np.zeros((len(pixels), 4, *pixels.shape[2:]), np.float32))
        self.name, self.device, self.batch_tiles = name, device, 16  # type: ignore[misc]


def fake_gpus(monkeypatch: pytest.MonkeyPatch, count: int, broken: dict[str, str] | None = None) -> list[Opened]:
    """GPUs that engines can be opened on, except on those that are broken for them; what was opened."""
    opened: list[Opened] = []

    def open_engine(name: str, bundle: Bundle, device: str, options: EngineOptions) -> engines.Engine:
        if (broken or {}).get(name) == device:
            raise EngineError(f"{name} cannot use {device}")
        opened.append(Opened(name, device))
        return opened[-1]

    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(count))
    monkeypatch.setattr(engines, "_open_engine", open_engine)
    monkeypatch.setattr(engines, "_is_installed", lambda name: True)
    return opened


def test_several_devices_run_one_engine_each_and_are_one(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = fake_gpus(monkeypatch, 4)
    engine, reason = choose_engine(pixelwise, EngineOptions(device="cuda:0,2,3"))
    assert [(one.name, one.device) for one in opened] == [("torch", f"cuda:{number}") for number in (0, 2, 3)]
    assert (engine.name, engine.device, engine.batch_tiles) == ("torch", "cuda:0,2,3", 48)
    assert reason == "torch on cuda:0,2,3: CUDA works"
    engine.close()
    assert all(one.closed for one in opened)


def test_nobody_gets_several_devices_unasked(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = fake_gpus(monkeypatch, 4)
    for device in ("auto", "cuda"):
        assert choose_engine(pixelwise, EngineOptions(device=device))[0] is opened[-1]
        assert opened[-1].device == "cuda:0"


def test_an_engine_that_one_of_the_devices_refuses_leads_to_the_next_and_leaves_none_open(
    pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = fake_gpus(monkeypatch, 2, {"torch": "cuda:1"})
    engine, reason = choose_engine(pixelwise, EngineOptions(device="cuda:0,1"))
    assert (engine.name, engine.device) == ("onnx", "cuda:0,1")
    assert reason == "onnx on cuda:0,1: CUDA works; torch: torch cannot use cuda:1"
    assert [(one.name, one.device, one.closed) for one in opened] == [
        ("torch", "cuda:0", True), ("onnx", "cuda:0", False), ("onnx", "cuda:1", False)
    ]  # fmt: skip


def test_several_devices_never_become_fewer(pixelwise: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = fake_gpus(monkeypatch, 2, {"torch": "cuda:1", "onnx": "cuda:0"})
    words = "no engine runs on cuda:0,1: torch: torch cannot use cuda:1; onnx: onnx cannot use cuda:0"
    with pytest.raises(EngineError, match=words):
        choose_engine(pixelwise, EngineOptions(device="cuda:0,1"))
    assert all(one.closed for one in opened)


@pytest.mark.parametrize("wrong", [{"engine": "tensorflow"}, {"precision": "int4"}, {"threads": -1}, {"device": "gpu"}])
def test_an_option_that_means_nothing_is_a_usage_error(pixelwise: Bundle, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        choose_engine(pixelwise, EngineOptions(**wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=needs_openvino)])
def test_a_graph_on_the_cpu_does_not_load_torch(pixelwise: Bundle, name: str) -> None:
    code = (
        "import sys, pathlib, numpy\n"
        "from geoseg_cli.bundle import Bundle\n"
        "from geoseg_cli.engines import EngineOptions, choose_engine\n"
        "engine, _ = choose_engine(Bundle.open(pathlib.Path(sys.argv[1])), EngineOptions(sys.argv[2], 'cpu'))\n"
        "engine.run(numpy.zeros((1, 3, 8, 8), numpy.float32))\n"
        "print(engine.name, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, pixelwise.folder, name], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [name, "False"]
    assert done.stderr == ""


def test_all_engines_are_reported_with_their_devices_and_the_reason_why_cuda_is_not_among_them() -> None:
    found = {status.name: status for status in available_engines()}
    assert set(found) == {"torch", "onnx", "openvino", "tensorrt"}
    tensorrt = found.pop("tensorrt")
    assert (tensorrt.runs, tensorrt.devices, tensorrt.reason) == (False, (), NO_DRIVER.reason)
    for status in found.values():
        if status.name == "openvino" and not OPENVINO:
            continue
        assert status.runs
        assert status.devices == ("cpu",)
        assert status.version
        assert status.reason == NO_DRIVER.reason


@needs_openvino
def test_openvino_is_reported_to_run_on_cpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "probe_cuda", lambda: CudaProbe(2))
    status = next(status for status in available_engines() if status.name == "openvino")
    assert (status.runs, status.devices) == (True, ("cpu",))
    assert status.reason == "the openvino engine runs on CPUs only"


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
    monkeypatch.setattr(engines, "_is_installed", lambda name: True)
    for status in available_engines():
        assert not status.runs
        assert "a library is missing" in status.reason


def test_a_status_fits_into_json() -> None:
    from dataclasses import asdict

    json.dumps([asdict(status) for status in available_engines()])


def test_the_file_that_an_engine_runs_is_named() -> None:
    assert [asset_of(name, "fp32") for name in ("torch", "onnx", "openvino", "tensorrt")] == ["weights", *["onnx"] * 3]
    assert [asset_of(name, "int8") for name in ("onnx", "openvino")] == ["onnx-int8", "onnx-int8"]
