"""The table of experiments: what each claim of the papers is tested on, and which networks that takes.

An arm is one network with one budget; the arms of an experiment differ from its reference in what their labels say.
Widths are a fraction of the published ones, so that one arm trains in well under a minute on one core.

| experiment | question                                             | paper                          |
|------------|------------------------------------------------------|--------------------------------|
| sdm        | does attention among bands help, and at which stage  | ChromaFormer, arXiv 2503.08534 |
| scale      | what do more data and a wider network bring          | ChromaFormer                   |
| bands      | what is each of 11 bands worth                       | ChromaFormer                   |
| cam        | two contexts that attend to each other; the gates    | MSCloudCAM, arXiv 2510.10802   |
| lale       | small kernel, RMSNorm, StarReLU against the baseline | LALE, arXiv 2606.02092         |
| lemevit    | meta tokens against windows at equal time            | LeMeViT, arXiv 2405.09789      |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from experiment_data import TASKS, TaskName

Metric = Literal["mean_iou", "mean_f1", "overall_accuracy"]

SWIN = "swin"
"""Swin V1 with LeMeViT's light decoder; not a network of the product, see ``baselines.py``."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One network to train.

    Attributes:
        label: What makes it differ from the other arms of its experiment.
        task: What it maps.
        network: Name of a network, or ``SWIN``.
        config: Settings that replace those of the network.
        bands: Bands that it sees.
        data_share: Share of the training scenes that it sees, above 0 and at most 1.
        steps: Budget in steps, unless ``seconds`` is set.
        seconds: Budget of processor time; the steps follow from the measured time of one.
        learning_rate: At the top of its curve.
        output_weights: Loss weights of main and auxiliary outputs.
    """

    label: str
    task: TaskName
    network: str
    config: Mapping[str, Any]
    bands: tuple[str, ...]
    data_share: float = 1.0
    steps: int = 0
    seconds: float = 0.0
    learning_rate: float = 1e-3
    output_weights: tuple[float, ...] = (1.0,)

    def key(self) -> dict[str, Any]:
        """All that decides the result beside the seed, as JSON has it: equal arms share their runs."""
        task = TASKS[self.task]
        return {
            "task": self.task, "crop_px": task.crop_px, "batch": task.batch, "network": self.network, "config": {
                name: list(value) if isinstance(value, tuple) else value for name, value in self.config.items()
            },
            "bands": list(self.bands), "data_share": self.data_share, "steps": self.steps, "seconds": self.seconds,
            "learning_rate": self.learning_rate,
            "output_weights": list(self.output_weights),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """What a paper says, as a weighted sum of arms that should be above 0.

    Attributes:
        text: The claim.
        published: Its figure and where it stands; "no figure found" where there is none.
        contrast: Label of an arm -> its weight; the weights sum to 0.
    """

    text: str
    published: str
    contrast: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms that are compared with each other.

    Attributes:
        title: A line for people.
        note: What one has to know to read the table.
        metric: What the claims are about.
        arms: The first is the reference.
        claims: What is tested.
    """

    title: str
    note: str
    metric: Metric
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...] = ()


LAND_BANDS, CLOUD_BANDS = TASKS["land-cover"].bands, TASKS["cloud"].bands
DEPTHS = (2, 2, 2, 2)

CHROMAFORMER = Arm(
    "bands, stage 1",
    "land-cover",
    "chromaformer-t",
    {
        "embed": 32, "depths": DEPTHS, "heads": (1, 2, 4, 8), "window": 4, "head_width": 64, "drop_path": 0.0,
        "sdm": "bands", "sdm_stage": 1,
    },
    LAND_BANDS,
    steps=160,
    learning_rate=2e-3,
)  # fmt: skip

MSCLOUDCAM = Arm(
    "PSP + ASPP, CAM (paper)",
    "cloud",
    "mscloudcam-small",
    {
        "embed": 16, "depths": DEPTHS, "heads": (1, 2, 4, 8), "window": 8, "drop_path": 0.0,
        "context_channels": 48, "bottleneck": (64, 64, 64), "decoder": (32, 24, 16, 12),
        # The published dilations over the side of f4 at 512 px, times that at 128 px.
        "dilations": (2, 3, 5),
    },
    CLOUD_BANDS,
    steps=80,
    output_weights=(1.0, 0.4, 0.4),
)  # fmt: skip


def _changed(base: Arm, label: str, **config: Any) -> Arm:
    """An arm with some settings of its network replaced."""
    return replace(base, label=label, config={**base.config, **config})


def _sdm() -> Experiment:
    plain = _changed(CHROMAFORMER, "none (plain Swin V2)", sdm="none")
    stages = [_changed(CHROMAFORMER, f"bands, stage {stage}", sdm="bands", sdm_stage=stage) for stage in (1, 2, 3, 4)]
    named = _changed(CHROMAFORMER, "bands, stage 1, band embedding", use_band_embedding=True)
    tokens = _changed(CHROMAFORMER, "tokens, stage 1 (released code)", sdm="tokens")
    first, *later = (arm.label for arm in stages)
    return Experiment(
        title="ChromaFormer: the spectral dependency module (SDM) and its stage",
        note="Swin V2 of the same width everywhere; 11 bands.",
        metric="overall_accuracy",
        arms=(plain, *stages, named, tokens),
        claims=(
            Claim(
                "The SDM at stage 1 raises overall accuracy over plain Swin.",
                "92.25 against 91.34 % (+0.91), variant t, results table [S]; reviews: under 0.1 for larger ones [2]",
                {first: 1, plain.label: -1},
            ),
            Claim(
                "Stage 1, before any merging, is the place of the SDM.",
                "the paper's design; no figure found",
                {first: 1, **{label: -1 / len(later) for label in later}},
            ),
        ),
    )


def _scale() -> Experiment:
    widths, shares = (16, 32), (0.05, 0.3, 1.0)
    arms = {
        (embed, share): replace(
            _changed(CHROMAFORMER, f"width {embed}, {share:.0%} of the data", embed=embed),
            data_share=share,
        )
        for embed in widths
        for share in shares
    }
    name = {place: arm.label for place, arm in arms.items()}
    small, large = widths
    return Experiment(
        title="ChromaFormer: accuracy against data and model size",
        note="The same number of steps for all, so more data means fewer repetitions. A seed draws the same scenes for "
        "all widths.",
        metric="overall_accuracy",
        arms=(arms[small, 0.05], *(arm for place, arm in arms.items() if place != (small, 0.05))),
        claims=(
            Claim(
                "With all data the wider network is better.",
                "96.71 (h, 656 M) against 92.25 % (t, 28 M), results table [S]",
                {name[large, 1.0]: 1, name[small, 1.0]: -1},
            ),
            Claim(
                "More data makes the wider network better (100 % against 5 %).",
                "scaling figure; values not found [S]",
                {name[large, 1.0]: 1, name[large, 0.05]: -1},
            ),
            Claim(
                "Small networks saturate early: from 30 to 100 % of the data the wider gains more than the narrower.",
                "scaling figure; values not found [S]",
                {name[large, 1.0]: 1, name[large, 0.3]: -1, name[small, 1.0]: -1, name[small, 0.3]: 1},
            ),
        ),
    )


def _cam() -> Experiment:
    paper = MSCLOUDCAM
    concat = _changed(paper, "PSP + ASPP, concatenation", cam="absent")
    psp = _changed(concat, "PSP + PSP, concatenation", context="psp+psp")
    aspp = _changed(concat, "ASPP + ASPP, concatenation", context="aspp+aspp")
    swapped = _changed(paper, "ASPP + PSP (swapped places), CAM", context="aspp+psp")
    keys = _changed(paper, "PSP + ASPP, CAM with keys and values from the concatenation", cam_keys="concat")
    ungated = _changed(paper, "PSP + ASPP, CAM, no gates", use_channel_gate=False, use_spatial_gate=False)
    light = replace(
        paper,
        label="the same backbone, all-MLP decoder on its four stages (not the paper's)",
        network=SWIN,
        config={name: paper.config[name] for name in ("embed", "depths", "heads", "window", "drop_path")}
        | {"decoder_width": 48, "auxiliary_width": 48},
        output_weights=(1.0, 0.4),
    )
    return Experiment(
        title="MSCloudCAM: context modules, cross-attention (CAM) and gates",
        note="The first module sits on f3 (1/16), the second on f4 (1/32). The paper's rows PSP+PSP and ASPP+ASPP are "
        "taken as concatenated, without CAM. ASPP's dilations are (2, 3, 5), the published "
        "(6, 12, 18) times the ratio of the sides, 128 to 512 px.",
        metric="mean_iou",
        arms=(paper, concat, psp, aspp, swapped, keys, ungated, light),
        claims=(
            Claim(
                "CAM is better than concatenation.",
                "75.52 against 73.43 mIoU (+2.09), ablation on CloudSEN12 L1C [S]; the authors' own runs with CAM "
                "connected and unplugged differ by up to 0.3 [C]",
                {paper.label: 1, concat.label: -1},
            ),
            Claim(
                "PSP + ASPP is better than PSP + PSP.",
                "73.43 against 72.31 mIoU (+1.12), same table [S]",
                {concat.label: 1, psp.label: -1},
            ),
            Claim(
                "PSP + ASPP is better than ASPP + ASPP.",
                "73.43 against 71.98 mIoU (+1.45), same table [S]",
                {concat.label: 1, aspp.label: -1},
            ),
            Claim(
                "PSP belongs on f3 and ASPP on f4, not the other way round.",
                "the paper's design; no figure found",
                {paper.label: 1, swapped.label: -1},
            ),
            Claim(
                "Keys and values belong to the context of f3, not to the concatenation.",
                "the paper's design; no figure found",
                {paper.label: 1, keys.label: -1},
            ),
            Claim(
                "ECA and the spatial gate are better than neither.",
                "the paper's design; no figure found",
                {paper.label: 1, ungated.label: -1},
            ),
        ),
    )


def _bands() -> Experiment:
    whole = replace(_changed(CHROMAFORMER, "all 11", embed=16), steps=60)
    without = [
        replace(whole, label=f"without {name}", bands=tuple(band for band in LAND_BANDS if band != name))
        for name in LAND_BANDS
    ]
    return Experiment(
        title="What each band is worth",
        note="ChromaFormer of width 16, SDM at stage 1, trained and tested without one band. No figure found.",
        metric="mean_iou",
        arms=(whole, *without),
    )


def _lale() -> Experiment:
    base = Arm("baseline (7 x 7, LayerNorm, GELU)", "land-cover", "lale-s1-k7", {}, ("red", "green", "blue"), steps=120)
    kernel = _changed(base, "3 x 3 alone", kernel=3)
    norm = _changed(base, "RMSNorm alone", norm="rms")
    activation = _changed(base, "StarReLU alone", activation="star")
    lale = replace(base, label="LALE-S1 K3 (all three)", network="lale-s1")
    return Experiment(
        title="LALE: K3 against the K7 baseline",
        note="S1 in full size; red, green and blue, as in the paper.",
        metric="mean_f1",
        arms=(base, lale, kernel, norm, activation),
        claims=(
            Claim(
                "K3 with RMSNorm and StarReLU is better than the K7 baseline.",
                "72.36 against 70.04 macro F1 (+2.32), S1 from scratch on ARAS400k, ablation table [W]",
                {lale.label: 1, base.label: -1},
            ),
        ),
    )


def _lemevit() -> Experiment:
    shared = {"drop_path": 0.0, "decoder_width": 64, "auxiliary_width": 64}
    swin = Arm(
        "Swin-T", "land-cover", SWIN, {"embed": 32, "depths": (2, 2, 6, 2), "heads": (1, 2, 4, 8), **shared},
        LAND_BANDS, learning_rate=2e-3, output_weights=(1.0, 0.4),
    )  # fmt: skip
    lemevit = replace(
        swin,
        label="LeMeViT-Small",
        network="lemevit-small-light",
        config={"widths": (32, 32, 64, 96, 128), **shared},
    )
    arms = [
        replace(arm, label=f"{arm.label}, {seconds} s", seconds=float(seconds))
        for seconds in (12, 30)
        for arm in (swin, lemevit)
    ]
    return Experiment(
        title="LeMeViT against Swin at equal time",
        note="A third of the published widths, LeMeViT's rounded to whole heads; both with the all-MLP decoder and the "
        "auxiliary head. The budget is processor time of training, so the steps differ.",
        metric="mean_iou",
        arms=tuple(arms),
        claims=tuple(
            Claim(
                f"At equal time ({one.label.split(', ')[1]}) LeMeViT is better.",
                "81.88 % top-1 at 3,608 images/s (Small) against 81.3 % at 2,880 (Swin-T), ImageNet, README and figure "
                "[C]",
                {other.label: 1, one.label: -1},
            )
            for one, other in (arms[:2], arms[2:])
        ),
    )


EXPERIMENTS: dict[str, Experiment] = {
    "sdm": _sdm(),
    "scale": _scale(),
    "bands": _bands(),
    "cam": _cam(),
    "lale": _lale(),
    "lemevit": _lemevit(),
}
"""In the order in which they are shown."""
