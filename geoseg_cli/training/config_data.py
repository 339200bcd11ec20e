"""Tables of a configuration that say what is learned from, and which places choose and test."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from geoseg_cli.training.config_values import ConfigPath, Nodata, Number, Positive, Share, Table, Whole

ZOOMS: Final = (0.1, 10.0)
"""Least and largest zoom: beyond a factor of ten a sample is a few pixels of the data, or more than a whole chip."""


class _DataTable(Table):
    """What all kinds of data share.

    Attributes:
        share: Share of the samples, relative to the other data.
        weight: Weight of a sample's loss; lower it for labels that are often wrong.
        zoom: Range of the pixel size of samples relative to that of the data, within ``ZOOMS``.
        title, licence: What the card says about the data.
    """

    share: Positive = 1.0
    weight: Number = Field(default=1.0, gt=0, le=1)
    zoom: tuple[Number, Number] = (1.0, 1.0)
    title: str = ""
    licence: str = ""

    @field_validator("zoom", mode="before")
    @classmethod
    def _stays_in_bounds(cls, zoom: Any) -> Any:
        # Before the type is checked: the bounds then answer 0, a negative number, inf and nan as well.
        numbers = [one for one in zoom if isinstance(one, (int, float))] if isinstance(zoom, (list, tuple)) else []
        if not all(ZOOMS[0] <= one <= ZOOMS[1] for one in numbers):
            raise ValueError(f"two numbers from {ZOOMS[0]:g} to {ZOOMS[1]:g} are wanted")
        return zoom

    @field_validator("zoom")
    @classmethod
    def _rises(cls, zoom: tuple[float, float]) -> tuple[float, float]:
        if zoom[0] > zoom[1]:
            raise ValueError("the first number is the smaller one")
        return zoom


class _SceneTable(_DataTable):
    """How scenes are read where they do not say enough themselves.

    Attributes:
        bands: Names of the files' bands in file order, ``-`` to skip one; the files' own if not given.
        radiometry: What the numbers mean.
        nodata: The number that means nothing.
    """

    bands: tuple[str, ...] | None = None
    radiometry: Literal["auto", "reflectance", "dn", "dn-1000"] = "auto"
    nodata: Nodata = "auto"


class PairsTable(_SceneTable):
    """``[[data.pairs]]``: images and label rasters on the same grid.

    Attributes:
        folder: Where they lie, at any depth; see ``labels.find_pairs``.
        ignore: Label values that mean that nothing is known, besides 255 and the file's nodata.
    """

    folder: ConfigPath
    ignore: tuple[Annotated[Whole, Field(ge=0, le=255)], ...] = ()


class VectorsTable(_SceneTable):
    """``[[data.vectors]]``: points and polygons on scenes.

    Attributes:
        file: GeoJSON.
        scenes: A GeoTIFF or a folder of them.
        class_property: Property with the value or the name of the class.
        place_property: Property with the place; squares of ``block_m`` are places if not given.
        block_m: Side of the squares.
        point_radius_m: A point labels pixels up to so far away; 0 labels the one it lies in.
    """

    file: ConfigPath
    scenes: ConfigPath
    class_property: str = "class"
    place_property: str | None = None
    block_m: Positive = 2000.0
    point_radius_m: Number = Field(default=0.0, ge=0)


class SimulatorTable(_DataTable):
    """``[data.simulator]``: scenes from measured spectra.

    Attributes:
        spectra: Folder of the spectral tables.
        scenes: Simulated scenes to learn from, 256 x 256 px each.
        develop_scenes: Further ones that help to choose the best weights.
        workers: Processes that simulate; they change no scene.
    """

    spectra: ConfigPath
    scenes: Whole = Field(default=200, ge=1, le=1_000_000)
    develop_scenes: Whole = Field(default=20, ge=1, le=10_000)
    workers: Whole = Field(default=0, ge=0)


class DataTable(Table):
    """``[data]``: what to learn from."""

    pairs: tuple[PairsTable, ...] = ()
    vectors: tuple[VectorsTable, ...] = ()
    simulator: SimulatorTable | None = None

    @model_validator(mode="after")
    def _is_there(self) -> DataTable:
        if not (self.pairs or self.vectors or self.simulator):
            raise ValueError("there is no data: give [[data.pairs]], [[data.vectors]] or [data.simulator]")
        return self


class SplitTable(Table):
    """``[split]``: which places are learned from, which choose the best weights, and which are not read at all.

    Attributes:
        develop, test: Shares of the places.
        develop_places, test_places: The places themselves, instead of a share.
        seed: Which places the shares fall on.
    """

    develop: Share = 0.2
    test: Share = 0.2
    develop_places: tuple[str, ...] | None = None
    test_places: tuple[str, ...] | None = None
    seed: Whole = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _leaves_something(self) -> SplitTable:
        if self.develop + self.test >= 1:
            raise ValueError(f"develop {self.develop:g} and test {self.test:g} leave nothing to learn from")
        both = set(self.develop_places or ()) & set(self.test_places or ())
        if both:
            raise ValueError(f"places {', '.join(sorted(both))} are in develop_places and in test_places")
        return self
