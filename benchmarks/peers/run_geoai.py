"""geoai's ``predict_geotiff`` alone; its ``__init__`` needs torchvision, transformers and more."""

from __future__ import annotations

import sys
from importlib import metadata

import numpy as np
from absent import open_packages
from task import NODATA, load_counted, normalise, parse_task, scaling, work

open_packages("geoai", "geoai.utils")

from geoai.inference import predict_geotiff  # noqa: E402
from geoai.utils.device import get_device  # noqa: E402

# The function imports this name from a package whose own start was left out.
sys.modules["geoai.utils"].get_device = get_device  # type: ignore[attr-defined]


def main() -> None:
    """Run and report."""
    task = parse_task((__doc__ or "").splitlines()[0])
    network = load_counted(task)
    report = task.report("geoai", metadata.version("geoai-py"), 256, 64)
    report.place_flush()
    numbers_to_reflectance, spec = scaling(task.scene), task.bundle.input_spec
    with work(report):
        predict_geotiff(
            network,
            str(task.scene),
            str(task.output),
            tile_size=report.tile_px,
            overlap=report.overlap_px,
            num_classes=task.classes,
            output_dtype="uint8",
            output_nodata=NODATA,
            preprocess_fn=lambda numbers: normalise(numbers, numbers_to_reflectance, spec),
            postprocess_fn=lambda scores: scores.argmax(axis=0).astype(np.uint8)[None],
            device="cpu",
            verbose=False,
        )
    report.print(network)


if __name__ == "__main__":
    main()
