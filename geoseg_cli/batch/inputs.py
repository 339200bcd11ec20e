"""From what the user names to scenes: folders, patterns, lists, catalogues. Each scene once, always in one order."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geoseg_cli.batch.products import is_product, scenes_below
from geoseg_cli.batch.tasks import is_address, is_file_name
from geoseg_cli.errors import InputMissingError, UsageError

STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class SceneUnit:
    """One scene, and where it was found.

    Attributes:
        path: A file, a product folder, or an address as a path.
        root: The folder that was named and that the scene lies below; None for a scene that was named itself.
        output: Where its map goes, if the list says it.
        stem: What its map is called, if the catalogue says it.
    """

    path: Path
    root: Path | None = None
    output: Path | None = None
    stem: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The scenes of a command.

    Attributes:
        units: Each scene once.
        is_batch: Whether they are more than one scene that was named itself.
    """

    units: tuple[SceneUnit, ...]
    is_batch: bool


def find_scenes(
    named: Sequence[Path], patterns: Sequence[str] = (), listed: bytes | None = None, home: Path | None = None
) -> Found:
    """Find the scenes that the user means.

    Args:
        named: Scenes, folders, patterns such as ``in/*.tif``, catalogues; ``-`` for ``listed``.
        patterns: Which scenes of folders count; none for all.
        listed: A list as :func:`read_list` takes it.
        home: Folder that the run writes to, where that is one.

    Raises:
        InputMissingError: A folder, a pattern or a list holds no scene.
        UsageError, InputError: A list or a catalogue cannot be understood.
    """
    found: dict[str, SceneUnit] = {}
    has_many, catalogues = False, _Catalogues(home)
    for name in named:
        units, is_lone = _units(name, patterns, listed, catalogues)
        has_many |= not is_lone
        for unit in units:
            found.setdefault(_identity(unit.path), unit)
    return Found(tuple(found.values()), has_many or len(found) > 1)


def _identity(path: Path) -> str:
    if is_address(path):
        return str(path)
    # Links that lead to the same nothing are each to be named.
    return os.path.realpath(path) if os.path.exists(path) else os.path.abspath(path)


def _units(
    name: Path, patterns: Sequence[str], listed: bytes | None, catalogues: _Catalogues
) -> tuple[Iterable[SceneUnit], bool]:
    """The scenes that a name stands for, and whether it is a scene itself."""
    if name == STDIN:
        return _expanded(read_list(listed or b""), catalogues), False
    # os.path.isdir says no where Path.is_dir raises; opening the scene then tells why.
    if os.path.isdir(name):
        return ([SceneUnit(name)], True) if is_product(name) else (_inside(name, patterns), False)
    if glob.has_magic(str(name)) and not os.path.lexists(name) and not is_address(name) and (units := _matching(name)):
        return units, False
    catalogued = catalogues.units_of(name)
    return ([SceneUnit(name)], True) if catalogued is None else (catalogued, False)


def _inside(folder: Path, patterns: Sequence[str]) -> list[SceneUnit]:
    """The scenes in a folder; at least one."""
    units = [SceneUnit(path, folder) for path in scenes_below(folder, patterns)]
    if units:
        return units
    if patterns:
        raise InputMissingError(f"no scene in {folder} matches {' or '.join(patterns)}", "correct --pattern")
    raise InputMissingError(
        f"no GeoTIFF, JPEG 2000, Sentinel-2, Landsat or HLS scenes in folder {folder}",
        "give a folder that holds *.tif or *.jp2 files, SAFE folders or zips, Landsat or HLS folders",
    )


def _matching(pattern: Path) -> list[SceneUnit]:
    """What a pattern stands for that no shell opened; nothing where it is the name of a file that is not there."""
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    units: list[SceneUnit] = []
    for name in sorted(glob.glob(str(pattern), recursive=True)):
        path = Path(name)
        if not os.path.isdir(path) or is_product(path):
            units.append(SceneUnit(path, root))
        elif "**" not in parts:  # which goes into every folder itself
            units += [SceneUnit(one, root) for one in scenes_below(path)]
    return units


def _expanded(lines: Iterable[SceneUnit], catalogues: _Catalogues) -> Iterator[SceneUnit]:
    """A list's lines; folders in it stand for the scenes in them."""
    for unit in lines:
        if unit.output is not None or not os.path.isdir(unit.path):
            catalogued = None if unit.output is not None else catalogues.units_of(unit.path)
            yield from [unit] if catalogued is None else catalogued
        else:
            yield from [unit] if is_product(unit.path) else _inside(unit.path, ())


def read_list(data: bytes) -> list[SceneUnit]:
    r"""Scenes from a list: one path a line, or with NUL between them, or JSON lines.

    A JSON line is an object with ``path`` or ``scene``, and perhaps ``output``; so the report of an earlier run is a
    list. Its lines about scenes that failed count like the others.

    Raises:
        UsageError: A line cannot be understood.
        InputMissingError: The list is empty.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\0" in data:
        raise UsageError("the list on standard input is UTF-16", "send it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    names = data.split(b"\0") if b"\0" in data else data.split(b"\n")
    units = []
    for number, name in enumerate(names, start=1):
        text = os.fsdecode(name.removesuffix(b"\r"))
        if text.strip():
            units.append(_from_json(text, number) if text.startswith("{") else SceneUnit(Path(text)))
    if not units:
        raise InputMissingError("the list on standard input is empty", "send it one path a line")
    return units


def _from_json(text: str, number: int) -> SceneUnit:
    try:
        fields = json.loads(text)
        scene = fields.get("path") or fields["scene"]
        output = fields.get("output")
        if not isinstance(scene, str) or not isinstance(output, str | None):
            raise TypeError
        if not is_file_name(scene) or (output is not None and not (is_file_name(output) and Path(output).name)):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"line {number} of the list on standard input is no JSON object with path or scene, or one of its"
            " paths can be no file",
            'send lines such as {"path": "scene.tif"}',
        ) from error
    return SceneUnit(Path(scene), output=None if output is None else Path(output))


@dataclass(frozen=True, slots=True)
class _Catalogues:
    """The catalogues of one command.

    Attributes:
        home: Folder that the run writes to, where that is one.
        places: What was written for their items so far: a file, and its text.
    """

    home: Path | None
    places: dict[Path, str] = field(default_factory=dict)

    def units_of(self, path: Path) -> list[SceneUnit] | None:
        """The scenes of a catalogue; None where a path is something else."""
        if path.suffix.lower() not in (".json", ".geojson", ".parquet", ".geoparquet") or not os.path.isfile(path):
            return None
        from geoseg_cli.batch.catalogue import TABLE_SUFFIXES, items_of, name_of, place_of, rows_of

        catalogue = path.absolute()
        rows: Iterable[object] | None
        rows = rows_of(catalogue) if path.suffix.lower() in TABLE_SUFFIXES else items_of(catalogue)
        if rows is None:
            return None
        units = []
        for row in rows:
            if isinstance(row, dict):
                place = place_of(row, catalogue, (self.home or catalogue.parent).absolute(), self.places)
                units.append(SceneUnit(place, stem=name_of(row, catalogue)))
            elif isinstance(row, Path):
                units.append(SceneUnit(row if is_address(row) else catalogue.parent / row))
        if not units:
            raise InputMissingError(f"{path} lists no scene", "give a catalogue that holds some")
        return units
