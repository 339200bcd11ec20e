"""Maps as one HTML page that needs nothing else: no network, no file beside it.

Style and script stand in the page, and its policy names them by their hashes: whatever the name of a file or a tag
holds, a browser runs nothing else and asks nobody for anything.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoseg_cli.printable import printable
from geoseg_cli.results.description import MapDescription
from geoseg_cli.results.picture import MapPicture
from geoseg_cli.results.provenance import provenance_rows
from geoseg_cli.results.stac import rfc3339

ImageArray = npt.NDArray[np.uint8]

_CUT = "\0"
"""Stands where the maps come; no text of a page holds it."""

SCENE_QUALITY = 82
"""Of lossy WebP: 1600 x 1600 px of a clear scene are some hundred kilobytes; the classes are stored exactly."""


@dataclass(frozen=True, slots=True)
class PageMap:
    """A map on the page.

    Attributes:
        description: What it says of itself.
        picture: Its classes.
        scene: (H,W,4) uint8, the scene in the same frame; None where it is not shown.
        notes: What the reader must know, such as why the scene is not shown.
    """

    description: MapDescription
    picture: MapPicture
    scene: ImageArray | None
    notes: tuple[str, ...] = ()


def page_parts(descriptions: Sequence[MapDescription], maps: Iterable[PageMap], generator: str) -> Iterator[str]:
    """The page, a part at a time: one map is in memory, not all.

    Args:
        descriptions: What every map says of itself; at least one.
        maps: The same maps in the same order.
        generator: Who made it, such as ``geoseg 1.2.3``.
    """
    title = _text(descriptions[0].name) if len(descriptions) == 1 else f"{len(descriptions)} maps"
    style, script = (_file(name) for name in ("report.css", "report.js"))
    shell = Template(_file("report.html")).substitute(
        policy=_policy(style, script),
        generator=_text(generator),
        title=title,
        style=style,
        script=script,
        overview="\n".join(_overviews(descriptions)) if len(descriptions) > 1 else "",
        maps=_CUT,
    )
    head, _, foot = shell.partition(_CUT)
    yield head
    for number, one in enumerate(maps, 1):
        yield _section(number, one, has_own_heading=len(descriptions) > 1)
    yield foot


def _policy(style: str, script: str) -> str:
    """What a browser may do with the page (W3C Content Security Policy Level 3)."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return (resources.files("geoseg_cli.data") / name).read_text(encoding="utf-8")


def _text(value: object) -> str:
    """Any text for HTML; names of files may hold markup, and signs that turn the direction of writing."""
    return escape(printable(str(value)))


def _section(number: int, one: PageMap, has_own_heading: bool) -> str:
    """One map; where it is the only one, the title of the page is its heading."""
    description = one.description
    heading = f'<h2 id="map-{number}-title">{_text(description.name)}</h2>\n' if has_own_heading else ""
    label = f"map-{number}-title" if has_own_heading else "title"
    notes = "".join(f'<p class="note">{_text(note)}</p>\n' for note in one.notes)
    return f"""<section class="map" id="map-{number}" aria-labelledby="{label}">
{heading}<p class="facts">{_text(" · ".join(_facts(description)))}</p>
{notes}<div class="columns">
<div class="viewer">
{_viewer(one)}
</div>
<div>
{_class_table(one)}
<details>
<summary>Provenance</summary>
<dl>
{_provenance(description)}
</dl>
</details>
</div>
</div>
<script type="application/json">{_embedded(_view_facts(one))}</script>
</section>
"""


def _facts(description: MapDescription) -> list[str]:
    grid, steps = description.grid, description.grid.gsd_m()
    cloud = description.cloud_percent
    return [
        f"scene {description.tags.get('GEOSEG_INPUT', 'unknown')}",
        _taken(description),
        f"{grid.height} × {grid.width} pixels" + (f" of {steps[0]:.4g} × {steps[1]:.4g} m" if steps else ""),
        grid.crs.to_string()[:60] if grid.crs else "no CRS: scale and north unknown",
        *([] if cloud is None else [f"cloud cover {cloud:.1f} %"]),
    ]


def _taken(description: MapDescription) -> str:
    return f"taken {rfc3339(description.acquired)}" if description.acquired else "time of the scene not stated"


def _viewer(one: PageMap) -> str:
    name = _text(one.description.name)
    shares = ", ".join(f"{area.title} {area.share:.1%}" for area in one.description.areas if area.pixels)
    keys = "Arrow keys move it, plus and minus zoom, 0 shows all of it."
    canvas = (
        f'<canvas tabindex="0" role="application" aria-label="Map {name}. {keys}">'
        f"{_text(shares or 'no pixel has an answer')}</canvas>"
    )
    swipe, sides = "", ""
    if one.scene is not None:
        sides = '<span class="side scene" aria-hidden="true">scene</span>'
        sides += '<span class="side classes" aria-hidden="true">map</span>'
        swipe = (
            '<label class="swipe"><span>Swipe</span> <input type="range" min="0" max="100" step="1" value="50" '
            'aria-label="Swipe between scene and map" aria-valuetext="scene on the left 50 % of the view"></label>'
        )
    return f"""<div class="stage">{canvas}{sides}</div>
<div class="controls">{swipe}
<button type="button" data-action="in" aria-label="Zoom in">+</button>
<button type="button" data-action="out" aria-label="Zoom out">−</button>
<button type="button" data-action="whole">Whole map</button>
</div>
<output>Point at the map, or move it with the arrow keys, to read a class.</output>"""


def _class_table(one: PageMap) -> str:
    description = one.description
    hectares = description.has_hectares
    rows = []
    for cls, area in zip(description.legend.classes, description.areas, strict=True):
        swatch = (
            f'<svg class="swatch" aria-hidden="true"><rect width="100%" height="100%" fill="{_text(cls.color)}"/></svg>'
        )
        box = (
            f'<label><input type="checkbox" value="{cls.value}" checked>{swatch}<span>{_text(cls.title)}</span></label>'
        )
        cells = [f"{area.share:.1%}", *([f"{area.hectares:,.2f}"] if hectares else []), f"{area.pixels:,}"]
        rows.append(f'<tr><th scope="row">{box}</th>{_cells(cells)}</tr>')
    total = description.grid.height * description.grid.width
    cells = ["", *([""] if hectares else []), f"{total - description.valid_pixels:,}"]
    rows.append(f'<tr><th scope="row">No answer</th>{_cells(cells)}</tr>')
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Class", "Share", *(["Hectares"] if hectares else []), "Pixels")
    )
    return f"""<div class="scroll"><table class="classes">
<caption>Classes; shares are of the pixels with an answer</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody></table></div>
<div class="controls">
<button type="button" data-action="all">Show all</button>
<button type="button" data-action="none">Hide all</button>
</div>"""


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{_text(text)}</td>" for text in texts)


def _provenance(description: MapDescription) -> str:
    return "\n".join(
        f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in provenance_rows(description.tags)
    )


def _overviews(descriptions: Sequence[MapDescription]) -> list[str]:
    """One table for each legend that occurs."""
    groups: dict[Any, list[tuple[int, MapDescription]]] = {}
    for number, description in enumerate(descriptions, 1):
        groups.setdefault(description.legend, []).append((number, description))
    return [_overview(group) for group in groups.values()]


def _overview(group: list[tuple[int, MapDescription]]) -> str:
    first = group[0][1]
    has_clouds = any(description.cloud_percent is not None for _, description in group)
    titles = [cls.title for cls in first.legend.classes]
    names = ["Map", "Taken", "With an answer", *(["Cloud cover"] if has_clouds else []), *titles]
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in names)
    rows = "\n".join(_overview_row(number, description, has_clouds) for number, description in group)
    caption = f"Maps with the legend {_text(first.legend.name)}; shares are of the pixels with an answer"
    return f"""<section class="overview">
<div class="scroll" tabindex="0" role="region" aria-label="Table of maps">
<table><caption>{caption}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table>
</div>
</section>"""


def _overview_row(number: int, description: MapDescription, has_clouds: bool) -> str:
    answered = description.valid_pixels / (description.grid.height * description.grid.width)
    cloud = description.cloud_percent
    cells = [
        rfc3339(description.acquired) if description.acquired else "not stated",
        f"{answered:.1%}",
        *(["-" if cloud is None else f"{cloud:.1f}%"] if has_clouds else []),
        *(f"{area.share:.1%}" for area in description.areas),
    ]
    return f'<tr><th scope="row"><a href="#map-{number}">{_text(description.name)}</a></th>{_cells(cells)}</tr>'


def _view_facts(one: PageMap) -> dict[str, Any]:
    """What the script needs to know of a map."""
    shown, steps = one.picture.frame.shown, one.picture.frame.shown.gsd_m()
    labels = one.picture.labels
    height, width = labels.shape
    return {
        "width": width,
        "height": height,
        "classes": [[cls.value, *cls.rgb, printable(cls.title)] for cls in one.picture.legend.classes],
        "transform": list(shown.transform)[:6],
        "crs": printable(shown.crs.to_string()[:60]) if shown.crs else None,
        "digits": 5 if shown.is_geographic else 0,
        "metres": steps[1] if steps else None,
        "labels": base64.b64encode(zlib.compress(labels.astype(f"<u{labels.itemsize}").tobytes(), 9)).decode(),
        "scene": None if one.scene is None else _image_address(one.scene),
    }


def _image_address(rgba: ImageArray) -> str:
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "WEBP", quality=SCENE_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _embedded(facts: dict[str, Any]) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(facts, allow_nan=False).replace("<", "\\u003c")
