"""Where the map of each scene goes; two scenes never share one."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg_cli.batch.inputs import SceneUnit
from geoseg_cli.batch.products import names_in
from geoseg_cli.batch.tasks import SceneTask, is_address, shown
from geoseg_cli.errors import GeosegError, UsageError
from geoseg_cli.results.sidecars import sidecar_paths

DEFAULT_TEMPLATE = "{stem}_{task}.tif"
FIELDS = {
    "stem": "the scene's name without its ending",
    "task": "landcover or cloudmask",
    "model": "name of the bundle",
    "parent": "name of the folder that the map would lie in",
    "date": "day of the scene, as 20230625; undated where nothing tells it",
}

_METADATA_FILE = re.compile(
    r"(?P<mtd>MTD_MSIL(?:1C|2A)\.xml|S2[A-D]_(?:OPER|USER)_MTD_SAFL1C_.*\.xml)|(?P<mtl>.*_|)MTL\.(?:txt|json|xml)",
    re.IGNORECASE,
)
_KNOWN_ENDINGS = re.compile(
    r"(?:\.tiff?|\.jp2|\.j2k|\.json|\.xml|\.txt|\.vrt|\.hdr|\.img|\.dat|\.bsq|\.bil|\.bip)$|(?:\.safe)?(?:\.zip)?$",
    re.IGNORECASE,
)
"""Names of products hold dots that end nothing: ``HLS.S30.T10TEM.2023123T190911.v2.0``."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How maps are named.

    Attributes:
        task: Ends the names of maps: ``landcover`` or ``cloudmask``.
        model: Name of the bundle.
        out_dir: Where all maps go, in the folders in which their scenes were found; None for beside each scene.
        template: Name of a map, with :data:`FIELDS` in braces; slashes make folders.
        sidecars: Whether files are written beside the maps.
    """

    task: str
    model: str = ""
    out_dir: Path | None = None
    template: str = DEFAULT_TEMPLATE
    sidecars: bool = True

    def __post_init__(self) -> None:
        """Refuse a template that cannot name maps.

        Raises:
            UsageError: It has unknown fields, leads out of the folder, or does not end in .tif.
        """
        example = self._filled(dict.fromkeys(FIELDS, "x"))
        if os.path.isabs(example) or ".." in Path(example).parts:
            raise UsageError(f"--name-template {self.template!r} leads out of the output folder", "use --out-dir")
        if not example.lower().endswith((".tif", ".tiff")):
            raise UsageError(f"--name-template {self.template!r} does not end in .tif", "maps are GeoTIFFs")

    def output_of(self, unit: SceneUnit) -> Path:
        """Where the map of a scene goes."""
        if unit.output is not None:
            return unit.output
        place, stem = place_and_stem(unit.path)
        folder = place if self.out_dir is None else self.out_dir / _below(place, unit.root)
        return folder / self._filled(self._fields(unit, place, unit.stem or stem))

    def _fields(self, unit: SceneUnit, place: Path, stem: str) -> dict[str, str]:
        parent = place.absolute().name
        day = _day_of(unit.path) if "{date" in self.template else ""
        values = {"stem": stem, "task": self.task, "model": self.model, "parent": parent, "date": day}
        return {name: value.replace("/", "_") for name, value in values.items()}

    def _filled(self, values: dict[str, str]) -> str:
        try:
            parts = list(string.Formatter().parse(self.template))
            unknown = {name for _, name, _, _ in parts if name is not None} - set(FIELDS)
            wide = [spec for _, _, spec, _ in parts if spec and re.search(r"\d{4}|[{}]", spec)]
            if wide:  # a width of 9999999999 would be that much memory
                raise ValueError(f"{wide[0]!r} makes no name")
            if not unknown:
                return self.template.format_map(values)
            what = f"has no field {' or '.join(sorted(map(repr, unknown)))}"
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            what = f"cannot be read: {error}"
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise UsageError(f"--name-template {self.template!r} {what}", f"the fields are {known}")

    def tasks(self, units: Sequence[SceneUnit], keep_journal: bool) -> list[SceneTask]:
        """The scenes with their outputs.

        Args:
            units: The scenes.
            keep_journal: Whether a journal is kept in the folder that the outputs go to.

        Raises:
            UsageError: Two scenes have the same output, or a map would replace a scene.
        """
        owners: dict[Path, Path] = {}
        scenes = {place: unit.path for unit in units for place in (_place(unit.path), unit.path.resolve())}
        tasks = []
        for unit in units:
            output = self.output_of(unit)
            for file in (output, *(sidecar_paths(output).values() if self.sidecars else ())):
                _refuse_common(unit.path, file, owners, scenes)
                owners[_place(file)] = unit.path
            home = self._home(unit, output).absolute() if keep_journal else None
            tasks.append(SceneTask(unit.path, output, home))
        return tasks

    def _home(self, unit: SceneUnit, output: Path) -> Path:
        if unit.output is None and self.out_dir is not None:
            return self.out_dir
        return unit.root if unit.output is None and unit.root is not None else output.parent


def _refuse_common(scene: Path, file: Path, owners: dict[Path, Path], scenes: dict[Path, Path]) -> None:
    """One map, and what lies beside it, must not replace what belongs to another, and no scene."""
    place = _place(file)
    if scenes.get(place, scene) != scene:
        raise UsageError(f"the map of {shown(scene)} would replace the scene {file}", "use --out-dir or --output")
    if place in owners:
        raise UsageError(
            f"{shown(owners[place])} and {shown(scene)} would both be written to {file}",
            "tell them apart by --name-template, such as '{parent}_{stem}_{task}.tif', or use other folders",
        )


def _place(path: Path) -> Path:
    """A file by the one name of its folder: writing it replaces a link, not what that leads to."""
    return Path(os.path.realpath(path.parent)) / path.name


def _below(place: Path, root: Path | None) -> Path:
    """The part of a folder below the folder that was named; nothing where it lies elsewhere."""
    if root is None or not place.absolute().is_relative_to(root.absolute()):
        return Path()
    return place.absolute().relative_to(root.absolute())


def _day_of(scene: Path) -> str:
    from geoseg_cli.scenes import SceneOptions
    from geoseg_cli.scenes.acquired import acquisition_time
    from geoseg_cli.scenes.layouts import find_product

    try:
        taken = None if is_address(scene) else acquisition_time(find_product(scene.absolute(), SceneOptions()))
    except GeosegError:
        taken = None  # running the scene tells why it cannot be opened
    return f"{taken:%Y%m%d}" if taken else "undated"


def place_and_stem(scene: Path) -> tuple[Path, str]:
    """Folder and stem of the outputs of a scene where the user names none.

    Nothing goes into a product's own folder: outputs of a product folder, or of its metadata file, lie beside the
    folder and are called like it. Those of an address lie in the current folder.
    """
    from geoseg_cli.scenes.file_list import common_stem, split_list
    from geoseg_cli.scenes.zip_member import split_name

    if is_address(scene):
        return Path(), _stem(shown(scene).rstrip("/").rpartition("/")[2])
    if (zipped := split_name(scene)) is not None:
        return _outside(zipped[0].parent), _stem(scene.name)
    if (files := split_list(scene)) is not None:
        return _outside(files[0].parent), common_stem(files)
    if os.path.isdir(scene):
        folder = scene if scene.name not in ("", "..") else scene.resolve()
        return _outside(folder.parent), _stem(folder.name)
    found = _METADATA_FILE.fullmatch(scene.name)
    folder = scene.parent if scene.parent.name not in ("", "..") else scene.parent.resolve()
    if found is None or (found["mtd"] is None and _holds_several(scene.parent)):
        name = scene.name if found is None else found["mtl"].rstrip("_") or scene.name
        return _outside(scene.parent), _stem(name)
    return _outside(folder.parent), _stem(folder.name)


def _outside(folder: Path) -> Path:
    """The folder itself, or that around the Sentinel-2 product that it belongs to."""
    absolute = folder.absolute()
    for part in (absolute, *absolute.parents):
        if part.suffix.lower() == ".safe":
            return part.parent
        if part.name == "GRANULE" and any(_METADATA_FILE.fullmatch(name) for name in names_in(part.parent)):
            return part.parent.parent
    return folder


def _stem(name: str) -> str:
    return _KNOWN_ENDINGS.sub("", name) or name


def _holds_several(folder: Path) -> bool:
    """Whether a folder holds the MTL files of several scenes."""
    found = filter(None, map(_METADATA_FILE.fullmatch, names_in(folder)))
    return len({match["mtl"].casefold() for match in found if match["mtl"] is not None}) > 1
