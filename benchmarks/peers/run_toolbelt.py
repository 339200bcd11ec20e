"""pytorch-toolbelt's ``ImageSlicer`` and ``TileMerger``, used as its README does: pyramid weights, batches of 8."""

from __future__ import annotations

from importlib import metadata
from itertools import islice

import cv2
import numpy as np
import torch
from absent import declare_absent, open_packages
from task import CountedNetwork, Report, Task, load_counted, parse_task, read_planes, work, write_labels

STAND_INS = declare_absent("torchvision")
open_packages("pytorch_toolbelt", "pytorch_toolbelt.inference")

from pytorch_toolbelt.inference.tiles import ImageSlicer, TileMerger  # noqa: E402

BATCH_TILES = 8


def main() -> None:
    """Run and report."""
    task = parse_task((__doc__ or "").splitlines()[0])
    network = load_counted(task)
    report = task.report("pytorch-toolbelt", metadata.version("pytorch_toolbelt"), 512, 256, STAND_INS)
    with work(report):
        labels = predict(task, network, report)
        write_labels(task.output, labels, task.scene)
    report.print(network)


def predict(task: Task, network: CountedNetwork, report: Report) -> np.ndarray:
    """Class numbers (H, W)."""
    image = np.ascontiguousarray(read_planes(task.scene, task.bundle.input_spec).transpose(1, 2, 0))
    slicer = ImageSlicer(image.shape, report.tile_px, report.tile_px - report.overlap_px, weight="pyramid")
    merger = TileMerger(slicer.target_shape, task.classes, slicer.weight)
    # OpenCV mirrors any number of channels, but fills four at most with a constant.
    tiles = iter(slicer.iter_split(image, border_type=cv2.BORDER_REFLECT_101))
    while batch := list(islice(tiles, BATCH_TILES)):
        planes = torch.from_numpy(np.stack([tile.transpose(2, 0, 1) for tile, _ in batch]))
        with torch.no_grad():
            merger.integrate_batch(network(planes), [place for _, place in batch])
    report.col_starts, report.row_starts = (sorted({int(at[axis]) for at in slicer.bbox_crops}) for axis in (0, 1))
    merged = slicer.crop_to_orignal_size(merger.merge().permute(1, 2, 0).numpy())
    return merged.argmax(axis=2).astype(np.uint8)


if __name__ == "__main__":
    main()
