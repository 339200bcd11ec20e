"""torchgeo's ``GridGeoSampler`` with a DataLoader; torchgeo has no stitching, so half of each overlap is cut off here.

Tiles begin at the lower left corner; the last ones reach over the upper and right edge and are filled with nodata.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import rasterio
import torch
from absent import declare_absent, open_packages
from rasterio.transform import Affine
from task import NODATA, CountedNetwork, Report, Task, load_counted, normalise, parse_task, work, write_labels
from torch.utils.data import DataLoader

STAND_INS = declare_absent("torchvision")
open_packages("torchgeo", "torchgeo.datasets")

from torchgeo.datasets.geo import GeoDataset, RasterDataset  # noqa: E402
from torchgeo.datasets.utils import stack_samples  # noqa: E402

# The samplers import this name from a package whose own start was left out.
sys.modules["torchgeo.datasets"].GeoDataset = GeoDataset  # type: ignore[attr-defined]

from torchgeo.samplers import GridGeoSampler  # noqa: E402


def main() -> None:
    """Run and report."""
    task = parse_task((__doc__ or "").splitlines()[0])
    network = load_counted(task)
    report = task.report("torchgeo", metadata.version("torchgeo"), 256, 64, STAND_INS)
    with work(report):
        labels = predict(task, network, report)
        write_labels(task.output, labels, task.scene)
    report.print(network)


def predict(task: Task, network: CountedNetwork, report: Report) -> np.ndarray:
    """Class numbers (H, W)."""
    with rasterio.open(task.scene) as file:
        transform = file.transform
    labels = np.full(report.size_px, NODATA, np.uint8)
    rows, cols = set(), set()
    with torch.no_grad():
        for row, col, planes in chips(task, report, transform):
            paint(labels, network(planes)[0].argmax(0).numpy().astype(np.uint8), row, col, report.overlap_px // 2)
            rows.add(row)
            cols.add(col)
    report.row_starts, report.col_starts = sorted(rows), sorted(cols)
    return labels


def chips(task: Task, report: Report, transform: Affine) -> Iterator[tuple[int, int, torch.Tensor]]:
    """First row, first column and planes (1, C, T, T) of every tile."""
    spec = task.bundle.input_spec
    with rasterio.open(task.scene) as file:
        scaling = (list(file.scales), list(file.offsets))

    def to_planes(sample: dict[str, Any]) -> dict[str, Any]:
        sample["image"] = torch.from_numpy(normalise(sample["image"].numpy(), scaling, spec))
        return sample

    dataset = RasterDataset(str(task.scene), transforms=to_planes)
    sampler = GridGeoSampler(dataset, report.tile_px, report.tile_px - report.overlap_px)
    for batch in DataLoader(dataset, 1, sampler=sampler, collate_fn=stack_samples):
        x, y, _ = batch["bounds"][0]
        yield round((y.stop - transform.f) / transform.e), round((x.start - transform.c) / transform.a), batch["image"]


def paint(labels: np.ndarray, tile: np.ndarray, row: int, col: int, trim: int) -> None:
    """Put a tile where it belongs, without ``trim`` pixels at its inner edges and what lies outside."""
    height, width = labels.shape
    top, left = (0 if first <= 0 else trim for first in (row, col))
    bottom = len(tile) - (0 if row + len(tile) >= height else trim)
    right = len(tile) - (0 if col + len(tile) >= width else trim)
    top, left, bottom, right = max(top, -row), max(left, -col), min(bottom, height - row), min(right, width - col)
    labels[row + top : row + bottom, col + left : col + right] = tile[top:bottom, left:right]


if __name__ == "__main__":
    main()
