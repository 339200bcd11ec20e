"""Simulated scenes as chips of a run, in the classes and bands that the configuration asks for."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Final

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import UsageError
from geoseg_cli.printable import counted
from geoseg_cli.training.bundle_recipes import DEVELOP_SEED, TRAIN_SEED, Task, scene_options
from geoseg_cli.training.chip_store import ChipRow, write_chip
from geoseg_cli.training.chips import (
    CLOUD_VALUES,
    LAND_VALUES,
    Chip,
    band_names,
    simulated_chip,
    targets_from_values,
    values_from_targets,
)
from geoseg_cli.training.config import SimulatorTable
from geoseg_cli.training.simulate import simulate_scene
from geoseg_cli.training.spectra import SpectralLibrary
from geoseg_cli.training.split import Part

LEGENDS: Final[dict[Task, tuple[str, tuple[int, ...]]]] = {
    "land-cover": ("esa-worldcover", LAND_VALUES),
    "cloud": ("cloudsen12", CLOUD_VALUES),
}
"""Task -> the legend that the simulator speaks, and the values that it knows."""


@dataclass(frozen=True, slots=True)
class ChipMaker:
    """Simulates the chip of a seed; can be sent to another process.

    Attributes:
        task: What is mapped.
        spectra: Folder of the spectral tables.
        bands: Common names of the bands to keep.
        values: Class values in the order of the network's outputs.
    """

    task: Task
    spectra: Path
    bands: tuple[str, ...]
    values: tuple[int, ...]

    def __call__(self, seed: int) -> Chip:
        """Simulate the scene of ``seed``."""
        options = scene_options(self.task, seed)
        scene = simulate_scene(_library(self.spectra), options, seed)
        chip = simulated_chip(scene, self.task, self.bands, options.level == "L1C")
        known = values_from_targets(chip.target, LEGENDS[self.task][1])
        return Chip("simulator", chip.bands, chip.dn, targets_from_values(known, self.values))


def check_simulator(table: SimulatorTable, task: Task, legend: Legend, bands: Sequence[str], is_alone: bool) -> None:
    """Make sure that the simulator can teach these classes and bands, and has its spectra.

    Args:
        table: What the configuration says of it.
        task: What is mapped.
        legend: Classes of the configuration.
        bands: Bands of the configuration.
        is_alone: Whether there is no other data, which could teach further classes.

    Raises:
        UsageError: It cannot.
        GeosegError: The spectra are missing or damaged.
    """
    _library(table.spectra)
    name, values = LEGENDS[task]
    if legend.name != name:
        raise UsageError(
            f"data.simulator: for {task} it knows the classes of {name}, not of {legend.name}",
            f"set classes.legend to {name}, or leave the simulator out",
        )
    stray = [value for value in legend.values if value not in values]
    if is_alone and stray:
        raise UsageError(
            f"data.simulator: it makes no pixel of the classes {stray}",
            f"set classes.values to some of {list(values)}, or give data with the others",
        )
    if missing := [band for band in bands if band not in band_names("sentinel-2")]:
        raise UsageError(
            f"data.simulator: it has no band {', '.join(missing)}",
            f"its bands are {', '.join(band_names('sentinel-2'))}",
        )


def simulate_chips(
    maker: ChipMaker, table: SimulatorTable, folder: Path, first_number: int, doing: Callable[[str], None]
) -> list[ChipRow]:
    """Simulate all chips of a table.

    Args:
        maker: Makes a chip.
        table: How many, and in how many processes.
        folder: Where they go.
        first_number: Number of the first chip.
        doing: Hears how many there are, and how long the rest takes.

    Returns:
        Their rows of the index.
    """
    seeds = [TRAIN_SEED + i for i in range(table.scenes)] + [DEVELOP_SEED + i for i in range(table.develop_scenes)]
    parts: Iterable[Part] = chain(repeat("train", table.scenes), repeat("develop", table.develop_scenes))
    rows: list[ChipRow] = []
    start_s = time.monotonic()
    with _chips(maker, seeds, table.workers) as chips:
        for number, (chip, part) in enumerate(zip(chips, parts, strict=True), start=first_number):
            write_chip(folder, number, chip)
            values = values_from_targets(chip.target, range(len(maker.values)))
            pixels = tuple(int((values == place).sum()) for place in range(len(maker.values)))
            rows.append(ChipRow(number, "simulator", 0, part, chip.bands, chip.height_px, chip.width_px, pixels))
            left_s = (time.monotonic() - start_s) / len(rows) * (len(seeds) - len(rows))
            doing(f"simulated {len(rows)} of {counted(len(seeds), 'scene')}, {left_s:.0f} s left")
    return rows


@contextmanager
def _chips(maker: ChipMaker, seeds: Sequence[int], workers: int) -> Iterator[Iterator[Chip]]:
    """The chips of the seeds in their order, made here or by other processes."""
    if not workers:
        yield map(maker, seeds)
        return
    # A forked child would inherit the threads' locks of the numeric libraries.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map(maker, seeds, chunksize=4)


@cache
def _library(folder: Path) -> SpectralLibrary:
    return SpectralLibrary.load(folder)
