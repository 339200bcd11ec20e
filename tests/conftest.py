"""What all tests share: where real data lies, and a writer of small GeoTIFFs."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import settings
from rasterio.transform import Affine

# Time limits per example fail on a machine that is busy with something else.
settings.register_profile("geoseg", deadline=None)
settings.load_profile("geoseg")

# What a developer has configured must not decide what the tests find; subprocesses inherit this.
_OF_THE_TESTS = {"GEOSEG_REAL_DATA", "GEOSEG_S2CLOUDLESS_PYTHON"}
for name in [name for name in os.environ if name.startswith("GEOSEG_") and name not in _OF_THE_TESTS]:
    del os.environ[name]
os.environ["GEOSEG_CONFIG"] = os.devnull
# Nor what earlier runs on this machine found out.
_OWN = tempfile.TemporaryDirectory(prefix="geoseg-tests-")
os.environ["XDG_CONFIG_HOME"], os.environ["XDG_CACHE_HOME"] = f"{_OWN.name}/config", f"{_OWN.name}/cache"
# Threads of two test processes that wait for each other cost more than they bring: OpenMP's spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job begins with these ignored, and so would all that the tests start.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

TEN_METRES = Affine(10.0, 0.0, 600_000.0, 0.0, -10.0, 5_700_000.0)

MakeScene = Callable[..., Path]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scenes: ``GEOSEG_REAL_DATA``, or ``../shared/data`` beside the checkout."""
    named = os.environ.get("GEOSEG_REAL_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data not found: set GEOSEG_REAL_DATA")
    return folder


def write_scene(
    path: Path,
    pixels: npt.NDArray[Any],
    bands: Sequence[str | None] = (),
    tags: Sequence[tuple[float, float]] = (),
    mask: npt.NDArray[np.bool_] | None = None,
    **profile: Any,
) -> Path:
    """Write pixels (P, H, W) as a GeoTIFF.

    Args:
        path: Where to.
        pixels: (P, H, W).
        bands: Description of each band.
        tags: (scale, offset) of each band.
        mask: (H, W) True where valid, stored as a mask band inside the file.
        profile: What rasterio takes: nodata, crs, transform, compress, tiled ...
    """
    count, height, width = pixels.shape
    profile = {"crs": "EPSG:32631", "transform": TEN_METRES, **profile}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, **profile
        ) as file,
    ):
        for number, text in enumerate(bands, start=1):
            if text is not None:
                file.set_band_description(number, text)
        if tags:
            file.scales, file.offsets = zip(*tags, strict=True)
        if mask is not None:
            file.write_mask(mask)
        file.write(pixels)
    return path


@pytest.fixture
def make_scene(tmp_path: Path) -> MakeScene:
    """Writer of GeoTIFFs in a fresh folder: ``make_scene(pixels, bands=..., name="scene.tif", ...)``."""

    def make(pixels: npt.NDArray[Any], *, name: str = "scene.tif", **rest: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_scene(path, pixels, **rest)

    return make
