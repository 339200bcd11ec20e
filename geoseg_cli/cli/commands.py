"""The commands by name: each one's module is imported when it is called, so that the others cost nothing."""

from __future__ import annotations

import importlib
from typing import Any

import typer

from geoseg_cli.cli.help_texts import PlainCommand, PlainGroup

COMMANDS = {
    "classify": "Write a land-cover map of each SCENE as a Cloud Optimized GeoTIFF.",
    "cloudmask": "Write a mask of clouds and shadows of each SCENE as a Cloud Optimized GeoTIFF.",
    "composite": "Write the most frequent class of each pixel over many maps, and how often it was seen clearly.",
    "batch": "See what became of runs over many scenes.",
    "verify": "Check maps of geoseg and what lies beside them; exit code 0 if all are as they were written.",
    "polygons": "Turn a class map into polygons: one for each connected part of a class.",
    "areas": "Print what each class of a map covers: pixels, share and hectares on the ground.",
    "preview": "Draw MAP in the colours of its classes, and SCENE beside it in true colour.",
    "report": "Write one HTML page of the MAPs: it needs no network and no other file.",
    "scene": "Look at scenes before anything is computed.",
    "models": "List and describe the bundles and the architectures.",
    "evaluate": "Compare a finished map with a reference, or a bundle's maps with labels.",
    "train": "Train a bundle on own data or on simulated scenes, as CONFIG.toml says.",
    "export": "Export a bundle, or a bare network with random weights, as one file.",
    "bench": "Measure how fast SCENE, or a synthetic one, is mapped on this machine.",
    "doctor": "Print versions, GDAL drivers, engines with the providers that really run, and devices.",
    "config": "Show the configuration and where each value comes from.",
}
"""Name of each command, which is that of its module, and the first sentence of its help; in the order of the help."""


class LazyCommands(PlainGroup):
    """A group whose help knows of its commands only what :data:`COMMANDS` says.

    Contexts and commands are click's, which some versions of Typer carry in a package of their own.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, summary in COMMANDS.items():
            self.commands[name] = PlainCommand(name, help=summary)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order of the help."""
        return list(COMMANDS)

    def load_all(self) -> None:
        """Make every command whole: for who looks at their options."""
        for name in COMMANDS:
            self.commands[name] = load_command(name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, whole."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)


def load_command(name: str) -> Any:
    """A command with its options; a group where its module has an ``app``."""
    module = importlib.import_module(f"geoseg_cli.cli.{name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name, cls=PlainCommand)(module.command)
    command = typer.main.get_command(app)
    command.name = name
    return command
