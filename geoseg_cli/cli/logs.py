"""``--log-file``: what a run did, for machines or people, without secrets and without the home folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from geoseg_cli.errors import GeosegError, OutputError
from geoseg_cli.redaction import Redaction
from geoseg_cli.version import __version__

LOGGER = logging.getLogger("geoseg_cli")
"""What every module logs below; silent unless somebody listens."""
LOGGER.addHandler(logging.NullHandler())

LogFormatName = Literal["json", "text"]

_OWN_LINE = re.compile(rb'\{"time": "\d{4}-|\d{4}-\d\d-\d\dT\S+Z (?:INFO|WARNING|ERROR) ')
FIELDS = "fields"
"""Attribute of a record that holds what is told beside the event."""
_FORMAT_KEY = "geoseg.log_format"

_scene: ContextVar[str | None] = ContextVar("scene", default=None)
"""The scene that a thread is working on."""


def redaction() -> Redaction:
    """What this process knows to be secret, out of its environment."""
    home = os.path.expanduser("~")
    homes = {home, os.path.realpath(home)} if os.path.isabs(home) else set()
    return Redaction.of(os.environ, *homes)


def file() -> Path | None:
    """Where the log of this process lies; None where none is kept."""
    return next((Path(one.baseFilename) for one in LOGGER.handlers if isinstance(one, _LogFile)), None)


def about(scene: str | None) -> None:
    """From here on this thread works on this scene."""
    _scene.set(scene)


def tell(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event of the command line.

    Args:
        event: One word, or two.
        level: As ``logging`` counts.
        fields: What there is to know.
    """
    LOGGER.log(level, event, extra={FIELDS: fields})


def failure(error: GeosegError) -> None:
    """Log a trouble."""
    tell("failed", logging.ERROR, message=error.message, hint=error.hint, exit_code=error.exit_code)


@contextlib.contextmanager
def recorded(arguments: Sequence[str]) -> Iterator[None]:
    """Log how the process ends, and close the log; nothing happens where none was begun.

    Args:
        arguments: What stands behind the tool's name.
    """
    _Arguments.given = tuple(arguments)
    # rio listens to everything and writes it to stderr, where messages stand already.
    propagated, LOGGER.propagate = LOGGER.propagate, False
    try:
        yield
    except SystemExit as stop:
        about(None)
        tell("end", exit_code=stop.code if isinstance(stop.code, int) else int(stop.code is not None))
        raise
    finally:
        about(None)
        _close()
        LOGGER.propagate = propagated


class _Arguments:
    """What the process was asked for."""

    given: tuple[str, ...] = ()


def arguments() -> tuple[str, ...]:
    """What stands behind the tool's name."""
    return _Arguments.given


def _begin(context: typer.Context, path: Path | None) -> Path | None:
    """Open the log that ``--log-file`` names.

    Raises:
        OutputError: It cannot be written, or is something else.
    """
    if path is None or context.resilient_parsing:
        return path
    _close()
    format_name: LogFormatName = context.meta.get(_FORMAT_KEY, "json")
    LOGGER.addHandler(_handler(path, format_name))
    LOGGER.setLevel(logging.INFO)
    tell("start", version=__version__, command=context.info_name, arguments=shlex.join(_Arguments.given))
    return path


def _remember_format(context: typer.Context, name: LogFormatName) -> LogFormatName:
    context.meta[_FORMAT_KEY] = name
    return name


def _handler(path: Path, format_name: LogFormatName) -> logging.Handler:
    try:
        # Devices and pipes take what they are given.
        if path.is_file() and not _is_log(path):
            raise OutputError(f"{path} is there already and no log of geoseg", "give --log-file another name")
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(f"log {path} cannot be written: {error.strerror}", "give --log-file another place") from error
    handler.setFormatter((_Json if format_name == "json" else _Text)(secrets.token_hex(4), redaction()))
    return handler


def _is_log(path: Path) -> bool:
    """Whether a file is empty, or begins as a log does."""
    with open(path, "rb") as file:
        first = file.read(64)
    return not first or _OWN_LINE.match(first) is not None


def _close() -> None:
    for handler in [one for one in LOGGER.handlers if isinstance(one, _LogFile)]:
        LOGGER.removeHandler(handler)
        with contextlib.suppress(OSError, ValueError):
            handler.close()
        LOGGER.setLevel(logging.NOTSET)


class _LogFile(logging.FileHandler):
    """A log that a full disk may cut short, once with a word about it: it must not cost the map."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that lines are lost, the first time."""
        if not self._told:
            self._told = True
            print(f"geoseg: the log {self.baseFilename} cannot be written any more", file=sys.stderr)


class _Json(logging.Formatter):
    """One JSON object a line: time, run, level, scene, event, then what belongs to the event."""

    def __init__(self, run: str, redaction: Redaction) -> None:
        super().__init__()
        self._run, self._redaction = run, redaction

    def row(self, record: logging.LogRecord) -> dict[str, Any]:
        """What a line tells."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = dict(getattr(record, FIELDS, {}))
        head = {"time": time, "run": self._run, "level": record.levelname.lower()}
        scene = fields.pop("scene", None) or _scene.get()
        told: dict[str, Any] = self._redaction.value({"event": record.getMessage(), **fields})
        return head | ({"scene": self._redaction.text(str(scene))} if scene else {}) | told

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(self.row(record), default=str)


class _Text(_Json):
    """One line a record, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line: no line feed of a message breaks it."""
        row = self.row(record)
        head = f"{row.pop('time')} {row.pop('level').upper()} {row.pop('run')} {row.pop('event')}"
        return " ".join([head, *(f"{name}={_short(value)}" for name, value in row.items())])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if re.fullmatch(r"[^\s\"=]+", text) else json.dumps(text)


LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        show_default=False,
        callback=_begin,
        help="Append what the run does, with times, to FILE; without credentials and without the home folder.",
    ),
]
LogFormat = Annotated[
    LogFormatName,
    typer.Option(
        "--log-format",
        is_eager=True,
        callback=_remember_format,
        help="One JSON object a line, or one line of text.",
    ),
]
