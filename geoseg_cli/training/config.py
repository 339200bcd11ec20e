"""What a training run is told: a TOML file, read into checked values.

A key that is not known, a value out of its range and tables that contradict each other are refused by name. Paths are
relative to the file. The tables are in ``config_model``, ``config_data`` and ``config_loop``. What a run decides for
itself, from the data or from a bundle, is in ``plan``.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError, model_validator

from geoseg_cli.errors import AccessError, InputMissingError, UsageError
from geoseg_cli.training.chips import band_names
from geoseg_cli.training.config_data import DataTable, PairsTable, SimulatorTable, SplitTable, VectorsTable
from geoseg_cli.training.config_loop import AugmentTable, TrainTable
from geoseg_cli.training.config_model import BundleTable, ClassesTable, InputTable, NetworkTable, StartTable
from geoseg_cli.training.config_values import Table

__all__ = [
    "AugmentTable",
    "BundleTable",
    "ClassesTable",
    "DataTable",
    "InputTable",
    "NetworkTable",
    "PairsTable",
    "SimulatorTable",
    "SplitTable",
    "StartTable",
    "TrainConfig",
    "TrainTable",
    "VectorsTable",
    "read_config",
]


class TrainConfig(Table):
    """A whole file.

    ``network`` and ``input`` may be left out where ``start`` names a bundle that has them.
    """

    bundle: BundleTable
    classes: ClassesTable
    data: DataTable
    train: TrainTable
    network: NetworkTable | None = None
    input: InputTable | None = None
    split: SplitTable = SplitTable()
    augment: AugmentTable = AugmentTable()
    start: StartTable | None = None

    @model_validator(mode="after")
    def _agrees(self) -> TrainConfig:
        for name in ("network", "input"):
            if getattr(self, name) is None and self.start is None:
                raise ValueError(f"[{name}] is missing; only a run with [start] may take it from a bundle")
        if self.augment.clouds and self.bundle.task != "land-cover":
            raise ValueError("augment.clouds is for land cover: pasted clouds would contradict the labels of clouds")
        if self.augment.physics and self.input is not None:
            self._refuse_unknown_bands(self.input.bands)
        return self

    def _refuse_unknown_bands(self, bands: tuple[str, ...]) -> None:
        if stray := [band for band in bands if band not in band_names("sentinel-2")]:
            raise ValueError(f"{self.augment.physics} knows the bands of Sentinel-2, and not {', '.join(stray)}")


def read_config(path: Path) -> TrainConfig:
    """Read a configuration.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        UsageError: It is a folder or no TOML, or says something that is unknown, out of range or contradictory.
    """
    table = _read_toml(path)
    try:
        return TrainConfig.model_validate(table, context={"folder": path.parent})
    except ValidationError as error:
        messages, hints = zip(*(_explain(dict(one)) for one in error.errors()), strict=True)
        hint = next(filter(None, hints), "see docs/training.md for every key")
        raise UsageError(f"{path}:\n" + "\n".join(f"  {text}" for text in messages), hint) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, and no configuration", _configurations_in(path))
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin a file with a mark
    except FileNotFoundError as error:
        raise InputMissingError(f"no configuration {path}", "see docs/training.md for an example") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}", "see https://toml.io for the format") from error
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}", "give a file that you may read") from error


def _configurations_in(folder: Path) -> str:
    """What to give instead of a folder."""
    found = sorted(folder.glob("*.toml"))
    if not found:
        return "give a TOML file, geoseg train CONFIG.toml; see docs/training.md for an example"
    others = f", or {', '.join(path.name for path in found[1:6])}" if found[1:] else ""
    return f"geoseg train {found[0]}{others}"


def _explain(error: dict[str, Any]) -> tuple[str, str]:
    """One error of pydantic in our words, and what to do about it."""
    loc = [
        part for part in error["loc"] if isinstance(part, int) or not part.startswith(("function-before[", "literal["))
    ]
    where = ".".join(map(str, loc)) or "the file"
    if error["type"] == "extra_forbidden":
        known = _known_keys(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"{where} is no known key{meant}", f"keys there: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{where} is missing", ""
    text = str(error["msg"]).removeprefix("Value error, ")
    given = "" if isinstance(error["input"], (dict, BaseModel)) else f" (given: {_as_toml(error['input'])})"
    return f"{where}: {text}{given}", ""


def _as_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _known_keys(loc: list[Any]) -> list[str]:
    """Keys of the table at a place of the file."""
    table: type[BaseModel] = TrainConfig
    for part in loc:
        if isinstance(part, str):
            table = _table_in(table.model_fields[part].annotation) or table
    return list(table.model_fields)


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The table that a field holds, alone, optional or in a list."""
    if get_origin(annotation) in (tuple, Union, UnionType):
        return next(filter(None, map(_table_in, get_args(annotation))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
