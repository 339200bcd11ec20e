"""What a run will do: a configuration, its data and the bundle it starts from, resolved into one plan.

Nothing is decided in silence: what was measured, assumed or left out is among the plan's notes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import nn

from geoseg_cli.bundle import Bundle, InputSpec, find_bundle
from geoseg_cli.catalog import Legend
from geoseg_cli.engines.torch_engine import load_network
from geoseg_cli.errors import InputError, UsageError
from geoseg_cli.networks import create_network
from geoseg_cli.training.augment import AugmentOptions, Sample, Source, whole_sample
from geoseg_cli.training.chip_store import INDEX, ChipRow, StoredChips, read_index, write_index
from geoseg_cli.training.chips import Chip, band_names, band_statistics
from geoseg_cli.training.config import TrainConfig
from geoseg_cli.training.lazy import LazySequence
from geoseg_cli.training.loop import TrainOptions, ValidationSet
from geoseg_cli.training.losses import class_weights
from geoseg_cli.training.own_data import ChipCutter, OwnData, find_data
from geoseg_cli.training.simulated_data import ChipMaker, check_simulator, simulate_chips
from geoseg_cli.training.split import Part, split_places

MEASURED_CHIPS: Final = 500
"""Chips that means and deviations are measured on, evenly spread."""
_SIZE_PX: Final = 128
_REPORTS: Final = 20
_BALANCE: Final = {"none": 0.0, "inverse-sqrt": 0.5, "inverse": 1.0}


@dataclass(frozen=True, slots=True)
class Preview:
    """What is known before a pixel is read.

    Attributes:
        config: The configuration.
        legend: Its classes.
        start: The bundle that the weights begin with.
        network, network_config: Name and changed fields of the architecture.
        spec: Input; means and deviations are 0 and 1 where they are still to be measured.
        is_measured: Whether they are known.
        data: Files found.
        parts: Place -> part.
    """

    config: TrainConfig
    legend: Legend
    start: Bundle | None
    network: str
    network_config: dict[str, Any]
    spec: InputSpec
    is_measured: bool
    data: OwnData
    parts: dict[str, Part]

    def places(self, part: Part) -> list[str]:
        """Places of a part by name."""
        return [place for place, own in self.parts.items() if own == part]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run needs, and all that is said of it.

    Attributes:
        preview: What the configuration says.
        spec: Input, with means and deviations.
        rows: Chips.
        folder: Where they lie.
        options, augment: How to train.
        notes: What was decided, a sentence each.
    """

    preview: Preview
    spec: InputSpec
    rows: tuple[ChipRow, ...]
    folder: Path
    options: TrainOptions
    augment: AugmentOptions
    notes: tuple[str, ...]

    def chips(self, part: Part) -> StoredChips:
        """Chips of a part."""
        return StoredChips(self.folder, [row for row in self.rows if row.part == part])

    def pixels(self, part: Part) -> list[int]:
        """Labelled pixels of each class in a part."""
        rows = [row.pixels for row in self.rows if row.part == part]
        return [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * len(self.preview.legend.classes)

    def sources(self) -> list[Source]:
        """What is learned from."""
        return [
            Source(StoredChips(self.folder, rows), table.share, table.weight, table.zoom)
            for table, rows in self._by_table("train")
        ]

    def validation(self) -> list[ValidationSet]:
        """What chooses the best weights: a set for each table of data."""
        groups = [rows for _, rows in self._by_table("develop")]
        names = [f"{rows[0].kind}-{rows[0].source}" for rows in groups]
        return [
            ValidationSet(name, WholeSamples(StoredChips(self.folder, rows), self.spec))
            for name, rows in zip(names, groups, strict=True)
        ]

    def _by_table(self, part: Part) -> list[tuple[Any, list[ChipRow]]]:
        """Tables of the configuration and their chips in a part; those without any are left out."""
        data = self.preview.config.data
        groups = []
        for kind, tables in (("pairs", data.pairs), ("vectors", data.vectors), ("simulator", [data.simulator])):
            for number, table in enumerate(tables):
                rows = [row for row in self.rows if (row.kind, row.source, row.part) == (kind, number, part)]
                if rows:
                    groups.append((table, rows))
        return groups


class WholeSamples(LazySequence[Sample]):
    """Chips as samples for measuring, made when they are asked for."""

    def __init__(self, chips: Sequence[Chip], spec: InputSpec) -> None:
        self._chips, self._spec = chips, spec

    def __len__(self) -> int:
        return len(self._chips)

    def _make(self, place: int) -> Sample:
        """The chip, normalised."""
        return whole_sample(self._chips[place], self._spec)


def look_ahead(config: TrainConfig) -> Preview:
    """Find and check everything that needs no pixel.

    Raises:
        GeosegError: Files, places, bands, classes or the starting bundle do not fit.
    """
    legend = config.classes.to_legend()
    start = find_bundle(config.start.bundle) if config.start else None
    name, changes = _network(config, start)
    _refuse_other_kinds(name, changes)
    spec, is_measured = _spec(config, start)
    data = find_data(config.data, legend)
    simulator = config.data.simulator
    if simulator is not None:
        is_alone = not (config.data.pairs or config.data.vectors)
        check_simulator(simulator, config.bundle.task, legend, spec.bands, is_alone)
    if (key := config.augment.physics) and (stray := [b for b in spec.bands if b not in band_names("sentinel-2")]):
        raise UsageError(f"{key} knows the bands of Sentinel-2, and not {', '.join(stray)}", "set it to 0")
    for band in {band for one in config.augment.band_sets for band in one} - set(spec.optional):
        raise UsageError(f"augment.band_sets: {band} is no optional band", "name it in input.optional, or drop it")
    parts = split_places(data.places, config.split, simulator is not None) if data.places else {}
    preview = Preview(config, legend, start, name, changes, spec, is_measured, data, parts)
    new_network(preview)
    return preview


def new_network(preview: Preview) -> tuple[nn.Module, list[str]]:
    """The network before its first step, on the CPU, and the weights that could not be taken from the bundle.

    Raises:
        UsageError: No network can be made with the numbers of ``network.config``.
        ModelError: The configuration of the network contradicts itself, or the bundle's weights are damaged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(preview.config.train.seed)
        channels, classes = preview.spec.channels, len(preview.legend.classes)
        try:
            network = create_network(preview.network, channels, classes, **preview.network_config)
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            raise UsageError(
                f"network.config makes no {preview.network}: {str(error).splitlines()[0]}",
                f"correct {', '.join(preview.network_config)}, or leave them out",
            ) from error
    if preview.start is None:
        return network, []
    given, own = load_network(preview.start).state_dict(), network.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict(fitting, strict=False)
    return network, sorted(set(own) - set(fitting))


def cut_chips(preview: Preview, folder: Path, doing: Callable[[str], None] = lambda text: None) -> None:
    """Read the data and put its chips into a folder; those of an earlier attempt are replaced.

    Args:
        preview: What to read.
        folder: Where the chips go.
        doing: Hears what is being done.

    Raises:
        GeosegError: Data cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / INDEX, *folder.glob("*.npy")):
        path.unlink(missing_ok=True)
    cutter = ChipCutter(folder, preview.spec, preview.legend, preview.config.bundle.gsd_m, doing=doing)
    rows = cutter.cut_all(preview.data, preview.parts) if preview.parts else []
    table = preview.config.data.simulator
    if table is not None:
        maker = ChipMaker(preview.config.bundle.task, table.spectra, preview.spec.bands, preview.legend.values)
        rows = [*rows, *simulate_chips(maker, table, folder, len(rows), doing)]
    write_index(folder, rows, [_counted(text, count) for text, count in cutter.notes.items()])


def make_plan(preview: Preview, folder: Path, device: str) -> Plan:
    """Resolve what depends on the data.

    Args:
        preview: What the configuration says.
        folder: Chips, whole.
        device: Where the run computes, ``cpu`` or ``cuda:N``.

    Raises:
        InputError: A band is empty or constant, or nothing chooses the best weights.
    """
    found = read_index(folder)
    assert found is not None, "chips are cut before they are planned with"
    rows, notes = found
    if not any(row.part == "develop" for row in rows):
        raise InputError(
            "no pixel of the develop part is labelled and valid: nothing can choose the best weights",
            "put other places into it with split.develop_places, or raise split.develop",
        )
    train = [row for row in rows if row.part == "train"]
    spec = preview.spec
    if not preview.is_measured:
        spec = _measured(preview.spec, StoredChips(folder, train))
        notes.append(f"means and deviations were measured on {min(len(train), MEASURED_CHIPS)} training chips")
    sizes_px, words = _sizes(preview.config, train)
    options = _train_options(preview, train, sizes_px, device)
    augment = AugmentOptions(**preview.config.augment.model_dump(), cloud_gsd_m=preview.config.bundle.gsd_m)
    notes += [*words, *_class_notes(preview.legend, train), *_start_notes(preview)]
    return Plan(preview, spec, tuple(rows), folder, options, augment, tuple(notes))


def _counted(text: str, count: int) -> str:
    return f"{text} ({count} scene{'s' * (count > 1)})"


def _network(config: TrainConfig, start: Bundle | None) -> tuple[str, dict[str, Any]]:
    if start is None:
        assert config.network is not None, "the configuration was checked"
        return config.network.name, config.network.config
    wanted = start.card.extras.network
    if config.network is not None and config.network.name != wanted.name:
        raise UsageError(
            f"start.bundle {start.name} is a {wanted.name}, network.name says {config.network.name}",
            f"set network.name to {wanted.name}, or leave [network] out",
        )
    return wanted.name, wanted.config if config.network is None else config.network.config or wanted.config


def _refuse_other_kinds(name: str, changes: dict[str, Any]) -> None:
    """Settings of a network are of the kind of its own ones: torch takes ``true`` for a width of 1 in many places."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # the settings are wanted, and no weight
        usual = create_network(name, 1, 2).config if changes else None
    for key, value in changes.items():
        own = getattr(usual, key, None)
        if own is not None and not _is_alike(value, own):
            raise UsageError(
                f"network.config.{key} is {json.dumps(value, default=str)}; {name} has {json.dumps(own)} there",
                "give a value of that kind, a list with as many numbers",
            )


def _is_alike(value: Any, own: Any) -> bool:
    """Whether a value may stand in for one that a network has: of the same kind, and not negative."""
    if isinstance(own, tuple):
        is_list = isinstance(value, (list, tuple)) and len(value) == len(own)
        return is_list and all(map(_is_alike, value, own))
    if isinstance(own, (bool, str)):
        return type(value) is type(own)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and value >= 0 and (isinstance(own, float) or isinstance(value, int))


def _spec(config: TrainConfig, start: Bundle | None) -> tuple[InputSpec, bool]:
    """The input, and whether its means and deviations are known."""
    table = config.input
    if table is None:
        assert start is not None, "the configuration was checked"
        return start.input_spec, True
    if table.mean is not None and table.stddev is not None:
        return InputSpec(table.bands, table.optional, table.mean, table.stddev), True
    if start is not None and start.input_spec.bands == table.bands:
        return InputSpec(table.bands, table.optional, start.input_spec.mean, start.input_spec.stddev), True
    unit = (1.0,) * len(table.bands)
    return InputSpec(table.bands, table.optional, (0.0,) * len(table.bands), unit), False


def _measured(spec: InputSpec, chips: StoredChips) -> InputSpec:
    step = max(1, -(-len(chips) // MEASURED_CHIPS))
    mean, stddev = band_statistics((chips[place] for place in range(0, len(chips), step)), spec.bands)
    for band, deviation in zip(spec.bands, stddev, strict=True):
        if not deviation > 0:
            what = "has one value everywhere" if deviation == 0 else "is in no training image"
            raise InputError(f"band {band} {what}", "leave it out of input.bands, or give input.mean and input.stddev")
    digits = [tuple(float(f"{value:.4g}") for value in values) for values in (mean, stddev)]
    return InputSpec(spec.bands, spec.optional, digits[0], digits[1])


def _sizes(config: TrainConfig, rows: Sequence[ChipRow]) -> tuple[tuple[int, ...], list[str]]:
    """Sides of the samples, and what is to be said of them."""
    sides = [min(row.height_px, row.width_px) for row in rows]
    usual = max(32, min(_SIZE_PX, int(np.median(sides)) // 32 * 32))
    sizes = config.train.sizes_px or (usual,)
    small = sum(side < max(sizes) for side in sides)
    notes = [] if config.train.sizes_px else [f"samples of {usual} px: train.sizes_px is not given"]
    if small:
        notes.append(
            f"{small} of {len(sides)} chips are smaller than samples of {max(sizes)} px and are shown enlarged"
        )
    return sizes, notes


def _train_options(preview: Preview, train: Sequence[ChipRow], sizes_px: tuple[int, ...], device: str) -> TrainOptions:
    table = preview.config.train
    given = table.model_dump(include={
        "pixels_per_step", "learning_rate", "warmup_share", "weight_decay", "clip_norm", "ema_decay", "output_weights",
        "view_weight", "patience", "seed",
    })  # fmt: skip
    validate_steps = table.validate_steps
    if table.steps and table.validate_minutes is None and validate_steps is None:
        validate_steps = max(1, table.steps // _REPORTS)
    precision: Literal["fp32", "bf16"] = "fp32" if device == "cpu" else "bf16"
    return TrainOptions(
        **given,
        minutes=table.minutes or 0.0,
        steps=table.steps,
        sizes_px=sizes_px,
        class_weights=_weights(preview, train),
        precision=precision if table.precision == "auto" else table.precision,
        validate_minutes=table.validate_minutes or (table.minutes or 0.0) / _REPORTS,
        validate_steps=validate_steps,
        prefetch=table.prefetch if table.prefetch is not None else 0 if device == "cpu" else 4,
    )


def _weights(preview: Preview, train: Sequence[ChipRow]) -> tuple[float, ...] | None:
    balance = preview.config.train.class_balance
    if balance == "none":
        return None
    totals = [sum(column) for column in zip(*(row.pixels for row in train), strict=True)]
    return tuple(round(weight, 4) for weight in class_weights(totals, _BALANCE[balance]))


def _class_notes(legend: Legend, train: Sequence[ChipRow]) -> list[str]:
    totals = [sum(column) for column in zip(*(row.pixels for row in train), strict=True)]
    absent = [one.title for one, count in zip(legend.classes, totals, strict=True) if not count]
    return [f"warning: no training pixel of {', '.join(absent)}: the network cannot learn it"] if absent else []


def _start_notes(preview: Preview) -> list[str]:
    if preview.start is None:
        return []
    start, (_, anew) = preview.start, new_network(preview)
    notes = [f"weights begin as those of {start.name}"]
    if anew:
        notes.append(f"{len(anew)} weights have another shape there and begin at random: {', '.join(anew)}")
    if (start.input_spec.bands, start.input_spec.optional) != (preview.spec.bands, preview.spec.optional):
        notes.append(f"warning: {start.name} was made for other bands ({', '.join(start.input_spec.bands)})")
    if start.legend.values != preview.legend.values:
        begins = "at random" if anew else "with what it knew of as many others"
        notes.append(f"{start.name} has other classes: its last layer begins {begins}")
    return notes
