"""Maps that were published with all that lies beside them, from pixels that are known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import Legend
from geoseg_cli.grid import Grid
from geoseg_cli.results.beside import write_sidecars
from geoseg_cli.results.clean_map import Cleaning
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.maps import Kind, MapSpec, MapWriter
from geoseg_cli.results.raster import software_tags
from geoseg_cli.results.sidecars import sidecar_paths
from geoseg_cli.rows import Rows

WRITTEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
MODEL_SHA256 = "ab" * 32


def tags_of(legend: Legend, more: Mapping[str, str] | None = None) -> dict[str, str]:
    import json

    plain = ("BANDS", "RADIOMETRY", "TILE", "OVERLAP")
    return (
        software_tags("geoseg 9.8.7", WRITTEN)
        | {f"GEOSEG_{name}": "stated" for name in plain}
        | {
            "GEOSEG_VERSION": "9.8.7",
            "GEOSEG_MODEL": "toy-model",
            "GEOSEG_MODEL_SHA256": MODEL_SHA256,
            "GEOSEG_INPUT": "scene.tif",
            "GEOSEG_ENGINE": "onnx",
            "GEOSEG_DEVICE": "cpu",
            "GEOSEG_PRECISION": "fp32",
            "GEOSEG_LEGEND": legend.name,
            "GEOSEG_CLASSES": json.dumps(legend.stac_classes()),
        }
        | (more or {})
    )


def publish_map(
    out: Path, labels: npt.NDArray[np.uint8], grid: Grid, legend: Legend, confidence: Path | None = None, **more: Any
) -> Path:
    """Write (H,W) labels as a run would.

    Args:
        out: The map.
        labels: Legend values and nodata.
        grid: Where they lie.
        legend: What they mean.
        confidence: A second raster to write.
        more: ``tags`` beside the usual ones, ``source`` scene, ``overwrite``, ``cleaning``, ``format``.
    """
    spec = MapSpec(
        grid, legend, "land_cover", tags_of(legend, more.get("tags")), {},
        more.get("cleaning", Cleaning()), more.get("format", "cog"),
    )  # fmt: skip
    targets: dict[Kind, Path] = {"labels": out} | ({"confidence": confidence} if confidence else {})
    every = [*targets.values(), *sidecar_paths(out).values()]
    valid = labels != legend.nodata
    rows = Rows(0, labels, np.where(valid, np.float32(0.6), np.float32(0)), None, valid)
    with (
        OutputTransaction(every, more.get("overwrite", False)) as transaction,
        MapWriter(spec, targets, transaction) as writer,
    ):
        writer.write(rows)
        writer.finish()
        write_sidecars(writer.describe(), writer.assets(), more.get("source", out.with_name("scene.tif")), transaction)
        transaction.commit()
    return out
