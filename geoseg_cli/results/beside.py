"""Writes what lies beside a map: attribute table, style and catalogue entry, all from one description."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from geoseg_cli.results.attribute_table import attribute_table
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.description import MapDescription
from geoseg_cli.results.qgis_style import qgis_style
from geoseg_cli.results.sidecars import Sidecar, sidecar_paths
from geoseg_cli.results.stac import Asset, VectorAsset, stac_item
from geoseg_cli.results.storage import storage_trouble


def write_sidecars(
    description: MapDescription,
    assets: Sequence[Asset | VectorAsset],
    source: Path | str | None,
    transaction: OutputTransaction,
) -> None:
    """Describe a map where the transaction will publish it; its sidecars must be among the targets.

    Args:
        description: The map.
        assets: The finished files of the run, the map itself first.
        source: The scene: path or address; None for a map of many.
        transaction: Publishes the map.

    Raises:
        AccessError, StorageError: The disk does not take them.
    """
    paths = sidecar_paths(assets[0].target)
    with storage_trouble(paths["item"]):
        item = stac_item(description, assets, source)
    texts: dict[Sidecar, str] = {
        "attributes": attribute_table(description),
        "style": qgis_style(description.legend),
        "item": json.dumps(item, indent=2, allow_nan=False) + "\n",
    }
    for kind, text in texts.items():
        with storage_trouble(paths[kind]):
            transaction.path(paths[kind]).write_text(text, encoding="utf-8", newline="\n")
