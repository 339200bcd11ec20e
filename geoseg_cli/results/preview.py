"""Pictures to look at: a class map in its legend's colours, a scene in true colour."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import InputError
from geoseg_cli.results.storage import storage_trouble

ImageArray = npt.NDArray[np.uint8]

BRIGHT = 0.3
"""Reflectance shown as full brightness: above soil and vegetation, below cloud and snow."""
GAMMA = 1.8
"""Lifts forest and water (reflectance 0.02 to 0.05) out of the dark."""


def write_preview(map_path: Path, legend: Legend, out_png: Path, max_px: int = 1024) -> None:
    """Draw a class map; nodata is transparent, north is up on grids that are not rotated.

    Args:
        map_path: GeoTIFF of classes; its first band is drawn.
        legend: What its values mean.
        out_png: The picture; nothing else is written.
        max_px: Longest side of the picture. Smaller maps keep their size.

    Raises:
        InputError: The map holds values that the legend does not.
        AccessError, StorageError: Reading or writing failed.
    """
    with storage_trouble(map_path, "read"), rasterio.open(map_path.absolute(), driver="GTiff") as file:
        labels = _north_up(file, file.read(1, out_shape=_shape(file, max_px), resampling=Resampling.nearest))
    palette = legend.palette()
    strange = sorted(set(np.unique(labels).tolist()) - set(palette))
    if strange:
        raise InputError(
            f"{map_path} holds {strange}, which are no classes of the legend {legend.name}",
            "choose the legend that the map was made with",
        )
    colors = np.zeros((256, 4), np.uint8)
    for value, color in palette.items():
        colors[value] = color
    _write_png(out_png, colors[labels])


def write_quicklook(
    scene_path: Path, indexes: Sequence[int], scale: float, offset: float, out_png: Path, max_px: int = 1024
) -> None:
    """Draw three bands of a scene; pixels without data in one of them are transparent.

    Args:
        scene_path: GeoTIFF or JPEG 2000.
        indexes: Bands for red, green and blue, counted from 1.
        scale, offset: Reflectance = scale x number + offset.
        out_png: The picture; nothing else is written.
        max_px: Longest side of the picture. Smaller scenes keep their size.

    Raises:
        AccessError, StorageError: Reading or writing failed.
    """
    with storage_trouble(scene_path, "read"), rasterio.open(scene_path.absolute(), driver=_driver(scene_path)) as file:
        shape = _shape(file, max_px)
        numbers = file.read(list(indexes), out_shape=(3, *shape), resampling=Resampling.average)
        masks = file.read_masks(list(indexes), out_shape=(3, *shape))
        numbers, masks = _north_up(file, numbers), _north_up(file, masks)
    reflectance = numbers.astype(np.float32) * scale + offset
    valid = (masks.min(axis=0) > 0) & np.isfinite(reflectance).all(axis=0)
    shown = np.clip(np.nan_to_num(reflectance) / BRIGHT, 0, 1) ** (1 / GAMMA)
    rgba = np.zeros((*shape, 4), np.uint8)
    rgba[..., :3] = np.round(np.moveaxis(shown, 0, -1) * 255) * valid[..., None]
    rgba[..., 3] = valid * 255
    _write_png(out_png, rgba)


def _driver(path: Path) -> str:
    """By content, since GeoTIFFs named .jp2 exist; named, so that a VRT in disguise is not opened."""
    with open(path, "rb") as file:
        return "GTiff" if file.read(2) in (b"II", b"MM") else "JP2OpenJPEG"


def _shape(file: Any, max_px: int) -> tuple[int, int]:
    """Height and width of the picture."""
    shrink = min(1.0, max_px / max(file.height, file.width))
    return max(1, round(file.height * shrink)), max(1, round(file.width * shrink))


def _north_up(file: Any, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(...,H,W) -> the same, flipped where rows run north or columns run west."""
    if file.transform.e > 0 and not file.transform.is_identity:
        pixels = pixels[..., ::-1, :]
    return pixels[..., ::-1] if file.transform.a < 0 else pixels


def _write_png(path: Path, rgba: ImageArray) -> None:
    """(H,W,4) uint8 -> PNG (W3C PNG 3rd edition); GDAL's driver would add an .aux.xml and warn about the grid."""
    height, width, _ = rgba.shape
    lines = np.ascontiguousarray(rgba).reshape(height, width * 4)
    filtered = np.empty((height, 1 + width * 4), np.uint8)
    filtered[:, 0] = 2  # every byte less the one above it, section 9.2
    filtered[0, 1:] = lines[0]
    filtered[1:, 1:] = lines[1:] - lines[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b"")
    with storage_trouble(path):
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
