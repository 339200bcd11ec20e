"""Show where the shipped bundles go wrong, on scenes that anyone can simulate again.

    python scripts/known_failures.py --data ../shared/data

Each failure is looked for in `SCENES` simulated scenes that no training uses. `docs/known_failures.md` gives the share
of wrong pixels in all of them and shows the worst: the scene, what is there, and the map.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import torch

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.torch_engine import load_network
from geoseg_cli.training.augment import whole_sample
from geoseg_cli.training.bundle_recipes import TEST_SEED
from geoseg_cli.training.chips import Chip, simulated_chip, values_from_targets
from geoseg_cli.training.pictures import true_colour
from geoseg_cli.training.simulate import SimulatedScene, SimulatorOptions, simulate_scene
from geoseg_cli.training.spectra import SpectralLibrary

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "known_failures.md"
PICTURES: Final = ROOT / "docs" / "images"
SCENES: Final = 12
SIDE_PX: Final = 192
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Failure:
    """One way in which a map goes wrong.

    Attributes:
        key: Name of the picture.
        title: What a person calls it.
        bundle: Folder in ``models``.
        options: The scenes.
        white: Reflectance shown as white.
        bands: Bands that the bundle is given; None for all.
        truth, answer: Class values: pixels that are one of the first and are called one of the second.
        advice: What to do about it.
    """

    key: str
    title: str
    bundle: str
    options: SimulatorOptions
    white: float
    bands: tuple[str, ...] | None
    truth: tuple[int, ...]
    answer: tuple[int, ...]
    advice: str


def _ground(landscape: str, **changes: Any) -> SimulatorOptions:
    return SimulatorOptions(SIDE_PX, SIDE_PX, clouds="clear", landscape=landscape, **changes)


RGB: Final = ("blue", "green", "red")
FAILURES: Final = (
    Failure(
        "snow_rgb", "Snow called cloud, from visible bands alone", "cloud-lale", _ground("snow_plain"), 0.9, RGB,
        (0,), (1, 2), "Give the short-wave infrared bands: snow is dark there, clouds are not.",
    ),
    Failure(
        "snow_all", "Snow called cloud, from all bands", "cloud-lale", _ground("snow_plain"), 0.9, None, (0,), (1, 2),
        "Where a scene is all snow, look at the map before it is used.",
    ),
    Failure(
        "sand_rgb", "Bright sand called cloud, from visible bands alone", "cloud-lale", _ground("bright_desert"), 0.7,
        RGB, (0,), (1, 2), "Give near and short-wave infrared.",
    ),
    Failure(
        "sand_all", "Bright sand called cloud, from all bands", "cloud-lale", _ground("bright_desert"), 0.7, None,
        (0,), (1, 2), "Compare dates: clouds move, dunes do not.",
    ),
    Failure(
        "water_shadow", "Dark water called cloud shadow", "cloud-lale", _ground("coast"), 0.3, RGB, (0,), (3,),
        "Give near and short-wave infrared, or mask water first.",
    ),
    Failure(
        "grass_crop", "Grass called crops", "landcover-lale", _ground("grassland", season="summer"), 0.3, None,
        (30,), (40,), "One date cannot tell a meadow from a green field everywhere: use a date after the harvest.",
    ),
    Failure(
        "crop_grass", "Crops called grass", "landcover-lale", _ground("farmland", season="summer"), 0.3, None,
        (40,), (30,), "The same; field maps of the administration are better where there are some.",
    ),
    Failure(
        "crop_bare", "Ploughed fields called bare", "landcover-lale", _ground("farmland", season="spring"), 0.3, None,
        (40,), (60,), "Bare soil of one date is both; choose a date at which crops stand.",
    ),
)  # fmt: skip


def main() -> None:
    """Draw all pictures and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GEOSEG_REAL_DATA") or beside))
    given = parser.parse_args()
    torch.set_num_threads(1)
    library = SpectralLibrary.load(given.data / "training" / "spectra")
    PICTURES.mkdir(exist_ok=True)
    PAGE.write_text("\n".join([HEAD, *(show(failure, library) for failure in FAILURES)]), encoding="utf-8")


HEAD: Final = f"""# Known failures, with pictures

Simulated, cloud-free Sentinel-2 L1C scenes of {SIDE_PX} x {SIDE_PX} px at 10 m, of seeds that no training uses:
{SCENES} for each failure. The share is that of pixels of the named truth that get the wrong answer, in all scenes
together; the picture is the worst scene: true colour, truth, map.
Written by `python scripts/known_failures.py --data DIR`.
"""


def show(failure: Failure, library: SpectralLibrary) -> str:
    """Draw the worst scene of a failure; returns its part of the page."""
    bundle = Bundle.open(ROOT / "models" / failure.bundle)
    network = load_network(bundle).eval()
    found = [look(failure, bundle, network, library, TEST_SEED + 5000 + number) for number in range(SCENES)]
    wrong, total = sum(one[0] for one in found), sum(one[1] for one in found)
    worst = max(found, key=lambda one: one[0] / max(one[1], 1))
    save(PICTURES / f"failure_{failure.key}.png", worst[2])
    share, most = wrong / max(total, 1), worst[0] / max(worst[1], 1)
    bands = "all bands of the bundle" if failure.bands is None else ", ".join(failure.bands)
    return f"""## {failure.title}

`{failure.bundle}`, {bands}; landscape `{failure.options.landscape}`: {share:.1%} of {total:,} pixels, {most:.0%} in the
worst scene. {failure.advice}

![{failure.title}: scene, truth, map](images/failure_{failure.key}.png)
"""


def look(
    failure: Failure, bundle: Bundle, network: torch.nn.Module, library: SpectralLibrary, seed: int
) -> tuple[int, int, ByteArray]:
    """Wrong pixels, pixels of that truth, and the picture (H, 3 W, 3) of the scene of a seed."""
    scene = simulate_scene(library, failure.options, seed)
    task = bundle.card.extras.task
    chip = simulated_chip(scene, task, bundle.input_spec.bands, failure.options.level == "L1C")
    values = [one.value for one in bundle.legend.classes]
    with torch.no_grad():
        logits = network(torch.from_numpy(whole_sample(_with(chip, failure.bands), bundle.input_spec).pixels)[None])
    labels = np.array(values, np.uint8)[logits.argmax(dim=1)[0].numpy()]
    truth = values_from_targets(chip.target, values)
    is_asked = np.isin(truth, failure.truth)
    wrong = is_asked & np.isin(labels, failure.answer)
    return int(wrong.sum()), int(is_asked.sum()), picture(scene, failure.white, truth, labels, bundle)


def _with(chip: Chip, bands: Sequence[str] | None) -> Chip:
    """The chip with some of its bands."""
    if bands is None:
        return chip
    places = [chip.bands.index(band) for band in bands]
    return Chip(chip.source, tuple(bands), chip.dn[places], chip.target)


def picture(scene: SimulatedScene, white: float, truth: ByteArray, labels: ByteArray, bundle: Bundle) -> ByteArray:
    """True colour, truth and map side by side in the legend's colours, (H, 3 W, 3)."""
    table = np.zeros((256, 3), np.uint8)
    for value, color in bundle.legend.palette().items():
        table[value] = color[:3]
    return np.concatenate([true_colour(scene, white), table[truth], table[labels]], axis=1)


def save(path: Path, rgb: ByteArray) -> None:
    """Write (H, W, 3) as PNG."""
    height, width, _ = rgb.shape
    with rasterio.open(path, "w", driver="PNG", height=height, width=width, count=3, dtype="uint8") as file:
        file.write(rgb.transpose(2, 0, 1))


if __name__ == "__main__":
    main()
