"""A scene named by a STAC item (stac-spec 1.0 and 1.1, eo and raster extensions): its assets are the bands.

Only assets of reflectance are taken: those whose bands :mod:`geoseg_cli.scenes.stac_bands` can tell. Files beside the
item are read; what lies on a network only if that is allowed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

from geoseg_cli.catalog import common_names
from geoseg_cli.errors import InputError
from geoseg_cli.scenes.network import gdal_name, is_remote, read_remote, redacted
from geoseg_cli.scenes.product import Layer, Product, Quality, Statement
from geoseg_cli.scenes.sentinel2_metadata import scene_classification
from geoseg_cli.scenes.stac_bands import ItemBand, bands_of_item, driver_of_asset

MAX_ITEM_BYTES: Final = 32 << 20
_FIRST_BASELINE_WITH_OFFSET: Final = (4, 0)


def find(path: Path | str, allow_network: bool = False) -> Product | None:
    """Describe the scene of an item.

    Args:
        path: Absolute path, or the address, of a JSON file.
        allow_network: Whether assets and items may be fetched from a network.

    Returns:
        None where the file is no STAC item.

    Raises:
        InputError: It is one and cannot be used.
    """
    item = _item(path, allow_network)
    if item is None:
        return None
    where = redacted(str(path)) if is_remote(str(path)) else str(path)
    chosen, sensor, warnings = bands_of_item(item, where)
    if not chosen:
        raise InputError(
            f"{where}: no asset of this STAC item tells its band: by a common name (eo:common_name), a name of the"
            " sensor's own, or a wavelength that only one band has (eo:center_wavelength)",
            f"known common names: {', '.join(common_names())}; or give the files themselves",
        )
    layers = tuple(
        Layer(band.layer.name, _located(band.layer.file, path, allow_network), band.layer.driver, band.layer.number,
              band.layer.nodata)
        for band in chosen
    )  # fmt: skip
    statement = _statement(item, chosen)
    members = [Path(where)] if not is_remote(where) else []
    members += [Path(layer.file) for layer in layers if not layer.file.startswith("/vsi")]
    title = f"STAC item {str(item.get('id', ''))[:80]}"
    quality = _quality(item, path, allow_network)
    members = list(dict.fromkeys(members))
    return Product(title, Path(where), layers, sensor, statement, quality, tuple(members), warnings=warnings)


def _item(path: Path | str, allow_network: bool) -> dict[str, Any] | None:
    """The parsed item, or None for other JSON."""
    if is_remote(str(path)):
        text = read_remote(str(path), MAX_ITEM_BYTES, allow_network)
    else:
        if Path(path).stat().st_size > MAX_ITEM_BYTES:
            return None
        text = Path(path).read_bytes()
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or parsed.get("type") != "Feature" or "stac_version" not in parsed:
        return None
    if not isinstance(parsed.get("assets"), dict) or not isinstance(parsed.get("properties"), dict):
        raise InputError(f"{path}: this STAC item has no assets or no properties", "give a whole item")
    return parsed


def _statement(item: Mapping[str, Any], bands: Sequence[ItemBand]) -> Statement | None:
    """What the item says of the numbers.

    Catalogues subtract the +1000 of Sentinel-2 and leave ``offset`` as it was; ``earthsearch:boa_offset_applied`` tells
    it for the largest of them.
    """
    if all(band.scale is None for band in bands):
        return None
    is_applied = item["properties"].get("earthsearch:boa_offset_applied")
    scales = tuple(band.scale for band in bands)
    if is_applied is True:
        reason = "as raster:scale of the STAC item says; earthsearch:boa_offset_applied: the offset is in the numbers"
        offsets: tuple[float | None, ...] = (0.0,) * len(bands)
    else:
        reason, offsets = (
            "as raster:scale and raster:offset of the STAC item say",
            tuple(band.offset for band in bands),
        )
    pairs = [pair for pair in zip(scales, offsets, strict=True) if None not in pair]
    formulas = {f"{scale:g} x number {offset:+g}" for scale, offset in pairs}
    contradiction = "" if is_applied is True else _baseline_contradiction(item, pairs)
    return Statement("stac", f"{'; '.join(sorted(formulas))}, {reason}", scales, offsets, contradiction)


def _baseline_contradiction(item: Mapping[str, Any], pairs: list[tuple[float | None, float | None]]) -> str:
    """What the processing baseline of Sentinel-2 says against the offsets; ``""`` where they go together."""
    baseline = item["properties"].get("s2:processing_baseline")
    found = re.fullmatch(r"(\d{1,2})\.(\d{2})", baseline) if isinstance(baseline, str) else None
    if found is None or baseline == "99.99" or not pairs:
        return ""
    has_offset = (int(found[1]), int(found[2])) >= _FIRST_BASELINE_WITH_OFFSET
    if all(bool(offset) is has_offset for _, offset in pairs):
        return ""
    said = "carry the +1000" if has_offset else "carry no offset"
    return f"numbers of s2:processing_baseline {baseline} {said}, and nothing says that it was changed since"


def _quality(item: Mapping[str, Any], path: Path | str, allow_network: bool) -> Quality | None:
    """The scene classification of Sentinel-2 L2A, where the item has it."""
    asset = next((asset for key, asset in item["assets"].items() if key.casefold() == "scl"), None)
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
        return None
    driver = driver_of_asset(asset)
    if driver is None:
        return None
    return scene_classification(_located(asset["href"], path, allow_network), driver)


def _is_text(href: str) -> bool:
    """Whether all of it are characters: JSON can hold halves of surrogate pairs, which no file is called by."""
    try:
        href.encode()
    except UnicodeEncodeError:
        return False
    return True


def _located(href: str, item: Path | str, allow_network: bool) -> str:
    """What GDAL opens for a link of an item.

    Raises:
        InputError: It leads out of the item's folder, or to a network that is not allowed.
    """
    if not _is_text(href):
        raise InputError(f"{redacted(str(item))}: the link {ascii(href)[:200]} is no text", "correct it in the item")
    if href.startswith("/vsi"):
        raise InputError(f"{redacted(str(item))}: {redacted(href)} is no link", "give it as an address, or as a file")
    if is_remote(str(item)):
        # Two slashes: pathlib takes one of them away.
        href = urljoin(re.sub(r"^(\w+):/+", r"\1://", str(item)), href)
        if not is_remote(href):
            raise InputError(f"{redacted(str(item))}: {href} is no address", "save the item, and edit the link")
    if is_remote(href):
        return gdal_name(href, allow_network)
    folder = Path(item).parent
    parts = urlsplit(href)
    relative = unquote(parts.path if parts.scheme == "file" and parts.netloc in ("", "localhost") else href)
    found = Path(os.path.realpath(folder / relative.replace("\0", "")))
    if not found.is_relative_to(os.path.realpath(folder)):
        raise InputError(
            f"{item}: the asset {href} lies outside of the item's folder", "put the files beside the item, or name them"
        )
    return str(found)
