"""Tiles to calibrate a graph with, and what they show of the values inside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoseg_cli.export.card import INPUT_NAME
from geoseg_cli.export.parity import FloatArray

if TYPE_CHECKING:
    from geoseg_cli.bundle import Bundle
    from geoseg_cli.scenes import SceneOptions

MOST_SCENE_TILES = 32
"""Tiles that are taken from scenes, half of them to calibrate with and half to measure with."""


class TileReader:
    """Hands tiles to the calibration one by one; the interface is onnxruntime's CalibrationDataReader."""

    def __init__(self, tiles: Sequence[FloatArray]) -> None:
        self._tiles = iter(tiles)

    def get_next(self) -> dict[str, FloatArray] | None:
        tile = next(self._tiles, None)
        return None if tile is None else {INPUT_NAME: tile[None]}


def read_scene_tiles(scenes: Sequence[Path], bundle: Bundle, options: SceneOptions) -> list[FloatArray]:
    """Tiles of scenes as a bundle's network gets them, spread evenly over each scene.

    Args:
        scenes: GeoTIFFs; at least one.
        bundle: Whose bands, normalisation and tile size to use.
        options: How the scenes are read.

    Returns:
        (C, H, W) float32 each, at most ``MOST_SCENE_TILES`` or one of each scene; tiles without a valid pixel are
        left out.

    Raises:
        GeosegError: A scene cannot be read or does not fit the bundle.
    """
    each = max(1, MOST_SCENE_TILES // len(scenes))
    return [tile for path in scenes for tile in _read_scene(path, bundle, options, each)]


def _read_scene(path: Path, bundle: Bundle, options: SceneOptions, most: int) -> Iterator[FloatArray]:
    from geoseg_cli.job import PredictOptions, open_job

    with open_job(path, bundle, PredictOptions(scene=options)) as job:
        tiles = list(job.plan)
        for index in np.unique(np.linspace(0, len(tiles) - 1, most).round().astype(int)):
            patch = job.scene.read(tiles[index].window)
            if patch.valid.any():
                pixels = bundle.input_spec.apply(job.scene.to_reflectance(patch.pixels), patch.valid, job.scene.present)
                yield _pad(pixels, job.plan.tile_height, job.plan.tile_width)


def _pad(pixels: FloatArray, height: int, width: int) -> FloatArray:
    """Mirror pixels (C, H, W) up to a tile, as prediction does where a scene ends."""
    below, right = height - pixels.shape[1], width - pixels.shape[2]
    return np.pad(pixels, ((0, 0), (0, below), (0, right)), mode="symmetric")


def measure_magnitudes(graph: Path, tiles: Sequence[FloatArray], has_external_data: bool = False) -> dict[str, float]:
    """Measure how large the values inside a graph become.

    Args:
        graph: In fp32; a file on the way appears beside it and stays.
        tiles: (C, H, W) float32 each, normalised; at least one.
        has_external_data: Whether the weights of ``graph`` are in a file of their own.

    Returns:
        Name of a floating value -> its largest magnitude.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    with quiet_root_logger():
        calibrator = create_calibrator(
            graph,
            augmented_model_path=str(graph.with_name("augmented.onnx")),
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=has_external_data,
        )
        calibrator.collect_data(TileReader(tiles))
        found = calibrator.compute_data()
    return {name: max(float(np.abs(end).max()) for end in data.range_value) for name, data in found.items()}


@contextmanager
def quiet_root_logger() -> Iterator[None]:
    """Silence ONNX Runtime's quantiser, which speaks through the root logger and would give it a handler of its own."""
    root = logging.getLogger()
    level, handler = root.level, logging.NullHandler()
    root.addHandler(handler)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
