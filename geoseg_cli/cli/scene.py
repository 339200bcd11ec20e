"""``geoseg scene``: what geoseg makes of a scene, before a model runs."""

from __future__ import annotations

import json as json_format
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoseg_cli.batch.tasks import shown
from geoseg_cli.cli import options as o
from geoseg_cli.cli.console import tame
from geoseg_cli.cli.help_texts import PlainCommand, PlainGroup
from geoseg_cli.cli.request import put
from geoseg_cli.errors import GeosegError
from geoseg_cli.printable import printable

if TYPE_CHECKING:
    from geoseg_cli.scenes.describe import BandDescription, BundleFit, Refusal, SceneDescription

app = typer.Typer(
    help="Look at scenes before anything is computed.", cls=PlainGroup, no_args_is_help=True, add_completion=False
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.callback()
def group() -> None:
    """Look at scenes before anything is computed."""


@app.command("info", cls=PlainCommand)
def info(
    scene: o.OneScene,
    json: AsJson = False,
    bands: o.Bands = None,
    radiometry: o.RadiometryName = "auto",
    nodata: o.Nodata = "auto",
    sensor: o.SensorName = None,
    fill: o.Fill = None,
    valid: o.Valid = "all",
    saturated: o.Saturated = "keep",
    gsd: o.GsdName = "auto",
    allow_network: o.AllowNetwork = False,
    allow_driver: o.AllowDriver = None,
    max_pixels: o.MaxPixels = None,
    sidecars: o.UseSidecars = False,
) -> None:
    """Tell what geoseg understands of SCENE, and which bundles can run on it.

    Layout, grid, bands, what the numbers mean, nodata and warnings. What cannot
    be decided is told with its remedy; the exit code is 0 where the scene can be
    read.
    """
    options, gsd_m = o.scene_options(dict(locals())), o.read_gsd(gsd)
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    from geoseg_cli.bundle import Bundle, bundle_folders
    from geoseg_cli.scenes.describe import describe_scene

    try:
        found = describe_scene(scene, options, [Bundle.open(folder) for folder in bundle_folders()], gsd_m)
    except GeosegError as error:
        tame(error)
        raise
    put(json_format.dumps(_fields(scene, found)) + "\n" if json else _text(scene, found))


def _fields(scene: Path, found: SceneDescription) -> dict[str, Any]:
    """The description in plain types."""
    from geoseg_cli.scenes.describe import Refusal

    steps = found.grid.gsd_m()
    numbers = found.radiometry
    return {
        "scene": shown(scene),
        "layout": found.layout,
        "sensor": found.sensor,
        "size_px": [found.grid.height, found.grid.width],
        "crs": found.grid.crs.to_string() if found.grid.crs else None,
        "gsd_m": [round(step, 3) for step in steps] if steps else None,
        "bounds": list(found.grid.bounds),
        "bounds_wgs84": list(found.bounds_wgs84) if found.bounds_wgs84 else None,
        "orientation": found.orientation,
        "bands": [_band_fields(band) for band in found.bands],
        "bands_refused": _refusal_fields(found.naming),
        "radiometry": None
        if isinstance(numbers, Refusal)
        else {"rung": numbers.rung, "scale": numbers.scale, "offset": numbers.offset, "reason": numbers.reason},
        "radiometry_refused": _refusal_fields(numbers) if isinstance(numbers, Refusal) else None,
        "nodata": found.nodata,
        "sample": {"pixels": found.sample.pixels, "valid_pixels": found.sample.valid},
        "warnings": list(found.warnings),
        "bundles": [_bundle_fields(fit) for fit in found.bundles],
    }


def _extent_words(found: SceneDescription) -> str:
    """Left, bottom, right and top as ``--bounds`` takes them."""
    own = " ".join(f"{number:.10g}" for number in found.grid.bounds)
    if found.bounds_wgs84 is None or found.grid.is_geographic:
        return own
    return f"{own}, in EPSG:4326 {' '.join(f'{number:.5f}' for number in found.bounds_wgs84)}"


def _band_fields(band: BandDescription) -> dict[str, Any]:
    meanings = {
        one.sensor: {"common_names": list(one.common), "wavelength_nm": one.wavelength_nm} for one in band.meanings
    }
    return {"index": band.number, "name": band.name or None, "band": band.common, "sensors": meanings}


def _bundle_fields(fit: BundleFit) -> dict[str, Any]:
    return {
        "bundle": fit.bundle,
        "task": fit.task,
        "runs": fit.refusal is None,
        "absent_bands": list(fit.absent),
        "filled_bands": list(fit.filled),
        "resampled_gsd_m": fit.shown_gsd_m,
        "refused": _refusal_fields(fit.refusal),
        "warnings": list(fit.warnings),
    }


def _refusal_fields(refusal: Refusal | None) -> dict[str, str] | None:
    return None if refusal is None else {"message": refusal.message, "hint": refusal.hint}


def _text(scene: Path, found: SceneDescription) -> str:
    from geoseg_cli.scenes.describe import Refusal

    lines = [printable(shown(scene)), f"  layout: {found.layout}", f"  grid: {_grid_words(found)}"]
    lines.append(f"  extent: {_extent_words(found)}")
    lines += ["  bands:", *(f"    {_band_words(band)}" for band in found.bands)]
    if found.naming:
        lines += _refusal_lines("bands not decided", found.naming, found)
    if isinstance(found.radiometry, Refusal):
        lines += _refusal_lines("radiometry not decided", found.radiometry, found)
    else:
        lines.append(f"  radiometry: {found.radiometry.reason} [{found.radiometry.rung}]")
    lines += [f"  nodata: {found.nodata}", f"  valid: {_sample_words(found)}"]
    lines += [f"  warning: {warning}" for warning in found.warnings]
    for fit in found.bundles:
        lines += _bundle_lines(fit, found)
    return "".join(printable(line, keep="\n") + "\n" for line in lines)


def _grid_words(found: SceneDescription) -> str:
    grid, steps = found.grid, found.grid.gsd_m()
    size = f"pixels of {steps[0]:.4g} x {steps[1]:.4g} m" if steps else "pixel size unknown"
    code = grid.crs.to_string() if grid.crs else "no CRS"
    return f"{grid.height} x {grid.width} px, {code}, {size}, {found.orientation}"


def _band_words(band: BandDescription) -> str:
    """``4 B04: red, 664.6 nm (sentinel-2)``; sensors that agree are told together."""
    name = band.name if band.name.isprintable() else ascii(band.name)
    meanings: dict[tuple[str, float], list[str]] = {}
    for one in band.meanings:
        meanings.setdefault((band.common or one.common[0], one.wavelength_nm), []).append(one.sensor)
    told = [f"{common}, {nm:g} nm ({', '.join(able)})" for (common, nm), able in meanings.items()]
    return f"{band.number} {name or 'without a name'}: {'; or '.join(told) or band.common or 'unknown'}"


def _sample_words(found: SceneDescription) -> str:
    share = found.sample.valid / max(found.sample.pixels, 1)
    return f"{share:.1%} of a sample of {found.sample.pixels:,} of {found.grid.height * found.grid.width:,} pixels"


def _bundle_lines(fit: BundleFit, found: SceneDescription) -> list[str]:
    """One line for a bundle that runs, the refusal for another."""
    if fit.refusal is not None:
        return _refusal_lines(f"{fit.bundle} ({fit.task}) cannot run", fit.refusal, found)
    notes = [f"without {', '.join(fit.absent)}"] if fit.absent else []
    notes += [f"{', '.join(fit.filled)} filled"] if fit.filled else []
    notes += [f"at pixels of {fit.shown_gsd_m:g} m"] if fit.shown_gsd_m else []
    lines = [f"  {fit.bundle} ({fit.task}) can run" + (f", {'; '.join(notes)}" if notes else "")]
    return lines + [f"    warning: {warning}" for warning in fit.warnings]


def _refusal_lines(title: str, refusal: Refusal, found: SceneDescription) -> list[str]:
    """The refusal without the scene's name, which stands above."""
    told = textwrap.indent(refusal.message.removeprefix(f"{found.path}: "), "    ").lstrip()
    return [f"  {title}: {told}", *([f"    -> {refusal.hint}"] if refusal.hint else [])]
