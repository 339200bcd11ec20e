"""Run the main job on the sample scenes: both commands, a picture of each map, a score against what is true, a page.

    python scripts/demo.py [FOLDER]

The maps, the pictures and the page go into FOLDER (default: demo).
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio

from geoseg_cli.bundle import find_bundle
from geoseg_cli.catalog import NODATA
from geoseg_cli.metrics import confusion

ROOT = Path(__file__).resolve().parent.parent
SCENES = ROOT / "sample_scenes"
COMMANDS = {"classify": "landcover-lale", "cloudmask": "cloud-lale"}


def main() -> None:
    """Classify and mask every sample scene, and show the maps."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "demo")
    folder.mkdir(parents=True, exist_ok=True)
    scenes = sorted(SCENES.glob("*.tif"))
    for command, bundle in COMMANDS.items():
        for output in run(command, scenes, folder):
            scene = next(one for one in scenes if output.stem.startswith(one.stem))
            show("preview", output, scene, "--output", output.with_suffix(".png"))
            print(f"{output}\n{score(output, bundle)}\n", flush=True)
    maps = sorted(folder.glob("*_landcover.tif")) + sorted(folder.glob("*_cloudmask.tif"))
    show("report", *maps, "--scenes", SCENES, "--output", folder / "report.html")


def run(command: str, scenes: list[Path], folder: Path) -> list[Path]:
    """Run one geoseg command; its tables of class areas go to the terminal, its output paths come back."""
    arguments = [*map(_from_here, scenes), "--out-dir", _from_here(folder), "--overwrite"]
    print("$", shlex.join(["geoseg", command, *arguments]), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "geoseg_cli", command, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return [Path(line) for line in done.stdout.splitlines()]


def _from_here(path: Path) -> str:
    """A path as one would type it in this folder; whole where it lies elsewhere."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def show(*arguments: str | Path) -> None:
    """Run a command that writes a picture or a page; its path goes to the terminal."""
    subprocess.run([sys.executable, "-m", "geoseg_cli", *map(str, arguments), "--overwrite"], check=True)


def score(output: Path, bundle: str) -> str:
    """Compare a map with the sample's reference labels; land cover only where the truth has no cloud or shadow."""
    legend = find_bundle(bundle).legend
    with rasterio.open(output) as made, rasterio.open(SCENES / "reference" / output.name) as reference:
        labels, truth = made.read(1), reference.read(1)
    where = ""
    if output.stem.endswith("_landcover"):
        with rasterio.open(SCENES / "reference" / output.name.replace("_landcover", "_cloudmask")) as clouds:
            truth = np.where(clouds.read(1) == 0, truth, np.uint8(NODATA))
        where = " on cloud-free ground"
    result = confusion(truth, labels, legend.values)
    figures = f"overall accuracy {result.overall_accuracy:.1%}, mean IoU {result.mean_iou:.1%}"
    return f"against the simulated truth{where}: {figures}"


if __name__ == "__main__":
    main()
