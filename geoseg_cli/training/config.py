"""What a training run is told: a TOML file, read into checked values.

A key that is not known, a value out of its range and tables that contradict each other are refused by name. Paths are
relative to the file. What a run decides for itself, from the data or from a bundle, is in ``plan``.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from geoseg_cli.catalog import LandClass, Legend, common_names, legends
from geoseg_cli.errors import AccessError, InputMissingError, UsageError
from geoseg_cli.networks import network_names
from geoseg_cli.training.chips import MAX_CLASSES, band_names

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Nodata = Annotated[float, Field(allow_inf_nan=True)] | Literal["auto", "none"]


def _beside_config(path: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    return (folder / path).resolve()


ConfigPath = Annotated[Path, AfterValidator(_beside_config)]


class _Table(BaseModel):
    """A table of the file; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BundleTable(_Table):
    """``[bundle]``: what the result is called and says of itself.

    Attributes:
        name: Of the bundle and its folder.
        title: One line for people; the name if not given.
        description: A sentence or two.
        task: Which command runs it.
        licence: SPDX identifier of the weights' licence.
        gsd_m: Ground sampling distance of the scenes it is for, metres.
        tile_px, overlap_px: Tiles of the scenes it will map.
        limits: What it was not made for or not measured on.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str = ""
    description: str = ""
    task: Literal["land-cover", "cloud"]
    licence: str = Field(min_length=1)
    gsd_m: Positive
    tile_px: int = Field(default=256, ge=32, multiple_of=32)
    overlap_px: int = Field(default=64, ge=0)
    limits: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_tile(self) -> BundleTable:
        if 2 * self.overlap_px > self.tile_px:
            raise ValueError(f"overlap_px {self.overlap_px} is more than half of tile_px {self.tile_px}")
        return self


class NetworkTable(_Table):
    """``[network]``: the architecture.

    Attributes:
        name: One of ``network_names()``.
        config: Fields of its configuration to replace.
    """

    name: str
    config: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in network_names():
            raise ValueError(f"no network is called {name!r}; use one of {', '.join(network_names())}")
        return name


class InputTable(_Table):
    """``[input]``: the bands that the network sees.

    Attributes:
        bands: Common names.
        optional: Those of ``bands`` that a scene may lack.
        mean, stddev: Of the reflectance of each band; measured on the training part if not given.
    """

    bands: tuple[str, ...] = Field(min_length=1)
    optional: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    stddev: tuple[Positive, ...] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> InputTable:
        unknown = [band for band in self.bands if band not in common_names()]
        if unknown:
            raise ValueError(f"no band is called {', '.join(unknown)}; use {', '.join(common_names())}")
        if len(set(self.bands)) != len(self.bands):
            raise ValueError("a band is named twice")
        if stray := [band for band in self.optional if band not in self.bands]:
            raise ValueError(f"optional bands {', '.join(stray)} are not among bands")
        if len(self.optional) == len(self.bands):
            raise ValueError("every band is optional; at least one must be there in every scene")
        for name, values in (("mean", self.mean), ("stddev", self.stddev)):
            if values is not None and len(values) != len(self.bands):
                raise ValueError(f"{name} has {len(values)} numbers for {len(self.bands)} bands")
        if (self.mean is None) != (self.stddev is None):
            raise ValueError("mean and stddev come together or not at all")
        return self


class ClassRow(_Table):
    """One class of an own legend."""

    value: int = Field(ge=0, le=254)
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    title: str = ""
    color: str = Field(pattern=r"^#[0-9A-Fa-f]{6}$")


class ClassesTable(_Table):
    """``[classes]``: classes of a known legend, or own ones.

    Attributes:
        legend: Name of a known legend, or with ``own`` the name of the new one.
        values: Classes of the known legend; all if not given.
        own: The classes of a new legend.
    """

    legend: str = Field(min_length=1)
    values: tuple[int, ...] | None = None
    own: tuple[ClassRow, ...] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> ClassesTable:
        if self.own is None and self.legend not in legends():
            raise ValueError(f"no legend is called {self.legend!r}; use {', '.join(legends())}, or give own classes")
        if self.own is not None and self.values is not None:
            raise ValueError("values choose from a known legend; own classes need none")
        if self.own is not None and self.legend in legends():
            raise ValueError(f"{self.legend!r} is a known legend; give own classes another name")
        self._refuse_strays()
        values = self.to_legend().values
        if not 2 <= len(values) <= MAX_CLASSES or len(set(values)) < len(values):
            raise ValueError(f"class values {list(values)}: give 2 to {MAX_CLASSES} different ones")
        return self

    def _refuse_strays(self) -> None:
        if self.own is None and self.values is not None:
            known = legends()[self.legend].values
            if stray := [value for value in self.values if value not in known]:
                raise ValueError(f"legend {self.legend} has no value {stray}; it has {list(known)}")

    def to_legend(self) -> Legend:
        """The classes in the order of the network's outputs."""
        if self.own is None:
            known = legends()[self.legend]
            return known if self.values is None else known.subset(self.values)
        rows = (LandClass(row.value, row.name, row.title or row.name, row.color) for row in self.own)
        return Legend(self.legend, tuple(rows))


class _DataTable(_Table):
    """What all kinds of data share.

    Attributes:
        share: Share of the samples, relative to the other data.
        weight: Weight of a sample's loss; lower it for labels that are often wrong.
        zoom: Range of the pixel size of samples relative to that of the data.
        title, licence: What the card says about the data.
    """

    share: Positive = 1.0
    weight: float = Field(default=1.0, gt=0, le=1)
    zoom: tuple[Positive, Positive] = (1.0, 1.0)
    title: str = ""
    licence: str = ""

    @field_validator("zoom")
    @classmethod
    def _rises(cls, zoom: tuple[float, float]) -> tuple[float, float]:
        if zoom[0] > zoom[1]:
            raise ValueError("the first number is the smaller one")
        return zoom


class _SceneTable(_DataTable):
    """How scenes are read where they do not say enough themselves.

    Attributes:
        bands: Names of the files' bands in file order, ``-`` to skip one; the files' own if not given.
        radiometry: What the numbers mean.
        nodata: The number that means nothing.
    """

    bands: tuple[str, ...] | None = None
    radiometry: Literal["auto", "reflectance", "dn", "dn-1000"] = "auto"
    nodata: Nodata = "auto"


class PairsTable(_SceneTable):
    """``[[data.pairs]]``: images and label rasters on the same grid.

    Attributes:
        folder: Where they lie, at any depth; see ``labels.find_pairs``.
        ignore: Label values that mean that nothing is known, besides 255 and the file's nodata.
    """

    folder: ConfigPath
    ignore: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()


class VectorsTable(_SceneTable):
    """``[[data.vectors]]``: points and polygons on scenes.

    Attributes:
        file: GeoJSON.
        scenes: A GeoTIFF or a folder of them.
        class_property: Property with the value or the name of the class.
        place_property: Property with the place; squares of ``block_m`` are places if not given.
        block_m: Side of the squares.
        point_radius_m: A point labels pixels up to so far away; 0 labels the one it lies in.
    """

    file: ConfigPath
    scenes: ConfigPath
    class_property: str = "class"
    place_property: str | None = None
    block_m: Positive = 2000.0
    point_radius_m: float = Field(default=0.0, ge=0)


class SimulatorTable(_DataTable):
    """``[data.simulator]``: scenes from measured spectra.

    Attributes:
        spectra: Folder of the spectral tables.
        scenes: Simulated scenes to learn from, 256 x 256 px each.
        develop_scenes: Further ones that help to choose the best weights.
        workers: Processes that simulate; they change no scene.
    """

    spectra: ConfigPath
    scenes: int = Field(default=200, ge=1, le=1_000_000)
    develop_scenes: int = Field(default=20, ge=1, le=10_000)
    workers: int = Field(default=0, ge=0)


class DataTable(_Table):
    """``[data]``: what to learn from."""

    pairs: tuple[PairsTable, ...] = ()
    vectors: tuple[VectorsTable, ...] = ()
    simulator: SimulatorTable | None = None

    @model_validator(mode="after")
    def _is_there(self) -> DataTable:
        if not (self.pairs or self.vectors or self.simulator):
            raise ValueError("there is no data: give [[data.pairs]], [[data.vectors]] or [data.simulator]")
        return self


class SplitTable(_Table):
    """``[split]``: which places are learned from, which choose the best weights, and which are not read at all.

    Attributes:
        develop, test: Shares of the places.
        develop_places, test_places: The places themselves, instead of a share.
        seed: Which places the shares fall on.
    """

    develop: Share = 0.2
    test: Share = 0.2
    develop_places: tuple[str, ...] | None = None
    test_places: tuple[str, ...] | None = None
    seed: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _leaves_something(self) -> SplitTable:
        if self.develop + self.test >= 1:
            raise ValueError(f"develop {self.develop:g} and test {self.test:g} leave nothing to learn from")
        both = set(self.develop_places or ()) & set(self.test_places or ())
        if both:
            raise ValueError(f"places {', '.join(sorted(both))} are in develop_places and in test_places")
        return self


class TrainTable(_Table):
    """``[train]``: how long and how hard; see ``TrainOptions``."""

    minutes: Positive | None = None
    steps: int | None = Field(default=None, ge=1)
    pixels_per_step: int = Field(default=8 * 128 * 128, ge=32 * 32)
    sizes_px: tuple[Annotated[int, Field(ge=32, le=4096, multiple_of=32)], ...] | None = Field(
        default=None, min_length=1
    )
    learning_rate: Positive = 1.5e-3
    warmup_share: float = Field(default=0.03, ge=0, lt=1)
    weight_decay: float = Field(default=0.02, ge=0)
    clip_norm: Positive = 1.0
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    output_weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(default=(1.0, 0.4, 0.4), min_length=1)
    class_balance: Literal["none", "inverse-sqrt", "inverse"] = "none"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    validate_minutes: Positive | None = None
    validate_steps: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    prefetch: int | None = Field(default=None, ge=0, le=64)
    seed: int = Field(default=1, ge=0, lt=2**63)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _has_one_budget(self) -> TrainTable:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("give minutes or steps, one of them: how long is the run?")
        if self.validate_minutes is not None and self.validate_steps is not None:
            raise ValueError("give validate_minutes or validate_steps, not both")
        return self


class AugmentTable(_Table):
    """``[augment]``: how strongly samples are disturbed; see ``AugmentOptions``."""

    gain: Share = 0.1
    band_gain: Share = 0.03
    offset: Share = 0.01
    noise: Share = 0.003
    wedge: Share = 0.1
    band_sets: tuple[tuple[str, ...], ...] = Field(default=((),), min_length=1)
    set_share: Share = 0.35
    drop_share: Share = 0.25
    clouds: Share = 0.0

    @model_validator(mode="after")
    def _is_a_share(self) -> AugmentTable:
        if self.set_share + self.drop_share > 1:
            raise ValueError("set_share and drop_share are shares of the same samples: their sum is at most 1")
        return self


class StartTable(_Table):
    """``[start]``: weights to begin with.

    Attributes:
        bundle: Name of a shipped bundle, or a folder relative to the file.
    """

    bundle: str

    @field_validator("bundle")
    @classmethod
    def _beside(cls, bundle: str, info: ValidationInfo) -> str:
        folder = _beside_config(Path(bundle), info)
        return str(folder) if folder.is_dir() else bundle


class TrainConfig(_Table):
    """A whole file.

    ``network`` and ``input`` may be left out where ``start`` names a bundle that has them.
    """

    bundle: BundleTable
    classes: ClassesTable
    data: DataTable
    train: TrainTable
    network: NetworkTable | None = None
    input: InputTable | None = None
    split: SplitTable = SplitTable()
    augment: AugmentTable = AugmentTable()
    start: StartTable | None = None

    @model_validator(mode="after")
    def _agrees(self) -> TrainConfig:
        for name in ("network", "input"):
            if getattr(self, name) is None and self.start is None:
                raise ValueError(f"[{name}] is missing; only a run with [start] may take it from a bundle")
        if self.augment.clouds and self.bundle.task != "land-cover":
            raise ValueError("augment.clouds is for land cover: pasted clouds would contradict the labels of clouds")
        if self.augment.clouds and self.input is not None:
            self._refuse_bands_without_clouds(self.input.bands)
        return self

    def _refuse_bands_without_clouds(self, bands: tuple[str, ...]) -> None:
        if stray := [band for band in bands if band not in band_names("sentinel-2")]:
            raise ValueError(f"augment.clouds knows the bands of Sentinel-2, and not {', '.join(stray)}")


def read_config(path: Path) -> TrainConfig:
    """Read a configuration.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        UsageError: It is no TOML, or says something that is unknown, out of range or contradictory.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputMissingError(f"no configuration {path}", "see docs/training.md for an example") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}", "see https://toml.io for the format") from error
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}", "give a file that you may read") from error
    try:
        return TrainConfig.model_validate(table, context={"folder": path.parent})
    except ValidationError as error:
        messages, hints = zip(*(_explain(dict(one)) for one in error.errors()), strict=True)
        hint = next(filter(None, hints), "see docs/training.md for every key")
        raise UsageError(f"{path}:\n" + "\n".join(f"  {text}" for text in messages), hint) from error


def _explain(error: dict[str, Any]) -> tuple[str, str]:
    """One error of pydantic in our words, and what to do about it."""
    loc = [part for part in error["loc"] if isinstance(part, int) or not str(part).startswith(("float", "literal"))]
    where = ".".join(map(str, loc)) or "the file"
    if error["type"] == "extra_forbidden":
        known = _known_keys(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"{where} is no known key{meant}", f"keys there: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{where} is missing", ""
    text = str(error["msg"]).removeprefix("Value error, ")
    given = "" if isinstance(error["input"], (dict, BaseModel)) else f" (given: {error['input']!r})"
    return f"{where}: {text}{given}", ""


def _known_keys(loc: list[Any]) -> list[str]:
    """Keys of the table at a place of the file."""
    table: type[BaseModel] = TrainConfig
    for part in loc:
        if isinstance(part, str):
            table = _table_in(table.model_fields[part].annotation) or table
    return list(table.model_fields)


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The table that a field holds, alone, optional or in a list."""
    if get_origin(annotation) in (tuple, Union, UnionType):
        return next(filter(None, map(_table_in, get_args(annotation))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
