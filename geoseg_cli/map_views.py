"""Class maps together with the scenes that they were made from, as a sheet (PNG) and as a page (HTML)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from geoseg_cli.errors import GeosegError
from geoseg_cli.printable import printable
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.description import PIXELS_TAG, MapDescription
from geoseg_cli.results.map_file import opened_map, read_map
from geoseg_cli.results.picture import Frame, read_picture
from geoseg_cli.results.preview import Panel, write_preview
from geoseg_cli.results.report_page import PageMap, page_parts
from geoseg_cli.results.sidecars import read_sidecar, sidecar_paths
from geoseg_cli.results.stac import near_href
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.scenes import SceneOptions
from geoseg_cli.scenes.network import redacted
from geoseg_cli.scenes.true_colour import true_colour
from geoseg_cli.version import __version__

ImageArray = npt.NDArray[np.uint8]

PREVIEW_PX, PAGE_PX = 1024, 1600
"""Longest side of a picture on the sheet and on the page."""

ALTERED = "The pixels are not those that geoseg wrote: geoseg verify tells more."
NO_SCENE = "The scene is not shown: it does not lie near the map, or is not called as the map says."


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """How maps are shown.

    Attributes:
        max_px: Longest side of each picture.
        overwrite: Whether an output may exist.
        scenes: Folder to look for scenes in, by the names that the maps hold.
        scene: How scenes are read.
    """

    max_px: int
    overwrite: bool = False
    scenes: Path | None = None
    scene: SceneOptions = field(default_factory=SceneOptions)


def preview_map(map_path: Path, scene: Path | None, out_png: Path, options: ViewOptions) -> tuple[str, ...]:
    """Write a map with its legend, scale bar and north arrow, and the scene beside it.

    Args:
        map_path: A map that geoseg wrote.
        scene: What it was made from; None for the map alone.
        out_png: The sheet.
        options: How.

    Returns:
        Warnings.

    Raises:
        GeosegError: The map or the scene cannot be shown, or the sheet cannot be written.
    """
    inputs = [map_path, *([scene] if scene else [])]
    with OutputTransaction([out_png], options.overwrite, inputs) as transaction:
        picture = read_picture(map_path, options.max_px)
        panel: Panel | None = None
        warnings: tuple[str, ...] = ()
        if scene is not None:
            with opened_map(map_path) as file:
                tags = file.tags()
            rgba, warnings = _scene_picture(scene, picture.frame, tags, options)
            panel = Panel(redacted(scene.name), rgba)
        write_preview(picture, map_path.name, transaction.path(out_png), panel)
        transaction.commit()
    return warnings


def write_report(maps: Sequence[Path], out_html: Path, options: ViewOptions) -> list[tuple[Path, str]]:
    """Write a page of maps that needs nothing else.

    Args:
        maps: Maps that geoseg wrote, at least one.
        out_html: The page.
        options: How.

    Returns:
        What the user should know of which map; the page says it too.

    Raises:
        GeosegError: A map cannot be shown, or the page cannot be written; then there is none.
    """
    notes: list[tuple[Path, str]] = []

    def pages(found: list[tuple[MapDescription, bool]]) -> Iterator[PageMap]:
        for path, (description, is_intact) in zip(maps, found, strict=True):
            page = page_map(path, description, is_intact, options)
            notes.extend((path, note) for note in page.notes)
            yield page

    with OutputTransaction([out_html], options.overwrite, maps) as transaction:
        found = [described(path) for path in maps]
        descriptions = [description for description, _ in found]
        with storage_trouble(out_html), transaction.path(out_html).open("w", encoding="utf-8", newline="\n") as file:
            for part in page_parts(descriptions, pages(found), f"geoseg {__version__}"):
                file.write(part)
        transaction.commit()
    return notes


def page_map(path: Path, description: MapDescription, is_intact: bool, options: ViewOptions) -> PageMap:
    """Read the picture of a map, and its scene where it is found and can be read.

    Args:
        path: The map.
        description: What it says of itself.
        is_intact: Whether its pixels are those that were written.
        options: How it is shown.

    Raises:
        GeosegError: The map cannot be read.
    """
    picture = read_picture(path, options.max_px)
    notes = () if is_intact else (ALTERED,)
    scene_path = find_scene(path, description.tags, options.scenes)
    if scene_path is None:
        return PageMap(description, picture, None, (*notes, NO_SCENE))
    try:
        scene, warnings = _scene_picture(scene_path, picture.frame, description.tags, options)
    except GeosegError as error:
        # What is wrong with it, without tables, and without the folders of this machine.
        reason = error.message.splitlines()[0].rstrip(":").replace(f"{scene_path.absolute().parent}{os.sep}", "")
        return PageMap(description, picture, None, (*notes, f"The scene is not shown: {reason}"))
    return PageMap(description, picture, scene, (*notes, *warnings))


def described(path: Path) -> tuple[MapDescription, bool]:
    """What a map says of itself, and whether its pixels are those that were written."""
    with opened_map(path) as file:
        description, _, digest = read_map(path, file)
    return description, digest == description.tags[PIXELS_TAG]


def find_scene(map_path: Path, tags: Mapping[str, str], folder: Path | None = None) -> Path | None:
    """The scene that a map was made from: in a folder, where the map's STAC item says, or beside the map.

    Its name must be the one that the map holds. Nothing is looked for in other folders than these, whatever the item
    says.
    """
    name = tags.get("GEOSEG_INPUT", "")
    if name in ("", ".", "..") or os.path.basename(name) != name:
        return None
    home = map_path.absolute().parent
    places = [*([folder / name] if folder else []), *_linked(map_path), home / name]
    return next((path for path in places if printable(path.name) == name and os.path.exists(path)), None)


def _linked(map_path: Path) -> list[Path]:
    """Where the map's STAC item says that its scene lies, if that is near."""
    home = map_path.absolute().parent
    try:
        item: Any = json.loads(read_sidecar(sidecar_paths(map_path)["item"]) or "")
        hrefs = [str(link["href"]) for link in item["links"] if link["rel"] == "derived_from"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    found = [(href, home / unquote(href)) for href in hrefs if "\0" not in unquote(href)]
    return [Path(os.path.normpath(path)) for href, path in found if near_href(path, home) == href]


def _scene_picture(
    scene: Path, frame: Frame, tags: Mapping[str, str], options: ViewOptions
) -> tuple[ImageArray, tuple[str, ...]]:
    """(H,W,4) of a scene in the frame of a map, and warnings.

    Raises:
        GeosegError: It cannot be read, or the map does not lie on it.
    """
    seen = true_colour(scene, frame.grid, frame.height, frame.width, options.scene)
    stated = tags.get("GEOSEG_INPUT_BYTES", "")
    warnings: tuple[str, ...] = ()
    if stated.isascii() and stated.isdigit() and int(stated) != seen.size_bytes:
        text = f"{scene.name} has {seen.size_bytes:,} bytes, the map was made from {int(stated):,}"
        warnings = (f"{text}: it has changed, or is another scene.",)
    return frame.show_image(seen.rgba), warnings
