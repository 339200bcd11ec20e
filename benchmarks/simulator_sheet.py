"""Write a contact sheet of simulated scenes: python benchmarks/simulator_sheet.py --spectra DIR --out sheet.png."""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geoseg_cli.training.imagers import IMAGERS
from geoseg_cli.training.pictures import picture_sheet
from geoseg_cli.training.simulate import SimulatorOptions, simulate_scene
from geoseg_cli.training.spectra import SpectralLibrary


def main() -> None:
    """Draw scenes with seeds from --first on, and say how long one takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spectra", type=Path, required=True, help="folder with s2a_bands.csv and its sisters")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--size", type=int, default=256, help="pixels per side")
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--level", choices=["L1C", "L2A"], default="L1C")
    parser.add_argument("--clouds", default="random")
    parser.add_argument("--landscape", default="random")
    parser.add_argument("--sensor", choices=list(IMAGERS), default="sentinel-2")
    parser.add_argument(
        "--gsd", type=float, help="metres; the sensor's own finest pixels, but at least 10 m, if left out"
    )
    parser.add_argument("--white", type=float, default=0.3, help="reflectance that is shown as white; 0.9 for snow")
    given = parser.parse_args()
    library = SpectralLibrary.load(given.spectra)
    gsd_m = given.gsd or max(10.0, min(IMAGERS[given.sensor].gsd_m))
    options = SimulatorOptions(
        given.size, given.size, gsd_m, given.level, clouds=given.clouds, landscape=given.landscape, sensor=given.sensor
    )
    start = time.perf_counter()
    scenes = [simulate_scene(library, options, given.first + index) for index in range(given.count)]
    seconds = time.perf_counter() - start
    sheet = picture_sheet(scenes, given.columns, given.white)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        height, width, _ = sheet.shape
        with rasterio.open(given.out, "w", driver="PNG", height=height, width=width, count=3, dtype="uint8") as file:
            file.write(sheet.transpose(2, 0, 1))
    print(f"{given.out}: {given.count} scenes, {1000 * seconds / given.count:.0f} ms each")


if __name__ == "__main__":
    main()
