"""How help texts show parameters: in the words of their metavars, without the names of Python's types."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command with such a help text."""

    def get_params(self, ctx: Any) -> Any:
        """Its parameters, that of the help itself included."""
        return [_plain(one) for one in super().get_params(ctx)]


class PlainGroup(TyperGroup):
    """A group with such a help text."""

    def get_params(self, ctx: Any) -> Any:
        """Its parameters, that of the help itself included."""
        return [_plain(one) for one in super().get_params(ctx)]


def _plain(param: Any) -> Any:
    """A parameter of Typer, or of click, that shows itself so."""
    if param.param_type_name == "argument":
        usage = _usage(param)
        param.get_usage_pieces = lambda ctx: [usage]
        param.display_type_rich = lambda ctx: None  # its name says what it is
    elif param.is_flag or param.count:
        param.display_type_rich = lambda ctx: None
    elif hasattr(param, "display_type_rich"):  # click has none
        shown = type(param).display_type_rich
        param.display_type_rich = lambda ctx: (shown(param, ctx) or "").removeprefix("<").removesuffix(">")
    return param


def _usage(argument: Any) -> str:
    """``MAP``, ``MAP...``, ``[SCENE]`` or ``(MAP|FOLDER)...``; a notation of its own stays as it is."""
    name = argument.metavar or argument.name.upper()
    if name.startswith("["):
        return str(name)
    if "|" in name and argument.required:
        name = f"({name})"
    name = name if argument.required else f"[{name}]"
    return name if argument.nargs == 1 else f"{name}..."
