"""Which class a value of a raster or an attribute of a shape means, on both sides of a comparison.

Classes are numbered as in the confusion matrix, 0 to K - 1. Axes: H rows, W columns, N values.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import NODATA, WIDE_NODATA, LandClass, Legend, legends, usual_nodata
from geoseg_cli.errors import InputError, InputMissingError, UsageError
from geoseg_cli.evaluate.boundary import NumberArray, none_in

BoolArray = npt.NDArray[np.bool_]

_STRANGE_BELOW, _IGNORED_BELOW = 1, 2
"""How far the numbers of other things that are no class lie below that of none."""
MOST_CLASSES = 65_533
"""More would take the numbers of what is no class."""
_GREY = "#808080"
_MOST_NAMED = 10
_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class MapClasses:
    """The classes that are compared.

    Attributes:
        legend: One class for each row of the confusion matrix, with the first of its values.
        numbers: Value of the map's raster -> number of its class; several values can be one class.
    """

    legend: Legend
    numbers: Mapping[int, int]

    @classmethod
    def of(cls, legend: Legend) -> MapClasses:
        """Each class of a legend for itself."""
        return cls(legend, {value: number for number, value in enumerate(legend.values)})

    @classmethod
    def stated(cls, text: str) -> MapClasses:
        """Read ``--legend``: the name of a known legend, or ``VALUE=CLASS,...`` where a class may come again.

        Raises:
            UsageError: It is neither.
        """
        if "=" not in text:
            if text not in legends():
                raise UsageError(
                    f"--legend {text}: there is no such legend",
                    f'use one of {", ".join(legends())}, or tell the classes: --legend "0=clear,1=cloud"',
                )
            return cls.of(legends()[text])
        names: dict[str, int] = {}
        numbers, values = {}, []
        pairs = read_pairs(text, "--legend")
        # 255 means that nothing is known, unless other values show that the map is one of uint16.
        is_wide = any(value.isdecimal() and int(value) > NODATA for value in pairs)
        most = (WIDE_NODATA if is_wide else NODATA) - 1
        for value, name in pairs.items():
            if not value.isdecimal() or int(value) > most:
                raise UsageError(
                    f"--legend: {value} is no value from 0 to {most}",
                    'for example --legend "0=clear,1=cloud"',
                )
            if name not in names:
                names[name] = len(names)
                values.append(int(value))
            numbers[int(value)] = names[name]
        classes = tuple(LandClass(value, name, name, _GREY) for value, name in zip(values, names, strict=True))
        return cls(Legend("as stated", classes, usual_nodata(numbers)), numbers)

    @property
    def dtype(self) -> Literal["uint8", "uint16"]:
        """What class numbers are held as, with room for what is no class."""
        return "uint8" if len(self.legend.classes) <= np.iinfo(np.uint8).max - _IGNORED_BELOW else "uint16"

    def number_of(self, text: str) -> int | None:
        """The class of that value, name or title, in this order; None where there is none."""
        if text.isdecimal() and int(text) in self.numbers:
            return self.numbers[int(text)]
        wanted = text.strip().casefold()
        named = [one.name.casefold() for one in self.legend.classes]
        titled = [one.title.casefold() for one in self.legend.classes]
        return next((names.index(wanted) for names in (named, titled) if wanted in names), None)


@dataclass(frozen=True, slots=True)
class ReferenceOptions:
    """What the values of a reference mean.

    Attributes:
        mapping: Value -> class of the map, as text; None where the reference has the map's values or names.
        ignored: Values that mean that nothing is known.
        attribute: Name of the attribute with the class, for shapes.
    """

    mapping: Mapping[str, str] | None = None
    ignored: frozenset[str] = frozenset()
    attribute: str = "class"


@dataclass
class Tally:
    """What was met outside the classes.

    Attributes:
        unknown: Value -> pixels or shapes that nothing says the class of.
        ignored: Value -> pixels or shapes that were to be ignored.
    """

    unknown: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)

    def refuse_unknown(self, where: Path, unit: str, hint: str, classes: MapClasses) -> None:
        """Raise with a table of the unknown values, if there are any.

        Raises:
            InputError: There are.
        """
        if not self.unknown:
            return
        width = max(len(value) for value in self.unknown)
        lines = [f"  {value.ljust(width)}  {count:,} {unit}" for value, count in self.unknown.most_common(_MOST_NAMED)]
        if len(self.unknown) > _MOST_NAMED:
            lines.append(f"  and {len(self.unknown) - _MOST_NAMED} more")
        known = ", ".join(f"{one.value} {one.name}" for one in classes.legend.classes)
        raise InputError(
            f"{where}: nothing says which class of the map these values are\n"
            + "\n".join(lines)
            + f"\nclasses of the map: {known}",
            hint,
        )


@dataclass(frozen=True, slots=True)
class ClassNumbers:
    """What the values of a file mean.

    Attributes:
        by_text: Value as text -> number of its class.
        classes: All classes of the map.
        ignored: Values that mean that nothing is known.
    """

    by_text: Mapping[str, int]
    classes: MapClasses
    ignored: frozenset[str] = frozenset()

    @property
    def none(self) -> int:
        """Number of what has no class."""
        return int(np.iinfo(self.classes.dtype).max)

    def of_pixels(self, stored: npt.NDArray[Any], known: BoolArray) -> NumberArray:
        """Number pixels.

        Args:
            stored: (H, W) whole numbers.
            known: (H, W) where they mean something.

        Returns:
            (H, W) class numbers, none where not known; further ones for what :func:`tallied` takes out.
        """
        none, dtype = self.none, np.dtype(self.classes.dtype)
        coded = {int(text): number for text, number in self.by_text.items() if is_whole(text)}
        coded |= {int(text): none - _IGNORED_BELOW for text in self.ignored if is_whole(text)}
        # What a label stores where nothing is known, unless a class has that value.
        coded.setdefault(usual_nodata(self.classes.numbers), none)
        values = np.array(sorted(coded), np.int64)
        codes = np.array([coded[int(value)] for value in values], dtype)
        if stored.dtype.itemsize <= 2:
            low = int(np.iinfo(stored.dtype).min)
            table = np.full(int(np.iinfo(stored.dtype).max) - low + 1, none - _STRANGE_BELOW, dtype)
            inside = (values >= low) & (values < low + len(table))
            table[values[inside] - low] = codes[inside]
            numbers = table[stored.astype(np.int64) - low if low else stored]
        else:
            place = np.searchsorted(values, stored).clip(max=len(values) - 1)
            numbers = np.where(values[place] == stored, codes[place], dtype.type(none - _STRANGE_BELOW))
        return np.where(known, numbers, dtype.type(none))

    def of_text(self, value: Any, tally: Tally) -> int:
        """Number of the class of an attribute, or :attr:`none`."""
        text = attribute_text(value)
        if text.casefold() in self.ignored:
            tally.ignored[text] += 1
            return self.none
        number = self.by_text.get(text.casefold())
        if number is None:
            tally.unknown[text or "(empty)"] += 1
            return self.none
        return number


def tallied(numbers: NumberArray, stored: npt.NDArray[Any], counted: slice, tally: Tally) -> NumberArray:
    """Take what is no class out of numbered pixels.

    Args:
        numbers: (H, W) of :meth:`ClassNumbers.of_pixels`.
        stored: (H, W) what they were made from.
        counted: Rows whose pixels go into the tally; others were, or will be, counted in another window.
        tally: Grows.

    Returns:
        (H, W) class numbers, the largest of the type for none.
    """
    none = none_in(numbers)
    for below, counter in ((_STRANGE_BELOW, tally.unknown), (_IGNORED_BELOW, tally.ignored)):
        hit = numbers[counted] == none - below
        if hit.any():
            values, counts = np.unique(stored[counted][hit], return_counts=True)
            counter.update({str(value): int(count) for value, count in zip(values, counts, strict=True)})
    return np.where(numbers >= none - _IGNORED_BELOW, numbers.dtype.type(none), numbers)


def attribute_text(value: Any) -> str:
    """An attribute as people write it: 11 for 11.0, nothing for None."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def read_mapping(text: str) -> dict[str, str]:
    """Read ``--map``: pairs, or a ``.csv`` file with the columns reference and map, or a ``.toml`` file of pairs.

    Returns:
        Value of the reference -> class of the map, both as text.

    Raises:
        UsageError: They are no pairs.
        InputMissingError, InputError: There is no such file, or it holds something else.
    """
    path = Path(text)
    if path.suffix.lower() not in (".csv", ".toml"):
        return read_pairs(text, "--map")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large for a table of classes", "give the table alone")
        content = path.read_text(encoding="utf-8-sig")
        pairs = _csv_pairs(content, path) if path.suffix.lower() == ".csv" else _toml_pairs(content, path)
    except FileNotFoundError as error:
        raise InputMissingError(f"there is no {path}", "check the path") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}", "store it as UTF-8 text") from error
    if not pairs:
        raise InputError(f"{path} maps nothing", "give a line for each value of the reference")
    return pairs


def read_pairs(text: str, option: str) -> dict[str, str]:
    """``A=B,C=D`` as a dictionary.

    Raises:
        UsageError: It is something else, or names one twice.
    """
    pairs: dict[str, str] = {}
    for part in text.split(","):
        left, sign, right = (piece.strip() for piece in part.partition("="))
        if not (left and sign and right):
            raise UsageError(f"{option}: {part!r} is no pair", f'for example {option} "11=10,12=40"')
        if left in pairs:
            raise UsageError(f"{option} names {left} twice", "leave one of them out")
        pairs[left] = right
    return pairs


def _csv_pairs(content: str, path: Path) -> dict[str, str]:
    table = csv.DictReader(io.StringIO(content))
    if not {"reference", "map"} <= set(table.fieldnames or ()):
        raise InputError(f"{path} has no columns reference and map", "make its first line: reference,map")
    pairs: dict[str, str] = {}
    for row in table:
        left, right = (row["reference"] or "").strip(), (row["map"] or "").strip()
        if not left or not right or left in pairs:
            raise InputError(
                f"{path}, line {table.line_num}: {'twice' if left in pairs else 'not'} told what {left or 'it'} is",
                "give each value of the reference one class of the map",
            )
        pairs[left] = right
    return pairs


def _toml_pairs(content: str, path: Path) -> dict[str, str]:
    pairs = tomllib.loads(content)
    wrong = [key for key, value in pairs.items() if not isinstance(value, str | int) or isinstance(value, bool)]
    if wrong:
        raise InputError(
            f"{path}: {wrong[0]} is neither a value nor a name", 'write lines such as 11 = 10 or "oak" = 10'
        )
    return {key: str(value) for key, value in pairs.items()}


def is_whole(text: str) -> bool:
    """Whether a text is a whole number."""
    return text.removeprefix("-").isdecimal()
