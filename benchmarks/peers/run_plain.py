"""The loop that people write themselves: rasterio windows, tile by tile, Hann weights, sums of the whole scene."""

from __future__ import annotations

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from task import FloatArray, Report, Task, load_counted, normalise, parse_task, work, write_labels
from torch import nn


def main() -> None:
    """Run and report."""
    task = parse_task((__doc__ or "").splitlines()[0])
    network = load_counted(task)
    report = task.report("rasterio loop", rasterio.__version__, 256, 64)
    with work(report):
        labels = predict(task, network, report)
        write_labels(task.output, labels, task.scene)
    report.print(network)


def hann_weights(tile: int) -> FloatArray:
    """(tile, tile) weights that are positive everywhere."""
    line = np.sin(np.pi * (np.arange(tile) + 0.5) / tile) ** 2
    return np.outer(line, line).astype(np.float32)


def predict(task: Task, network: nn.Module, report: Report) -> np.ndarray:
    """Class numbers (H, W)."""
    tile = report.tile_px
    report.place_flush()
    weights = hann_weights(tile)
    with rasterio.open(task.scene) as file:
        scaling = (list(file.scales), list(file.offsets))
        sums = np.zeros((task.classes, file.height, file.width), np.float32)
        total = np.zeros((file.height, file.width), np.float32)
        for row in report.row_starts:
            for col in report.col_starts:
                numbers = file.read(window=Window(col, row, tile, tile))
                planes = torch.from_numpy(normalise(numbers, scaling, task.bundle.input_spec))[None]
                with torch.no_grad():
                    probabilities = network(planes).softmax(1)[0].numpy()
                sums[:, row : row + tile, col : col + tile] += probabilities * weights
                total[row : row + tile, col : col + tile] += weights
    return (sums / total).argmax(axis=0).astype(np.uint8)


if __name__ == "__main__":
    main()
