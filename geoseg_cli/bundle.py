"""The bundle: a folder with a card, weights, an exported graph and golden tiles.

The card is ``item.json``, a STAC item with the Machine Learning Model extension (MLM v1.5.2,
https://github.com/stac-extensions/mlm); what MLM has no field for stands in ``mlm:hyperparameters.geoseg``.
A card that says something unknown is refused: a wrong guess about an input is a wrong map.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, ValidationError, model_validator

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.catalog import WIDE_NODATA, LandClass, Legend, usual_nodata
from geoseg_cli.errors import AccessError, InputMissingError, ModelError
from geoseg_cli.shipped import CARD_FILE as CARD_FILE
from geoseg_cli.shipped import bundle_folders as bundle_folders

README_FILE = "README.md"
INT8_GRAPH = "onnx-int8"
"""The asset that is the graph quantised to int8; a bundle may lack it."""

CLIP_REFLECTANCE = (-0.2, 2.0)
"""Reflectances outside are sensor artefacts: clouds reach 1.4, noise and offsets -0.1."""

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a network is fed; training and inference share :meth:`apply`.

    Attributes:
        bands: Common names of the bands in the network's order.
        optional: Those of ``bands`` that a scene may lack, in the order of their presence planes.
        mean: Reflectance mean of each band.
        stddev: Reflectance standard deviation of each band, above 0.
    """

    bands: tuple[str, ...]
    optional: tuple[str, ...]
    mean: tuple[float, ...]
    stddev: tuple[float, ...]

    @property
    def planes(self) -> tuple[str, ...]:
        """Channels of the network's input: every band, then one presence plane ``has BAND`` per optional band."""
        return (*self.bands, *(f"has {band}" for band in self.optional))

    @property
    def channels(self) -> int:
        """How many channels the network's input has."""
        return len(self.planes)

    @property
    def required(self) -> tuple[str, ...]:
        """Bands that a scene must have."""
        return tuple(band for band in self.bands if band not in self.optional)

    def apply(
        self, reflectance: Array, valid: BoolArray, present: tuple[bool, ...], arrays: Arrays = NUMPY,
        out: Array | None = None,
    ) -> Array:  # fmt: skip
        """Normalise reflectance into the network's input.

        Args:
            reflectance: (..., P, H, W) float32, the present bands in the order of ``bands``; 1.0 is a
                perfectly white surface.
            valid: (..., H, W) bool of numpy, where the reflectance means something.
            present: One flag per band, True for the P bands that ``reflectance`` holds.
            arrays: What computes, and where; ``reflectance`` is one of them.
            out: (..., C, H, W) float32 of them, filled and returned; a new array when None.

        Returns:
            (..., C, H, W) float32: z-scores, 0 where a pixel is invalid or a band is absent, then planes of
            0 or 1 that tell the network which optional bands the scene has.
        """
        assert len(present) == len(self.bands)
        assert sum(present) == reflectance.shape[-3]
        lead, size = reflectance.shape[:-3], reflectance.shape[-2:]
        planes = arrays.empty((*lead, self.channels, *size)) if out is None else out
        # Asked of numpy, here and by who cuts tiles: a device would have to be waited for.
        holes = None if valid.all() else arrays.put(~valid)
        held = iter(range(reflectance.shape[-3]))
        # Band by band and in place: one plane of a tile stays in the processor's cache.
        for place, is_present in enumerate(present):
            scores = planes[..., place, :, :]
            if not is_present:
                scores[...] = 0
                continue
            arrays.module.clip(reflectance[..., next(held), :, :], *CLIP_REFLECTANCE, out=scores)
            scores -= float(np.float32(self.mean[place]))
            scores *= float(1 / np.float32(self.stddev[place]))
            if holes is not None:
                arrays.blank(scores, holes)
        for plane, band in enumerate(self.optional, start=len(self.bands)):
            planes[..., plane, :, :] = present[self.bands.index(band)]
        return planes


class _Strict(BaseModel):
    """A part of a card that must hold nothing we do not understand."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Open(BaseModel):
    """A part of a card where a STAC writer may add fields of other extensions."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class PresencePlane(_Strict):
    """An input channel that says whether the scene has an optional band."""

    name: str
    format: Literal["geoseg-presence"]
    expression: str


class ValueScaling(_Strict):
    """MLM value scaling of one channel: ``z-score`` is (x - mean) / stddev; type None leaves it alone."""

    type: Literal["z-score"] | None
    mean: float = 0.0
    stddev: float = Field(default=1.0, gt=0)


class TensorShape(_Strict):
    """MLM shape of a tensor; -1 is any size."""

    shape: list[int]
    dim_order: list[str]
    data_type: Literal["float32"]


class ModelInput(_Open):
    """MLM model input."""

    name: str
    bands: list[str | PresencePlane]
    input: TensorShape
    value_scaling: list[ValueScaling]


class CardClass(_Open):
    """STAC classification v2 class."""

    value: int
    name: str
    title: str
    color_hint: str = Field(pattern=r"^[0-9A-F]{6}$")


class ModelOutput(_Open):
    """MLM model output; output channel k is class k of the list."""

    name: str
    tasks: list[str]
    result: TensorShape
    classes: list[CardClass] = Field(alias="classification:classes")


class NetworkConfig(_Strict):
    """Which architecture of ``geoseg_cli.networks`` the weights belong to."""

    name: str
    config: dict[str, Any] = {}


class ConfidenceCalibration(_Strict):
    """What makes probabilities of logits, and how it was found.

    Attributes:
        temperature: T; probabilities are softmax(logits / T).
        data: What it was fitted on, for people.
        places, pixels: How many of them.
        nll: Mean negative log-likelihood of the true class on these pixels with T = 1 and with T.
        ece: Expected calibration error on these pixels with T = 1 and with T.
    """

    temperature: float = Field(gt=0, allow_inf_nan=False)
    data: str
    places: int = Field(ge=1)
    pixels: int = Field(ge=1)
    nll: tuple[float, float]
    ece: tuple[float, float]


class CardConfusion(_Strict):
    """How often the bundle's classes were right where the truth is known, on images that had no part in its training.

    Attributes:
        data: What it was measured on, for people.
        places: How many independent images or polygons.
        counts: ``counts[i][j]`` pixels that the bundle calls its class i and that are its class j.
    """

    data: str = Field(min_length=1)
    places: int = Field(ge=1)
    counts: list[list[NonNegativeInt]]

    @model_validator(mode="after")
    def _check_square(self) -> CardConfusion:
        if any(len(row) != len(self.counts) for row in self.counts) or not any(map(any, self.counts)):
            raise ValueError("counts are no square table with anything in it")
        return self


class GeosegExtras(_Strict):
    """What geoseg must know and MLM has no field for.

    Attributes:
        task: Which command runs the model by default.
        legend: Name of the legend the classes come from.
        tile_px, overlap_px: Side and overlap of the tiles that the figures in the card were measured with.
        size_multiple: Tile sides must be a multiple of this.
        gsd_m: Ground sampling distance that the model was trained for, metres.
        gsd_range_m: Smallest and largest one that much of the training had; such scenes are run as they are stored.
            None stands for 25 % around ``gsd_m``.
        output_nodata: Raster value of pixels without an answer; None for 255, or 65535 where a class has a value above
            254.
        network: Architecture and configuration.
        calibration: What makes confidences mean something; None where nobody looked.
        confusion: How often its classes are right; None where nobody counted.
        training, metrics, limits: What was done, measured and not measured; free for people to read.
    """

    task: Literal["land-cover", "cloud"]
    legend: str
    tile_px: int = Field(ge=32)
    overlap_px: int = Field(ge=0)
    size_multiple: int = Field(ge=1)
    gsd_m: float = Field(gt=0)
    gsd_range_m: tuple[PositiveFloat, PositiveFloat] | None = None
    output_nodata: int | None = Field(default=None, ge=0, le=WIDE_NODATA)
    network: NetworkConfig
    calibration: ConfidenceCalibration | None = None
    confusion: CardConfusion | None = None
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    limits: list[str] = []

    @model_validator(mode="after")
    def _check_range(self) -> GeosegExtras:
        low, high = self.gsd_range_m or (self.gsd_m, self.gsd_m)
        if not low <= self.gsd_m <= high:
            raise ValueError(f"gsd_range_m {low:g} to {high:g} does not hold gsd_m {self.gsd_m:g}")
        return self

    @property
    def temperature(self) -> float:
        """Probabilities are softmax(logits / temperature); 1 where nothing was fitted."""
        return self.calibration.temperature if self.calibration else 1.0


class Hyperparameters(_Open):
    """MLM hyper-parameters, of which geoseg reads its own part."""

    geoseg: GeosegExtras


class CardProperties(_Open):
    """Properties of the STAC item."""

    name: str = Field(alias="mlm:name")
    architecture: str = Field(alias="mlm:architecture")
    tasks: list[str] = Field(alias="mlm:tasks")
    total_parameters: int = Field(alias="mlm:total_parameters")
    inputs: list[ModelInput] = Field(alias="mlm:input", min_length=1, max_length=1)
    outputs: list[ModelOutput] = Field(alias="mlm:output", min_length=1, max_length=1)
    hyperparameters: Hyperparameters = Field(alias="mlm:hyperparameters")

    @model_validator(mode="after")
    def _check_confusion(self) -> CardProperties:
        confusion, classes = self.hyperparameters.geoseg.confusion, len(self.outputs[0].classes)
        if confusion is not None and len(confusion.counts) != classes:
            raise ValueError(f"confusion has {len(confusion.counts)} classes, the network {classes}")
        return self


class CardAsset(_Open):
    """A file of the bundle."""

    href: str
    checksum: str = Field(alias="file:checksum", pattern=r"^1220[0-9a-f]{64}$")
    size: int = Field(alias="file:size")


class ModelCard(_Open):
    """The card: a STAC item that describes a model.

    Attributes:
        id: Name of the bundle.
        properties: MLM fields.
        assets: ``weights`` (safetensors), ``onnx``, ``golden`` and ``onnx-int8``.
    """

    type: Literal["Feature"]
    id: str
    properties: CardProperties
    assets: dict[str, CardAsset]

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read and check a card.

        Raises:
            ModelError: The card is no JSON, or holds something that geoseg does not understand.
        """
        try:
            card = cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
            _ = card.legend  # classes that no map can hold are refused now, not after the inference
            return card
        except ModelError as error:
            raise ModelError(f"card {path}: {error.message}", error.hint) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ModelError(
                f"card {path}: {where}: {first['msg']}", "correct the card, or use another bundle"
            ) from error
        except (OSError, ValueError) as error:
            raise ModelError(
                f"card {path} cannot be read: {error}", "use a bundle folder with a valid item.json"
            ) from error

    @property
    def extras(self) -> GeosegExtras:
        """What stands in ``mlm:hyperparameters.geoseg``."""
        return self.properties.hyperparameters.geoseg

    @property
    def input_spec(self) -> InputSpec:
        """The input contract."""
        source = self.properties.inputs[0]
        bands = tuple(band for band in source.bands if isinstance(band, str))
        optional = tuple(band.expression for band in source.bands if isinstance(band, PresencePlane))
        scaling = source.value_scaling[: len(bands)]
        if unknown := [band for band in optional if band not in bands]:
            raise ModelError(
                f"card {self.id}: a plane tells whether a scene has {unknown[0]!r}, which is no band of the input",
                "make the bands and the presence planes of mlm:input agree",
            )
        spec = InputSpec(bands, optional, tuple(s.mean for s in scaling), tuple(s.stddev for s in scaling))
        if len(source.value_scaling) != spec.channels or source.input.shape != [-1, spec.channels, -1, -1]:
            raise ModelError(
                f"card {self.id}: {spec.channels} channels are named, {len(source.value_scaling)} are scaled"
                f" and the input shape is {source.input.shape}",
                "make mlm:input bands, value_scaling and shape agree",
            )
        return spec

    @property
    def legend(self) -> Legend:
        """The classes, in the order of the network's outputs."""
        rows = self.properties.outputs[0].classes
        classes = tuple(LandClass(c.value, c.name, c.title, f"#{c.color_hint}") for c in rows)
        stated = self.extras.output_nodata
        return Legend(self.extras.legend, classes, usual_nodata(c.value for c in rows) if stated is None else stated)


@dataclass(frozen=True)
class Bundle:
    """A folder that holds a model.

    Attributes:
        folder: Where it lies.
        card: Its card.
    """

    folder: Path
    card: ModelCard

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Open a bundle folder without reading its weights.

        Raises:
            InputMissingError: There is no card in the folder.
            ModelError: The card does not fit.
        """
        path = folder / CARD_FILE
        if not path.is_file():
            raise InputMissingError(f"{folder} is no bundle: it has no {CARD_FILE}", "see `geoseg models list`")
        return cls(folder, ModelCard.read(path))

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.card.id

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the card, its README and all assets, whether they are there or not: no output may replace them."""
        assets = (asset.href for asset in self.card.assets.values())
        return tuple(self.folder / name for name in (CARD_FILE, README_FILE, *assets))

    @cached_property
    def input_spec(self) -> InputSpec:
        """The input contract."""
        return self.card.input_spec

    @cached_property
    def legend(self) -> Legend:
        """The classes, in the order of the network's outputs."""
        return self.card.legend

    def file(self, asset: str) -> Path:
        """Path of an asset, verified against the card's size and SHA-256.

        Args:
            asset: ``weights``, ``onnx``, ``golden`` or ``onnx-int8``.

        Raises:
            ModelError: The bundle lacks the asset, it lies outside the folder, or its content changed.
        """
        entry = self.card.assets.get(asset)
        if entry is None:
            raise ModelError(f"bundle {self.name} has no {asset}", self._remedy_for(asset))
        path = (self.folder / entry.href).resolve()
        if path.parent != self.folder.resolve() or not path.is_file():
            raise ModelError(f"bundle {self.name}: {asset} is not a file of its folder", "restore the bundle")
        if sha256_of(path) != entry.checksum[4:]:
            raise ModelError(
                f"bundle {self.name}: {path.name} is not the file that the card describes (SHA-256 differs)",
                "restore the bundle, or write a new card for the new weights",
            )
        return path

    def _remedy_for(self, asset: str) -> str:
        if asset == INT8_GRAPH:
            folder = shlex.quote(str(self.folder))
            return f"make it: geoseg export {folder} --precision int8 --calibration SCENE --into-bundle"
        return "use another engine, or export it again"

    @property
    def holds_program(self) -> bool:
        """Whether the weights are no data but a program, an archive of torch.export."""
        weights = self.card.assets.get("weights")
        return weights is not None and weights.href.lower().endswith(".pt2")

    def sha256(self, asset: str) -> str:
        """SHA-256 of an asset as the card states it, lower-case hex."""
        return self.card.assets[asset].checksum[4:]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse_file(path: Path) -> None:
    """Say why a model is not taken from a single file.

    Raises:
        AccessError: It is a pickle, or an archive of torch that holds some.
        ModelError: It is another file.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(2)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "give the folder of a bundle") from error
    if head[:1] == b"\x80" or head == b"PK":
        raise AccessError(
            f"{path} holds code: opening a pickle, a checkpoint, TorchScript or .pt2 runs what its author put there",
            "give the folder of a bundle, whose weights are safetensors or ONNX",
        )
    raise ModelError(f"{path} is a file, not a bundle", "give the folder that holds item.json")


def find_bundle(name_or_folder: str) -> Bundle:
    """Open a bundle by its name or folder; a name of a shipped bundle wins.

    Raises:
        InputMissingError: No such bundle.
        AccessError: It is a file that holds code.
        ModelError: Its card does not fit, or it is another file.
    """
    shipped = {folder.name: folder for folder in bundle_folders()}
    if name_or_folder in shipped:
        return Bundle.open(shipped[name_or_folder])
    folder = Path(name_or_folder)
    if folder.is_dir():
        return Bundle.open(folder)
    if folder.is_file():
        _refuse_file(folder)
    known = ", ".join(shipped) or "none"
    raise InputMissingError(f"no bundle named or at {name_or_folder!r}", f"shipped bundles: {known}")
