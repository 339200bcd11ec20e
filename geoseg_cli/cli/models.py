"""``geoseg models``: what can be run."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoseg_cli.cli.help_texts import PlainCommand, PlainGroup
from geoseg_cli.cli.request import put

if TYPE_CHECKING:
    from geoseg_cli.bundle import Bundle
    from geoseg_cli.networks.counting import NetworkSize

app = typer.Typer(
    help="List and describe the bundles and the architectures.",
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=False,
)

Bands = Annotated[
    int | None,
    typer.Option("--bands", metavar="N", min=1, help="Input bands (default: as published).", show_default=False),
]
Classes = Annotated[
    int | None,
    typer.Option("--classes", metavar="N", min=1, help="Output classes (default: as published).", show_default=False),
]
Name = Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A bundle: its name, or its folder.")]
RowsAsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON list, with the folder of each, instead of lines.")
]
CardAsJson = Annotated[bool, typer.Option("--json", help="Print the card, a STAC item in JSON, instead of the README.")]
SizesAsJson = Annotated[bool, typer.Option("--json", help="Print one JSON list instead of a table.")]


@app.command("list", cls=PlainCommand)
def list_bundles(json: RowsAsJson = False) -> None:
    """List the bundles that came with geoseg."""
    from geoseg_cli.bundle import Bundle, bundle_folders

    rows = [_summary(Bundle.open(folder)) for folder in bundle_folders()]
    if json:
        put(json_format.dumps(rows) + "\n")
        return
    for row in rows:
        optional = f" (optional: {', '.join(row['optional_bands'])})" if row["optional_bands"] else ""
        put(f"{row['name']}  {row['task']}  {row['parameters']:,} parameters  {row['gsd_m']:g} m\n")
        put(f"    bands: {', '.join(row['required_bands'])}{optional}\n")
        put(f"    classes: {', '.join(row['classes'])}\n")


@app.command("show", cls=PlainCommand)
def show(name: Name, json: CardAsJson = False) -> None:
    """Describe a bundle: its README, or with --json its card."""
    from geoseg_cli.bundle import CARD_FILE, find_bundle

    bundle = find_bundle(name)
    readme = bundle.folder / "README.md"
    shown = bundle.folder / CARD_FILE if json or not readme.is_file() else readme
    put(shown.read_text(encoding="utf-8"))


@app.command("architectures", cls=PlainCommand)
def list_architectures(bands: Bands = None, classes: Classes = None, json: SizesAsJson = False) -> None:
    """List the networks with their parameters and multiply-adds per image of 256 and 512 pixels a side."""
    from geoseg_cli.networks import network_names, published_interface
    from geoseg_cli.networks.counting import COUNTING_RULE, measure_size

    sizes: list[NetworkSize] = []
    if not json:
        titles = f"{'parameters':>12} {'GMAC 256x256':>13} {'GMAC 512x512':>13}"
        put(f"{'name':20} {'bands':>5} {'classes':>7} {titles}\n")
    for name in network_names():
        published = published_interface(name)
        sizes.append(measure_size(name, bands or published.bands, classes or published.classes))
        if not json:
            put(_size_row(sizes[-1]) + "\n")
    put((json_format.dumps([_size_fields(size) for size in sizes]) if json else COUNTING_RULE) + "\n")


def _size_row(size: NetworkSize) -> str:
    gmacs = " ".join(f"{macs / 1e9:13.3f}" for macs in size.macs.values())
    return f"{size.name:20} {size.bands:5} {size.classes:7} {size.parameters:12,} {gmacs}"


def _size_fields(size: NetworkSize) -> dict[str, Any]:
    macs = {f"macs_{side_px}px": macs for side_px, macs in size.macs.items()}
    return {"name": size.name, "bands": size.bands, "classes": size.classes, "parameters": size.parameters} | macs


def _summary(bundle: Bundle) -> dict[str, Any]:
    spec, card = bundle.input_spec, bundle.card
    return {
        "name": bundle.name,
        "task": card.extras.task,
        "architecture": card.properties.architecture,
        "parameters": card.properties.total_parameters,
        "gsd_m": card.extras.gsd_m,
        "required_bands": list(spec.required),
        "optional_bands": list(spec.optional),
        "classes": [c.name for c in bundle.legend.classes],
        "folder": str(bundle.folder),
    }
