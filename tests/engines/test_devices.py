from __future__ import annotations

import ctypes
from typing import Any

import pytest

from geoseg_cli.engines import devices
from geoseg_cli.engines.devices import (
    CudaProbe,
    device_number,
    name_devices,
    probe_cuda,
    resolve_device,
    resolve_devices,
)
from geoseg_cli.errors import EngineError, UsageError

NOTHING = CudaProbe(0, "no CUDA device (libcuda.so.1 not found)")


class FakeDriver:
    """A CUDA driver that answers as it is told."""

    def __init__(self, devices: int = 0, init: int = 0, count: int = 0) -> None:
        self.devices, self.init, self.count = devices, init, count

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, pointer: Any) -> int:
        pointer._obj.value = self.devices
        return self.count

    def cuGetErrorName(self, status: int, pointer: Any) -> int:
        pointer._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0 if status == 100 else 1


def use_driver(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver | None) -> None:
    def load(name: str) -> FakeDriver:
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_a_machine_without_a_driver_says_which_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    use_driver(monkeypatch, None)
    monkeypatch.setattr(devices.sys, "platform", "linux")
    assert probe_cuda() == NOTHING
    assert not NOTHING.works


def test_the_driver_counts_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    use_driver(monkeypatch, FakeDriver(devices=3))
    assert probe_cuda() == CudaProbe(3, "")


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        (FakeDriver(init=100), "cuInit: CUDA_ERROR_NO_DEVICE"),
        (FakeDriver(init=999), "cuInit: error 999"),
        (FakeDriver(devices=2, count=3), "cuDeviceGetCount: error 3"),
        (FakeDriver(devices=0), "counts 0"),
    ],
)
def test_a_driver_in_trouble_gives_no_device_and_its_reason(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, words: str
) -> None:
    use_driver(monkeypatch, driver)
    probe = probe_cuda()
    assert not probe.works
    assert words in probe.reason


@pytest.mark.parametrize(
    ("asked", "count", "resolved"),
    [
        ("auto", 0, "cpu"),
        ("cpu", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cuda", 2, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_name_resolves(asked: str, count: int, resolved: str) -> None:
    assert resolve_device(asked, CudaProbe(count, "" if count else "none")) == resolved


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:-1", "cuda:a", "CPU", "", "cuda:0 "])
def test_an_unknown_device_name_is_a_usage_error(asked: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_device(asked, CudaProbe(1))
    assert repr(asked) in caught.value.message


@pytest.mark.parametrize("asked", ["cuda", "cuda:0"])
def test_cuda_by_name_without_cuda_fails_with_69_and_the_reason(asked: str) -> None:
    with pytest.raises(EngineError) as caught:
        resolve_device(asked, NOTHING)
    assert caught.value.exit_code == 69
    assert "libcuda.so.1 not found" in caught.value.message
    assert "--device cpu" in caught.value.hint


@pytest.mark.parametrize(("count", "remedy"), [(1, "use cuda:0"), (3, "use cuda:0 to cuda:2")])
def test_a_device_number_out_of_range_names_the_count(count: int, remedy: str) -> None:
    with pytest.raises(EngineError) as caught:
        resolve_device("cuda:7", CudaProbe(count))
    assert f"offers {count} CUDA device(s)" in caught.value.message
    assert caught.value.hint == remedy


@pytest.mark.parametrize(
    ("asked", "resolved"),
    [
        ("auto", ("cuda:0",)),
        ("cuda", ("cuda:0",)),
        ("cpu", ("cpu",)),
        ("cuda:2", ("cuda:2",)),
        ("cuda:0,1", ("cuda:0", "cuda:1")),
        ("cuda:3,00,2", ("cuda:3", "cuda:0", "cuda:2")),
    ],
)
def test_devices_resolve_in_the_order_asked_for(asked: str, resolved: tuple[str, ...]) -> None:
    assert resolve_devices(asked, CudaProbe(4)) == resolved
    assert resolve_devices(name_devices(resolved), CudaProbe(4)) == resolved


@pytest.mark.parametrize("asked", ["cuda:0,", "cuda:,1", "cuda:0,cuda:1", "cuda:0;1", "cpu,cuda:0", "cuda:0, 1"])
def test_several_devices_that_are_named_in_another_way_are_a_usage_error(asked: str) -> None:
    with pytest.raises(UsageError, match=asked) as caught:
        resolve_devices(asked, CudaProbe(4))
    assert "cuda:N,M" in caught.value.hint


@pytest.mark.parametrize("asked", ["cuda:1,1", "cuda:0,2,00"])
def test_a_device_that_is_named_twice_is_a_usage_error(asked: str) -> None:
    with pytest.raises(UsageError, match=f"{asked} names one device twice"):
        resolve_devices(asked, NOTHING)


def test_one_of_several_devices_that_is_not_there_fails_and_is_named() -> None:
    with pytest.raises(EngineError, match=r"cuda:2 was asked for, and this machine offers 2"):
        resolve_devices("cuda:0,2", CudaProbe(2))
    with pytest.raises(EngineError, match=r"libcuda\.so\.1 not found"):
        resolve_devices("cuda:0,1", NOTHING)


def test_training_takes_one_device() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_device("cuda:0,1", CudaProbe(2))
    assert caught.value.hint == "use auto, cpu, cuda or cuda:N"


def test_the_number_of_a_device_is_read_from_its_name() -> None:
    assert device_number("cuda:12") == 12
