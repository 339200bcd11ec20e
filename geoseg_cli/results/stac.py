"""``MAP.json``: the catalogue entry of a map, an item of stac-spec 1.1.0.

Only fields that the published schemas of the extensions below know are written, and nothing that the map's own tags,
grid and pixel counts do not say.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from geoseg_cli.bundle import sha256_of
from geoseg_cli.grid import Grid
from geoseg_cli.printable import printable
from geoseg_cli.results.creation_options import RasterFormat
from geoseg_cli.results.description import CLEANING_TAG, COMPOSITE_TAG, PIXELS_TAG, MapDescription
from geoseg_cli.results.raster import RasterSpec

STAC_VERSION = "1.1.0"
MEDIA_TYPES: Mapping[RasterFormat, str] = {
    "cog": "image/tiff; application=geotiff; profile=cloud-optimized",
    "gtiff": "image/tiff; application=geotiff",
}
SHA256_MULTIHASH = "1220"
"""Multihash prefix: function sha2-256, 32 bytes."""

SOFTWARE = "geoseg"

EARLIEST = datetime(1972, 7, 23, tzinfo=UTC)
"""Launch of Landsat 1: where nothing states when a scene was taken, it was not before."""

_EXTENSIONS = {
    "proj": "projection/v2.0.0",
    "raster": "raster/v1.1.0",
    "classification": "classification/v2.0.0",
    "processing": "processing/v1.1.0",
    "file": "file/v2.1.0",
}
_CLOUD_EXTENSION = "eo/v1.1.0"


@dataclass(frozen=True, slots=True)
class Asset:
    """One raster of a run.

    Attributes:
        kind: What it is.
        target: Where it will lie.
        file: Where it lies now.
        spec: Its bands.
        format: What the file is.
    """

    kind: Literal["labels", "probabilities", "confidence", "entropy", "seams"]
    target: Path
    file: Path
    spec: RasterSpec
    format: RasterFormat = "cog"


@dataclass(frozen=True, slots=True)
class VectorAsset:
    """Polygons of the map.

    Attributes:
        target: Where they will lie.
        file: Where they lie now.
        media_type: What the file is.
    """

    target: Path
    file: Path
    media_type: str
    kind: Literal["polygons"] = "polygons"


def stac_item(
    description: MapDescription, assets: Sequence[Asset | VectorAsset], source: Path | str | None
) -> dict[str, Any]:
    """The catalogue entry of a map.

    Args:
        description: The map.
        assets: What the run wrote, the map itself first.
        source: The scene: its address, or its path, which is written only where it is near the map; None for none.

    Raises:
        OSError: A file cannot be read.
    """
    from geoseg_cli.results.footprint import footprint

    folder = assets[0].target.parent
    place = footprint(description.grid)
    cloud = {} if description.cloud_percent is None else {"eo:cloud_cover": _percent(description.cloud_percent)}
    extensions = [*_EXTENSIONS.values(), *([_CLOUD_EXTENSION] if cloud else [])]
    hrefs = {asset.kind: near_href(asset.target, folder) for asset in assets}
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in extensions],
        "id": printable(assets[0].target.stem),
        "geometry": place[0] if place else None,
        **({"bbox": place[1]} if place else {}),
        "properties": {
            **times(description),
            **cloud,
            **projection(description.grid),
            "processing:software": {SOFTWARE: description.tags["GEOSEG_VERSION"]},
            "processing:lineage": lineage(description),
        },
        "links": _links(description, source, folder),
        "assets": {asset.kind: _asset(description, asset, href) for asset in assets if (href := hrefs[asset.kind])},
    }


def near_href(path: Path, folder: Path) -> str | None:
    """A path as seen from a folder: beside it, below it, or below its neighbours.

    None for everything further away: that path would tell how somebody's disk is laid out.
    """
    parts = Path(os.path.relpath(path.absolute(), folder.absolute())).parts
    if parts[:2] == ("..", "..") or parts in (("..",), ()):
        return None
    # RFC 3986; Path.as_uri knows absolute paths only.
    text = "/".join(quote(os.fsencode(part)) for part in parts)
    return text if parts[0] == ".." else f"./{text}"


def checksum(path: Path) -> str:
    """SHA-256 of a file as a multihash."""
    return SHA256_MULTIHASH + sha256_of(path)


def lineage(description: MapDescription) -> str:
    """How the map was made, for a person."""
    tags = description.tags
    text = f"{_origin(tags)}; counts and percentages are of pixels with an answer"
    if CLEANING_TAG in tags:
        text += f"; cleaned: {tags[CLEANING_TAG]}"
    if description.cloud_percent is not None:
        text += "; cloud cover counts thick and thin cloud, not shadow"
    return printable(text)


def _origin(tags: Mapping[str, str]) -> str:
    """What the map was made from, and by what."""
    model = f"{tags['GEOSEG_MODEL']} (sha256 {tags['GEOSEG_MODEL_SHA256']})" if "GEOSEG_MODEL" in tags else ""
    if COMPOSITE_TAG in tags:
        made_by = f" of {model}" if model else ""
        return f"{tags['GEOSEG_INPUT']}{made_by} (sha256 of their list {tags['GEOSEG_COMPOSITE_SHA256']})"
    engine = f"engine {tags['GEOSEG_ENGINE']} on {tags['GEOSEG_DEVICE']}, {tags['GEOSEG_PRECISION']}"
    return f"{model} on {tags['GEOSEG_INPUT']}; {engine}"


def class_objects(description: MapDescription) -> list[dict[str, Any]]:
    """Classes as objects of the classification extension, with what each one covers."""
    valid = description.valid_pixels
    return [
        row | {"title": printable(row["title"]), "count": area.pixels}
        | ({"percentage": _percent(100 * area.pixels / valid)} if valid else {})
        for row, area in zip(description.legend.stac_classes(), description.areas, strict=True)
    ]  # fmt: skip


def rfc3339(moment: datetime) -> str:
    """UTC, to the millisecond where there are any."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def times(description: MapDescription) -> dict[str, Any]:
    """When the scene was taken and the map was made."""
    created = rfc3339(description.written)
    if description.acquired is not None:
        return {"datetime": rfc3339(description.acquired), "created": created}
    if description.acquired_between is not None:
        first, last = map(rfc3339, description.acquired_between)
        return {"datetime": None, "start_datetime": first, "end_datetime": last, "created": created}
    # The specification wants an interval where there is no moment; this one holds every scene.
    return {"datetime": None, "start_datetime": rfc3339(EARLIEST), "end_datetime": created, "created": created}


def projection(grid: Grid) -> dict[str, Any]:
    """Where pixels lie, in the fields of the projection extension."""
    fields: dict[str, Any] = {"proj:shape": [grid.height, grid.width], "proj:transform": list(grid.transform)[:6]}
    if grid.crs is None:
        return {"proj:code": None, **fields}
    # Below 100 a CRS that was altered would be called by the name of the one it came from.
    code = grid.crs.to_authority(confidence_threshold=100)
    named: dict[str, Any] = {"proj:code": ":".join(code)} if code else {}
    if not code:
        named = {"proj:code": None, "proj:wkt2": grid.crs.to_wkt(version="WKT2_2018")}
    corners = [grid.transform @ (col, row) for col in (0, grid.width) for row in (0, grid.height)]
    x, y = [corner[0] for corner in corners], [corner[1] for corner in corners]
    return {**named, **fields, "proj:bbox": [min(x), min(y), max(x), max(y)]}


def _links(description: MapDescription, source: Path | str | None, folder: Path) -> list[dict[str, Any]]:
    href = near_href(source, folder) if isinstance(source, Path) else source
    if isinstance(source, Path) and not os.path.exists(source):
        href = None  # an array in memory, or the common part of several files' names
    tags = description.tags
    links = [{"rel": "derived_from", "href": href, "title": tags["GEOSEG_INPUT"]}] if href else []
    if "GEOSEG_MODEL" not in tags:
        return links
    # RFC 6920: a name for content wherever it lies, since bundles have no address.
    digest = base64.urlsafe_b64encode(bytes.fromhex(tags["GEOSEG_MODEL_SHA256"])).decode().rstrip("=")
    title = f"network of bundle {printable(tags['GEOSEG_MODEL'])}"
    return [*links, {"rel": "describedby", "href": f"ni:///sha-256;{digest}", "title": title}]


def _asset(description: MapDescription, asset: Asset | VectorAsset, href: str) -> dict[str, Any]:
    file = {"file:size": asset.file.stat().st_size, "file:checksum": checksum(asset.file)}
    if isinstance(asset, VectorAsset):
        return {"href": href, "type": asset.media_type, "roles": ["data"], **file}
    spec = asset.spec
    steps = description.grid.gsd_m()
    resolution = {"spatial_resolution": round(sum(steps) / 2, 3)} if steps else {}
    scaled = {"scale": spec.scale, "offset": spec.offset} if spec.scale != 1 else {}
    own: dict[str, Any] = {"roles": ["data"]}
    if asset.kind == "labels":
        role = "classification" if description.cloud_percent is None else "cloud"
        own = {
            "roles": ["data", role],
            "classification:classes": class_objects(description),
            "geoseg:pixels_sha256": description.tags[PIXELS_TAG],
        }
    number = {"data_type": spec.dtype, "nodata": spec.nodata}
    return {
        "href": href,
        "type": MEDIA_TYPES[asset.format],
        **own,
        "bands": [{"name": name, **number} for name in spec.descriptions],
        # What clients of STAC before 1.1 look for.
        "raster:bands": [{**number, "sampling": "area", **resolution, **scaled} for _ in spec.descriptions],
        **file,
    }


def _percent(value: float) -> float:
    return round(value, 6)
