"""terratorch's ``tiled_inference`` alone; its ``__init__`` needs torchvision, lightning and more."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import torch
from absent import declare_absent, leave_out, open_packages
from task import load_counted, parse_task, read_planes, work, write_labels

STAND_INS = declare_absent("torchvision")
open_packages("terratorch", "terratorch.models", "terratorch.tasks")
# It lists networks and imports every data set for that; the function needs neither.
leave_out("terratorch.registry")

from terratorch.tasks.tiled_inference import tiled_inference  # noqa: E402

DELTA_PX = 8
"""Its default border that is cut off every tile."""


def main() -> None:
    """Run and report."""
    task = parse_task((__doc__ or "").splitlines()[0])
    network = load_counted(task)
    report = task.report("terratorch", metadata.version("terratorch"), 224, 32, STAND_INS)
    tile, stride = report.tile_px, report.tile_px - report.overlap_px
    report.row_starts, report.col_starts = (starts(size, tile, stride) for size in report.size_px)
    with work(report):
        planes = torch.from_numpy(read_planes(task.scene, task.bundle.input_spec))[None]
        logits = tiled_inference(network, planes, crop=tile, stride=stride)
        labels = logits[0].argmax(0).numpy().astype(np.uint8)
        write_labels(task.output, labels, task.scene)
    report.print(network)


def starts(size: int, tile: int, stride: int) -> list[int]:
    """Where it puts tiles in the scene that it has mirrored outwards by ``DELTA_PX``."""
    padded = size + 2 * DELTA_PX
    inner = list(range(0, padded - tile - 1, stride))
    return [start - DELTA_PX for start in [*inner, padded - tile]]


if __name__ == "__main__":
    main()
