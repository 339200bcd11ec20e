"""The simulated data sets of the experiments: drawn once, kept as .npy files, told apart by their hash.

Axes: n scenes, P bands, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import InputSpec
from geoseg_cli.catalog import Legend, legends
from geoseg_cli.training.chips import CLOUD_VALUES, LAND_VALUES, Chip, band_names, band_statistics, simulated_chip
from geoseg_cli.training.simulate import SimulatorOptions, simulate_scene
from geoseg_cli.training.spectra import SpectralLibrary

Part = Literal["train", "test"]
TaskName = Literal["land-cover", "cloud"]

FIRST_SEED: dict[Part, int] = {"train": 700_000_000, "test": 710_000_000}
"""Scene i of a part has the part's first seed plus i. The parts never meet, nor those of the shipped bundles."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is mapped, from which scenes.

    Attributes:
        legend: Classes in the order of the network's outputs.
        bands: Common names of the bands that are kept.
        scene: What the simulator draws.
        count: Scenes of each part.
        crop_px: Side of a training image, at most that of a scene.
        batch: Training images per step.
    """

    legend: Legend
    bands: tuple[str, ...]
    scene: SimulatorOptions
    count: dict[Part, int]
    crop_px: int
    batch: int


_S2 = band_names("sentinel-2")
TASKS: dict[TaskName, Task] = {
    # Surface reflectance has no cirrus band; without the water-vapour band there are 11, as many as ChromaFormer's.
    "land-cover": Task(
        legends()["esa-worldcover"].subset(LAND_VALUES),
        tuple(band for band in _S2 if band not in ("nir09", "cirrus")),
        SimulatorOptions(96, 96, 20.0, "L2A", "clear"),
        {"train": 400, "test": 120},
        crop_px=64,
        batch=8,
    ),
    "cloud": Task(
        legends()["cloudsen12"].subset(CLOUD_VALUES),
        _S2,
        SimulatorOptions(128, 128, 30.0, "L1C", "random"),
        {"train": 300, "test": 100},
        crop_px=96,
        batch=8,
    ),
}


@dataclass(frozen=True, slots=True)
class DataSet:
    """The chips of one task.

    Attributes:
        task: What they are for.
        train, test: Chips.
        digest: First 12 hexadecimal digits of the SHA-256 of all arrays.
        statistics: Mean and standard deviation of reflectance of each band of the training chips.
    """

    task: Task
    train: list[Chip]
    test: list[Chip]
    digest: str
    statistics: dict[str, tuple[float, float]]

    def spec(self, bands: tuple[str, ...]) -> InputSpec:
        """What a network that sees ``bands`` is fed."""
        moments = [self.statistics[band] for band in bands]
        return InputSpec(bands, (), tuple(mean for mean, _ in moments), tuple(deviation for _, deviation in moments))

    def share(self, share: float, seed: int) -> list[Chip]:
        """Draw a share of the training chips, the same for a seed whoever asks; at least one."""
        count = max(1, round(share * len(self.train)))
        order = np.random.default_rng((seed, 5)).permutation(len(self.train))
        return [self.train[place] for place in order[:count]]


def load_data(folder: Path, name: TaskName, spectra: Path) -> DataSet:
    """Read a task's data set, which is simulated first where a file is missing.

    Args:
        folder: Where the .npy files lie.
        name: Key of ``TASKS``.
        spectra: Folder of the spectral tables.
    """
    task = TASKS[name]
    parts = {part: _load_part(folder / f"{name}-{part}", name, part, spectra) for part in FIRST_SEED}
    digest = hashlib.sha256(b"".join(array.tobytes() for part in parts.values() for array in part)).hexdigest()[:12]
    train, test = (_chips(task, *parts[part]) for part in FIRST_SEED)
    mean, deviation = band_statistics(train, task.bands)
    moments = zip(mean.tolist(), deviation.tolist(), strict=True)
    return DataSet(task, train, test, digest, dict(zip(task.bands, moments, strict=True)))


def _load_part(
    stem: Path, name: TaskName, part: Part, spectra: Path
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Numbers (n, P, H, W) int16 and targets (n, H, W) uint8 of one part."""
    dn_path, target_path = Path(f"{stem}-dn.npy"), Path(f"{stem}-target.npy")
    if not (dn_path.is_file() and target_path.is_file()):
        stem.parent.mkdir(parents=True, exist_ok=True)
        chips = simulate_chips(name, part, spectra)
        np.save(dn_path, np.stack([chip.dn for chip in chips]))
        np.save(target_path, np.stack([chip.target for chip in chips]))
    return np.load(dn_path), np.load(target_path)


def simulate_chips(name: TaskName, part: Part, spectra: Path) -> list[Chip]:
    """Draw the chips of one part of a task."""
    task, library = TASKS[name], SpectralLibrary.load(spectra)
    scenes = (simulate_scene(library, task.scene, FIRST_SEED[part] + number) for number in range(task.count[part]))
    return [simulated_chip(scene, name, task.bands, has_cirrus=task.scene.level == "L1C") for scene in scenes]


def _chips(task: Task, dn: npt.NDArray[np.int16], target: npt.NDArray[np.uint8]) -> list[Chip]:
    return [Chip("simulated", task.bands, *arrays) for arrays in zip(dn, target, strict=True)]
