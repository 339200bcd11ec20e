"""What a damaged file says, read by other means than geoseg's: rasterio plainly, json, ElementTree, numpy, onnx."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

Pixels = npt.NDArray[Any]


class Wrong(AssertionError):
    """What geoseg gave without a word is not what the file says."""


class Unjudged(Exception):
    """The other reader cannot read what geoseg read, so nobody can tell."""


def require(is_right: bool, text: str) -> None:
    """Raise :class:`Wrong` unless it is right."""
    if not is_right:
        raise Wrong(text)


def require_equal(found: Pixels, right: Pixels, text: str) -> None:
    require(found.shape == right.shape, f"{text}: shape {found.shape} for {right.shape}")
    same = (found == right) | ((found != found) & (right != right))
    require(bool(same.all()), f"{text}: {int((~same).sum())} of {same.size} differ")


def plain_read(path: Path, driver: str, numbers: tuple[int, ...], rows: slice, cols: slice) -> tuple[Pixels, Pixels]:
    """Numbers (P, h, w) and validity (h, w) as rasterio gives them, with validity of the bands taken together."""
    window = ((rows.start, rows.stop), (cols.start, cols.stop))
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"),
        rasterio.open(path, driver=driver, sharing=False) as file,
    ):
        planes = [file.read(number, window=window) for number in numbers]
        valid = np.ones(planes[0].shape, np.bool_)
        for number, plane in zip(numbers, planes, strict=True):
            nodata = file.nodatavals[number - 1]
            valid &= np.isfinite(plane)
            # Numbers as they are: uint64 and float64 together would lose digits.
            if nodata is not None and np.isfinite(nodata):
                valid &= np.array([int(nodata) if float(nodata).is_integer() else nodata], dtype=object)[0] != plane
            if MaskFlags.per_dataset in file.mask_flag_enums[number - 1]:
                valid &= _own_mask(file, number, window)
        if ColorInterp.alpha in file.colorinterp:
            valid &= file.read(file.colorinterp.index(ColorInterp.alpha) + 1, window=window) != 0
    kinds = {plane.dtype for plane in planes}
    return np.stack([plane if len(kinds) == 1 else plane.astype(np.float32) for plane in planes]), valid


def _own_mask(file: Any, number: int, window: Any) -> Pixels:
    return np.asarray(file.read_masks(number, window=window)) != 0


def safetensors_of(data: bytes) -> dict[str, Pixels]:
    """Tensors of a safetensors file (format of the safetensors project: length, JSON header, bytes).

    Raises:
        Unjudged: A type that numpy lacks.
    """
    (length,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I32": "<i4", "I64": "<i8", "U8": "u1", "I8": "i1", "I16": "<i2"}
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in kinds:
            raise Unjudged(entry["dtype"])
        start, stop = entry["data_offsets"]
        tensors[name] = np.frombuffer(body[start:stop], kinds[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def onnx_answer(data: bytes, pixels: Pixels) -> Pixels:
    """What the onnx project's own evaluator computes.

    Raises:
        Unjudged: It does not run the graph.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    try:
        model = onnx.load_from_string(data)
        with np.errstate(all="ignore"):
            (answer,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: pixels})
    except Exception as error:  # any: it is written in Python and checks little
        raise Unjudged(type(error).__name__) from error
    return np.asarray(answer)


def safe_numbers(xml: bytes) -> tuple[float, dict[int, float], float | None]:
    """Divisor, offsets by ``band_id`` and the number for no data, as the metadata of an L1C product state them."""
    root = ElementTree.fromstring(xml)

    def local(tag: str) -> list[ElementTree.Element]:
        return [one for one in root.iter() if one.tag.rpartition("}")[2] == tag]

    divisor = float(local("QUANTIFICATION_VALUE")[0].text or "")
    offsets = {int(one.get("band_id") or ""): float(one.text or "") for one in local("RADIO_ADD_OFFSET")}
    special = {}
    for one in local("Special_Values"):
        words = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in one}
        special[words.get("SPECIAL_VALUE_TEXT")] = words.get("SPECIAL_VALUE_INDEX")
    nodata = special.get("NODATA")
    return divisor, offsets, None if nodata is None else float(nodata)
