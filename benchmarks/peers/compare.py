"""Compare a map with the whole-scene answer, near the edges of the map's tiles and elsewhere.

    python benchmarks/peers/compare.py REFERENCE.tif < RUNS.json

RUNS.json is a list of adapters' reports, each with the map's path as ``map``; prints a list in the same order.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from geoseg_cli.bundle import find_bundle

NEAR_PX = 16
"""How far from an edge of a tile a pixel is near it."""


def main(reference: str) -> None:
    """Read reports, print agreements."""
    with rasterio.open(reference) as file:
        wanted = file.read(1)
    print(json.dumps([compare(run, wanted) for run in json.load(sys.stdin)]))


def compare(run: dict[str, Any], wanted: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Shares of pixels with the same class; a pixel without an answer differs."""
    with rasterio.open(run["map"]) as file:
        found = file.read(1)
    if run["tool"] == "geoseg":
        found = as_numbers(found, [one.value for one in find_bundle(run["bundle"]).legend.classes])
    starts = run["row_starts"], run["col_starts"]
    near = np.logical_or.outer(*(
        near_edges(size, begins, run["tile_px"]) for size, begins in zip(wanted.shape, starts, strict=True)
    ))  # fmt: skip
    same = found == wanted
    return {"near": share(same[near]), "elsewhere": share(same[~near])}


def as_numbers(labels: npt.NDArray[np.uint8], values: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Values of a legend become the numbers of its classes; what is not in it becomes 255."""
    table = np.full(256, 255, np.uint8)
    table[list(values)] = np.arange(len(values))
    return table[labels]


def near_edges(size: int, starts: Sequence[int], tile: int) -> npt.NDArray[np.bool_]:
    """(size,) True within ``NEAR_PX`` of where a tile begins or ends inside the scene."""
    near = np.zeros(size, bool)
    for edge in {*starts, *(start + tile for start in starts)}:
        if 0 < edge < size:
            near[max(edge - NEAR_PX, 0) : edge + NEAR_PX] = True
    return near


def share(same: npt.NDArray[np.bool_]) -> float:
    """Mean of flags; not a number where there are none."""
    return float(same.mean()) if same.size else float("nan")


if __name__ == "__main__":
    main(*sys.argv[1:])
