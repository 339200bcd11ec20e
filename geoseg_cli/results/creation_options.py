"""Which of GDAL's creation options a user may set: those that change neither a pixel, nor the grid, nor what is found.

GDAL takes names and values of these in any case, and so does this module; messages repeat the value as it was given.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal

from geoseg_cli.errors import UsageError

RasterFormat = Literal["cog", "gtiff"]
"""``cog`` is a Cloud Optimized GeoTIFF, ``gtiff`` a plain tiled one with overviews inside."""

_COG_LOSSLESS = ("NONE", "LZW", "DEFLATE", "ZSTD", "LZMA", "LERC", "LERC_DEFLATE", "LERC_ZSTD")
_COG_PREDICTORS = ("YES", "NO", "STANDARD")
_BIGTIFF = ("YES", "NO", "IF_NEEDED", "IF_SAFER")
_VERSIONS = ("AUTO", "1.0", "1.1")

FREE_OPTIONS: Mapping[RasterFormat, Mapping[str, tuple[str, ...]]] = {
    "cog": {
        "BLOCKSIZE": (),
        "COMPRESS": _COG_LOSSLESS,
        "LEVEL": (),
        "PREDICTOR": _COG_PREDICTORS,
        "NUM_THREADS": (),
        "BIGTIFF": _BIGTIFF,
        "GEOTIFF_VERSION": _VERSIONS,
        "INTERLEAVE": ("BAND", "PIXEL"),
        "OVERVIEW_COMPRESS": ("AUTO", *_COG_LOSSLESS),
        "OVERVIEW_PREDICTOR": _COG_PREDICTORS,
        # Wider kernels invent classes.
        "OVERVIEW_RESAMPLING": ("NEAREST", "MODE"),
        "STATISTICS": ("AUTO", "YES", "NO"),
    },
    "gtiff": {
        "TILED": ("YES",),
        "BLOCKXSIZE": (),
        "BLOCKYSIZE": (),
        "COMPRESS": (*_COG_LOSSLESS, "PACKBITS"),
        "ZLEVEL": (),
        "ZSTD_LEVEL": (),
        "LZMA_PRESET": (),
        # 3 is for floating point alone.
        "PREDICTOR": ("1", "2"),
        "NUM_THREADS": (),
        "BIGTIFF": _BIGTIFF,
        "GEOTIFF_VERSION": _VERSIONS,
        "INTERLEAVE": ("BAND", "PIXEL"),
        "ENDIANNESS": ("NATIVE", "LITTLE", "BIG"),
    },
}
"""Options of the drivers COG and GTiff that cannot change a pixel or the grid (GDAL manual, drivers/raster/cog and
drivers/raster/gtiff), and the values they may take; () is a number, see ``NUMBERS``. Left out are those that lose
something (NBITS, DISCARD_LSB, MAX_Z_ERROR, qualities of JPEG, WEBP, JPEG XL), drop or move what describes the file
(PROFILE, PHOTOMETRIC, ALPHA, TFW, RPB, GEOTIFF_KEYS_FLAVOR), or leave out blocks or overviews (SPARSE_OK, OVERVIEWS).
"""

_SIDE, _THREADS = (128, 4096, 16), (1, 256, 1)

NUMBERS: Mapping[str, tuple[int, int, int]] = {
    "BLOCKSIZE": _SIDE,
    "BLOCKXSIZE": _SIDE,
    "BLOCKYSIZE": _SIDE,
    "LEVEL": (1, 22, 1),
    "ZLEVEL": (1, 12, 1),
    "ZSTD_LEVEL": (1, 22, 1),
    "LZMA_PRESET": (0, 9, 1),
    "NUM_THREADS": _THREADS,
}
"""Option -> least and greatest value, and what it must be a multiple of (TIFF 6.0: sides of tiles, 16)."""


def check_creation_options(options: Mapping[str, str], raster_format: RasterFormat = "cog") -> None:
    """Refuse options that cannot be used, before any work is done.

    Args:
        options: NAME -> VALUE; case does not matter.
        raster_format: What is to be written.

    Raises:
        UsageError: A name is unknown or comes twice, or a value would change pixels, grid or layout.
    """
    names = [name.upper() for name in options]
    for name, value in options.items():
        _check_option(name.upper(), value, FREE_OPTIONS[raster_format])
        if names.count(name.upper()) > 1:
            raise UsageError(f"--co {name.upper()} is given twice", "give each option one value")


def _check_option(name: str, value: str, free: Mapping[str, tuple[str, ...]]) -> None:
    if name not in free:
        near = difflib.get_close_matches(name, free, 1)
        did_you_mean = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"--co {name}={value}: {name} is not an option that can be set here{did_you_mean}",
            f"use one of {', '.join(sorted(free))}",
        )
    if name in NUMBERS and value.upper() not in ("ALL_CPUS",) * (name == "NUM_THREADS"):
        low, high, step = NUMBERS[name]
        if not (value.isascii() and value.isdigit() and low <= int(value[:9]) <= high and int(value[:9]) % step == 0):
            multiple = f" that is a multiple of {step}" if step > 1 else ""
            raise UsageError(
                f"--co {name}={value}: {value} cannot be used", f"use a number from {low} to {high}{multiple}"
            )
    if free[name] and value.upper() not in free[name]:
        raise UsageError(
            f"--co {name}={value}: {value} is unknown or would change pixels", f"use one of {', '.join(free[name])}"
        )
