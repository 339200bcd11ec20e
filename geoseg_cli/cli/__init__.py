"""The command line: the only part of geoseg that prints, exits or reads the environment.

Nothing heavy is imported here; every command imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Annotated, NoReturn, TextIO, cast

import typer

from geoseg_cli.cli import configured, logs
from geoseg_cli.cli.commands import LazyCommands
from geoseg_cli.cli.messenger import Messenger
from geoseg_cli.cli.options import Version
from geoseg_cli.errors import EngineError, GeosegError
from geoseg_cli.printable import printable

LINES = "\n"
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

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
    except _Interrupted as interrupt:
        _leave_at_once(interrupt.exit_code)


def _run(given: Sequence[str], name: str | None) -> None:
    try:
        # Not app(): that puts a hook of its own in the place of ours.
        typer.main.get_command(app)(list(given), prog_name=name, obj=given)
    except GeosegError as error:
        _fail(error)
    except MemoryError:
        _fail(EngineError("the memory is not enough for this scene", "use a smaller --tile, or a larger --max-memory"))
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}"
        bug = GeosegError(text, "run with -vv and report what it prints")
        if any(argument.startswith("-vv") for argument in given):
            logs.failure(bug)
            raise
        _fail(bug)


def _prepare_process() -> None:
    """What must stand before anything is imported: streams, signals, and no talk behind the user's back."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process lives
    sys.stderr = cast(TextIO, Messenger(sys.stderr))
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or a shell's background job, wants it so
            signal.signal(number, _interrupted)
    sys.unraisablehook = _unraisable
    sys.excepthook = _uncaught
    # ONNX Runtime otherwise keeps a data base of events under HOME and may send it to its makers.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def _unraisable(trouble: sys.UnraisableHookArgs) -> None:
    """Leave out the traceback of rasterio's logger where GDAL quotes bytes of a damaged file that are no text."""
    if trouble.object != "rasterio._env.log_error":
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


class _Interrupted(SystemExit):
    """A signal on its way through the frames that clean up behind themselves."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def _leave_at_once(exit_code: int) -> NoReturn:
    """End without waiting for threads: a network's answer that nobody wants can take seconds."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind through the running transaction, which removes what is unfinished, and end as shells expect.

    Finished rows of a large scene are kept for the next run. A second signal does not wait for that; the next run for
    the same output cleans up.
    """
    for again in _SIGNALS:
        signal.signal(again, lambda number, frame: os._exit(128 + number))
    # Past Python's buffer: the signal may have met a write to it, inside which Python refuses another one.
    with contextlib.suppress(OSError, ValueError):
        os.write(
            sys.stderr.fileno(),
            b"geoseg: interrupted; unfinished outputs are removed, finished rows of a large scene are kept\n",
        )
    raise _Interrupted(128 + number)
