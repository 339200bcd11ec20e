"""``geoseg doctor``: what works on this machine, and why the rest does not."""

from __future__ import annotations

import json as json_format
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from geoseg_cli.cli.request import put

PACKAGES = (
    "geoseg",
    "numpy",
    "rasterio",
    "torch",
    "onnxruntime-gpu",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "pyogrio",
    "safetensors",
    "shapely",
    "pyproj",
    "xarray",
    "rioxarray",
    "onnx",
)

DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "PNG", "VRT")


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def command(json: AsJson = False) -> None:
    """Print versions, GDAL drivers, engines with the providers that really run, and devices."""
    found = _examine()
    if json:
        put(json_format.dumps(found) + "\n")
        return
    lines = [f"python {found['python']} on {found['platform']}"]
    lines += [f"  {name:16} {number or 'not installed'}" for name, number in found["packages"].items()]
    drivers = ", ".join(f"{name} {'yes' if is_there else 'NO'}" for name, is_there in found["drivers"].items())
    lines.append(f"GDAL {found['gdal']}: {drivers}")
    for engine in found["engines"]:
        state = _where(engine["devices"]) if engine["runs"] else "does not run"
        lines.append(f"engine {engine['name']}: {state}" + (f" ({engine['reason']})" if engine["reason"] else ""))
    lines.append("bundles: " + (", ".join(found["bundles"]) or "none"))
    put("\n".join(lines) + "\n")


def _examine() -> dict[str, Any]:
    from rasterio import __gdal_version__
    from rasterio.env import Env

    from geoseg_cli.bundle import bundle_folders
    from geoseg_cli.engines import available_engines

    with Env() as env:
        known = env.drivers()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "gdal": __gdal_version__,
        "drivers": {name: name in known for name in DRIVERS},
        "engines": [asdict(status) for status in available_engines()],
        "bundles": [folder.name for folder in bundle_folders()],
    }


def _where(devices: Sequence[str]) -> str:
    """Where an engine runs, and how several GPUs are used together."""
    from geoseg_cli.engines.devices import name_devices

    cuda = [device for device in devices if device != "cpu"]
    together = f"; together: --device {name_devices(cuda)}" if len(cuda) > 1 else ""
    return f"runs on {', '.join(devices)}{together}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
