"""The benchmark of the networks: baselines of the right size, honest arithmetic, and a smoke run."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from geoseg_cli.networks.counting import count_macs, count_parameters

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def baselines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("baselines")


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("networks")


@pytest.fixture
def network_case(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("network_case")


@pytest.mark.parametrize(
    ("name", "millions", "gmacs"), [("efficient-unet", 6.252, 3.047), ("efficient-upernet", 11.615, 13.617)]
)
def test_baselines_of_lale_have_the_published_size(
    name: str, millions: float, gmacs: float, baselines: ModuleType
) -> None:
    with torch.device("meta"):
        network = baselines.BASELINES[name](3, 7).eval()
    held = count_parameters(network) + baselines.UNUSED_CLASSIFIER_PARAMETERS
    assert held / 1e6 == pytest.approx(millions, rel=3e-4)
    assert count_macs(network, 3, 256, 256, with_charges=True) / 1e9 == pytest.approx(gmacs, rel=3e-3)


def test_the_swin_classifier_has_the_published_size(baselines: ModuleType) -> None:
    with torch.device("meta"):
        network = baselines.BASELINES["swin-t"](3, 1000).eval()
    assert count_parameters(network) == 28_288_354
    assert count_macs(network, 3, 224, 224) / 1e9 == pytest.approx(4.5, rel=0.005)  # Swin paper, table 1


@pytest.mark.parametrize("name", ["efficient-unet", "efficient-upernet"])
def test_baselines_score_every_pixel_of_any_size(name: str, baselines: ModuleType) -> None:
    network = baselines.BASELINES[name](4, 3).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 4, 70, 33)).shape == (2, 3, 70, 33)


def test_rates_follow_from_time_and_work(networks: ModuleType) -> None:
    row = {"device": "cpu", "network": "x", "engine": "torch", "precision": "fp32", "batch": 4, "side_px": 500,
           "ms": 100.0, "core_ms": 160.0, "macs": 5 * 10**8, "peak_mb": 321.0, "ready_s": 1.25}  # fmt: skip
    # 25 ms per image: 0.25 Mpx / 0.025 s, and 1 GFLOP / 0.025 s of a peak of 160. 40 core-ms per image: 1 GFLOP / 0.04
    # core-seconds of a peak of 50.
    expected = "| cpu | x | torch | fp32 | 4 | 25.00 | 10.00 | 40 | 25% | 50% | 321 | 1.2 |"
    assert networks.render_row(row, {"cpu fp32": 160.0, "cpu fp32 by core time": 50.0}) == expected


def test_the_best_round_of_a_case_is_the_one_of_the_least_processor_time(networks: ModuleType) -> None:
    rounds = ({"failed": "no memory"}, {"core_ms": 7.0, "ms": 1.0}, {"core_ms": 5.0, "ms": 9.0})
    assert networks.best_round(rounds)["core_ms"] == 5.0
    assert networks.best_round(rounds[:1]) == {"failed": "no memory"}


def test_openvino_is_measured_on_a_cpu_in_two_precisions(networks: ModuleType) -> None:
    cases = [(engine, *case) for engine in ("onnx", "openvino") for case in
             (("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "fp32"), ("cuda", "fp16"))]  # fmt: skip
    assert [case for case in cases if networks.runs(*case)] == [
        ("onnx", "cpu", "fp32"), ("onnx", "cuda", "fp32"), ("openvino", "cpu", "fp32"), ("openvino", "cpu", "bf16"),
    ]  # fmt: skip


def test_a_case_that_fails_says_why_in_its_row(networks: ModuleType) -> None:
    row: dict[str, Any] = {"device": "cpu", "network": "x", "engine": "onnx", "precision": "fp32", "batch": 1}
    assert "no graph" in networks.render_row(row | {"failed": "no graph"}, {})


def test_timing_warms_up_and_runs_at_least_three_rounds(network_case: ModuleType) -> None:
    calls: list[int] = []
    assert len(network_case.time_rounds(lambda: calls.append(1), 0.0)) == 3
    assert len(calls) == 2 + 3


@pytest.mark.slow
def test_the_quick_run_measures_and_compares() -> None:
    command = [sys.executable, str(FOLDER / "networks.py"), "--quick", "--engines", "torch", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| cpu | lale-s1 | torch |")]
    assert len(rows) == 2
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))
    assert "| LALE-S2 |" in done.stdout
