"""A scene named by a STAC item (stac-spec 1.0 and 1.1, eo and raster extensions): its assets are the bands.

Only assets of reflectance are taken: an asset, or each of its bands, must carry a common name. Files beside the item
are read; what lies on a network only if that is allowed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

from geoseg_cli.catalog import common_names
from geoseg_cli.errors import InputError
from geoseg_cli.scenes.bands import known_names
from geoseg_cli.scenes.network import gdal_name, is_remote, read_remote, redacted
from geoseg_cli.scenes.product import Driver, Layer, Product, Quality, Statement

MAX_ITEM_BYTES: Final = 32 << 20
_DRIVERS: Final[dict[str, Driver]] = {
    "image/tiff": "GTiff",
    "image/vnd.stac.geotiff": "GTiff",
    "image/jp2": "JP2OpenJPEG",
}
_ENDINGS: Final[dict[str, Driver]] = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}
_FIRST_BASELINE_WITH_OFFSET: Final = (4, 0)
_NOT_BANDS: Final = {"thumbnail", "overview", "visual", "metadata", "date"}
"""Roles, and names of assets, of pictures and papers; Planetary Computer says ``data`` of a picture named visual."""


@dataclass(frozen=True, slots=True)
class _Band:
    """A band of an asset.

    Attributes:
        layer: Where it is; its name is the common one.
        scale, offset: What the item says of its numbers; None for nothing, or for something that is no number.
            An offset that is not there is 0.
        own_names: What item and asset call it besides.
    """

    layer: Layer
    scale: float | None
    offset: float | None
    own_names: tuple[str, ...] = ()


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
    bands = [band for key, asset in item["assets"].items() for band in _bands(key, asset, item, where)]
    chosen = _one_each(_told_apart(bands), where)
    if not chosen:
        raise InputError(
            f"{where}: no asset of this STAC item has a common name of a band (eo:common_name)",
            f"known names: {', '.join(common_names())}; or give the files themselves",
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
    return Product(title, Path(where), layers, None, statement, quality, tuple(dict.fromkeys(members)))


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


def _bands(key: str, asset: Any, item: Mapping[str, Any], where: str) -> Iterator[_Band]:
    """The bands that an asset holds; none for pictures and metadata."""
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
        return
    driver = _driver(asset)
    if driver is None or {key.casefold(), *_texts(asset.get("roles"))} & _NOT_BANDS:
        return
    listed = _tables(asset.get("bands")) or _tables(asset.get("eo:bands")) or [{}]
    raster = _tables(asset.get("raster:bands"))
    for number, band in enumerate(listed, start=1):
        details = {**(raster[number - 1] if number <= len(raster) else {}), **band}
        name = details.get("eo:common_name") or details.get("common_name") or asset.get("eo:common_name")
        if not isinstance(name, str) or name.casefold() not in common_names():
            continue
        scale = _number(details, asset, "scale")
        offset = _number(details, asset, "offset") if _says(details, asset, "offset") else 0.0
        nodata = _number(details, asset, "nodata")
        layer = Layer(name.casefold(), asset["href"], driver, number, "file" if nodata is None else nodata)
        # A scale of 0 is none: the ladder of radiometry then asks the user.
        yield _Band(layer, scale or None, offset, _texts([details.get("name"), key]))


def _texts(found: Any) -> tuple[str, ...]:
    """The texts of a list that may be anything."""
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _tables(found: Any) -> list[dict[str, Any]]:
    """A list of tables that may be anything; what is no table is an empty one, so that numbers stay."""
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def _driver(asset: Mapping[str, Any]) -> Driver | None:
    kind = str(asset.get("type", "")).split(";")[0].strip().lower()
    try:
        ending = Path(urlsplit(asset["href"]).path).suffix.lower()
    except ValueError:  # an address such as http://[
        return None
    return _DRIVERS.get(kind) or (_ENDINGS.get(ending) if not kind else None)


def _number(band: Mapping[str, Any], asset: Mapping[str, Any], word: str) -> float | None:
    """A number by its name in STAC 1.0 (raster:bands) or 1.1 (common bands)."""
    for holder, key in ((band, f"raster:{word}"), (band, word), (asset, f"raster:{word}"), (asset, word)):
        if isinstance(value := holder.get(key), int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def _says(band: Mapping[str, Any], asset: Mapping[str, Any], word: str) -> bool:
    """Whether something stands where :func:`_number` looks, a number or not."""
    return any(holder.get(key) is not None for holder in (band, asset) for key in (word, f"raster:{word}"))


def _told_apart(bands: list[_Band]) -> list[_Band]:
    """Bands that share a common name take their own ones, where those are known: all red edges were ``rededge``."""
    places: dict[str, set[tuple[str, str, int]]] = {}
    for band in bands:
        layer = band.layer
        places.setdefault(layer.name, set()).add((layer.driver, layer.file, layer.number))

    def is_shared(band: _Band) -> bool:
        return max(Counter(driver for driver, _, _ in places[band.layer.name]).values()) > 1

    return [_renamed(band) if is_shared(band) else band for band in bands]


def _renamed(band: _Band) -> _Band:
    """The band under the first of its own names that some sensor knows; as it is where there is none."""
    known = (name for name in band.own_names if name.casefold() in known_names())
    return replace(band, layer=replace(band.layer, name=next(known, band.layer.name)))


def _one_each(bands: list[_Band], where: str) -> list[_Band]:
    """One band of each name, a TIFF before a JPEG 2000.

    Raises:
        InputError: A name stands for two files of one format.
    """
    best: dict[str, _Band] = {}
    for band in sorted(bands, key=lambda one: one.layer.driver != "GTiff"):
        name = band.layer.name
        if name not in best:
            best[name] = band
        elif best[name].layer.driver == band.layer.driver and _place(best[name]) != _place(band):
            first, second = (redacted(one.layer.file) for one in (best[name], band))
            raise InputError(
                f"{where}: two bands are called {name}: in {first} and {second}", "take one of them out of the item"
            )
    return list(best.values())


def _place(band: _Band) -> tuple[str, int]:
    return band.layer.file, band.layer.number


def _statement(item: Mapping[str, Any], bands: list[_Band]) -> Statement | None:
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
    driver = _driver(asset)
    if driver is None:
        return None
    layer = Layer("SCL", _located(asset["href"], path, allow_network), driver, 1, None)
    return Quality(layer, (0, 1), 0, "SCL classes 0 and 1")


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
    found = (folder / relative.replace("\0", "")).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise InputError(
            f"{item}: the asset {href} lies outside of the item's folder", "put the files beside the item, or name them"
        )
    return str(found)
