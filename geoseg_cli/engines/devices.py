"""Which device a name means, and whether CUDA works here, without importing torch or ONNX Runtime."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from geoseg_cli.errors import EngineError, UsageError

DEVICE_NAMES = "auto, cpu, cuda or cuda:N"
_NAMES_OF_SEVERAL = "auto, cpu, cuda, cuda:N, or cuda:N,M... for several together"


@dataclass(frozen=True, slots=True)
class CudaProbe:
    """What the CUDA driver says.

    Attributes:
        devices: Devices that it offers to this process; hidden ones are not counted.
        reason: Why there is none; empty where there is one.
    """

    devices: int
    reason: str = ""

    @property
    def works(self) -> bool:
        """Whether there is a device."""
        return self.devices > 0


def probe_cuda() -> CudaProbe:
    """Ask the CUDA driver for its devices (CUDA driver API, ``cuInit`` and ``cuDeviceGetCount``).

    The runtimes list CUDA among their providers on machines that have none, and log errors when it is then asked
    for, so the driver is asked first.
    """
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return CudaProbe(0, f"no CUDA device ({library} not found)")
    return _count_devices(driver)


def _count_devices(driver: ctypes.CDLL) -> CudaProbe:
    status = driver.cuInit(0)
    if status != 0:
        return CudaProbe(0, f"no CUDA device (cuInit: {_name_status(driver, status)})")
    count = ctypes.c_int(0)
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return CudaProbe(0, f"no CUDA device (cuDeviceGetCount: {_name_status(driver, status)})")
    return CudaProbe(count.value, "" if count.value else "no CUDA device (the driver counts 0)")


def _name_status(driver: ctypes.CDLL, status: int) -> str:
    name = ctypes.c_char_p()
    if driver.cuGetErrorName(status, ctypes.byref(name)) != 0 or name.value is None:
        return f"error {status}"
    return name.value.decode("ascii", "replace")


def resolve_devices(asked: str, probe: CudaProbe) -> tuple[str, ...]:
    """Turn the devices that were asked for into those that should run together.

    Args:
        asked: As for :func:`resolve_device`, or several as ``cuda:0,1``; auto is one device however many there are.
        probe: Answer of :func:`probe_cuda`.

    Returns:
        ``cpu`` alone, or one or more ``cuda:N`` in the order asked for.

    Raises:
        UsageError: There is no such name, or a device is named twice.
        EngineError: As for :func:`resolve_device`.
    """
    match = re.fullmatch(r"cuda:(\d+(?:,\d+)+)", asked)
    if match is None:
        return (resolve_device(asked, probe, _NAMES_OF_SEVERAL),)
    numbers = [int(number) for number in match.group(1).split(",")]
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"device {asked} names one device twice", "name each device once")
    return tuple(resolve_device(f"cuda:{number}", probe) for number in numbers)


def name_devices(devices: Sequence[str]) -> str:
    """One name for resolved devices, as :func:`resolve_devices` takes it: ``cuda:0,1``."""
    return ",".join([devices[0], *(device.removeprefix("cuda:") for device in devices[1:])])


def resolve_device(device: str, probe: CudaProbe, names: str = DEVICE_NAMES) -> str:
    """Turn the device that was asked for into the one that should run.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        probe: Answer of :func:`probe_cuda`.
        names: What a user may ask for, for the hint of an unknown name.

    Returns:
        ``cpu`` or ``cuda:N``.

    Raises:
        UsageError: There is no such name.
        EngineError: CUDA was asked for by name and does not work, or has fewer devices.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise UsageError(f"no device is called {device!r}", f"use {names}")
    if device == "cpu" or (device == "auto" and not probe.works):
        return "cpu"
    if not probe.works:
        raise EngineError(f"device {device} was asked for: {probe.reason}", "use --device cpu, or see `geoseg doctor`")
    number = int(match.group(1) or 0)
    if number >= probe.devices:
        raise EngineError(
            f"device {device} was asked for, and this machine offers {probe.devices} CUDA device(s), counted from 0",
            f"use cuda:0 to cuda:{probe.devices - 1}" if probe.devices > 1 else "use cuda:0",
        )
    return f"cuda:{number}"


def device_number(device: str) -> int:
    """Number of a resolved ``cuda:N``."""
    return int(device.removeprefix("cuda:"))
