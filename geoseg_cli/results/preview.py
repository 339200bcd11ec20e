"""A map on one sheet to look at: its classes, the scene beside it, the legend, a scale bar, and where north is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from geoseg_cli.printable import printable
from geoseg_cli.results.picture import MapPicture
from geoseg_cli.results.storage import storage_trouble

ImageArray = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int]

NO_ANSWER = "no answer"
WHITE: Color = (255, 255, 255)
INK: Color = (20, 20, 20)
HATCH: Color = (200, 200, 200)
"""Lines on white where there is no answer: a pattern, because any plain colour may be a class."""

_HATCH_PX = 8
_BAR_SHARE = 0.3
"""Longest scale bar, as a part of the panel's width."""
_LEAST_WIDTH = 240


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture on the sheet.

    Attributes:
        title: What stands above it.
        rgba: (H,W,4) uint8, north-up.
    """

    title: str
    rgba: ImageArray


def write_preview(picture: MapPicture, title: str, out_png: Path, scene: Panel | None = None) -> None:
    """Draw the sheet.

    Args:
        picture: The map.
        title: What stands above it.
        out_png: The sheet; nothing else is written.
        scene: The scene in true colour, in the same frame.

    Raises:
        AccessError, StorageError: Writing failed.
    """
    panels = [*([scene] if scene else []), Panel(title, picture.colors())]
    write_png(np.asarray(_Sheet(picture, panels).draw()), out_png)


def write_png(pixels: ImageArray, out_png: Path) -> None:
    """Write (H,W,3) or (H,W,4) uint8, and no file beside it.

    Raises:
        AccessError, StorageError: Writing failed.
    """
    with storage_trouble(out_png):
        Image.fromarray(pixels).save(out_png, "PNG", optimize=True)


def scale_bar(width_px: int, metres_per_px: float) -> tuple[int, str]:
    """The longest bar of 1, 2 or 5 times a power of ten metres that is at most 30 % of a picture's width.

    Returns:
        Its length in pixels, and what stands beside it, such as ``2 km``.
    """
    most_m = _BAR_SHARE * width_px * metres_per_px
    power = 10.0 ** math.floor(math.log10(most_m))
    length_m = next(step * power for step in (5, 2, 1) if step * power <= most_m * (1 + 1e-9))
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    return max(1, round(length_m / metres_per_px)), text


class _Sheet:
    """Where everything stands, in pixels."""

    def __init__(self, picture: MapPicture, panels: list[Panel]) -> None:
        self._picture, self._panels = picture, panels
        self._height, self._width = picture.labels.shape
        # Letters of a 1024 px panel are 16 px high; of a thumbnail still legible.
        size_px = min(28, max(12, max(self._height, self._width) // 64))
        self._font: Font = ImageFont.load_default(size_px)
        self._line, self._gap = round(1.5 * size_px), size_px
        self._entries: list[tuple[str, Color | None]] = [(cls.title, cls.rgb) for cls in picture.legend.classes]
        if (picture.labels == picture.legend.nodata).any():
            self._entries.append((NO_ANSWER, None))

    def draw(self) -> Image.Image:
        """The whole sheet."""
        panels_width = len(self._panels) * (self._width + self._gap) - self._gap
        inner = max(panels_width, _LEAST_WIDTH)
        columns, column_px = self._columns(inner)
        rows = -(-len(self._entries) // columns)
        top = self._gap + self._line
        foot = top + self._height + self._gap
        height = foot + self._line + self._gap // 2 + rows * self._line + self._gap
        sheet = Image.new("RGB", (inner + 2 * self._gap, height), WHITE)
        draw = ImageDraw.Draw(sheet)
        for number, panel in enumerate(self._panels):
            self._panel(sheet, draw, panel, (self._gap + number * (self._width + self._gap), top))
        self._scale_and_north(draw, foot)
        for number, (title, color) in enumerate(self._entries):
            place = (
                self._gap + number // rows * column_px,
                foot + self._line + self._gap // 2 + number % rows * self._line,
            )
            self._entry(sheet, draw, place, title, color)
        return sheet

    def _columns(self, inner: int) -> tuple[int, int]:
        """Number of columns of the legend, and the width of each."""
        widest = max(self._length(printable(title)) for title, _ in self._entries)
        column_px = min(inner, math.ceil(widest) + 3 * self._gap)
        return min(len(self._entries), max(1, inner // column_px)), column_px

    def _panel(self, sheet: Image.Image, draw: ImageDraw.ImageDraw, panel: Panel, corner: tuple[int, int]) -> None:
        draw.text((corner[0], self._gap), self._shortened(printable(panel.title)), INK, self._font)
        picture = Image.fromarray(panel.rgba)
        sheet.paste(_hatched(picture.height, picture.width), corner)
        sheet.paste(picture, corner, picture)

    def _scale_and_north(self, draw: ImageDraw.ImageDraw, top: int) -> None:
        """The bar and the arrow below the first panel; neither where the map does not say where it lies."""
        left, middle = self._gap, top + self._line // 2
        steps = self._picture.frame.shown.gsd_m()
        if steps is None:
            draw.text((left, top), "no CRS: scale and north unknown", INK, self._font)
            return
        arrow = self._line // 2
        draw.polygon([(left, top + self._line - 2), (left + arrow / 2, top), (left + arrow, top + self._line - 2)], INK)
        left += arrow + self._gap // 4
        draw.text((left, top), "N", INK, self._font)
        left += math.ceil(self._length("N")) + self._gap
        length, text = scale_bar(self._width, steps[1])
        draw.rectangle((left, middle - 2, left + length - 1, middle + 1), INK)
        draw.text((left + length + self._gap // 2, top), text, INK, self._font)

    def _entry(
        self, sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, color: Color | None
    ) -> None:
        left, top = corner
        side = self._gap
        if color is None:
            sheet.paste(_hatched(side, side), (left, top + 1))
        draw.rectangle((left, top + 1, left + side, top + 1 + side), fill=color, outline=INK)
        draw.text((left + side + self._gap // 2, top), printable(title), INK, self._font)

    def _shortened(self, text: str) -> str:
        room = max(self._width, _LEAST_WIDTH // len(self._panels))
        if self._length(text) <= room:
            return text
        while text and self._length(text + "...") > room:
            text = text[:-1]
        return text + "..."

    def _length(self, text: str) -> float:
        return self._font.getlength(text)


def _hatched(height: int, width: int) -> Image.Image:
    """White with thin diagonal lines."""
    rows, cols = np.ogrid[:height, :width]
    is_line = (rows + cols) % _HATCH_PX == 0
    return Image.fromarray(np.where(is_line[..., None], np.array(HATCH, np.uint8), np.array(WHITE, np.uint8)))
