"""A class map and a reference raster, read as class numbers on the map's pixels. Axes: H rows, W columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geoseg_cli.catalog import Legend, LegendMapping, mappings
from geoseg_cli.errors import GeosegError, GridError, InputError
from geoseg_cli.evaluate.boundary import NumberArray
from geoseg_cli.evaluate.classes import (
    MOST_CLASSES,
    ClassNumbers,
    MapClasses,
    ReferenceOptions,
    Tally,
    is_whole,
    tallied,
)
from geoseg_cli.grid import Grid, Window
from geoseg_cli.labels import is_same_place, refuse_nodata_class, refuse_other_kinds
from geoseg_cli.results.description import legend_from_tags
from geoseg_cli.scenes.raster_file import RasterFile, open_geotiff


class MapFile:
    """A class raster; memory is that of the window that is read.

    Attributes:
        path: The file.
        grid: Where its pixels lie.
        classes: What its values mean.
        tally: Values that are no class and were met so far.
    """

    def __init__(self, path: Path, legend: str | None) -> None:
        """Open a map.

        Args:
            path: GeoTIFF with one band of whole numbers.
            legend: What its values mean, as ``--legend`` says it; None for what its tags say.

        Raises:
            GeosegError: It cannot be opened, does not tell its classes, or ``legend`` is none.
        """
        self.path, self.tally = path, Tally()
        self._file = open_geotiff(path)
        self.grid = self._file.grid
        try:
            refuse_other_kinds(self._file, "a class map")
            self.classes = MapClasses.stated(legend) if legend else _told(self._file)
            if len(self.classes.legend.classes) > MOST_CLASSES:
                raise InputError(f"{path} has more than {MOST_CLASSES} classes", "compare fewer with --legend")
            refuse_nodata_class(self._file, tuple(self.classes.numbers))
        except BaseException:
            self.close()
            raise
        by_text = {str(value): number for value, number in self.classes.numbers.items()}
        self._numbers = ClassNumbers(by_text, self.classes)

    def read(self, window: Window, counted: slice) -> NumberArray:
        """(H, W) class numbers, the largest of the type for none; the rows ``counted`` go into the tally."""
        return _read(self._file, self._numbers, window, counted, self.tally)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RasterReference:
    """A class raster on any grid, read on the map's: each pixel is the one in which its centre lies."""

    unit = "px"

    def __init__(self, path: Path, grid: Grid, classes: MapClasses, options: ReferenceOptions) -> None:
        """Open a reference.

        Args:
            path: GeoTIFF with one band of whole numbers.
            grid: The map's.
            classes: The map's.
            options: What its values mean; without a mapping they are the classes that the file names, or else the
                map's own values.

        Raises:
            GeosegError: It cannot be opened or laid on the grid, or a class is none of the map's.
        """
        self.path, self.tally = path, Tally()
        self._files = [open_geotiff(path)]
        try:
            refuse_other_kinds(self._files[0], "a reference raster")
            meaning = _meaning(self._files[0], classes, options.mapping)
            refuse_nodata_class(self._files[0], [int(text) for text in meaning.by_text])
            self._lay_on(grid)
        except BaseException:
            self.close()
            raise
        self._note = meaning.note
        self._numbers = ClassNumbers(meaning.by_text, classes, options.ignored | meaning.lost)

    @property
    def notes(self) -> tuple[str, ...]:
        """How its values were read, and whether it was warped."""
        return (self._note, *(["its pixels are the nearest ones of another grid"] if len(self._files) > 1 else []))

    def read(self, window: Window, counted: slice) -> NumberArray:
        """(H, W) class numbers, the largest of the type for none; the rows ``counted`` go into the tally."""
        return _read(self._files[-1], self._numbers, window, counted, self.tally)

    def close(self) -> None:
        """Close the file."""
        for file in reversed(self._files):
            file.close()

    def _lay_on(self, grid: Grid) -> None:
        own = self._files[0].grid
        size = (own.height, own.width) == (grid.height, grid.width)
        if size and own.crs == grid.crs and is_same_place(own, grid):
            return
        if own.crs is None or grid.crs is None:
            which = "the reference" if own.crs is None else "the map"
            raise GridError(
                f"{self.path} lies on other pixels than the map, and {which} has no CRS",
                "write it into the file: gdal_edit.py -a_srs EPSG:NNNN FILE",
            )
        self._files.append(self._files[0].warped(grid))


def mapped_classes(mapping: Mapping[str, str], classes: MapClasses) -> dict[str, int]:
    """Value of the reference -> number of the class, as ``--map`` says.

    Raises:
        InputError: One is mapped to what is no class of the map.
    """
    numbers = {}
    for text, name in mapping.items():
        number = classes.number_of(name)
        if number is None:
            known = ", ".join(f"{one.value} {one.name}" for one in classes.legend.classes)
            raise InputError(
                f"--map: {name!r}, which {text} becomes, is no class of the map; its classes are {known}",
                "give a value or a name of the map's legend",
            )
        numbers[text] = number
    return numbers


def _read(file: RasterFile, numbers: ClassNumbers, window: Window, counted: slice, tally: Tally) -> NumberArray:
    pixels, known = file.read((1,), window)
    return tallied(numbers.of_pixels(pixels[0], known), pixels[0], counted, tally)


def _told(file: RasterFile) -> MapClasses:
    """The classes that a file's tags hold."""
    try:
        legend = legend_from_tags(file.tags)
    except GeosegError as error:
        raise InputError(f"{file.path}: its tags hold no classes: {error}", "name its legend with --legend") from error
    if legend is None:
        raise InputError(
            f"{file.path} does not say what its values mean",
            'name its legend: --legend esa-worldcover, or --legend "0=clear,1=cloud"',
        )
    return MapClasses.of(legend)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What the values of a reference mean, and who says so.

    Attributes:
        by_text: Value -> number of the map's class.
        note: Who says so.
        lost: Values of classes that the map's legend has no counterpart of.
    """

    by_text: Mapping[str, int]
    note: str
    lost: frozenset[str] = frozenset()


def _meaning(file: RasterFile, classes: MapClasses, mapping: Mapping[str, str] | None) -> _Meaning:
    if mapping is not None:
        wrong = next((text for text in mapping if not is_whole(text)), None)
        if wrong is not None:
            raise InputError(f"--map: {wrong!r} is no value of a raster", 'for example --map "11=10,12=40"')
        return _Meaning(mapped_classes(mapping, classes), "its values are mapped as told")
    try:
        legend = legend_from_tags(file.tags)
    except GeosegError:
        legend = None
    if legend is None:
        own = {str(value): number for value, number in classes.numbers.items()}
        return _Meaning(own, f"its values are taken for those of the map's legend, {classes.legend.name}")
    known = mappings().get((legend.name, classes.legend.name))
    if known is not None and _called(legend) <= _called(known.source):
        return _turned(known, classes)
    named = {str(one.value): classes.number_of(one.name) for one in legend.classes}
    by_text = {text: number for text, number in named.items() if number is not None}
    return _Meaning(by_text, "its classes are the map's by name")


def _called(legend: Legend) -> set[tuple[int, str]]:
    """Values and names; a bundle may know some classes of a legend only."""
    return {(one.value, one.name) for one in legend.classes}


def _turned(known: LegendMapping, classes: MapClasses) -> _Meaning:
    """The classes of a reference become those of the map's legend, as is written down for the two legends."""
    by_text, lost = {}, set()
    for one in known.source.classes:
        number = classes.number_of(known.classes.get(one.name, ""))
        if number is None:
            lost.add(str(one.value))
        else:
            by_text[str(one.value)] = number
    note = f"its classes, {known.source.name}, are turned into {known.target.name}: {' '.join(known.losses)}"
    return _Meaning(by_text, note, frozenset(lost))
