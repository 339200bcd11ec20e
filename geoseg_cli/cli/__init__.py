"""The command line: the only part of geoseg that prints, exits or reads the environment.

Nothing heavy is imported here; every command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, NoReturn, TextIO, cast

import typer

from geoseg_cli.cli import configured, logs, signals
from geoseg_cli.cli.commands import LazyCommands
from geoseg_cli.cli.messenger import Messenger
from geoseg_cli.cli.options import Version
from geoseg_cli.errors import EngineError, GeosegError
from geoseg_cli.printable import printable

LINES = "\n"

app = typer.Typer(
    name="geoseg",
    cls=LazyCommands,
    help="Turn satellite scenes into georeferenced land-cover maps and cloud masks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    ctx: typer.Context,
    config_file: configured.File = None,
    version: Version = False,
    verbose: Annotated[int, typer.Option("-v", count=True, hidden=True)] = 0,
) -> None:
    """Turn satellite scenes into georeferenced land-cover maps and cloud masks."""
    configured.apply(ctx, config_file)


def main(arguments: Sequence[str] | None = None, name: str | None = None) -> None:
    """Run the tool; every error becomes a message and an exit code here and nowhere else.

    Args:
        arguments: What stands behind the tool's name; None for those of the process.
        name: What usage texts call the tool; None for what the process was started as.
    """
    _prepare_process()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with logs.recorded(given):
            _run(given, name)
    except SystemExit:
        if signals.is_interrupted():
            signals.leave()
        raise


def _run(given: Sequence[str], name: str | None) -> None:
    try:
        # Not app(): that puts a hook of its own in the place of ours.
        typer.main.get_command(app)(list(given), prog_name=name, obj=given)
    except Exception as error:
        if signals.is_interrupted():  # a library has made an error of its own of it
            raise signals.Interrupted from error
        _give_up(error, given)


def _give_up(error: Exception, given: Sequence[str]) -> NoReturn:
    if isinstance(error, MemoryError):
        text = "the memory is not enough for this scene"
        _fail(EngineError(text, "use a smaller --tile, or a larger --max-memory"))
    if isinstance(error, GeosegError):
        _fail(error)
    text = f"internal error: {type(error).__name__}: {error}"
    bug = GeosegError(text, "run with -vv and report what it prints")
    if any(argument.startswith("-vv") for argument in given):
        logs.failure(bug)
        raise error
    _fail(bug)


def _prepare_process() -> None:
    """What must stand before anything is imported: streams, signals, and no talk behind the user's back."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process lives
    sys.stderr = cast(TextIO, Messenger(sys.stderr))
    signals.listen()
    sys.unraisablehook = _unraisable
    sys.excepthook = _uncaught
    # ONNX Runtime otherwise keeps a data base of events under HOME and may send it to its makers.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # Pydantic otherwise looks through every installed package for plugins, and runs those that it finds.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _unraisable(trouble: sys.UnraisableHookArgs) -> None:
    """Leave out the traceback of rasterio's logger where GDAL quotes bytes of a damaged file that are no text.

    And that of a signal, which is raised again.
    """
    if trouble.object != "rasterio._env.log_error" and not issubclass(trouble.exc_type, signals.Interrupted):
        sys.__unraisablehook__(trouble)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Leave out what C code prints before the hook above is asked: an error that was raised in no line of Python."""
    if trace is not None or not issubclass(kind, UnicodeDecodeError):
        sys.__excepthook__(kind, error, trace)


def _fail(error: GeosegError) -> NoReturn:
    logs.failure(error)
    hide = logs.redaction().secretless
    print(f"geoseg: {printable(hide(error.message), keep=LINES)}", file=sys.stderr)
    if error.hint:
        print(f"  -> {printable(hide(error.hint), keep=LINES)}", file=sys.stderr)
    sys.exit(error.exit_code)
