"""Whose bands a STAC item lists: its platform, instruments, constellation and collection tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from geoseg_cli.catalog import Sensor, sensors
from geoseg_cli.scenes.bands import fits


def sensors_of_item(item: Mapping[str, Any]) -> tuple[tuple[Sensor, ...], tuple[str, ...]]:
    """The sensors that an item may be of: several have the same platform, as Landsat 8 and HLS L30.

    Args:
        item: With its properties.

    Returns:
        The sensors, none where nothing tells, and warnings.
    """
    stated = _stated(item)
    told = {key: _listing(key, words) for key, words in stated.items()}
    # Unknown platforms and collections say nothing. Unknown instruments do: Landsat 5 also carried the MSS.
    able = [one for key, one in told.items() if one or key == "instruments"]
    if not any(able):
        return (), ()
    shared = tuple(sensor for sensor in sensors().values() if all(sensor in one for one in able))
    if shared:
        return shared, ()
    words = ", ".join(f"{key} {' and '.join(texts)[:60]}" for key, texts in stated.items())
    return (), (f"the STAC item names no one sensor ({words!a}): the names of the bands must tell",)


def sensor_with(names: Sequence[str], able: Sequence[Sensor]) -> str | None:
    """The one of several sensors that has bands of these names, each name given once; None where none stands out."""
    fitting = [sensor for sensor in able if fits(sensor, tuple(names))] or list(able)
    if len(fitting) > 1:
        fitting = [sensor for sensor in fitting if not sensor.only_when_named]
    return fitting[0].name if fitting else None


def _stated(item: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the item says, by the name of the list in ``data/sensors.toml`` that knows it."""
    properties = item["properties"]
    found = {
        "platforms": [properties.get("platform")],
        "instruments": properties.get("instruments"),
        "constellations": [properties.get("constellation")],
        "collections": [item.get("collection")],
    }
    texts = {
        key: [one for one in many if isinstance(one, str)] for key, many in found.items() if isinstance(many, list)
    }
    return {key: many for key, many in texts.items() if many}


def _listing(key: str, words: Iterable[str]) -> list[Sensor]:
    """Sensors that list one of the words."""
    said = {_plain(word) for word in words}

    def is_listed(sensor: Sensor) -> bool:
        known = {_plain(word) for word in getattr(sensor, key)}
        if key == "collections":
            return any(word.startswith(beginning) for word in said for beginning in known)
        return bool(said & known)

    return [sensor for sensor in sensors().values() if is_listed(sensor)]


def _plain(word: str) -> str:
    return re.sub(r"[\s_-]", "", word).casefold()
