"""The papers' own comparisons, each side by side in one process: one batch of each in turn, round after round.

Turns share whatever else the machine does, so the ratios hold where the times do not.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from baselines import BASELINES
from network_case import Case, prepare_torch

LEAST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Contest:
    """Networks that do the same work.

    Attributes:
        title: What is compared, with what is published about it.
        entrants: The first one is what the others are compared with; label -> (network or baseline, settings).
        bands: Input bands.
        classes: Output classes.
        side_px: Rows and columns of an image.
        batch: Images at once, by device.
    """

    title: str
    entrants: dict[str, tuple[str, dict[str, Any]]]
    bands: int
    classes: int
    side_px: int
    batch: dict[str, int]


CONTESTS = {
    "chromaformer": Contest(
        "ChromaFormer-t against plain Swin of the same width",
        {
            "Swin V2 (no spectral module)": ("chromaformer-t", {"sdm": "none"}),
            "spectral module over bands (paper)": ("chromaformer-t", {}),
            "spectral module over positions (code)": ("chromaformer-t", {"sdm": "tokens"}),
        },
        bands=11, classes=15, side_px=256, batch={"cpu": 1, "cuda": 16},
    ),
    "lemevit": Contest(
        "LeMeViT against Swin-T, classifying (published: Tiny 1.85, Small 1.25, Base 0.51 times Swin-T's images/s)",
        {
            "Swin-T": ("swin-t", {}),
            "LeMeViT-Tiny": ("lemevit-tiny", {}),
            "LeMeViT-Small": ("lemevit-small", {}),
            "LeMeViT-Base": ("lemevit-base", {}),
        },
        bands=3, classes=1000, side_px=224, batch={"cpu": 4, "cuda": 256},
    ),
    "lale": Contest(
        "LALE against networks on EfficientNet-B0 (published: S1 1.8, S2 1.3 and U-Net 0.9 times UPerNet's images/s)",
        {
            "UPerNet": ("efficient-upernet", {}),
            "U-Net": ("efficient-unet", {}),
            "LALE-S1": ("lale-s1", {}),
            "LALE-S2": ("lale-s2", {}),
            "LALE-S1 baseline (7 x 7, LayerNorm, GELU)": ("lale-s1-k7", {}),
        },
        bands=3, classes=7, side_px=256, batch={"cpu": 4, "cuda": 128},
    ),
    "mscloudcam": Contest(
        "MSCloudCAM at 512 px and batch 8 (published: 15.9 ms per image, GPU unnamed)",
        {
            "as published: CAM bypassed, heads raised first": (
                "mscloudcam", {"cam": "bypassed", "head_order": "upsample-classify"},
            ),
            "CAM connected": ("mscloudcam", {}),
            "small": ("mscloudcam-small", {}),
        },
        bands=13, classes=4, side_px=512, batch={"cpu": 8, "cuda": 8},
    ),
}  # fmt: skip


def hold(contest: Contest, case: Case) -> dict[str, Any]:
    """Time the entrants in turns; milliseconds per image and speed over the first, by label.

    Args:
        contest: The networks; each batch is as large as ``case.batch``, or the contest's own if that is 0.
        case: Engine, precision, device, threads and seconds in all.
    """
    batch = case.batch or contest.batch[case.device]
    shape = (batch, contest.bands, contest.side_px, contest.side_px)
    steps = {label: prepare_torch(build(contest, *entrant), shape, case) for label, entrant in contest.entrants.items()}
    rounds = take_turns(steps, case.seconds)
    ms = {label: 1e3 * statistics.median(times) / batch for label, times in rounds.items()}
    reference = next(iter(ms.values()))
    return {
        "title": contest.title,
        "batch": batch,
        "side_px": contest.side_px,
        "device": case.device,
        "precision": case.precision,
        "rounds": len(next(iter(rounds.values()))),
        "ms_per_image": ms,
        "speed": {label: reference / one for label, one in ms.items()},
    }


def build(contest: Contest, name: str, config: dict[str, Any]) -> Any:
    """Build an entrant with random weights."""
    from geoseg_cli.networks import create_network
    from geoseg_cli.networks.lemevit import LeMeViT, LeMeViTClassifier

    if name in BASELINES:
        return BASELINES[name](contest.bands, contest.classes)
    network = create_network(name, contest.bands, contest.classes, **config)
    if isinstance(network, LeMeViT):
        return LeMeViTClassifier(contest.bands, contest.classes, config=network.config)
    return network


def take_turns(steps: dict[str, Callable[[], None]], seconds: float) -> dict[str, list[float]]:
    """Run one batch of each in turn for some time, after a warm-up round; seconds of every run."""
    for step in steps.values():
        step()
        step()
    rounds: dict[str, list[float]] = {label: [] for label in steps}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or min(map(len, rounds.values())) < LEAST_ROUNDS:
        for label, step in steps.items():
            started = time.perf_counter()
            step()
            rounds[label].append(time.perf_counter() - started)
    return rounds


def main() -> None:
    """Hold the one contest on the command line and print its result as the last line."""
    order = json.loads(sys.argv[1])
    print(json.dumps(hold(CONTESTS[order.pop("contest")], Case(network="", **order))))


if __name__ == "__main__":
    main()
