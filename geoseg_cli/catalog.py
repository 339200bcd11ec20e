"""What classes and bands are called: legends, mappings between them and sensors, read from ``data/*.toml``.

Code refers to classes and bands by name; values, colours and wavelengths live in the data files.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from geoseg_cli.errors import ModelError, UsageError

NODATA, WIDE_NODATA = 255, 65_535
"""Value of pixels that were not computed, in every uint8 raster that geoseg writes, and in class maps of uint16."""

MOST_CLASSES = 65_535
"""Classes that a raster of uint16 can hold beside nodata."""

LabelType = Literal["uint8", "uint16"]
"""What class values are stored as."""


@dataclass(frozen=True, slots=True)
class LandClass:
    """One class of a raster.

    Attributes:
        value: Value in the raster, 0 to 254; 0 to 65 534 in a raster of uint16.
        name: STAC-safe name: letters, digits, ``-`` and ``_``.
        title: What a person reads.
        color: ``#RRGGBB``.
    """

    value: int
    name: str
    title: str
    color: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0 to 255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True, slots=True)
class Legend:
    """The classes of a raster in the order of the network's outputs.

    Attributes:
        name: Identifier.
        classes: ``classes[k]`` is what output channel k means.
        nodata: Value of pixels without an answer; never a class value.
    """

    name: str
    classes: tuple[LandClass, ...]
    nodata: int = NODATA

    def __post_init__(self) -> None:
        values = [c.value for c in self.classes]
        misfits = [value for value in (*values, self.nodata) if not 0 <= value <= WIDE_NODATA]
        if misfits:
            raise ModelError(
                f"legend {self.name}: of {len(values)} class values and nodata {self.nodata}, {len(misfits)} do not fit"
                f" uint16, such as {misfits[0]}: a map holds at most {MOST_CLASSES} classes",
                f"use values 0 to {WIDE_NODATA - 1} and nodata {WIDE_NODATA}; of more classes, merge some before the"
                " export",
            )
        taken = sorted(value for value, count in Counter([*values, self.nodata]).items() if count > 1)
        if taken:
            raise ModelError(
                f"legend {self.name}: class values {taken[:10]} repeat, or include nodata {self.nodata}",
                "give every class its own value and keep nodata apart",
            )

    @property
    def values(self) -> tuple[int, ...]:
        """Raster value of each network output."""
        return tuple(c.value for c in self.classes)

    @property
    def dtype(self) -> LabelType:
        """What its values and nodata are stored as: uint8 unless one of them needs uint16."""
        return "uint8" if max((*self.values, self.nodata)) <= NODATA else "uint16"

    @property
    def value_count(self) -> int:
        """How many different values a pixel can have, legend or not."""
        return value_count(self.dtype)

    def palette(self) -> dict[int, tuple[int, int, int, int]]:
        """Raster value -> (red, green, blue, alpha), nodata transparent."""
        return {c.value: (*c.rgb, 255) for c in self.classes} | {self.nodata: (0, 0, 0, 0)}

    def subset(self, values: Iterable[int]) -> Legend:
        """The classes with these values, in this order."""
        by_value = {c.value: c for c in self.classes}
        return Legend(self.name, tuple(by_value[v] for v in values), self.nodata)

    def stac_classes(self) -> list[dict[str, Any]]:
        """The classes as STAC classification v2 objects, in the order of the network's outputs."""
        return [
            {"value": c.value, "name": c.name, "title": c.title, "color_hint": c.color[1:].upper()}
            for c in self.classes
        ]


def value_count(dtype: LabelType) -> int:
    """How many different values a pixel of that type can have."""
    return {"uint8": NODATA, "uint16": WIDE_NODATA}[dtype] + 1


def usual_nodata(values: Iterable[int]) -> int:
    """Nodata of classes where nobody states one: the last number of the type that their values need beside it."""
    return NODATA if max(values, default=0) < NODATA else WIDE_NODATA


@dataclass(frozen=True, slots=True)
class LegendMapping:
    """How the classes of one legend become those of another.

    Attributes:
        source, target: The legends.
        classes: Name of a class of the source -> name of the class of the target that it becomes.
        lost: Names of classes of the source that become nodata.
        losses: What the target no longer says, as sentences for people.
    """

    source: Legend
    target: Legend
    classes: Mapping[str, str]
    lost: tuple[str, ...]
    losses: tuple[str, ...]

    def __post_init__(self) -> None:
        known = {c.name for c in self.source.classes}
        told = [*self.classes, *self.lost]
        if set(told) != known or len(told) != len(known):
            raise ModelError(
                f"{self}: {', '.join(sorted(known.symmetric_difference(told)) or sorted(told))} are not told once",
                f"give each class of {self.source.name} a class of the target, or call it lost",
            )
        unknown = set(self.classes.values()) - {c.name for c in self.target.classes}
        if unknown:
            raise ModelError(
                f"{self}: no class of the target is {', '.join(sorted(unknown))}", "use its classes' names"
            )
        if not self.losses:
            raise ModelError(f"{self}: nothing says what is lost", "say it in a sentence")

    def __str__(self) -> str:
        """``source -> target``."""
        return f"{self.source.name} -> {self.target.name}"

    def table(self) -> dict[int, int]:
        """Value in the source -> value in the target, nodata included."""
        values = {c.name: c.value for c in self.target.classes}
        goals = {old: values[new] for old, new in self.classes.items()}
        return {c.value: goals.get(c.name, self.target.nodata) for c in self.source.classes} | {
            self.source.nodata: self.target.nodata
        }


@dataclass(frozen=True, slots=True)
class Band:
    """One band of a sensor.

    Attributes:
        name: The sensor's own name.
        common: Common names, the STAC one first.
        wavelength_nm: Centre wavelength.
        gsd_m: Ground sampling distance.
        aliases: Other spellings of the name.
    """

    name: str
    common: tuple[str, ...]
    wavelength_nm: float
    gsd_m: float
    aliases: tuple[str, ...] = ()

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` is one of this band's names, ignoring case."""
        return name.casefold() in {n.casefold() for n in (self.name, *self.aliases, *self.common)}


@dataclass(frozen=True, slots=True)
class Sensor:
    """A named set of bands, in the order of the sensor's own product.

    Attributes:
        name: Identifier.
        title: What a person reads.
        bands: Its bands.
        only_when_named: Whether band names alone never speak for it: another sensor has the same, or its names are
            common ones.
        platforms, instruments, constellations: What STAC items call its satellites, and what they carry.
        collections: How the names of STAC collections of its scenes begin.
    """

    name: str
    title: str
    bands: tuple[Band, ...]
    only_when_named: bool = False
    platforms: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    constellations: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()

    def near(self, wavelength_nm: float) -> tuple[Band, ...]:
        """Bands whose centre a stated wavelength may be, within :func:`wavelength_tolerance`."""
        far = wavelength_tolerance()
        return tuple(b for b in self.bands if abs(wavelength_nm - b.wavelength_nm) <= far * b.wavelength_nm)

    def find(self, name: str) -> Band | None:
        """The band that answers to ``name``, or None."""
        return next((band for band in self.bands if band.answers_to(name)), None)


@cache
def legends() -> dict[str, Legend]:
    """All legends of ``data/legends.toml`` by name."""
    return {name: _legend(name, table) for name, table in _toml("legends.toml").items()}


@cache
def mappings() -> dict[tuple[str, str], LegendMapping]:
    """All mappings of ``data/mappings.toml`` by the names of source and target."""
    found = [_mapping(row) for row in _toml("mappings.toml")["mappings"]]
    return {(one.source.name, one.target.name): one for one in found}


def find_mapping(source: str, target: str) -> LegendMapping:
    """How the classes of one legend become those of another.

    Raises:
        UsageError: Nobody has written that down.
    """
    if (source, target) not in mappings():
        known = [goal for origin, goal in mappings() if origin == source]
        raise UsageError(
            f"classes of {source} cannot be turned into those of {target}",
            f"use one of {', '.join(known)}" if known else "leave the legend as it is",
        )
    return mappings()[source, target]


@cache
def sensors() -> dict[str, Sensor]:
    """All sensors of ``data/sensors.toml`` by name."""
    tables = {name: table for name, table in _toml("sensors.toml").items() if isinstance(table, dict)}
    return {name: _sensor(name, table) for name, table in tables.items()}


@cache
def wavelength_tolerance() -> float:
    """How far a stated wavelength may lie off a band's centre, as a part of it."""
    return float(_toml("sensors.toml")["wavelength_tolerance"])


@cache
def common_names() -> tuple[str, ...]:
    """Every common band name that some sensor knows, by rising wavelength."""
    waves: dict[str, float] = {}
    for sensor in sensors().values():
        for band in sensor.bands:
            for name in band.common:
                waves.setdefault(name, band.wavelength_nm)
    return tuple(sorted(waves, key=lambda name: waves[name]))


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("geoseg_cli.data") / name).read_text(encoding="utf-8"))


def _legend(name: str, table: dict[str, Any]) -> Legend:
    return Legend(name, tuple(LandClass(**row) for row in table["classes"]), table["nodata"])


def _mapping(row: dict[str, Any]) -> LegendMapping:
    source, target = legends()[row["source"]], legends()[row["target"]]
    return LegendMapping(source, target, row["classes"], tuple(row.get("lost", ())), tuple(row["losses"]))


def _sensor(name: str, table: dict[str, Any]) -> Sensor:
    bands = tuple(_band(row) for row in table["bands"])
    kinds = ("platforms", "instruments", "constellations", "collections")
    listed = (tuple(table.get(kind, ())) for kind in kinds)
    return Sensor(name, table["title"], bands, table.get("only_when_named", False), *listed)


def _band(row: dict[str, Any]) -> Band:
    return Band(row["name"], tuple(row["common"]), row["wavelength_nm"], row["gsd_m"], tuple(row.get("aliases", ())))
