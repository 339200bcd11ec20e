"""Tables of a configuration that say what comes out: the bundle, its network, its bands and its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from geoseg_cli.catalog import LandClass, Legend, common_names, legends
from geoseg_cli.networks import network_names
from geoseg_cli.training.chips import MAX_CLASSES
from geoseg_cli.training.config_values import Number, Positive, Table, Whole, beside_config


class BundleTable(Table):
    """``[bundle]``: what the result is called and says of itself.

    Attributes:
        name: Of the bundle and its folder.
        title: One line for people; the name if not given.
        description: A sentence or two.
        task: Which command runs it.
        licence: SPDX identifier of the weights' licence.
        gsd_m: Ground sampling distance of the scenes it is for, metres.
        tile_px, overlap_px: Tiles of the scenes it will map.
        limits: What it was not made for or not measured on.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str = ""
    description: str = ""
    task: Literal["land-cover", "cloud"]
    licence: str = Field(min_length=1)
    gsd_m: Positive
    tile_px: Whole = Field(default=256, ge=32, multiple_of=32)
    overlap_px: Whole = Field(default=64, ge=0)
    limits: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_tile(self) -> BundleTable:
        if 2 * self.overlap_px > self.tile_px:
            raise ValueError(f"overlap_px {self.overlap_px} is more than half of tile_px {self.tile_px}")
        return self


class NetworkTable(Table):
    """``[network]``: the architecture.

    Attributes:
        name: One of ``network_names()``.
        config: Fields of its configuration to replace.
    """

    name: str
    config: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in network_names():
            raise ValueError(f"no network is called {name!r}; use one of {', '.join(network_names())}")
        return name


class InputTable(Table):
    """``[input]``: the bands that the network sees.

    Attributes:
        bands: Common names.
        optional: Those of ``bands`` that a scene may lack.
        mean, stddev: Of the reflectance of each band; measured on the training part if not given.
    """

    bands: tuple[str, ...] = Field(min_length=1)
    optional: tuple[str, ...] = ()
    mean: tuple[Number, ...] | None = None
    stddev: tuple[Positive, ...] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> InputTable:
        unknown = [band for band in self.bands if band not in common_names()]
        if unknown:
            raise ValueError(f"no band is called {', '.join(unknown)}; use {', '.join(common_names())}")
        if len(set(self.bands)) != len(self.bands):
            raise ValueError("a band is named twice")
        if stray := [band for band in self.optional if band not in self.bands]:
            raise ValueError(f"optional bands {', '.join(stray)} are not among bands")
        if len(self.optional) == len(self.bands):
            raise ValueError("every band is optional; at least one must be there in every scene")
        for name, values in (("mean", self.mean), ("stddev", self.stddev)):
            if values is not None and len(values) != len(self.bands):
                raise ValueError(f"{name} has {len(values)} numbers for {len(self.bands)} bands")
        if (self.mean is None) != (self.stddev is None):
            raise ValueError("mean and stddev come together or not at all")
        return self


class ClassRow(Table):
    """One class of an own legend."""

    value: Whole = Field(ge=0, le=254)
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    title: str = ""
    color: str = Field(pattern=r"^#[0-9A-Fa-f]{6}$")


def _refuse_twins(values: Sequence[int], own: Sequence[ClassRow]) -> None:
    """Classes are found by value and by name, and by either in a vector file: none may mean two of them."""
    for value, count in Counter(values).items():
        if count > 1:
            names = [row.name for row in own if row.value == value]
            raise ValueError(f"value {value} is given twice{': ' * bool(names)}{' and '.join(names)}")
    for name, count in Counter(row.name for row in own).items():
        if count > 1:
            given = " and ".join(str(row.value) for row in own if row.name == name)
            raise ValueError(f"name {name} is given twice: to {given}")
    names_of = {str(row.value): row.name for row in own}
    for row in own:
        if row.name in names_of and row.name != str(row.value):
            raise ValueError(f"the name of class {row.value} is {row.name}, which is the value of {names_of[row.name]}")


class ClassesTable(Table):
    """``[classes]``: classes of a known legend, or own ones.

    Attributes:
        legend: Name of a known legend, or with ``own`` the name of the new one.
        values: Classes of the known legend; all if not given.
        own: The classes of a new legend.
    """

    legend: str = Field(min_length=1)
    values: tuple[Whole, ...] | None = None
    own: tuple[ClassRow, ...] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> ClassesTable:
        if self.own is None and self.legend not in legends():
            raise ValueError(f"no legend is called {self.legend!r}; use {', '.join(legends())}, or give own classes")
        if self.own is not None and self.values is not None:
            raise ValueError("values choose from a known legend; own classes need none")
        if self.own is not None and self.legend in legends():
            raise ValueError(f"{self.legend!r} is a known legend; give own classes another name")
        self._refuse_strays()
        values = [row.value for row in self.own] if self.own is not None else list(self.values or ())
        _refuse_twins(values, self.own or ())
        count = len(self.to_legend().values)
        if not 2 <= count <= MAX_CLASSES:
            raise ValueError(f"{count} class(es): give 2 to {MAX_CLASSES}")
        return self

    def _refuse_strays(self) -> None:
        if self.own is None and self.values is not None:
            known = legends()[self.legend].values
            if stray := [value for value in self.values if value not in known]:
                raise ValueError(f"legend {self.legend} has no value {stray}; it has {list(known)}")

    def to_legend(self) -> Legend:
        """The classes in the order of the network's outputs."""
        if self.own is None:
            known = legends()[self.legend]
            return known if self.values is None else known.subset(self.values)
        rows = (LandClass(row.value, row.name, row.title or row.name, row.color) for row in self.own)
        return Legend(self.legend, tuple(rows))


class StartTable(Table):
    """``[start]``: weights to begin with.

    Attributes:
        bundle: Name of a shipped bundle, or a folder relative to the file.
    """

    bundle: str

    @field_validator("bundle")
    @classmethod
    def _beside(cls, bundle: str, info: ValidationInfo) -> str:
        folder = beside_config(Path(bundle), info)
        return str(folder) if folder.is_dir() else bundle
