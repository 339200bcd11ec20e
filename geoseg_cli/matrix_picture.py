"""A confusion matrix as a picture: darker cells hold more of their row, numbers say how many."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from geoseg_cli.printable import printable

CELL_PX = 84
_GAP, _SIZE, _TITLE_SIZE = 10, 14, 17
_MOST_LABEL_PX = 220
_WHITE, _INK, _GREY, _LINE, _DARK = (255, 255, 255), (20, 20, 20), (90, 90, 90), (200, 200, 200), (8, 69, 148)
_LIGHT_TEXT_FROM = 0.5
"""Share of the row from which a cell is too dark for dark letters."""
_CAPTION = "rows: reference, columns: map; shares are of the row"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def matrix_png(counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> bytes:
    """Draw a confusion matrix.

    Args:
        counts: (K, K), rows true, columns called.
        names: Of the classes.
        title: What stands above it.

    Returns:
        A PNG file. Each cell shows its share of its row, and the number below; a row without a pixel stays white.
    """
    sheet = _Sheet(counts, [printable(name) for name in names], printable(title))
    out = io.BytesIO()
    sheet.draw().save(out, "PNG", optimize=True)
    return out.getvalue()


class _Sheet:
    """Where everything stands, in pixels."""

    def __init__(self, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
        self._counts, self._title = counts, title
        self._font: Font = ImageFont.load_default(_SIZE)
        self._title_font: Font = ImageFont.load_default(_TITLE_SIZE)
        self._names = [self._shortened(name) for name in names]
        self._label_px = max(round(self._font.getlength(name)) for name in self._names) + 1
        self._left = 2 * _GAP + self._label_px
        self._top = 3 * _GAP + _TITLE_SIZE + self._label_px

    def draw(self) -> Image.Image:
        """The whole sheet."""
        side = CELL_PX * len(self._names)
        texts = self._title_font.getlength(self._title), self._font.getlength(_CAPTION)
        width = max(self._left + side, round(max(texts)) + _GAP) + _GAP
        sheet = Image.new("RGB", (width, self._top + side + 2 * _GAP + _SIZE), _WHITE)
        pen = ImageDraw.Draw(sheet)
        pen.text((_GAP, _GAP), self._title, _INK, self._title_font)
        for number, name in enumerate(self._names):
            middle = round((number + 0.5) * CELL_PX)
            pen.text((self._left - _GAP, self._top + middle), name, _INK, self._font, anchor="rm")
            self._upright(sheet, name, self._left + middle)
        for true, row in enumerate(self._counts):
            for called, count in enumerate(row):
                self._cell(pen, true, called, int(count))
        pen.text((_GAP, self._top + side + _GAP), _CAPTION, _GREY, self._font)
        return sheet

    def _cell(self, pen: ImageDraw.ImageDraw, true: int, called: int, count: int) -> None:
        left, top = self._left + called * CELL_PX, self._top + true * CELL_PX
        whole = int(self._counts[true].sum())
        share = count / whole if whole else 0.0
        red, green, blue = (round(light + (dark - light) * share) for light, dark in zip(_WHITE, _DARK, strict=True))
        pen.rectangle((left, top, left + CELL_PX, top + CELL_PX), (red, green, blue), _LINE)
        ink = _WHITE if share >= _LIGHT_TEXT_FROM else _INK
        middle = left + CELL_PX // 2
        if whole:
            pen.text((middle, top + CELL_PX // 2 - _SIZE // 2), f"{share:.1%}", ink, self._font, anchor="mm")
        pen.text((middle, top + CELL_PX // 2 + _SIZE), _short_count(count), ink, self._font, anchor="mm")

    def _upright(self, sheet: Image.Image, name: str, middle: int) -> None:
        """A column's name, read from below."""
        strip = Image.new("RGB", (self._label_px, 2 * _SIZE), _WHITE)
        ImageDraw.Draw(strip).text((0, _SIZE), name, _INK, self._font, anchor="lm")
        sheet.paste(strip.rotate(90, expand=True), (middle - _SIZE, self._top - _GAP // 2 - self._label_px))

    def _shortened(self, text: str) -> str:
        if self._font.getlength(text) <= _MOST_LABEL_PX:
            return text
        while text and self._font.getlength(text + "...") > _MOST_LABEL_PX:
            text = text[:-1]
        return text + "..."


def _short_count(count: int) -> str:
    """A number of at most 7 signs, exact below a million."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:,}"
