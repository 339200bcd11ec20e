"""Does a raster that was written beside a map still look as geoseg wrote it? It has no hash of its own to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from geoseg_cli.catalog import NODATA
from geoseg_cli.results.description import FORMAT_TAG, PIXELS_TAG
from geoseg_cli.results.map_file import opened_map, row_windows
from geoseg_cli.results.maps import PROBABILITY_STEPS, Kind
from geoseg_cli.results.verify import Problems, Verdict, missing_provenance, structure, verify_map

SINGLE: tuple[Kind, ...] = ("confidence", "entropy", "seams")


def verify_file(path: Path) -> Verdict:
    """Check whatever raster geoseg wrote: a class map as :func:`verify_map` does, another one as far as it can be.

    Raises:
        InputMissingError: There is no such file.
        InputError: It is no raster of geoseg.
        AccessError, StorageError: It cannot be read to its end.
    """
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), opened_map(path) as file:
        kind = further_kind(file)
        if kind is not None:
            return _verdict(path, file, kind)
    return verify_map(path)


def further_kind(file: Any) -> Kind | None:
    """Which of the further rasters of a run this is; None for everything else."""
    bands, tags = [band or "" for band in file.descriptions], file.tags()
    if PIXELS_TAG in tags or "GEOSEG_MODEL" not in tags:
        return None
    if all(band.startswith("prob_") for band in bands):
        return "probabilities"
    return next((kind for kind in SINGLE if bands == [kind]), None)


def _verdict(path: Path, file: Any, kind: Kind) -> Verdict:
    tags = file.tags()
    found: dict[str, Problems] = {
        "structure": structure(file, "gtiff" if tags.get(FORMAT_TAG) == "gtiff" else "cog"),
        "provenance": missing_provenance(tags),
        "numbers": _numbers(file),
    }
    if not found["numbers"]:
        found["pixels"] = _pixels(file)
    problems = {check: what for check, what in found.items() if what}
    return Verdict(path, tuple(found), problems, (), "gtiff" if tags.get(FORMAT_TAG) == "gtiff" else "cog", kind)


def _numbers(file: Any) -> Problems:
    """What a number of the raster means."""
    found = []
    if set(file.dtypes) != {"uint8"} or file.nodata != NODATA:
        found.append(f"it is not uint8 with nodata {NODATA}")
    if not np.allclose(file.scales, 1 / PROBABILITY_STEPS, rtol=1e-9, atol=0) or any(file.offsets):
        found.append(f"its scale is not 1 / {PROBABILITY_STEPS}")
    return tuple(found)


def _pixels(file: Any) -> Problems:
    present, is_torn = np.zeros(256, bool), False
    for window in row_windows(file.height, file.width):
        values: npt.NDArray[np.uint8] = file.read(window=window.to_rasterio())
        present |= np.bincount(values.ravel(), minlength=256) > 0
        missing = values == NODATA
        is_torn = is_torn or bool((missing != missing[:1]).any())
    strange = np.flatnonzero(present[PROBABILITY_STEPS + 1 : NODATA]) + PROBABILITY_STEPS + 1
    found = [f"values {strange.tolist()} are neither 0 to {PROBABILITY_STEPS} nor nodata"] if len(strange) else []
    return (*found, *(["its bands lack different pixels"] if is_torn else []))
