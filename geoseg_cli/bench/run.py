"""Configurations side by side on one scene: rounds interleaved, every measurement in a process of its own."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geoseg_cli.ahead import usable_cores
from geoseg_cli.bench.agreement import Agreement, compare_maps
from geoseg_cli.bench.apart import run_apart
from geoseg_cli.bench.figures import BenchReport, Round, Row, make_row
from geoseg_cli.bench.measure import Case, ReadFigures, RunFigures, measure_forward, measure_reading, measure_run
from geoseg_cli.bench.synthetic import file_bytes, write_synthetic
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import EngineOptions, EngineStatus, available_engines
from geoseg_cli.errors import GeosegError, StorageError
from geoseg_cli.job import PredictOptions
from geoseg_cli.version import __version__

Note = Callable[[str], None]
"""Takes a line about what is being done."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to run a network.

    Attributes:
        engine: Name, device, precision; ``auto`` where geoseg chooses.
        batch: Tiles that travel together; None lets the engine choose.
        tile_px: Side of a tile; None for the bundle's.
    """

    engine: EngineOptions
    batch: int | None = None
    tile_px: int | None = None

    def __str__(self) -> str:
        batch = "auto" if self.batch is None else self.batch
        tile = f", tile {self.tile_px}" if self.tile_px else ""
        return f"{self.engine.engine} {self.engine.precision}, batch {batch}{tile}"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured.

    Attributes:
        bundle: The model.
        configurations: At least one, in the order of the report.
        rounds: How often each is measured.
        predict: What they have in common; tile and batch come from the configuration.
    """

    bundle: Bundle
    configurations: tuple[Configuration, ...]
    rounds: int = 3
    predict: PredictOptions = field(default_factory=PredictOptions)


def engines_that_run() -> tuple[str, ...]:
    """Names of the engines that run here; looked for in another process, as that loads all of them."""
    found: list[EngineStatus] = run_apart(available_engines)
    return tuple(status.name for status in found if status.runs)


def synthesise(folder: Path, height_px: int, width_px: int) -> Path:
    """Write a synthetic scene into a folder.

    Raises:
        StorageError: The folder's disk may not hold it.
    """
    needed, free = file_bytes(height_px, width_px), shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"a scene of {height_px} x {width_px} px may take {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f}",
            "set TMPDIR to a folder on a larger disk, or measure a smaller scene",
        )
    path = folder / f"synthetic_{height_px}x{width_px}.tif"
    run_apart(write_synthetic, path, height_px, width_px)
    return path


def bench_scene(scene: Path, options: BenchOptions, folder: Path, note: Note) -> BenchReport:
    """Measure all configurations on a scene.

    A configuration that cannot run is a row of the report that says why; the others go on.

    Args:
        scene: A file or folder.
        options: What is measured.
        folder: For the maps; the caller removes it.
        note: Told what is being measured.

    Raises:
        GeosegError: The scene cannot be read, or no configuration runs.
    """
    bench = _Bench(scene, options, folder, note)
    for number in range(options.rounds):
        bench.measure_round(number)
    return bench.report()


class _Bench:
    """A scene, and what was measured on it so far."""

    def __init__(self, scene: Path, options: BenchOptions, folder: Path, note: Note) -> None:
        self._scene, self._options, self._folder, self._note = scene, options, folder, note
        self._model = str(options.bundle.folder)
        self._reads: list[ReadFigures] = []
        self._rounds: list[list[Round]] = [[] for _ in options.configurations]
        self._failed: dict[int, GeosegError] = {}

    def measure_round(self, number: int) -> None:
        """One round of everything that has not failed."""
        title = f"round {number + 1} of {self._options.rounds}"
        self._note(f"{title}: reading alone")
        read = run_apart(measure_reading, self._case(0))
        self._reads.append(read)
        for index, configuration in enumerate(self._options.configurations):
            if index in self._failed:
                continue
            self._note(f"{title}: {configuration}")
            try:
                run = run_apart(measure_run, replace(self._case(index), started=time.time()))
                forward = run_apart(measure_forward, self._case(index))
            except GeosegError as error:
                self._failed[index] = error
                self._note(f"  does not run: {error.message}")
                continue
            self._rounds[index].append(Round(run, forward, read))
        if len(self._failed) == len(self._options.configurations):
            raise self._failed[0]

    def report(self) -> BenchReport:
        """Medians of all rounds, and how far the maps agree."""
        name, reference = self._reference()
        rows = tuple(self._row(index, reference) for index in range(len(self._options.configurations)))
        reads = sorted(self._reads, key=lambda one: one.core_s)
        middle = reads[len(reads) // 2]
        return BenchReport(
            scene=self._scene.name,
            size_px=next(iter(self._measured())).run.size_px,
            bundle=self._options.bundle.name,
            machine=describe_machine(),
            rounds=self._options.rounds,
            read_wall_s=middle.wall_s,
            read_core_s=middle.core_s,
            reference=name,
            rows=rows,
        )

    def _row(self, index: int, reference: Path) -> Row:
        configuration = self._options.configurations[index]
        if index in self._failed:
            asked = configuration.engine
            reason = self._failed[index].message
            return Row(asked.engine, asked.device, asked.precision, configuration.batch, failed=reason)
        agreement: Agreement = run_apart(compare_maps, reference, self._case(index).output, self._options.bundle.legend)
        return make_row(self._rounds[index], configuration.batch, agreement)

    def _reference(self) -> tuple[str, Path]:
        """What ran in fp32 and its map: the first configuration that did, or a run of its own."""
        for index, rounds in enumerate(self._rounds):
            if index not in self._failed and rounds[0].run.precision == "fp32":
                return _name(rounds[0].run), self._case(index).output
        self._note("the map in fp32 that the others are compared with")
        first = self._options.configurations[0]
        alone = Configuration(EngineOptions(device=first.engine.device, precision="fp32"), None, first.tile_px)
        case = self._case_of(alone, self._folder / "fp32.tif")
        return _name(run_apart(measure_run, case)), case.output

    def _measured(self) -> list[Round]:
        return [one for index, rounds in enumerate(self._rounds) if index not in self._failed for one in rounds]

    def _case(self, index: int) -> Case:
        return self._case_of(self._options.configurations[index], self._folder / f"map_{index}.tif")

    def _case_of(self, configuration: Configuration, output: Path) -> Case:
        options = replace(self._options.predict, batch=configuration.batch)
        if configuration.tile_px is not None:
            options = replace(options, tile_px=configuration.tile_px)
        return Case(self._scene, self._model, configuration.engine, options, output)


def describe_machine() -> dict[str, Any]:
    """Versions, processor and cores, in plain types."""
    return {
        "geoseg": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": usable_cores(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _name(run: RunFigures) -> str:
    return f"{run.engine} {run.precision}"
