"""When a scene was taken, as its metadata or the published form of its product's name state."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from geoseg_cli.errors import GeosegError
from geoseg_cli.scenes.landsat import read_mtl
from geoseg_cli.scenes.product import Product

_NAMES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # Sentinel-2 product specification, section on names: sensing start of the data take.
    (re.compile(r"(?:^|[/\\])S2[A-D]_MSIL(?:1C|2A)_(\d{8}T\d{6})_N\d{4}_"), "%Y%m%dT%H%M%S"),
    # HLS user guide 2.0: year, day of the year and time of the scene.
    (re.compile(r"(?:^|[/\\])HLS\.[LS]30\.T\w{5}\.(\d{7}T\d{6})\.v2"), "%Y%jT%H%M%S"),
)
_PLANET: Final = re.compile(r"(\d{8}_\d{6})_")
"""Names of PlanetScope scenes begin with date and time."""

_MOST_BYTES: Final = 32 << 20


def acquisition_time(product: Product) -> datetime | None:
    """When the scene of a product was taken, UTC.

    A name counts only where the maker's specification says what it means; the time stamp of a file never does.

    Returns:
        None where nothing states it, or what states it cannot be understood: a map does not fail for it.
    """
    readers: tuple[tuple[str, Callable[[Product], datetime | None]], ...] = (
        ("STAC item", _of_item),
        ("Landsat", _of_mtl),
        ("PlanetScope", _of_planet_name),
    )
    read = next((reader for layout, reader in readers if product.layout.startswith(layout)), _of_name)
    try:
        return read(product)
    except (GeosegError, OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return None


def _of_item(product: Product) -> datetime | None:
    if not product.members or product.members[0].stat().st_size > _MOST_BYTES:
        return None
    stated = json.loads(product.members[0].read_bytes())["properties"]["datetime"]
    return _utc(datetime.fromisoformat(stated)) if stated else None


def _of_mtl(product: Product) -> datetime | None:
    values = {key: value for group in read_mtl(product.members[0]).values() for key, value in group.items()}
    day, time = values["DATE_ACQUIRED"], values["SCENE_CENTER_TIME"].strip('"')
    return _utc(datetime.fromisoformat(f"{day}T{time[:15]}".rstrip("Z")))


def _of_planet_name(product: Product) -> datetime | None:
    found = _PLANET.match(Path(product.layers[0].file).name)
    return _utc(datetime.strptime(found[1], "%Y%m%d_%H%M%S")) if found else None


def _of_name(product: Product) -> datetime | None:
    files = [layer.file for layer in product.layers[:1]]
    for text in (product.name, str(product.path), *files):
        for pattern, form in _NAMES:
            if found := pattern.search(text):
                return _utc(datetime.strptime(found[1], form))
    return None


def _utc(moment: datetime) -> datetime:
    """A moment without a time zone is UTC in all of these."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
