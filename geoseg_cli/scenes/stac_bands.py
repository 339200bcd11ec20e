"""The bands that a STAC item lists (stac-spec 1.0 and 1.1, eo and raster extensions), and what they are called.

A common name tells first, then a name of the sensor's own, then the wavelength; what none of them tells is no band.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from geoseg_cli.catalog import Sensor, common_names, sensors
from geoseg_cli.errors import InputError
from geoseg_cli.scenes.bands import known_names
from geoseg_cli.scenes.network import redacted
from geoseg_cli.scenes.product import Driver, Layer
from geoseg_cli.scenes.stac_sensor import sensor_with, sensors_of_item
from geoseg_cli.scenes.wavelengths import are_one_band, named_by_wavelength

_DRIVERS: Final[dict[str, Driver]] = {
    "image/tiff": "GTiff",
    "image/vnd.stac.geotiff": "GTiff",
    "image/jp2": "JP2OpenJPEG",
}
_ENDINGS: Final[dict[str, Driver]] = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}
_NOT_BANDS: Final = {"thumbnail", "overview", "visual", "metadata", "date"}
"""Roles, and names of assets, of pictures and papers; Planetary Computer says ``data`` of a picture named visual."""


@dataclass(frozen=True, slots=True)
class ItemBand:
    """A band of an asset.

    Attributes:
        layer: Where it is; its name is ``""`` until something tells it.
        scale, offset: What the item says of its numbers; None for nothing, or for something that is no number.
            An offset that is not there is 0.
        own_names: What item and asset call it besides.
        wavelength_nm: Its centre, where the item says so.
    """

    layer: Layer
    scale: float | None
    offset: float | None
    own_names: tuple[str, ...] = ()
    wavelength_nm: float | None = None

    @property
    def place(self) -> tuple[str, int]:
        """File and number: where its pixels are."""
        return self.layer.file, self.layer.number

    def named(self, name: str) -> ItemBand:
        """The same band under a name."""
        return replace(self, layer=replace(self.layer, name=name))


def bands_of_item(item: Mapping[str, Any], where: str) -> tuple[list[ItemBand], str | None, tuple[str, ...]]:
    """The bands of an item that something names, each once.

    Args:
        item: With its assets and properties.
        where: What the error message calls it.

    Returns:
        The bands; whose they are, as in ``data/sensors.toml``, None where nothing tells; and warnings.

    Raises:
        InputError: A name stands for two files of one format.
    """
    able, warnings = sensors_of_item(item)
    bands = _told_apart([band for key, asset in item["assets"].items() for band in _bands(key, asset)])
    bands = _told_by_own_names(bands, able or tuple(sensors().values()))
    sensor = sensor_with(list(dict.fromkeys(band.layer.name for band in bands if band.layer.name)), able)
    return _one_each(_told_by_wavelengths(bands, sensor), where), sensor, warnings


def _bands(key: str, asset: Any) -> Iterator[ItemBand]:
    """The bands that an asset holds, with their common names; none for pictures and metadata."""
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
        return
    driver = driver_of_asset(asset)
    if driver is None or {key.casefold(), *_texts(asset.get("roles"))} & _NOT_BANDS:
        return
    listed = _tables(asset.get("bands")) or _tables(asset.get("eo:bands")) or [{}]
    raster = _tables(asset.get("raster:bands"))
    for number, band in enumerate(listed, start=1):
        details = {**(raster[number - 1] if number <= len(raster) else {}), **band}
        name = details.get("eo:common_name") or details.get("common_name") or asset.get("eo:common_name")
        common = name.casefold() if isinstance(name, str) and name.casefold() in common_names() else ""
        scale = _number(details, asset, "scale")
        offset = _number(details, asset, "offset") if _says(details, asset, "offset") else 0.0
        nodata = _number(details, asset, "nodata")
        layer = Layer(common, asset["href"], driver, number, "file" if nodata is None else nodata)
        own_names = _texts([details.get("name"), *([key] if len(listed) == 1 else [])])
        wavelength_nm = _wavelength_nm(details, asset if len(listed) == 1 else {})
        # A scale of 0 is none: the ladder of radiometry then asks the user.
        yield ItemBand(layer, scale or None, offset, own_names, wavelength_nm)


def _wavelength_nm(band: Mapping[str, Any], asset: Mapping[str, Any]) -> float | None:
    """The stated centre wavelength: the extension has it in micrometres, with a prefix from version 2 on."""
    places = ((band, "eo:center_wavelength"), (band, "center_wavelength"), (asset, "eo:center_wavelength"))
    for holder, key in places:
        if (value := _finite(holder.get(key))) is not None:
            return 1000.0 * value
    return None


def _texts(found: Any) -> tuple[str, ...]:
    """The texts of a list that may be anything."""
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _tables(found: Any) -> list[dict[str, Any]]:
    """A list of tables that may be anything; what is no table is an empty one, so that numbers stay."""
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def driver_of_asset(asset: Mapping[str, Any]) -> Driver | None:
    kind = str(asset.get("type", "")).split(";")[0].strip().lower()
    try:
        ending = Path(urlsplit(asset["href"]).path).suffix.lower()
    except ValueError:  # an address such as http://[
        return None
    return _DRIVERS.get(kind) or (_ENDINGS.get(ending) if not kind else None)


def _number(band: Mapping[str, Any], asset: Mapping[str, Any], word: str) -> float | None:
    """A number by its name in STAC 1.0 (raster:bands) or 1.1 (common bands)."""
    for holder, key in ((band, f"raster:{word}"), (band, word), (asset, f"raster:{word}"), (asset, word)):
        if (value := _finite(holder.get(key))) is not None:
            return value
    return None


def _finite(value: Any) -> float | None:
    """A number that is one; JSON can hold whole ones that no float can be."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _says(band: Mapping[str, Any], asset: Mapping[str, Any], word: str) -> bool:
    """Whether something stands where :func:`_number` looks, a number or not."""
    return any(holder.get(key) is not None for holder in (band, asset) for key in (word, f"raster:{word}"))


def _told_apart(bands: Sequence[ItemBand]) -> list[ItemBand]:
    """Bands that share a common name take their own ones, where those are known: all red edges were ``rededge``."""
    places: dict[str, set[tuple[str, str, int]]] = {}
    for band in bands:
        places.setdefault(band.layer.name, set()).add((band.layer.driver, *band.place))

    def is_shared(band: ItemBand) -> bool:
        return max(Counter(driver for driver, _, _ in places[band.layer.name]).values()) > 1

    def own_name(band: ItemBand) -> str:
        known = (name for name in band.own_names if name.casefold() in known_names())
        return next(known, band.layer.name)

    return [band.named(own_name(band)) if band.layer.name and is_shared(band) else band for band in bands]


def _told_by_own_names(bands: Sequence[ItemBand], able: Sequence[Sensor]) -> list[ItemBand]:
    """Bands without a name get one of their own that a sensor knows, unless a band with a name is that one."""
    taken = [band.layer.name for band in bands if band.layer.name]

    def own_name(band: ItemBand) -> str:
        known = (name for name in band.own_names if any(sensor.find(name) for sensor in able))
        name = next(known, "")
        return "" if name and any(are_one_band(name, other, able) for other in taken) else name

    return [band if band.layer.name else band.named(own_name(band)) for band in bands]


def _told_by_wavelengths(bands: Sequence[ItemBand], sensor: str | None) -> list[ItemBand]:
    """Bands with a name, or with one by their wavelength; TIFF and JPEG 2000 may hold the same ones."""
    names = [band.layer.name for band in bands]
    for driver in dict.fromkeys(band.layer.driver for band in bands):
        group = [place for place, band in enumerate(bands) if band.layer.driver == driver]
        waves = [bands[place].wavelength_nm for place in group]
        for place, name in zip(group, named_by_wavelength([names[p] for p in group], waves, sensor), strict=True):
            names[place] = name
    return [band.named(name) for band, name in zip(bands, names, strict=True) if name]


def _one_each(bands: list[ItemBand], where: str) -> list[ItemBand]:
    """One band of each name, a TIFF before a JPEG 2000.

    Raises:
        InputError: A name stands for two files of one format.
    """
    best: dict[str, ItemBand] = {}
    for band in sorted(bands, key=lambda one: one.layer.driver != "GTiff"):
        name = band.layer.name
        if name not in best:
            best[name] = band
        elif best[name].layer.driver == band.layer.driver and best[name].place != band.place:
            first, second = (redacted(one.layer.file) for one in (best[name], band))
            raise InputError(
                f"{where}: two bands are called {name}: in {first} and {second}", "take one of them out of the item"
            )
    return list(best.values())
