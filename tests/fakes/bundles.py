"""A bundle without weights, for runs through a fake engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geoseg_cli.bundle import Bundle, ModelCard
from geoseg_cli.catalog import Legend, legends

STEP = 0.5
"""Reflectance step of the fake bundle: a pixel of k x STEP reaches the engine as the number k."""


def card_fields(
    legend: Legend, task: str = "cloud", tile_px: int = 64, overlap_px: int = 16, gsd_m: float = 10.0
) -> dict[str, Any]:
    """A card with one required band, red, and one optional band, nir."""
    shape = {"dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"}
    asset = {"href": "weights.bin", "file:checksum": "1220" + "ab" * 32, "file:size": 1}
    return {
        "type": "Feature",
        "id": "fake-bundle",
        "properties": {
            "mlm:name": "fake-bundle",
            "mlm:architecture": "none",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:total_parameters": 0,
            "mlm:input": [
                {
                    "name": "pixels",
                    "bands": [
                        "red",
                        "nir",
                        {"name": "has_nir", "format": "geoseg-presence", "expression": "nir"},
                    ],
                    "input": {"shape": [-1, 3, -1, -1], **shape},
                    "value_scaling": [{"type": "z-score", "mean": 0.0, "stddev": STEP}] * 2 + [{"type": None}],
                }
            ],
            "mlm:output": [
                {
                    "name": "logits",
                    "tasks": ["semantic-segmentation"],
                    "result": {"shape": [-1, len(legend.classes), -1, -1], **shape},
                    "classification:classes": legend.stac_classes(),
                }
            ],
            "mlm:hyperparameters": {
                "geoseg": {
                    "task": task,
                    "legend": legend.name,
                    "tile_px": tile_px,
                    "overlap_px": overlap_px,
                    "size_multiple": 8,
                    "gsd_m": gsd_m,
                    "network": {"name": "none"},
                }
            },
        },
        "assets": {"weights": asset, "onnx": asset},
    }


def fake_bundle(**fields: Any) -> Bundle:
    """The bundle; ``fields`` as for :func:`card_fields`."""
    legend = fields.pop("legend", legends()["cloudsen12"])
    return Bundle(Path("fake-bundle"), ModelCard.model_validate(card_fields(legend, **fields)))
