"""``geoseg models``: what can be run."""

from __future__ import annotations

import json as json_format
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoseg_cli.cli.options import Json

if TYPE_CHECKING:
    from geoseg_cli.bundle import Bundle

app = typer.Typer(help="List and describe the bundles.", no_args_is_help=True)


@app.command("list")
def list_bundles(json: Json = False) -> None:
    """List the bundles that came with geoseg."""
    from geoseg_cli.bundle import Bundle, bundle_folders

    rows = [_summary(Bundle.open(folder)) for folder in bundle_folders()]
    if json:
        print(json_format.dumps(rows))
        return
    for row in rows:
        optional = f" (optional: {', '.join(row['optional_bands'])})" if row["optional_bands"] else ""
        print(f"{row['name']}  {row['task']}  {row['parameters']:,} parameters  {row['gsd_m']:g} m")
        print(f"    bands: {', '.join(row['required_bands'])}{optional}")
        print(f"    classes: {', '.join(row['classes'])}")


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Bundle name or folder.")], json: Json = False) -> None:
    """Describe a bundle: its README, or with --json its card."""
    from geoseg_cli.bundle import CARD_FILE, find_bundle

    bundle = find_bundle(name)
    readme = bundle.folder / "README.md"
    shown = bundle.folder / CARD_FILE if json or not readme.is_file() else readme
    sys.stdout.write(shown.read_text(encoding="utf-8"))


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
