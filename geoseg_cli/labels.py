"""Images and what is true of their pixels: finds pairs of files, and reads labels on the grid of their image."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from geoseg_cli.catalog import usual_nodata
from geoseg_cli.errors import AccessError, GridError, InputError, InputMissingError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.printable import counted
from geoseg_cli.rows import LabelArray
from geoseg_cli.scenes.raster_file import RasterFile, open_geotiff

IMAGES_FOLDER, LABELS_FOLDER, LABEL_STEM = "images", "labels", "_label"
PLACES_FILE = "places.csv"
LAYOUTS = "images/X.tif with labels/X.tif, or X.tif with X_label.tif, both also in subfolders, one per place"

_SUFFIXES = (".tif", ".tiff")
_OUTPUT_STEMS = ("_landcover", "_cloudmask")
_SAME_GRID_PX = 0.01
_MOST_NAMED = 5
_STRIP_PX = 2**21

Key = tuple[tuple[str, ...], str]
"""What an image and its label have in common: folders below the root, and the stem."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """An image and its label.

    Attributes:
        image: The scene.
        label: Raster of class values on the scene's grid.
        place: Where it is; pixels of one place are not independent, those of two places are taken to be.
    """

    image: Path
    label: Path
    place: str


def find_pairs(folder: Path) -> tuple[LabelledPair, ...]:
    """Pair the images in a folder with their labels.

    Layouts: ``images/X.tif`` with ``labels/X.tif``, or ``X.tif`` with ``X_label.tif``; both also in subfolders. The
    place of a pair is the first subfolder it lies in (``images`` and ``labels`` are none); without subfolders what
    ``places.csv``, a table with the columns ``file`` and ``place``, says of the image's name; without that the stem.
    Maps that geoseg wrote beside an image (``X_landcover.tif``, ``X_cloudmask.tif``) and hidden files are passed over;
    links to folders are followed.

    Args:
        folder: Where to look, at any depth.

    Returns:
        Pairs in the order of their images' paths; at least one.

    Raises:
        InputMissingError: There is no such folder, or no pair in it.
        InputError: An image or a label has no counterpart or two, or ``places.csv`` cannot be read, does not name an
            image, or names one twice.
        AccessError: A folder may not be read.
    """
    if not folder.is_dir():
        raise InputMissingError(f"there is no folder {folder}", f"give a folder that holds {LAYOUTS}")
    images, labels = _by_key(folder)
    _refuse_unpaired(folder, images, labels)
    places = _places(folder)
    pairs = [LabelledPair(image, labels[key], _place(key, image, places)) for key, image in images.items()]
    return tuple(sorted(pairs, key=lambda pair: pair.image))


class LabelFile:
    """Labels of one image, open; a context manager. Memory is that of the window that is read.

    Args:
        path: GeoTIFF of class values: one band of whole numbers on the image's grid.
        grid: The image's grid.
        values: Class values of the legend.
        ignore: Further values that mean that nothing is known.

    Raises:
        GridError: Its CRS, transform or size is not the image's.
        InputError: It has several bands or fractions, is no TIFF, or its nodata value is a class of the legend.
        StorageError: It is truncated or damaged.
    """

    def __init__(self, path: Path, grid: Grid, values: Sequence[int], ignore: Sequence[int] = ()) -> None:
        self.path, self.values, self.unknown = path, tuple(values), usual_nodata(values)
        self._ignore, self._dtype = (*ignore, self.unknown), np.min_scalar_type(self.unknown)
        self._file = open_geotiff(path)
        try:
            refuse_other_kinds(self._file)
            refuse_nodata_class(self._file, self.values)
            _refuse_other_grid(self._file, grid)
        except BaseException:
            self.close()
            raise

    def read(self, window: Window) -> LabelArray:
        """Read a window.

        Returns:
            (H, W) class values; ``unknown`` where the file has its nodata value, a mask, ``unknown`` or an ignored
            value.

        Raises:
            InputError: There are values that are no class of the legend.
            StorageError: The file is truncated or damaged there.
        """
        labels, unknown = self._read(window)
        self._refuse_unknown(unknown)
        return labels

    def labelled_pixels(self) -> int:
        """Read the whole file in strips, and count the pixels that have a class.

        Raises:
            InputError: There are values that are no class of the legend; all of them are counted.
        """
        unknown: Counter[int] = Counter()
        pixels = 0
        for window in self._strips():
            labels, strangers = self._read(window)
            pixels += int(np.count_nonzero(labels != self.unknown))
            unknown += strangers
        self._refuse_unknown(unknown)
        return pixels

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> LabelFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, window: Window) -> tuple[LabelArray, Counter[int]]:
        """Class values, and how many pixels have values that are no class."""
        (stored,), known = self._file.read((1,), window)
        known = known & ~np.isin(stored, self._ignore)
        strange = known & ~np.isin(stored, self.values)
        values, counts = np.unique(stored[strange], return_counts=True)
        labels: LabelArray = np.where(known & ~strange, stored, self.unknown).astype(self._dtype)
        return labels, Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def _strips(self) -> Iterator[Window]:
        """The whole grid in strips of whole blocks."""
        grid, block = self._file.grid, self._file.block_shape.height
        rows = max(1, _STRIP_PX // (grid.width * block)) * block
        for row in range(0, grid.height, rows):
            yield Window(row, 0, min(rows, grid.height - row), grid.width)

    def _refuse_unknown(self, unknown: Counter[int]) -> None:
        if not unknown:
            return
        named = ", ".join(f"{value} ({count:,} px)" for value, count in unknown.most_common(_MOST_NAMED))
        rest = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        listed = ",".join(str(value) for value in sorted(unknown)[:_MOST_NAMED])
        raise InputError(
            f"{self.path}: {named}{rest} are no classes of the legend, whose values are"
            f" {', '.join(map(str, self.values))}",
            f"if nothing is known of these pixels, say so: --ignore {listed}, or store {self.unknown} or the file's"
            " nodata value; otherwise give them the legend's values",
        )


def read_labels(
    path: Path, grid: Grid, values: Sequence[int], window: Window | None = None, ignore: Sequence[int] = ()
) -> LabelArray:
    """Read the labels of an image, or a window of them.

    Args:
        path: GeoTIFF of class values: one band of whole numbers on the image's grid.
        grid: The image's grid.
        values: Class values of the legend.
        window: Pixels inside the grid; None for all.
        ignore: Further values that mean that nothing is known.

    Returns:
        (H, W) class values; 255 where the file has its nodata value, a mask, 255 or an ignored value. uint8, or uint16
        with 65535 for 255 where a value is above 254.

    Raises:
        GridError: Its CRS, transform or size is not the image's.
        InputError: It has several bands or fractions, is no TIFF, its nodata value is a class of the legend, or it
            holds values that are none.
        StorageError: It is truncated or damaged.
    """
    with LabelFile(path, grid, values, ignore) as file:
        return file.read(grid.window if window is None else window)


def _by_key(folder: Path) -> tuple[dict[Key, Path], dict[Key, Path]]:
    """Images and labels below a folder."""
    images: dict[Key, Path] = {}
    labels: dict[Key, Path] = {}
    for path in _files_below(folder):
        inside = path.relative_to(folder)
        if inside.suffix.lower() not in _SUFFIXES:
            continue
        is_label = LABELS_FOLDER in inside.parts[:-1] or inside.stem.endswith(LABEL_STEM)
        if inside.stem.endswith(_OUTPUT_STEMS) and not is_label:
            continue
        folders = tuple(part for part in inside.parts[:-1] if part not in (IMAGES_FOLDER, LABELS_FOLDER))
        key = folders, inside.stem.removesuffix(LABEL_STEM) if is_label else inside.stem
        found = labels if is_label else images
        if key in found:
            kind = "labels of one image" if is_label else "images with one label"
            raise InputError(f"{found[key]} and {path} would be {kind}", "keep one of them, or rename one")
        found[key] = path
    return images, labels


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files at any depth that are not hidden; a link back to a folder ``above`` ends there."""
    real = folder.resolve()
    if real in above:
        return
    try:
        inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        folders = {path for path in inside if path.is_dir()}
    except PermissionError as error:
        raise AccessError(
            f"folder {folder} may not be read", "get the right to read it, or move it out of the folder"
        ) from error
    for path in inside:
        if path in folders:
            yield from _files_below(path, (*above, real))
        elif path.is_file():
            yield path


def _refuse_unpaired(folder: Path, images: dict[Key, Path], labels: dict[Key, Path]) -> None:
    if not images.keys() & labels.keys():
        raise InputMissingError(
            f"{folder} holds no pair of an image and its label ({counted(len(images), 'image')},"
            f" {counted(len(labels), 'label')})",
            f"name them like this: {LAYOUTS}",
        )
    for kind, other, lonely in (
        ("image", "label", [images[key] for key in images if key not in labels]),
        ("label", "image", [labels[key] for key in labels if key not in images]),
    ):
        if lonely:
            rest = f" and {len(lonely) - _MOST_NAMED} more" if len(lonely) > _MOST_NAMED else ""
            named = ", ".join(str(path.relative_to(folder)) for path in lonely[:_MOST_NAMED])
            raise InputError(
                f"{folder}: {counted(len(lonely), kind)} without {other}: {named}{rest}",
                f"move them out of the folder, or add what is missing: {LAYOUTS}",
            )


def _places(folder: Path) -> dict[str, str] | None:
    """File name -> place as ``places.csv`` says; None without such a file."""
    path = folder / PLACES_FILE
    if not path.exists():
        return None
    if not path.is_file():
        raise InputError(f"{path} is no file", "it must be a table with the columns file and place; rename the folder")
    places: dict[str, str] = {}
    for file, place in _place_rows(path):
        if file in places:
            raise InputError(f"{path} names {file} twice", "keep one line for each image")
        places[file] = place
    return places


def _place_rows(path: Path) -> list[tuple[str, str]]:
    """File and place of each line that names a file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            if not {"file", "place"} <= set(table.fieldnames or ()):
                raise InputError(f"{path} has no columns file and place", "make its first line: file,place")
            return [(row["file"].strip(), (row["place"] or "").strip()) for row in table if row["file"]]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8: byte {error.start} cannot be read", "store the table as UTF-8"
        ) from error


def _place(key: Key, image: Path, places: dict[str, str] | None) -> str:
    folders, stem = key
    if folders:
        return folders[0]
    if places is None:
        return stem
    place = places.get(image.name)
    if not place:
        raise InputError(f"{PLACES_FILE} does not say where {image.name} is", f"add a line: {image.name},PLACE")
    return place


def refuse_other_kinds(file: RasterFile, what: str = "a label") -> None:
    """Refuse a file that is not one band of whole numbers; ``what`` it should be, in the message.

    Raises:
        InputError: It has several bands, or fractions.
    """
    kinds = sorted(set(file.dtypes))
    if len(file.dtypes) > 1:
        raise InputError(
            f"{file.path}: {what} has one band, this file has {len(file.dtypes)} ({', '.join(kinds)})",
            f"take the band of classes out: gdal_translate -b 1 {file.path.name} classes.tif",
        )
    if np.dtype(kinds[0]).kind not in "iu":
        raise InputError(
            f"{file.path}: {what} holds whole numbers, this file {kinds[0]}",
            f"gdal_translate -ot Byte {file.path.name} classes.tif, if its numbers are class values from 0 to 255",
        )


def refuse_nodata_class(file: RasterFile, values: Sequence[int]) -> None:
    """Refuse a file whose nodata value is one of the classes.

    Raises:
        InputError: It is.
    """
    nodata = file.nodata[0]
    if nodata in values:
        raise InputError(
            f"{file.path}: {nodata:g} is both the file's nodata value and a class of the legend",
            f"if it is the class, remove the tag: gdal_edit.py -unsetnodata {file.path.name}; if not, store 255",
        )


def _refuse_other_grid(file: RasterFile, grid: Grid) -> None:
    own = file.grid
    size = (own.height, own.width) == (grid.height, grid.width)
    if size and own.crs == grid.crs and is_same_place(own, grid):
        return
    raise GridError(
        f"{file.path} does not lie on the pixels of its image\n  label: {_said(own)}\n  image: {_said(grid)}",
        "warp the label onto the image's pixels: gdalwarp -r near -t_srs, -te and -ts as the image has them",
    )


def is_same_place(one: Grid, other: Grid) -> bool:
    """Whether the corners of two grids of one size are less than a hundredth of a pixel apart."""
    corners = [(col, row) for col in (0, one.width) for row in (0, one.height)]
    moved = [~other.transform @ (one.transform @ corner) for corner in corners]
    gaps = [abs(a - b) for corner, back in zip(corners, moved, strict=True) for a, b in zip(corner, back, strict=True)]
    return bool(max(gaps) < _SAME_GRID_PX)


def _said(grid: Grid) -> str:
    numbers = ", ".join(f"{number:.10g}" for number in tuple(grid.transform)[:6])
    return f"{grid.height} x {grid.width} px, {grid.crs.to_string() if grid.crs else 'no CRS'}, transform ({numbers})"
