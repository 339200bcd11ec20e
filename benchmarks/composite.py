"""How fast maps become a composite, and with how much memory.

    python benchmarks/composite.py [--maps 100] [--side 2048] [--confidence]

Makes maps of one grid in a temporary folder: patches of a few pixels as land cover has them, a fifth of each hidden in
larger patches as clouds do. Then runs ``geoseg composite`` in a process of its own, three times, and prints the least.
Mpx/s are pixels of all maps together in a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

from geoseg_cli.catalog import NODATA, legends
from geoseg_cli.results.description import legend_tags

LEGEND = legends()["esa-worldcover"]
DISTINCT = 10
"""Maps with pixels of their own; the others are copies under other names, which are read and counted like any."""


def patches(side: int, patch: int, values: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """(side, side) uint8 in square patches."""
    count = -(-side // patch)
    coarse = np.random.default_rng(seed).choice(values, (count, count))
    return np.kron(coarse, np.ones((patch, patch), np.uint8))[:side, :side]


def write_maps(folder: Path, maps: int, side: int, with_confidence: bool) -> None:
    """Maps, and confidence beside them."""
    for number in range(min(DISTINCT, maps)):
        labels = patches(side, 8, np.array(LEGEND.values, np.uint8), number)
        hidden = patches(side, 128, np.array([0, 0, 0, 0, 1], np.uint8), 100 + number) == 1
        _write(folder / f"{number}_landcover.tif", np.where(hidden, NODATA, labels), number)
        if with_confidence:
            confidence = patches(side, 4, np.arange(100, 251, dtype=np.uint8), 200 + number)
            _write(folder / f"{number}_confidence.tif", np.where(hidden, NODATA, confidence), None)
    for number in range(DISTINCT, maps):
        for kind in ("landcover", "confidence") if with_confidence else ("landcover",):
            shutil.copy(folder / f"{number % DISTINCT}_{kind}.tif", folder / f"{number}_{kind}.tif")


def _write(path: Path, pixels: npt.NDArray[np.uint8], number: int | None) -> None:
    side = len(pixels)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": side, "width": side, "nodata": NODATA}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "DEFLATE"}
    place = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    with rasterio.open(path, "w", **profile, **layout, **place) as file:
        file.write(pixels.astype(np.uint8), 1)
        if number is not None:
            moment = {"GEOSEG_ACQUIRED": f"2024-01-{number + 1:02}T10:00:00Z"}
            file.update_tags(GEOSEG_PIXELS_SHA256=f"{number:064x}", **legend_tags(LEGEND), **moment)


def measure(folder: Path, out: Path, more: list[str]) -> tuple[float, float]:
    """Seconds and core-seconds of one run."""
    command = [sys.executable, "-m", "geoseg_cli", "composite", str(folder), "-o", str(out), "-q", "--overwrite"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, *more], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--confidence", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "maps"
        folder.mkdir()
        write_maps(folder, given.maps, given.side, given.confidence)
        more = ["--confidence-suffix", "_confidence"] if given.confidence else []
        runs = [measure(folder, Path(temporary) / "out.tif", more) for _ in range(3)]
    megapixels = given.maps * given.side**2 / 1e6
    seconds, cores = min(run[0] for run in runs), min(run[1] for run in runs)
    row = {
        "maps": given.maps, "side_px": given.side, "confidence": given.confidence,
        "seconds": round(seconds, 2), "core_seconds": round(cores, 2),
        "mpx_per_s": round(megapixels / seconds, 1), "mpx_per_core_s": round(megapixels / cores, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }  # fmt: skip
    print(json.dumps(row))


if __name__ == "__main__":
    main()
