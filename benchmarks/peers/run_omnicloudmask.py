"""OmniCloudMask with another network by ``custom_models``; its own weights are not used.

It standardises every patch by the patch's own mean and deviation, which cannot be turned off. The network is therefore
given the scene's mean and deviation to undo that on average; what is left is a property of the tool.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import rasterio
from absent import declare_absent
from rasterio.profiles import Profile
from task import CountedNetwork, FloatArray, FromNumbers, Task, load_counted, parse_task, work

STAND_INS = declare_absent("timm", "segmentation_models_pytorch")

import omnicloudmask  # noqa: E402


def main() -> None:
    """Run and report."""
    task = parse_task((__doc__ or "").splitlines()[0])
    network = load_counted(task)
    report = task.report("OmniCloudMask", omnicloudmask.__version__, 1000, 300, STAND_INS)
    report.place_flush()
    model = undo_standardising(task, network)
    with work(report):
        (written,) = omnicloudmask.predict_from_load_func(
            [task.scene],
            load,
            patch_size=report.tile_px,
            patch_overlap=report.overlap_px,
            inference_device="cpu",
            custom_models=model,
            pred_classes=task.classes,
            output_dir=task.output.parent,
        )
    shutil.move(written, task.output)
    report.print(network)


def undo_standardising(task: Task, network: CountedNetwork) -> FromNumbers:
    """A network for planes that were standardised with about the scene's own figures."""
    means, deviations = [], []
    with rasterio.open(task.scene) as file:
        for band, (scale, offset) in enumerate(zip(file.scales, file.offsets, strict=True), start=1):
            numbers = file.read(band)
            means.append(float(numbers.mean()) * scale + offset)
            deviations.append(float(numbers.std()) * scale)
    return FromNumbers(network, task.bundle.input_spec, deviations, means)


def load(input_path: Path) -> tuple[FloatArray, Profile]:
    """Numbers (P, H, W) and the file's profile, as the tool asks for."""
    with rasterio.open(input_path) as file:
        return file.read().astype(np.float32), file.profile


if __name__ == "__main__":
    main()
