"""Simulated scenes as data of a run: in the classes, bands and order that the configuration asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from geoseg_cli.catalog import LandClass, Legend, legends
from geoseg_cli.errors import InputMissingError, UsageError
from geoseg_cli.training.bundle_recipes import DEVELOP_SEED, TRAIN_SEED, scene_options
from geoseg_cli.training.chip_store import StoredChips
from geoseg_cli.training.chips import values_from_targets
from geoseg_cli.training.config import SimulatorTable
from geoseg_cli.training.simulate import simulate_scene
from geoseg_cli.training.simulated_data import ChipMaker, check_simulator, simulate_chips
from geoseg_cli.training.spectra import SpectralLibrary

BANDS = ("nir", "blue")


@pytest.fixture
def spectra(real_data: Path) -> Path:
    return real_data / "training" / "spectra"


def test_chips_hold_the_scenes_of_their_seeds_in_the_order_of_the_classes(spectra: Path, tmp_path: Path) -> None:
    values = (80, 10, 40)
    maker = ChipMaker("land-cover", spectra, BANDS, values)
    table = SimulatorTable(spectra=spectra, scenes=2, develop_scenes=1)
    rows = simulate_chips(maker, table, tmp_path, 5, lambda text: None)
    assert [(row.number, row.part) for row in rows] == [(5, "train"), (6, "train"), (7, "develop")]
    for chip, row, seed in zip(
        StoredChips(tmp_path, rows), rows, (TRAIN_SEED, TRAIN_SEED + 1, DEVELOP_SEED), strict=True
    ):
        options = scene_options("land-cover", seed)
        scene = simulate_scene(SpectralLibrary.load(spectra), options, seed)
        seen = scene.valid & (scene.clouds != 1)
        wanted = np.where(seen & np.isin(scene.land_cover, values), scene.land_cover, 255)
        np.testing.assert_array_equal(values_from_targets(np.asarray(chip.target), values), wanted)
        assert row.pixels == tuple(int((wanted == value).sum()) for value in values)
        assert chip.bands == BANDS


@pytest.mark.slow
def test_other_processes_make_the_same_chips(spectra: Path, tmp_path: Path) -> None:
    maker = ChipMaker("cloud", spectra, BANDS, (0, 1, 2, 3))
    for workers in (0, 1):
        folder = tmp_path / str(workers)
        folder.mkdir()
        table = SimulatorTable(spectra=spectra, scenes=2, develop_scenes=1, workers=workers)
        simulate_chips(maker, table, folder, 0, lambda text: None)
    for path in (tmp_path / "0").iterdir():
        assert path.read_bytes() == (tmp_path / "1" / path.name).read_bytes()


WORLDCOVER = legends()["esa-worldcover"]
OWN = Legend("own", (LandClass(10, "a", "A", "#000000"), LandClass(80, "b", "B", "#FFFFFF")))


@pytest.mark.parametrize(
    ("legend", "bands", "words"),
    [
        (OWN, BANDS, "not of own"),
        (WORLDCOVER, BANDS, "no pixel of the classes \\[20, 90, 95, 100\\]"),
        (WORLDCOVER.subset((10, 80)), ("red", "lwir11"), "no band lwir11"),
    ],
)
def test_what_the_simulator_cannot_teach_is_refused(
    spectra: Path, legend: Legend, bands: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        check_simulator(SimulatorTable(spectra=spectra), "land-cover", legend, bands, is_alone=True)


def test_other_data_may_teach_the_classes_that_the_simulator_lacks(spectra: Path) -> None:
    check_simulator(SimulatorTable(spectra=spectra), "land-cover", WORLDCOVER, BANDS, is_alone=False)


def test_missing_spectra_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        check_simulator(SimulatorTable(spectra=tmp_path), "cloud", legends()["cloudsen12"], BANDS, is_alone=True)
