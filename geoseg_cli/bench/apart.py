"""A function of this package in a process of its own: nothing that ran before it is in its time or memory."""

from __future__ import annotations

import pickle
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import ParamSpec, TypeVar

import geoseg_cli
from geoseg_cli.errors import EngineError, GeosegError

P = ParamSpec("P")
T = TypeVar("T")

# The same package as here, also from a checkout that is not installed; -P keeps the current folder out of the path.
_START = "import sys; sys.path.insert(0, sys.argv[1]); from geoseg_cli.bench.apart import answer; answer(*sys.argv[2:])"
_REQUEST, _ANSWER = "request", "answer"


def run_apart(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function of a module in a fresh process; the process ends when this one is interrupted.

    Args:
        function: Found by its module and name.
        arguments, named: What it takes; they travel pickled, as does its answer.

    Raises:
        GeosegError: The function raised it, or the process ended without an answer.
    """
    folder = Path(gettempdir(), f"geoseg-apart-{secrets.token_hex(8)}")
    # Not a context manager's: a signal between its making and the first line below it would leave it.
    try:
        folder.mkdir(mode=0o700)
        request, reply = folder / _REQUEST, folder / _ANSWER
        request.write_bytes(pickle.dumps((function, arguments, named)))
        done = subprocess.run(
            [sys.executable, "-P", "-c", _START, _package_parent(), str(request), str(reply)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        if done.returncode:
            raise _explain(done.returncode, done.stderr.decode(errors="replace"))
        result, error = pickle.loads(reply.read_bytes())
    finally:
        _remove(folder)
    if error is not None:
        raise error
    value: T = result
    return value


def _remove(folder: Path) -> None:
    """Remove the folder of one call; a signal meanwhile does not leave it."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def answer(request: str, reply: str) -> None:
    """The other side: load the call, make it, and write what came of it."""
    function, arguments, named = pickle.loads(Path(request).read_bytes())
    result, trouble = None, None
    try:
        result = function(*arguments, **named)
    except GeosegError as error:
        trouble = error
    Path(reply).write_bytes(pickle.dumps((result, trouble)))


def _package_parent() -> str:
    return str(Path(geoseg_cli.__file__).resolve().parents[1])


def _explain(code: int, printed: str) -> GeosegError:
    if code < 0:
        return EngineError(
            f"a measuring process was ended by signal {-code}",
            "if memory ran out: a smaller --tile, --batch or scene",
        )
    last = (printed.strip().splitlines() or [f"it ended with {code}"])[-1]
    return GeosegError(f"internal error in a measuring process: {last}", "report it with the command that you ran")
