"""Reading a scene in strips, as a run does, against the fastest way that rasterio has: whole blocks, each once.

    python benchmarks/reading.py [--side 4096] [--bands 4] [--strip 256] [--rounds 5] [--only WORD]

Scenes are synthesised (a smooth field with noise, uint16) and written once. A round reads every scene both ways, one
after the other, opening included; the figures are medians over rounds. "Read" is the bytes that the process asked the
system for (Linux), ours by theirs: what is above 1 was read for the decision on radiometry, or more than once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

from geoseg_cli.bundle import InputSpec
from geoseg_cli.grid import Window
from geoseg_cli.memory import SPARE_CACHE_BYTES
from geoseg_cli.scenes import SceneOptions, block_cache, open_scene

NAMES = ("blue", "green", "red", "nir", "swir16", "swir22")
OPTIONS = SceneOptions(radiometry="dn")
GRID = {"crs": "EPSG:32631", "transform": Affine(10.0, 0.0, 600_000.0, 0.0, -10.0, 5_700_000.0), "dtype": "uint16"}
HEADER = "| scene | MB | blocks alone, Mpx/s | strips, Mpx/s | of the limit | read |"


@dataclass
class Case:
    """A scene that was written, and what was measured.

    Attributes:
        title: What it is.
        scene: What is opened.
        files: Its files of pixels.
        limit_s, ours_s: Seconds of each round.
        limit_bytes, ours_bytes: Bytes asked of the system in the last round; 0 where that is not known.
    """

    title: str
    scene: Path
    files: list[Path]
    limit_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)
    limit_bytes: int = 0
    ours_bytes: int = 0


def main() -> None:
    """Write, measure and print."""
    options = parse_options()
    pixels = synthesise(options.bands, options.side)
    with tempfile.TemporaryDirectory(prefix="geoseg-reading-") as folder:
        cases = write_cases(Path(folder), pixels, options.only)
        for _ in range(options.rounds):
            for case in cases:
                measure(case, pixels, options.strip)
    size = f"{options.side} x {options.side} x {options.bands} uint16"
    print(f"{size}, strips of {options.strip} rows, medians of {options.rounds} rounds\n")
    print("\n".join([HEADER, "|---" + "|---:" * 5 + "|", *(render(case, pixels.size) for case in cases)]))


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=4096, help="rows and columns (default: %(default)s)")
    parser.add_argument("--bands", type=int, default=4, choices=range(1, len(NAMES) + 1), metavar="1..6")
    parser.add_argument("--strip", type=int, default=256, help="rows that are read at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="scenes whose title holds this word")
    return parser.parse_args()


def synthesise(bands: int, side: int) -> npt.NDArray[np.uint16]:
    """(P, H, W) numbers that compress about as well as reflectance does."""
    rng = np.random.default_rng(1)
    waves = np.sin(np.linspace(0, 40, side))[:, None] + np.cos(np.linspace(0, 30, side))[None]
    planes = [1500 + 300 * band + 400 * waves + rng.normal(0, 25, (side, side)) for band in range(bands)]
    return np.stack(planes).clip(1, 20_000).astype(np.uint16)


def write_cases(folder: Path, pixels: npt.NDArray[np.uint16], only: str) -> list[Case]:
    """Scenes of one file in every way to store it, and of one file per band."""
    makers: dict[str, Callable[[str], Case]] = {}
    layouts = {
        "tiles of 512": {"tiled": True, "blockxsize": 512, "blockysize": 512},
        "strips of 16": {"blockysize": 16},
    }
    for (layout, blocks), interleave, codec in product(layouts.items(), ("band", "pixel"), ("deflate", "zstd", "lzw")):
        profile = {**blocks, "interleave": interleave, "compress": codec, "predictor": 2}
        makers[f"GeoTIFF, {layout}, by {interleave}, {codec}"] = one_file(folder, pixels, "GTiff", profile)
    jp2 = {"quality": "100", "reversible": "YES", "blockxsize": 1024, "blockysize": 1024}
    makers["JPEG 2000, tiles of 1024"] = one_file(folder, pixels, "JP2OpenJPEG", jp2)
    tiled = {**layouts["tiles of 512"], "compress": "deflate", "predictor": 2}
    makers["a GeoTIFF per band, tiles of 512, deflate"] = file_per_band(folder, pixels, "GTiff", tiled)
    makers["a JPEG 2000 per band, tiles of 1024"] = file_per_band(folder, pixels, "JP2OpenJPEG", jp2)
    return [make(title) for title, make in makers.items() if only.casefold() in title.casefold()]


def one_file(folder: Path, pixels: npt.NDArray[Any], driver: str, profile: dict[str, Any]) -> Callable[[str], Case]:
    """A writer of all bands in one file."""

    def make(title: str) -> Case:
        path = write(folder / f"{abs(hash(title))}{ending(driver)}", pixels, driver, profile)
        return Case(title, path, [path])

    return make


def file_per_band(
    folder: Path, pixels: npt.NDArray[Any], driver: str, profile: dict[str, Any]
) -> Callable[[str], Case]:
    """A writer of one file per band and a STAC item that names them."""

    def make(title: str) -> Case:
        own = folder / str(abs(hash(title)))
        own.mkdir()
        planes = list(zip(NAMES, pixels, strict=False))
        files = [write(own / f"{name}{ending(driver)}", plane[None], driver, profile) for name, plane in planes]
        assets = {
            name: {"href": file.name, "eo:common_name": name} for (name, _), file in zip(planes, files, strict=True)
        }
        item = {"type": "Feature", "stac_version": "1.0.0", "id": "bench", "properties": {}, "assets": assets}
        (own / "item.json").write_text(json.dumps(item), encoding="utf-8")
        return Case(title, own / "item.json", files)

    return make


def ending(driver: str) -> str:
    """Of the names of a driver's files."""
    return ".tif" if driver == "GTiff" else ".jp2"


def write(path: Path, pixels: npt.NDArray[Any], driver: str, profile: dict[str, Any]) -> Path:
    """Write (P, H, W)."""
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width}
    with rasterio.open(path, "w", driver=driver, **shape, **GRID, **profile) as file:
        file.write(pixels)
    return path


def measure(case: Case, pixels: npt.NDArray[Any], strip: int) -> None:
    """One round of both ways; the strips are compared with what was written."""
    start_bytes, start = bytes_read(), time.perf_counter()
    for path in case.files:
        read_blocks(path)
    case.limit_s.append(time.perf_counter() - start)
    middle_bytes, seconds = bytes_read(), 0.0
    names = NAMES[: len(pixels)]
    spec = InputSpec(names, (), (0.0,) * len(names), (1.0,) * len(names))
    options = OPTIONS if len(case.files) > 1 else SceneOptions(names, "dn")
    start = time.perf_counter()
    # Opening counts: it decodes blocks for the decision on radiometry, and they stay in GDAL's cache.
    with open_scene(case.scene, spec, options) as scene, block_cache(scene.size_in_cache(strip) + SPARE_CACHE_BYTES):
        seconds += time.perf_counter() - start
        for row in range(0, scene.grid.height, strip):
            window = Window(row, 0, min(strip, scene.grid.height - row), scene.grid.width)
            start = time.perf_counter()
            found = scene.read(window).pixels
            seconds += time.perf_counter() - start
            assert np.array_equal(found, pixels[:, window.rows]), case.title
    case.ours_s.append(seconds)
    case.limit_bytes, case.ours_bytes = middle_bytes - start_bytes, bytes_read() - middle_bytes


def read_blocks(path: Path) -> None:
    """Read a file block by block, all bands of a block together."""
    with rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            file.read(window=window)


def bytes_read() -> int:
    """Bytes that this process asked the system for so far; 0 where the system does not count them."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.split("rchar:")[1].split()[0])


def render(case: Case, size_px: int) -> str:
    """A row of the table."""
    limit, ours = (size_px / 1e6 / statistics.median(seconds) for seconds in (case.limit_s, case.ours_s))
    megabytes = sum(file.stat().st_size for file in case.files if file.exists()) / 1e6 or case.limit_bytes / 1e6
    share = f"{case.ours_bytes / case.limit_bytes:.2f}" if case.limit_bytes else ""
    return f"| {case.title} | {megabytes:.0f} | {limit:.0f} | {ours:.0f} | {ours / limit:.0%} | {share} |"


if __name__ == "__main__":
    main()
