"""Write the card of a bundle: a STAC 1.1.0 item with the fields of MLM v1.5.2.

The counterpart of :mod:`geoseg_cli.bundle`, which reads it. The schema of the extension
(https://stac-extensions.github.io/mlm/v1.5.2/schema.json) asks for more than a reader of bundles needs:
bands must be defined beside the input that names them, every class has a description, and only models have a type.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from geoseg_cli.bundle import (
    CARD_FILE,
    INT8_GRAPH,
    README_FILE,
    Bundle,
    CardConfusion,
    ConfidenceCalibration,
    InputSpec,
    ModelCard,
    sha256_of,
)
from geoseg_cli.catalog import Legend, sensors
from geoseg_cli.export.readme import describe_in_words
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.storage import storage_trouble

INPUT_NAME, OUTPUT_NAME = "pixels", "logits"

_EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
_WORLD_BBOX = [-180, -90, 180, 90]
_WORLD = [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]
_STILL_VALID = "9999-12-31T23:59:59Z"
_TASK = ["semantic-segmentation"]
_ASSETS: dict[str, dict[str, Any]] = {
    "weights": {
        "title": "Weights",
        "type": "application/octet-stream; framework=pytorch",
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": "safetensors.torch.save_file",
    },
    "onnx": {
        "title": "ONNX graph with weights",
        "type": "application/octet-stream; framework=onnx",
        "roles": ["mlm:model"],
        "mlm:artifact_type": "onnx",
    },
    "golden": {
        "title": "Golden tiles: normalised pixels, and the logits that PyTorch gave for them in fp32 on a CPU",
        "type": "application/zip",
        "roles": ["metadata"],
    },
    INT8_GRAPH: {
        "title": "ONNX graph with weights, quantised to int8",
        "type": "application/octet-stream; framework=onnx",
        "roles": ["mlm:model"],
        "mlm:artifact_type": "onnx",
    },
}


@dataclass(frozen=True, slots=True)
class CardFields:
    """What a card says that its files do not.

    Attributes:
        name: Name of the bundle, such as ``landcover-lale``; letters, digits, ``-``, ``_`` and ``.``.
        title, description: For people.
        task: Which command runs the model by default.
        architecture: Name of the architecture with its source, for people.
        network: Name for ``geoseg_cli.networks.create_network``.
        config: Changes to that network's configuration; JSON values.
        input_spec: What the network is fed.
        legend: What it answers.
        tile_px, overlap_px: Tiles that the bundle is run with where nobody says otherwise.
        size_multiple: Tile sides must be a multiple of this.
        gsd_m: Ground sampling distance it was trained for, metres.
        gsd_range_m: Smallest and largest one that it is run at as stored; None for 25 % around ``gsd_m``.
        licence: SPDX identifier of the weights' licence.
        calibration: What makes confidences mean something; None where nobody looked.
        training, metrics, limits: What was done, measured and not measured; JSON values.
        created: When the weights were made.
        valid_from: Earliest imagery that the model is meant for; the default is the launch of Sentinel-2A.
    """

    name: str
    title: str
    description: str
    task: Literal["land-cover", "cloud"]
    architecture: str
    network: str
    input_spec: InputSpec
    legend: Legend
    licence: str
    gsd_m: float
    tile_px: int = 256
    overlap_px: int = 32
    size_multiple: int = 32
    config: dict[str, Any] = field(default_factory=dict)
    gsd_range_m: tuple[float, float] | None = None
    calibration: ConfidenceCalibration | None = None
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    valid_from: datetime = datetime(2015, 6, 23, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What a card says about the network itself.

    Attributes:
        parameters: Number of trained weights.
        framework_version: Version of PyTorch, without its local part.
    """

    parameters: int
    framework_version: str


def describe_bundle(fields: CardFields, facts: NetworkFacts, files: dict[str, Path]) -> dict[str, Any]:
    """The card of a bundle.

    Args:
        fields: What is said of the model.
        facts: What is known of the network.
        files: Asset (``weights``, ``onnx`` or ``golden``) -> file, which must exist.

    Returns:
        A STAC item that :class:`geoseg_cli.bundle.ModelCard` reads and JSON can hold.
    """
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": fields.name,
        "geometry": {"type": "Polygon", "coordinates": _WORLD},
        "bbox": _WORLD_BBOX,
        "properties": _properties(fields, facts, files["weights"].stat().st_size),
        "links": [],
        "assets": {asset: describe_asset(asset, path, fields.input_spec) for asset, path in files.items()},
    }


def store_calibration(bundle: Bundle, calibration: ConfidenceCalibration) -> Bundle:
    """Write a calibration into the card of a bundle, in place of the one that it has.

    The README beside the card follows if it is the one that geoseg makes of the card; one written by hand is left
    alone. Files appear whole or not at all. Checksums are of other files and stay true.

    Returns:
        The bundle, opened again.

    Raises:
        AccessError: The folder cannot be written to.
        StorageError: The disk does not take it.
    """
    return rewrite_card(bundle, lambda item: _put_extra(item, "calibration", calibration))


def store_confusion(bundle: Bundle, confusion: CardConfusion) -> Bundle:
    """Write what a bundle's classes are in truth into its card, as :func:`store_calibration` does.

    Raises:
        AccessError: The folder cannot be written to.
        StorageError: The disk does not take it.
    """
    return rewrite_card(bundle, lambda item: _put_extra(item, "confusion", confusion))


def rewrite_card(
    bundle: Bundle, change: Callable[[dict[str, Any]], None], files: Mapping[Path, Path] | None = None
) -> Bundle:
    """Change the card of a bundle, and the README beside it if it is the one that geoseg makes of the card.

    Args:
        bundle: Whose card.
        change: Changes the STAC item in place.
        files: New or replaced file of the bundle -> where it lies; they appear with the card or not at all.

    Returns:
        The bundle, opened again.

    Raises:
        AccessError: The folder cannot be written to.
        StorageError: The disk does not take it.
    """
    path, readme = bundle.folder / CARD_FILE, bundle.folder / README_FILE
    item = json.loads(path.read_text(encoding="utf-8"))
    change(item)
    texts = {path: json.dumps(item, indent=2, allow_nan=False) + "\n"}
    if _is_made_of_card(readme, bundle.card):
        texts[readme] = describe_in_words(ModelCard.model_validate(item))
    with OutputTransaction([*(files or {}), *texts], overwrite=True) as transaction:
        for target, source in (files or {}).items():
            with storage_trouble(target):
                shutil.copyfile(source, transaction.path(target))
        for target, text in texts.items():
            transaction.path(target).write_text(text, encoding="utf-8")
        transaction.commit()
    return Bundle.open(bundle.folder)


def describe_asset(name: str, path: Path, spec: InputSpec) -> dict[str, Any]:
    """A file of a bundle as its card names it, with size and SHA-256."""
    entry = _ASSETS[name] | {
        "href": path.name,
        "file:checksum": f"1220{sha256_of(path)}",
        "file:size": path.stat().st_size,
    }
    # STAC 1.1 wants bands on an asset wherever the item's properties have some.
    return entry | {"bands": _bands(spec)} if "mlm:model" in entry["roles"] else entry


def _put_extra(item: dict[str, Any], name: str, found: ConfidenceCalibration | CardConfusion) -> None:
    item["properties"]["mlm:hyperparameters"]["geoseg"][name] = found.model_dump(mode="json")


def _is_made_of_card(readme: Path, card: ModelCard) -> bool:
    """Whether a README says what geoseg makes of a card, and nothing else."""
    try:
        return readme.is_file() and readme.read_text(encoding="utf-8") == describe_in_words(card)
    except (KeyError, UnicodeDecodeError):  # a card of somebody else, which lacks what the words need
        return False


def _properties(fields: CardFields, facts: NetworkFacts, memory_bytes: int) -> dict[str, Any]:
    return {
        "title": fields.title,
        "description": fields.description,
        "license": fields.licence,
        "created": _timestamp(fields.created),
        "datetime": None,
        "start_datetime": _timestamp(fields.valid_from),
        "end_datetime": _STILL_VALID,
        "bands": _bands(fields.input_spec),
        "mlm:name": fields.name,
        "mlm:architecture": fields.architecture,
        "mlm:tasks": _TASK,
        "mlm:framework": "PyTorch",
        "mlm:framework_version": facts.framework_version,
        "mlm:memory_size": memory_bytes,
        "mlm:total_parameters": facts.parameters,
        "mlm:pretrained": False,
        "mlm:pretrained_source": None,
        "mlm:input": [_input(fields.input_spec)],
        "mlm:output": [_output(fields.legend)],
        "mlm:hyperparameters": {"geoseg": _extras(fields)},
    }


def _input(spec: InputSpec) -> dict[str, Any]:
    planes = [{"name": f"has_{band}", "format": "geoseg-presence", "expression": band} for band in spec.optional]
    scaling = [{"type": "z-score", "mean": m, "stddev": s} for m, s in zip(spec.mean, spec.stddev, strict=True)]
    # The schema has no scaling that does nothing within a list; this one is (x - 0) / 1.
    scaling += [{"type": "z-score", "mean": 0.0, "stddev": 1.0} for _ in spec.optional]
    return {
        "name": INPUT_NAME,
        "bands": [*spec.bands, *planes],
        "input": _tensor(spec.channels, "bands"),
        "value_scaling": scaling,
        "resize_type": None,
    }


def _output(legend: Legend) -> dict[str, Any]:
    return {
        "name": OUTPUT_NAME,
        "tasks": _TASK,
        "result": _tensor(len(legend.classes), "class"),
        "classification:classes": [row | {"description": row["title"]} for row in legend.stac_classes()],
    }


def _tensor(depth: int, axis: str) -> dict[str, Any]:
    return {"shape": [-1, depth, -1, -1], "dim_order": ["batch", axis, "height", "width"], "data_type": "float32"}


def _extras(fields: CardFields) -> dict[str, Any]:
    return {
        "task": fields.task,
        "legend": fields.legend.name,
        "tile_px": fields.tile_px,
        "overlap_px": fields.overlap_px,
        "size_multiple": fields.size_multiple,
        "gsd_m": fields.gsd_m,
        **({"gsd_range_m": list(fields.gsd_range_m)} if fields.gsd_range_m else {}),
        "output_nodata": fields.legend.nodata,
        "network": {"name": fields.network, "config": fields.config},
        **({"calibration": fields.calibration.model_dump(mode="json")} if fields.calibration else {}),
        "training": fields.training,
        "metrics": fields.metrics,
        "limits": list(fields.limits),
    }


def _bands(spec: InputSpec) -> list[dict[str, Any]]:
    """STAC bands, each with the sensors' bands that can stand for it."""
    return [{"name": band, "description": _name_origins(band)} for band in spec.bands]


def _name_origins(common: str) -> str:
    found = [(sensor.title, band) for sensor in sensors().values() for band in sensor.bands if common in band.common]
    origins = ", ".join(f"{title} {band.name} ({band.wavelength_nm:g} nm)" for title, band in found)
    return f"Reflectance, 1.0 is a perfectly white surface: {origins or common}"


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
