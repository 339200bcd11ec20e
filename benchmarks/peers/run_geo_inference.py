"""geo-inference: a TorchScript file in, tiles that overlap by half, Hann weights, Dask.

The traced network holds the normalisation, because the tool gives it the numbers of the file. It is traced once for a
tile side and kept beside the scene.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path

import torch
from absent import declare_absent
from task import CountedNetwork, FromNumbers, Task, parse_task, scaling, work

from geoseg_cli.engines.torch_engine import load_network

STAND_INS = declare_absent("torchgeo")
logging.disable(logging.INFO)

from geo_inference.geo_inference import GeoInference  # noqa: E402


def main() -> None:
    """Run and report."""
    task = parse_task((__doc__ or "").splitlines()[0])
    report = task.report("geo-inference", metadata.version("geo-inference"), 1024, 512, STAND_INS)
    tile, report.overlap_px = report.tile_px, report.tile_px // 2
    report.row_starts, report.col_starts = (range(0, size, tile // 2) for size in report.size_px)
    script = trace(task, tile)
    # Its progress belongs to the terminal; standard output holds the report alone.
    with redirect_stdout(sys.stderr):
        tool = GeoInference(str(script), str(task.output.parent), device="cpu", num_classes=task.classes)
        tool.model = network = CountedNetwork(tool.model)
        with work(report):
            # Its own number of workers is one below the cores, which is none on a single core.
            written = tool(str(task.scene), patch_size=tile, workers=max(1, len(os.sched_getaffinity(0)) - 1))
    shutil.move(task.output.parent / written, task.output)
    report.print(network)


def trace(task: Task, tile: int) -> Path:
    """The network as a TorchScript file for numbers of the scene."""
    path = task.scene.with_name(f"{task.bundle.name}-{tile}-{task.layout}.pt")
    if not path.exists():
        network = CountedNetwork(load_network(task.bundle), task.layout)._network
        numbers = FromNumbers(network, task.bundle.input_spec, *scaling(task.scene)).eval()
        with torch.no_grad():
            example = torch.full((1, len(task.bundle.input_spec.bands), tile, tile), 2000.0)
            torch.jit.trace(numbers, example, check_trace=False).save(path)
    return path


if __name__ == "__main__":
    main()
