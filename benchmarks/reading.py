"""Reading a scene in strips, as a run does, against the fastest way that rasterio has: whole blocks, each once.

    python benchmarks/reading.py [--side 4096] [--bands 4] [--strip 256] [--rounds 5] [--only WORD]

Scenes are synthesised (a smooth field with noise, uint16) and written once. A round reads every scene both ways, one
after the other; the figures are medians over rounds. Ours includes opening: names, radiometry with its sample, and
validity of every pixel; the limit does none of that, and has a block cache that fits it. "Of the limit" divides the
limit's time by ours, as wall time and as core-seconds, which other work on the machine does not touch. "Read" is the
bytes that ours asked the system for (Linux), by the size of the scene's files: what is above 1 was decoded twice, by
the sample and again by a strip. "Beside" compares files that are read beside each other, as they are, with one after
the other: its wall time and core-seconds by those of one after the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

from geoseg_cli.bundle import InputSpec
from geoseg_cli.grid import Window
from geoseg_cli.memory import MIN_CACHE_BYTES, SPARE_CACHE_BYTES
from geoseg_cli.scenes import Scene, SceneOptions, block_cache, open_scene, stack

NAMES = ("blue", "green", "red", "nir", "swir16", "swir22")
OPTIONS = SceneOptions(radiometry="dn")
GRID = {"crs": "EPSG:32631", "transform": Affine(10.0, 0.0, 600_000.0, 0.0, -10.0, 5_700_000.0), "dtype": "uint16"}
HEADER = (
    "| scene | MB | blocks alone, Mpx/s | strips, Mpx/s | of the limit, wall | core-s | read | beside, wall | core-s |"
)
LIMIT_CACHE_BYTES = 64 * 2**20
"""Room for some blocks of all bands: with GDAL's own 5 % of the machine each block would take new memory, and time."""


@dataclass
class Costs:
    """What each round of one way to read cost: seconds by the clock, and of the processor's cores."""

    wall_s: list[float] = field(default_factory=list)
    core_s: list[float] = field(default_factory=list)

    @contextmanager
    def count(self) -> Iterator[None]:
        """Count what happens inside as one round."""
        wall, core = time.perf_counter(), time.process_time()
        yield
        self.wall_s.append(time.perf_counter() - wall)
        self.core_s.append(time.process_time() - core)


@dataclass
class Case:
    """A scene that was written, and what was measured.

    Attributes:
        title: What it is.
        scene: What is opened.
        files: Its files of pixels.
        size_bytes: Of all of them together.
        limit, ours: What each round cost.
        alone: What ours cost with one file after the other; empty for scenes of one file.
        ours_bytes: Bytes that ours asked the system for in the last round; 0 where that is not known.
    """

    title: str
    scene: Path
    files: list[Path]
    size_bytes: int
    limit: Costs = field(default_factory=Costs)
    ours: Costs = field(default_factory=Costs)
    alone: Costs = field(default_factory=Costs)
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
    print("\n".join([HEADER, "|---" + "|---:" * 8 + "|", *(render(case, pixels.size) for case in cases)]))


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
        return Case(title, path, [path], path.stat().st_size)

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
        return Case(title, own / "item.json", files, sum(file.stat().st_size for file in files))

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
    """One round of both ways; what ours found is compared with what was written, outside the counted time."""
    with case.limit.count(), rasterio.Env(GDAL_CACHEMAX=LIMIT_CACHE_BYTES):
        for path in case.files:
            read_blocks(path)
    start_bytes = bytes_read()
    with case.ours.count():
        read_strips(case, len(pixels), strip)
    case.ours_bytes = bytes_read() - start_bytes
    if len(case.files) > 1:
        with case.alone.count(), mock.patch.object(stack, "usable_cores", return_value=1):
            read_strips(case, len(pixels), strip)
    if len(case.ours.wall_s) == 1:
        for window, found in strips(case, len(pixels), strip):
            assert np.array_equal(found, pixels[:, window.rows]), case.title


def read_strips(case: Case, bands: int, strip: int) -> None:
    """Read a scene as a run does, opening included."""
    for _ in strips(case, bands, strip):
        pass


def strips(case: Case, bands: int, strip: int) -> Iterator[tuple[Window, npt.NDArray[Any]]]:
    """Strips of (P, h, W) from the first to the last."""
    names = NAMES[:bands]
    spec = InputSpec(names, (), (0.0,) * len(names), (1.0,) * len(names))
    options = OPTIONS if len(case.files) > 1 else SceneOptions(names, "dn")
    with open_scene(case.scene, spec, options) as scene, block_cache(planned_cache(scene, strip)):
        for row in range(0, scene.grid.height, strip):
            window = Window(row, 0, min(strip, scene.grid.height - row), scene.grid.width)
            yield window, scene.read(window).pixels


def planned_cache(scene: Scene, strip: int) -> int:
    """Bytes of block cache that a run of this strip plans with."""
    return max(scene.size_in_cache(strip) + SPARE_CACHE_BYTES, MIN_CACHE_BYTES)


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
    limit, ours = (statistics.median(costs.wall_s) for costs in (case.limit, case.ours))
    cores = statistics.median(case.limit.core_s) / statistics.median(case.ours.core_s)
    rates = f"{size_px / 1e6 / limit:.0f} | {size_px / 1e6 / ours:.0f}"
    share = f"{case.ours_bytes / case.size_bytes:.2f}" if case.ours_bytes else ""
    beside = " | ".join(beside_shares(case)) if case.alone.wall_s else " | "
    own = f"{case.title} | {case.size_bytes / 1e6:.0f} | {rates}"
    return f"| {own} | {limit / ours:.0%} | {cores:.0%} | {share} | {beside} |"


def beside_shares(case: Case) -> list[str]:
    """Medians over rounds of wall time and core-seconds by those of one file after the other."""
    pairs = ((case.ours.wall_s, case.alone.wall_s), (case.ours.core_s, case.alone.core_s))
    return [f"{statistics.median(a / b for a, b in zip(*both, strict=True)):.0%}" for both in pairs]


if __name__ == "__main__":
    main()
