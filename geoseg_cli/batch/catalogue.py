"""Catalogues of scenes: a collection of STAC items in one JSON file, or a table in a Parquet file.

A scene is opened by a path, so an item that is no file of its own becomes one: in ``.geoseg/items`` of the folder that
the run writes to, or, where its assets are files, hidden beside the catalogue. It is written only where its text would
change: what a map was made of stays the same from run to run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from geoseg_cli.batch.journal import FOLDER
from geoseg_cli.batch.tasks import is_file_name
from geoseg_cli.errors import InputError, UsageError
from geoseg_cli.results.storage import storage_trouble

TABLE_SUFFIXES = (".parquet", ".geoparquet")
PATH_COLUMNS = ("path", "location")
_MOST_BYTES = 1 << 30
_MAKE_AGAIN = "make the catalogue again"
_FIELDS = frozenset(
    {"id", "assets", "links", "bbox", "geometry", "type", "stac_version", "stac_extensions", "collection"}
)


def items_of(catalogue: Path) -> list[Mapping[str, Any]] | None:
    """The items of a collection in JSON; None where the file is something else.

    Raises:
        AccessError, StorageError: The file cannot be read.
    """
    if catalogue.suffix.lower() not in (".json", ".geojson") or not os.path.isfile(catalogue):
        return None
    with storage_trouble(catalogue, "read"):
        if catalogue.stat().st_size > _MOST_BYTES:
            return None
        text = catalogue.read_bytes()
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None  # opening it as a scene tells what is wrong
    if not isinstance(parsed, dict) or parsed.get("type") != "FeatureCollection":
        return None
    features = parsed.get("features")
    found: list[Mapping[str, Any]] = [
        item for item in (features if isinstance(features, list) else ()) if isinstance(item, dict) and "assets" in item
    ]
    if not found:
        raise InputError(f"{catalogue} is a collection without STAC items", "give one whose features have assets")
    return found


def rows_of(table: Path) -> Iterator[Path | Mapping[str, Any]]:
    """What each row of a Parquet table stands for: a path, or a STAC item.

    Raises:
        UsageError: pyarrow is not installed.
        InputError: The file is no such table, or has none of the columns that are known.
        StorageError: It cannot be read.
    """
    try:
        from pyarrow import ArrowInvalid, parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            f"{table}: Parquet tables are read with pyarrow, which is not installed", "pip install 'geoseg[catalog]'"
        ) from error
    try:
        with storage_trouble(table, "read"), parquet.ParquetFile(table) as file:
            names = file.schema_arrow.names
            column = next((name for name in PATH_COLUMNS if name in names), None)
            if column is None and not {"id", "assets"} <= set(names):
                raise InputError(
                    f"{table} has no column {' or '.join(PATH_COLUMNS)}, and none of STAC items (id, assets)",
                    f"its columns are {', '.join(names[:20])}",
                )
            for batch in file.iter_batches(columns=[column] if column else None):
                for row in batch.to_pylist():
                    yield _item(row) if column is None else _path(row[column], table)
    except ArrowInvalid as error:
        raise InputError(f"{table} is no Parquet table: {error}", "make it again") from error


def _path(value: Any, table: Path) -> Path:
    if not isinstance(value, str) or not is_file_name(value):
        raise InputError(f"{table} has a row without a path", "leave such rows out")
    return Path(value)


def _item(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of stac-geoparquet as the item that it was made of; the footprint, which no map needs, is left out."""
    known = {name: row[name] for name in ("id", "assets", "links", "collection") if row.get(name) is not None}
    properties = {name: value for name, value in row.items() if name not in _FIELDS}
    fixed = {"type": "Feature", "stac_version": row.get("stac_version") or "1.0.0", "geometry": None}
    without_empty: Mapping[str, Any] = _without_empty(fixed | known | {"properties": properties})
    return without_empty


def _without_empty(value: Any) -> Any:
    """Tables have a place for every asset of any row; those of other rows are empty."""
    if isinstance(value, dict):
        return {name: _without_empty(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_empty(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def place_of(item: Mapping[str, Any], catalogue: Path, home: Path, places: dict[Path, str]) -> Path:
    """A file that can be opened as the scene of an item; it is written where the item has none.

    Args:
        item: As the catalogue has it.
        catalogue: Where it stands.
        home: Folder that the run writes to.
        places: The files that were written for items of this run so far, and their texts; gets this one.

    Raises:
        InputError: The item has no name, or is none, or another item has its name.
        AccessError, StorageError: A folder does not take it.
    """
    name = re.sub(r"[^\w.-]", "_", name_of(item, catalogue))[:150]
    _refuse_no_item(item, f"{catalogue}, item {name}")
    own = next((str(link.get("href")) for link in item.get("links") or () if link.get("rel") == "self"), "")
    if own and "://" not in own and os.path.isfile(catalogue.parent / own):
        return catalogue.parent / own
    hrefs = [str(asset.get("href", "")) for asset in item["assets"].values()]
    if "://" in own or all("://" in href for href in hrefs):
        try:
            whole = _with_whole_addresses(item, own)
        except ValueError as error:
            raise InputError(f"{catalogue}, item {name}: an address is none: {error}", _MAKE_AGAIN) from error
        path, text = home / FOLDER / "items" / f"{name}.json", json.dumps(whole, default=str)
    else:  # assets may only lie beside their item
        path, text = catalogue.parent / f".{name}.item.json", json.dumps(item, default=str)
    if places.setdefault(path, text) != text:
        raise InputError(
            f"{catalogue}: another item is called {name} as well, and a scene goes by its name",
            "give the items ids of their own, or run those of each collection apart, into folders of their own",
        )
    _write(text, path)
    return path


def name_of(item: Mapping[str, Any], catalogue: Path) -> str:
    """An item's id.

    Raises:
        InputError: It has none, or one that no file can have.
    """
    name = str(item.get("id") or "").strip(".")
    if not is_file_name(name):
        raise InputError(f"{catalogue} holds an item without an id that can name a file", "give every item one")
    return name


def _refuse_no_item(item: Mapping[str, Any], where: str) -> None:
    assets, links = item.get("assets"), item.get("links") or []
    parts = [
        *(assets.values() if isinstance(assets, dict) else [None]),
        *(links if isinstance(links, list) else [None]),
    ]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{where}: its assets are no object of objects, or its links no list of objects", _MAKE_AGAIN)


def _write(text: str, path: Path) -> None:
    with storage_trouble(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text("utf-8") != text:
            fresh = path.with_name(f".{path.name[:150]}.{os.getpid()}")
            fresh.write_text(text, "utf-8")
            os.replace(fresh, path)


def _with_whole_addresses(item: Mapping[str, Any], own: str) -> Mapping[str, Any]:
    assets = {
        name: {**asset, "href": urljoin(own, str(asset["href"]))} if "href" in asset else asset
        for name, asset in item["assets"].items()
    }
    return {**item, "assets": assets}
