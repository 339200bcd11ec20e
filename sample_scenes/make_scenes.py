"""Make the sample scenes and their reference labels with geoseg's own simulator.

    python sample_scenes/make_scenes.py [--data FOLDER]

FOLDER holds ``training/spectra`` (default: $GEOSEG_REAL_DATA, else ../shared/data beside the checkout). The seeds
are used for nothing else: no shipped model saw these scenes. The same library and seeds give the same files.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

from geoseg_cli.catalog import Legend, legends
from geoseg_cli.training.simulate import SimulatedScene, SimulatorOptions, simulate_scene
from geoseg_cli.training.spectra import S2_BANDS, SpectralLibrary

HERE = Path(__file__).resolve().parent
SCALE, OFFSET = 1e-4, -0.1
"""Sentinel-2 from processing baseline 04.00 on: reflectance = (DN - 1000) / 10000, DN 0 is no data."""

NODATA_DN = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample scene: its file name, seed, bands left out, corner in UTM 32N metres, and what is simulated."""

    name: str
    seed: int
    without: tuple[str, ...]
    corner_m: tuple[float, float]
    options: SimulatorOptions


SAMPLES = (
    Sample(
        "l1c_13_bands",
        700_000_011,
        (),
        (600_000.0, 5_300_040.0),
        SimulatorOptions(
            512, 512, level="L1C", landscape="random", clouds="cumulus", season="summer", nodata_edge=True
        ),
    ),
    Sample(
        "l2a_12_bands",
        700_000_106,
        ("B10",),
        (640_020.0, 5_320_080.0),
        SimulatorOptions(512, 512, level="L2A", landscape="random", clouds="clear", season="summer"),
    ),
)


def main() -> None:
    """Write every sample and its two reference maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("GEOSEG_REAL_DATA") or HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder with training/spectra")
    library = SpectralLibrary.load(Path(parser.parse_args().data) / "training" / "spectra")
    (HERE / "reference").mkdir(exist_ok=True)
    for sample in SAMPLES:
        scene = simulate_scene(library, sample.options, sample.seed)
        print(write_scene(sample, scene))
        print(write_labels(sample, "landcover", scene.land_cover, legends()["esa-worldcover"]))
        print(write_labels(sample, "cloudmask", scene.clouds, legends()["cloudsen12"]))


def write_scene(sample: Sample, scene: SimulatedScene) -> Path:
    """Write the bands as uint16 digital numbers with scale and offset tags."""
    names = [name for name in S2_BANDS if name not in sample.without]
    reflectance = scene.reflectance[[S2_BANDS.index(name) for name in names]]
    numbers = np.clip(np.rint((reflectance - OFFSET) / SCALE), 1, 65_535)
    pixels = np.where(scene.valid, numbers, NODATA_DN).astype(np.uint16)
    path = HERE / f"{sample.name}.tif"
    profile = _profile(sample, pixels) | {"nodata": NODATA_DN, "predictor": 2}
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.scales = (SCALE,) * len(names)
        file.offsets = (OFFSET,) * len(names)
        for index, name in enumerate(names, start=1):
            file.set_band_description(index, name)
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION=f"simulated by geoseg, seed {sample.seed}; no real place")
    return path


def write_labels(sample: Sample, kind: str, labels: npt.NDArray[np.uint8], legend: Legend) -> Path:
    """Write what is true about a scene."""
    path = HERE / "reference" / f"{sample.name}_{kind}.tif"
    with rasterio.open(path, "w", **_profile(sample, labels[None]) | {"nodata": legend.nodata}) as file:
        file.write(labels, 1)
        file.write_colormap(1, legend.palette())
    return path


def _profile(sample: Sample, pixels: npt.NDArray[Any]) -> dict[str, Any]:
    x, y = sample.corner_m
    gsd_m = sample.options.gsd_m
    return {
        "driver": "GTiff",
        "dtype": pixels.dtype,
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "crs": "EPSG:32632",
        "transform": Affine(gsd_m, 0, x, 0, -gsd_m, y),
        "compress": "deflate",
        "zlevel": 9,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "interleave": "band",
    }


if __name__ == "__main__":
    main()
