"""Own images and labels as chips: pairs of rasters, and points or polygons on scenes.

Scenes are read as prediction reads them: bands by name, numbers as reflectance. Those of the test part are not opened.
Axes: P bands, H rows, W columns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from geoseg_cli.bundle import InputSpec
from geoseg_cli.catalog import NODATA, Legend
from geoseg_cli.errors import InputError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.labels import LabelledPair, find_pairs, read_labels
from geoseg_cli.scenes import Scene, SceneOptions, check_resolution, open_scene
from geoseg_cli.training.chip_store import ChipRow, write_chip
from geoseg_cli.training.chips import Chip, UInt8Array, targets_from_values, to_dn
from geoseg_cli.training.config import DataTable, PairsTable, VectorsTable
from geoseg_cli.training.split import READ_PARTS, Part
from geoseg_cli.training.vectors import Burner, Features, read_features, scenes_of

CHIP_PX: Final = {"pairs": 512, "vectors": 192}
"""Longest side of a chip: of a label raster large enough for every sample; where labels are few, so small that most
samples of 128 px of it hold one."""


@dataclass(frozen=True, slots=True)
class OwnData:
    """What a configuration names, found but not read.

    Attributes:
        pairs: Table and its pairs of files.
        vectors: Table, its scenes and its features.
    """

    pairs: tuple[tuple[PairsTable, tuple[LabelledPair, ...]], ...]
    vectors: tuple[tuple[VectorsTable, tuple[Path, ...], Features], ...]

    @property
    def places(self) -> list[str]:
        """Places of all data; one of several sources is one place."""
        named = [pair.place for _, pairs in self.pairs for pair in pairs]
        return named + [feature.place for _, _, features in self.vectors for feature in features.items]

    def files(self, parts: Mapping[str, Part]) -> list[Path]:
        """The files that are read, those of the test part left out."""
        pairs = [pair for _, pairs in self.pairs for pair in pairs if parts[pair.place] in READ_PARTS]
        scenes = [path for _, paths, features in self.vectors for path in (*paths, features.path)]
        return [path for pair in pairs for path in (pair.image, pair.label)] + scenes


def find_data(table: DataTable, legend: Legend) -> OwnData:
    """Find the files of a configuration; no pixel is read.

    Raises:
        InputMissingError: A file or folder is missing, or no image has a label.
        InputError: A file of features cannot be used.
    """
    pairs = tuple((one, find_pairs(one.folder)) for one in table.pairs)
    vectors = tuple((one, tuple(scenes_of(one.scenes)), read_features(one, legend)) for one in table.vectors)
    return OwnData(pairs, vectors)


class Labels(Protocol):
    """Labels on the pixels of one scene."""

    def read(self, window: Window) -> Mapping[Part, UInt8Array]:
        """(H, W) uint8 class values of each part that has labels there, 255 unknown."""

    def touches(self, window: Window) -> bool:
        """Whether a window may hold labels."""


@dataclass(frozen=True, slots=True)
class _PairLabels:
    """The label raster of one image."""

    path: Path
    grid: Grid
    legend: Legend
    ignore: tuple[int, ...]
    part: Part

    def read(self, window: Window) -> Mapping[Part, UInt8Array]:
        labels = read_labels(self.path, self.grid, self.legend.values, window, self.ignore)
        # A configuration has no class values above 254.
        return {self.part: labels.astype(np.uint8, casting="safe", copy=False)}

    def touches(self, window: Window) -> bool:
        return True


@dataclass(slots=True)
class ChipCutter:
    """Cuts scenes with labels into chips of a folder.

    Attributes:
        folder: Where the chips go.
        spec: Bands to keep.
        legend: Classes.
        gsd_m: Pixel size that the bundle is for.
        rows: Chips so far.
        notes: What was decided about the scenes -> how many of them.
        doing: Hears which scene is read.
    """

    folder: Path
    spec: InputSpec
    legend: Legend
    gsd_m: float
    rows: list[ChipRow] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    doing: Callable[[str], None] = lambda text: None

    def cut_all(self, data: OwnData, parts: Mapping[str, Part]) -> list[ChipRow]:
        """Cut everything that may be read.

        Raises:
            InputError: A scene or label cannot be used, or no pixel of the training part is labelled.
        """
        for source, (pairs_table, pairs) in enumerate(data.pairs):
            for number, pair in enumerate(pairs, start=1):
                self.doing(f"reading pair {number} of {len(pairs)}")
                if (part := parts[pair.place]) in READ_PARTS:
                    self._cut_pair(pair, pairs_table, part, source)
        for source, (vectors_table, scenes, features) in enumerate(data.vectors):
            for number, path in enumerate(scenes, start=1):
                self.doing(f"reading scene {number} of {len(scenes)}")
                self._cut_vectors(path, vectors_table, features, dict(parts), source)
        if not any(row.part == "train" for row in self.rows):
            raise InputError(
                "no pixel of the training part is labelled and valid",
                "check that labels lie on valid pixels of the scenes, and which places split puts into the test",
            )
        return self.rows

    def _cut_pair(self, pair: LabelledPair, table: PairsTable, part: Part, source: int) -> None:
        with _hints_name_keys(), open_scene(pair.image, self.spec, _scene_options(table)) as scene:
            labels = _PairLabels(pair.label, scene.grid, self.legend, table.ignore, part)
            self._cut(scene, labels, "pairs", source, table.zoom)

    def _cut_vectors(
        self, path: Path, table: VectorsTable, features: Features, parts: dict[str, Part], source: int
    ) -> None:
        with _hints_name_keys(), open_scene(path, self.spec, _scene_options(table)) as scene:
            before = len(self.rows)
            self._cut(scene, Burner(features, parts, scene.grid), "vectors", source, table.zoom)
            if len(self.rows) == before:
                self.notes[f"no feature of {features.path.name} that may be read lies on the valid pixels"] += 1

    def _cut(self, scene: Scene, labels: Labels, kind: str, source: int, zoom: tuple[float, float]) -> None:
        self.notes[f"radiometry: {scene.radiometry.reason}"] += 1
        for warning in (*scene.warnings, *_size_warnings(scene, self.gsd_m, zoom)):
            self.notes[f"warning: {warning}"] += 1
        for window in _windows(scene.grid, CHIP_PX[kind]):
            if labels.touches(window):
                self._cut_window(scene, window, labels.read(window), kind, source)

    def _cut_window(
        self, scene: Scene, window: Window, labels: Mapping[Part, UInt8Array], kind: str, source: int
    ) -> None:
        patch = scene.read(window)
        for part, values in labels.items():
            known = np.where(patch.valid, values, NODATA).astype(np.uint8)
            pixels = tuple(int((known == value).sum()) for value in self.legend.values)
            if not any(pixels):
                continue
            dn = to_dn(scene.to_reflectance(patch.pixels), patch.valid)
            bands = scene.bands.held_names
            number = len(self.rows)
            write_chip(self.folder, number, Chip(kind, bands, dn, targets_from_values(known, self.legend.values)))
            self.rows.append(ChipRow(number, kind, source, part, bands, window.height, window.width, pixels))


@contextmanager
def _hints_name_keys() -> Iterator[None]:
    """Hints of scenes and labels name options of the command line; here they are keys of the configuration."""
    try:
        yield
    except InputError as error:
        if "--ignore" in error.hint:
            raise type(error)(
                error.message, re.sub(r"--ignore ([\d,]+)", r"ignore = [\1] beside the path", error.hint)
            ) from error
        if not any(option in error.hint for option in ("--bands", "--radiometry", "--nodata")):
            raise
        keys = 'in the configuration: bands = [...], radiometry = "dn", nodata = 0 beside the path'
        raise type(error)(error.message, f"{error.hint}; {keys}") from error


def _scene_options(table: PairsTable | VectorsTable) -> SceneOptions:
    nodata = None if table.nodata == "none" else table.nodata
    return SceneOptions(table.bands, table.radiometry, nodata)


def _size_warnings(scene: Scene, gsd_m: float, zoom: tuple[float, float]) -> tuple[str, ...]:
    """What is to be said of the pixel size, where samples are not brought to another one."""
    if zoom[0] <= 1 <= zoom[1]:
        return check_resolution(scene.grid, gsd_m, str(scene.path))
    return ()


def _windows(grid: Grid, longest_px: int) -> Iterator[Window]:
    """A grid cut into as few windows of about one size as possible."""
    for row, height in _cuts(grid.height, longest_px):
        for col, width in _cuts(grid.width, longest_px):
            yield Window(row, col, height, width)


def _cuts(length: int, longest_px: int) -> list[tuple[int, int]]:
    """Starts and lengths of the pieces of an axis."""
    count = -(-length // longest_px)
    edges = [length * i // count for i in range(count + 1)]
    return [(start, stop - start) for start, stop in pairwise(edges)]
