"""How far every engine and precision gives the classes that torch gives in fp32.

    python scripts/precision_agreement.py models/cloud-lale models/landcover-lale --data ../shared/data
    python scripts/precision_agreement.py models/cloud-lale --data ../shared/data --update-card

Compared are the valid pixels of simulated scenes of seeds that no training uses, and the golden tiles of the bundle.
What may be chosen without being asked for must pass on both (geoseg_cli/engines/fidelity.py): the card carries the
first figure, which --update-card writes, and the second is measured where the bundle runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rivals import normalised
from validation_cases import from_chip

from geoseg_cli.bundle import CARD_FILE, Bundle
from geoseg_cli.engines import Engine, EngineOptions, asset_of, choose_engine
from geoseg_cli.engines.fidelity import METRIC, Fidelity, compare_labels, floor_percent
from geoseg_cli.engines.golden import read_golden
from geoseg_cli.errors import EngineError, GeosegError
from geoseg_cli.training.bundle_recipes import TEST_SEED, SceneMaker

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.integer]

CHOICES = (("torch", "bf16"), ("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"),
           ("onnx", "int8"), ("openvino", "int8"))  # fmt: skip
HEADER = "| bundle | engine | precision | held out: same class | least IoU | golden: same class | least IoU | passes |"


@dataclass(frozen=True, slots=True)
class Tiles:
    """Pixels with the classes that torch gives them in fp32.

    Attributes:
        pixels: (N, C, H, W) float32, normalised.
        counts: (N, H, W) bool, which pixels are compared.
        wanted: (N, H, W) class numbers of torch in fp32.
    """

    pixels: FloatArray
    counts: npt.NDArray[np.bool_]
    wanted: LabelArray


def main() -> int:
    """Measure, print and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, help="folders of bundles")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds training/")
    parser.add_argument("--scenes", type=int, default=60, help="simulated scenes of 256 x 256 px (default: 60)")
    parser.add_argument("--update-card", action="store_true", help="write the held-out figures into the cards")
    given = parser.parse_args()
    print(HEADER + "\n" + "|---" * 3 + "|---:" * 4 + "|---|")
    try:
        for folder in given.bundles:
            measured = measure(Bundle.open(folder), given.data / "training", given.scenes)
            if given.update_card:
                write_card(folder / CARD_FILE, given.scenes, measured)
    except GeosegError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(bundle: Bundle, training: Path, scenes: int) -> dict[str, Fidelity]:
    """Print a row per engine and precision; "engine precision" -> fidelity on held-out scenes."""
    held_out, golden = held_out_tiles(bundle, training, scenes), golden_tiles(bundle)
    found = {}
    for engine, precision in CHOICES:
        if asset_of(engine, precision) not in bundle.card.assets:
            continue
        try:
            runs, _ = choose_engine(bundle, EngineOptions(engine, "cpu", precision))
        except EngineError as error:
            print(f"| {bundle.name} | {engine} | {precision} | {error.message} | | | | |")
            continue
        with closing(runs):
            both = [compare(runs, tiles, len(bundle.legend.classes)) for tiles in (held_out, golden)]
        found[f"{engine} {precision}"] = both[0]
        cells = [text for one in both for text in (floor_percent(one.same, 3), f"{one.least_iou:.4f}")]
        passes = "no" if any(one.trouble for one in both) else "yes"
        print(f"| {bundle.name} | {engine} | {precision} | {' | '.join(cells)} | {passes} |", flush=True)
    return found


def held_out_tiles(bundle: Bundle, training: Path, scenes: int) -> Tiles:
    """Simulated scenes that no training has seen."""
    make = SceneMaker(bundle.name, training)
    chips = [make(TEST_SEED + number) for number in range(scenes)]
    cases = [from_chip(chip, "simulated", "scene", chip.target) for chip in chips]
    pixels = np.stack([normalised(case, bundle.input_spec) for case in cases])
    with closing(choose_engine(bundle, EngineOptions("torch", "cpu", "fp32"))[0]) as torch:
        wanted = np.concatenate(list(classes_of(torch, pixels)))
    return Tiles(pixels, np.stack([case.valid for case in cases]), wanted)


def golden_tiles(bundle: Bundle) -> Tiles:
    """The bundle's golden tiles."""
    pixels, logits = read_golden(bundle)
    wanted = logits.argmax(1)
    return Tiles(pixels, np.ones(wanted.shape, bool), wanted)


def compare(engine: Engine, tiles: Tiles, classes: int) -> Fidelity:
    """How far an engine's classes are those of torch in fp32."""
    found = np.concatenate(list(classes_of(engine, tiles.pixels)))
    return compare_labels(tiles.wanted[tiles.counts], found[tiles.counts], classes)


def classes_of(engine: Engine, pixels: FloatArray) -> Iterator[LabelArray]:
    """Class numbers (N, H, W) of pixels (N, C, H, W), batch by batch."""
    for start in range(0, len(pixels), engine.batch_tiles):
        yield engine.run(pixels[start : start + engine.batch_tiles]).argmax(1)


def write_card(path: Path, scenes: int, measured: dict[str, Fidelity]) -> None:
    """Write the figures of reduced precisions into a card; its checksums are of other files and stay true.

    What the export measured of the speed of int8 stays.
    """
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    metrics = card["properties"]["mlm:hyperparameters"]["geoseg"]["metrics"]
    rows = {name: asdict(one) | {"scenes": scenes} for name, one in measured.items() if not name.endswith("fp32")}
    for name, row in metrics.get(METRIC, {}).items():
        if name in rows and "speed" in row:
            rows[name]["speed"] = row["speed"]
    metrics[METRIC] = rows
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
