"""What a land-cover bundle makes of real tiles whose texture is gone, and of the same tiles corrected to the surface.

    python benchmarks/texture.py BUNDLE [BUNDLE ...] --data DIR

Runs bundles over the EuroSAT tiles that choose weights (two per class, no part of training or of any report): as they
are, with pixels of each tile in no order, with pixels of a piece of each tile in no order, and as surface
reflectance through air drawn for each. Prints the share of the pixels that are called what the tile is called, the
same per class, and the share that is called the same at both levels. Bundles that are to be compared are compared here
before anything is measured on real validation data.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.torch_engine import load_network
from geoseg_cli.training.augment import scattered, whole_sample
from geoseg_cli.training.bundle_recipes import SCATTERED_PX
from geoseg_cli.training.chips import Chip, UInt8Array
from geoseg_cli.training.real_chips import eurosat_chips, eurosat_tile_classes
from geoseg_cli.training.real_ground import at_surface


def main() -> int:
    """Run every bundle over every view of the tiles and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("GEOSEG_REAL_DATA") or beside)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder of a land-cover bundle")
    parser.add_argument("--data", type=Path, default=data, help="folder that holds training/ (GEOSEG_REAL_DATA)")
    arguments = parser.parse_args()
    training = arguments.data / "training"
    top, classes = eurosat_chips(training, "develop", "land-cover"), eurosat_tile_classes(training, "develop")
    surface = [at_surface(chip, np.random.default_rng((19, place))) for place, chip in enumerate(top)]
    for folder in arguments.bundles:
        bundle = Bundle.open(folder)
        called = {name: answers(bundle, [view(place, chip) for place, chip in enumerate(top)]) for name, view in VIEWS}
        called["at the surface"] = answers(bundle, surface)
        for name, maps in called.items():
            print(f"{folder}: {name:18} {shares_right(maps, classes)}")
        same = np.mean(
            [(one == other).mean() for one, other in zip(called["as they are"], called["at the surface"], strict=True)]
        )
        print(f"{folder}: the same at both levels {same:.3f}")
    return 0


VIEWS: tuple[tuple[str, Callable[[int, Chip], Chip]], ...] = (
    ("as they are", lambda _, chip: chip),
    ("scattered", lambda place, chip: scattered(chip, chip.height_px, np.random.default_rng((20, place)))),
    ("scattered pieces", lambda place, chip: scattered(chip, SCATTERED_PX, np.random.default_rng((20, place)))),
)
"""Name of a view of the tiles, and what makes it of a tile's place in their order and the tile."""


@torch.no_grad()
def answers(bundle: Bundle, chips: list[Chip]) -> list[UInt8Array]:
    """The class value of each pixel of each chip: (H, W) uint8 each."""
    network, spec = load_network(bundle), bundle.input_spec
    values = np.array([one.value for one in bundle.legend.classes], np.uint8)
    samples = [whole_sample(chip, spec) for chip in chips]
    return [values[network(torch.from_numpy(one.pixels)[None])[0].argmax(0).numpy()] for one in samples]


def shares_right(maps: list[UInt8Array], classes: list[int]) -> str:
    """Share of the pixels that are called what their tile is, and the same for each class; 0 means no class."""
    right: dict[int, list[float]] = {}
    for answer, wanted in zip(maps, classes, strict=True):
        if wanted:
            right.setdefault(wanted, []).append(float((answer == wanted).mean()))
    everything = [share for shares in right.values() for share in shares]
    parts = "  ".join(f"{value}: {np.mean(shares):.2f}" for value, shares in sorted(right.items()))
    return f"{np.mean(everything):.3f}   {parts}"


if __name__ == "__main__":
    sys.exit(main())
