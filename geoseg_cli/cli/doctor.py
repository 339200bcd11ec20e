"""``geoseg doctor``: what works on this machine, and why the rest does not."""

from __future__ import annotations

import json as json_format
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

PACKAGES = (
    "geoseg",
    "numpy",
    "rasterio",
    "torch",
    "onnxruntime-gpu",
    "onnxruntime",
    "openvino",
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
        print(json_format.dumps(found))
        return
    print(f"python {found['python']} on {found['platform']}")
    for name, number in found["packages"].items():
        print(f"  {name:16} {number or 'not installed'}")
    print(f"GDAL {found['gdal']}: " + ", ".join(f"{k} {'yes' if ok else 'NO'}" for k, ok in found["drivers"].items()))
    for engine in found["engines"]:
        state = _where(engine["devices"]) if engine["runs"] else "does not run"
        print(f"engine {engine['name']}: {state}" + (f" ({engine['reason']})" if engine["reason"] else ""))
    print("bundles: " + (", ".join(found["bundles"]) or "none"))


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
