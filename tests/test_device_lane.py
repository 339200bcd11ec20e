"""A run whose tiles are made and blended on a device: a CPU's tensors stand for one, and give the map of numpy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from geoseg_cli.arrays import Array, Arrays
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import Engine
from geoseg_cli.engines.group import EngineGroup
from geoseg_cli.engines.torch_engine import TorchEngine
from geoseg_cli.errors import EngineError
from geoseg_cli.job import PredictOptions, open_job
from geoseg_cli.job_run import JobRun
from geoseg_cli.predict import predict_scene
from geoseg_cli.rows import Extra, Rows
from geoseg_cli.scenes import SceneOptions
from tests.conftest import write_scene
from tests.engines.pixelwise import CHANNELS, CLASSES, write_pixelwise_bundle
from tests.test_orientation import WAYS, store

NODATA, BROKEN = 65_535, 30_000
"""Digital numbers of pixels without a value, and of those that the network answers with NaN."""

BOTH: tuple[Extra, ...] = ("confidence", "probabilities")


class Looking(nn.Module):
    """A network that looks at the neighbours of a pixel, and has no number for red above all others."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(bands, 8, 3, padding=1)
        self.outer = nn.Conv2d(8, classes, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = self.outer(torch.relu(self.inner(pixels)))
        return torch.where(pixels[:, :1] > 9, torch.nan, 3 * logits)


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = save(Looking(CHANNELS, CLASSES).state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "geoseg_cli.engines.torch_engine.create_network", lambda _, bands, classes: Looking(bands, classes)
        )
        yield write_pixelwise_bundle(tmp_path_factory.mktemp("looking"), weights=weights)


@dataclass(frozen=True, slots=True)
class Watched(Arrays):
    """A CPU's tensors that stand for a device's, and what travelled there and back."""

    module: Any = torch
    piece_px: int = 1500
    sent: list[npt.NDArray[Any]] = field(default_factory=list)
    came_back: list[npt.NDArray[Any]] = field(default_factory=list)

    def put(self, array: Array) -> Array:
        if isinstance(array, np.ndarray):
            self.sent.append(array)
        return Arrays.put(self, array)

    def fetch(self, array: Array) -> npt.NDArray[Any]:
        self.came_back.append(Arrays.fetch(self, array))
        return self.came_back[-1]


def draw_scene(path: Path, shape: tuple[int, int], way: tuple[bool, bool, bool], seed: int) -> Path:
    """Red and nir as uint16: a twentieth and a corner mean nothing, and one pixel breaks the network."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(200, 9000, (2, *shape)).astype(np.uint16)
    numbers[0, rng.integers(shape[0]), rng.integers(shape[1])] = BROKEN
    numbers[rng.random(numbers.shape) < 0.05] = NODATA
    numbers[:, : shape[0] // 3, : shape[1] // 2] = NODATA  # tiles of which none is made
    stored = [store(band, way) for band in numbers]
    pixels, transform = np.stack([band for band, _ in stored]), stored[0][1]
    return write_scene(path, pixels, ("red", "nir"), [(1e-4, 0.0)] * 2, transform=transform, nodata=NODATA)


@dataclass(frozen=True)
class Outcome:
    """What a run gave: planes joined along the scene's rows, pixels without finite logits, and how it ended."""

    rows: list[Rows]
    not_finite: int
    error: str

    def plane(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(rows, name) for rows in self.rows], axis=-2)


def outcome(scene: Path, bundle: Bundle, engine: Engine, options: PredictOptions) -> Outcome:
    finished: list[Rows] = []
    with open_job(scene, bundle, options) as job:
        run = JobRun(job, engine, BOTH, temperature=1.3)
        try:
            with run.rows() as rows:
                finished.extend(rows)
        except EngineError as error:
            return Outcome(finished, run.not_finite, error.message)
        return Outcome(finished, run.not_finite, "")


def is_same(found: Outcome, right: Outcome) -> None:
    """Same pixels answered, same labels but for what differs by less than rounding, same probabilities up to that."""
    assert (found.error, found.not_finite) == (right.error, right.not_finite)
    np.testing.assert_array_equal(found.plane("valid"), right.plane("valid"))
    np.testing.assert_allclose(found.plane("probabilities"), right.plane("probabilities"), atol=2e-6)
    np.testing.assert_allclose(found.plane("confidence"), right.plane("confidence"), atol=2e-6)
    second, first = np.sort(right.plane("probabilities"), axis=0)[-2:]
    clear = (first - second > 1e-5) | ~right.plane("valid")
    np.testing.assert_array_equal(found.plane("labels")[clear], right.plane("labels")[clear])


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(2, 130), st.integers(2, 130)),
    way=st.sampled_from(WAYS),
    tta=st.sampled_from(["none", "none", "flip", "d4"]),
    blend=st.sampled_from(["hann", "linear", "trim"]),
    gsd=st.sampled_from(["native", "native", 7.0, 16.0]),
    scene=st.sampled_from(
        [SceneOptions(), SceneOptions(valid="any"), SceneOptions(drop=("nir",)), SceneOptions(bands=("red", "-"))]
    ),
    batch=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_the_map_is_that_of_numpy(
    looking: Bundle, shape: tuple[int, int], way: tuple[bool, bool, bool], seed: int, **asked: Any
) -> None:
    options = PredictOptions(tile_px=48, overlap_px=12, **asked)
    with tempfile.TemporaryDirectory() as folder:
        scene = draw_scene(Path(folder) / "scene.tif", shape, way, seed)
        right = outcome(scene, looking, TorchEngine(looking), options)
        is_same(outcome(scene, looking, TorchEngine(looking, arrays=Watched()), options), right)


def test_a_band_that_stands_for_a_missing_one_is_filled_on_the_device(looking: Bundle, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full((1, 60, 70), 3000, np.uint16), ("red",), [(1e-4, 0.0)])
    options = PredictOptions(tile_px=48, overlap_px=12, scene=SceneOptions(fill=(("nir", 0.4),)))
    right = outcome(scene, looking, TorchEngine(looking), options)
    is_same(outcome(scene, looking, TorchEngine(looking, arrays=Watched()), options), right)
    without = outcome(scene, looking, TorchEngine(looking), PredictOptions(tile_px=48, overlap_px=12))
    assert np.abs(without.plane("probabilities") - right.plane("probabilities")).max() > 0.01


def test_stored_numbers_travel_once_and_only_labels_come_back(looking: Bundle, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(200, 9000, (2, 150, 170)).astype(np.uint16)
    scene = write_scene(tmp_path / "scene.tif", numbers, ("red", "nir"), [(1e-4, 0.0)] * 2)
    device = Watched()
    engine = TorchEngine(looking, arrays=device)
    predict_scene(scene, tmp_path / "map.tif", looking, engine, PredictOptions(tile_px=48, overlap_px=12, batch=4))
    sent = [array for array in device.sent if array.dtype == np.uint16]
    np.testing.assert_array_equal(np.concatenate(sent, axis=1), numbers)
    weights = [array for array in device.sent if array.dtype != np.uint16]
    assert sum(array.size for array in weights) < numbers.size / 20
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(np.concatenate(device.came_back), file.read(1))


def test_several_devices_write_the_bytes_of_one_and_are_named_in_the_map(looking: Bundle, tmp_path: Path) -> None:
    scene = draw_scene(tmp_path / "scene.tif", (150, 170), WAYS[0], 3)
    maps = []
    for count in (1, 3):
        engines = [TorchEngine(looking, arrays=Watched()) for _ in range(count)]
        for number, engine in enumerate(engines):
            engine.device = f"cuda:{number}"
        group = EngineGroup(engines, part_tiles=2)
        for one in engines:  # the name alone is another device's: it is set back for torch
            one.device = "cpu"
        options = PredictOptions(tile_px=48, overlap_px=12, confidence=tmp_path / f"confidence{count}.tif")
        predict_scene(scene, tmp_path / f"map{count}.tif", looking, group, options)
        group.close()
        with rasterio.open(tmp_path / f"map{count}.tif") as labels, rasterio.open(options.confidence) as confidence:
            maps.append((labels.read().tobytes(), confidence.read().tobytes()))
            named = labels.tags()["GEOSEG_DEVICE"]
    assert maps[0] == maps[1]
    assert named == "cuda:0,1,2"


@pytest.mark.gpu
@pytest.mark.parametrize("tta", ["none", "d4"])
def test_a_gpu_makes_the_map_of_a_cpu(looking: Bundle, tmp_path: Path, tta: Any) -> None:
    scene = draw_scene(tmp_path / "scene.tif", (500, 400), WAYS[6], 5)
    options = PredictOptions(tile_px=96, overlap_px=16, tta=tta)
    right = outcome(scene, looking, TorchEngine(looking), options)
    found = outcome(scene, looking, TorchEngine(looking, "cuda:0", "fp32"), options)
    assert (found.error, found.not_finite) == (right.error, right.not_finite)
    np.testing.assert_array_equal(found.plane("valid"), right.plane("valid"))
    np.testing.assert_allclose(found.plane("probabilities"), right.plane("probabilities"), atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_write_the_bytes_of_one(looking: Bundle, tmp_path: Path) -> None:
    scene = draw_scene(tmp_path / "scene.tif", (900, 800), WAYS[0], 5)
    options = PredictOptions(tile_px=48, overlap_px=12)
    alone = outcome(scene, looking, TorchEngine(looking, "cuda:0"), options)
    group = EngineGroup([TorchEngine(looking, f"cuda:{number}") for number in (0, 1)])
    together = outcome(scene, looking, group, options)
    for name in ("labels", "confidence", "probabilities"):
        assert together.plane(name).tobytes() == alone.plane(name).tobytes()
