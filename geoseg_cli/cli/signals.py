"""Signals end the run with the code that shells expect, and through the frames that clean up behind themselves."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""The signals that end a run, as far as the system has them."""
_LOOKS, _BETWEEN_LOOKS_S = 3, 0.05


class Interrupted(SystemExit):
    """A signal on its way through the frames that clean up behind themselves."""


class _Heard:
    """What is known of the signal that ends this run."""

    number: int | None = None
    is_said_again: bool = False


def listen() -> None:
    """Let signals end the run, but for those that a shell's background job or nohup wants ignored."""
    _Heard.number, _Heard.is_said_again = None, False
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupted)


def is_interrupted() -> bool:
    """Whether a signal has come since ``listen``."""
    return _Heard.number is not None


def leave() -> NoReturn:
    """End with the signal's code, without waiting for threads: an answer that nobody wants can take seconds."""
    assert _Heard.number is not None
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + _Heard.number)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind through the running transaction, which removes what is unfinished, and end as shells expect.

    Finished rows of a large scene are kept for the next run. A second signal does not wait for that; the next run for
    the same output cleans up.
    """
    if _Heard.is_said_again:
        _Heard.is_said_again = False
        raise Interrupted(128 + number)
    if _Heard.number is not None:
        os._exit(128 + number)
    _Heard.number = number
    # Past Python's buffer: the signal may have met a write to it, inside which Python refuses another one.
    with contextlib.suppress(OSError, ValueError):
        os.write(
            sys.stderr.fileno(),
            b"geoseg: interrupted; unfinished outputs are removed, finished rows of a large scene are kept\n",
        )
    # Not threading's: its locks may be held by the very frame that this handler interrupts.
    with contextlib.suppress(RuntimeError):
        _thread.start_new_thread(_insist, (number,))
    raise Interrupted(128 + number)


def _insist(number: int) -> None:
    """Raise it again where it was lost.

    Python drops what is raised inside a destructor, or inside a function that a C library calls back (GDAL's messages
    come that way), and the run would go on as if nothing had been.
    """
    main = threading.main_thread().ident or 0
    looks = 0
    while True:
        time.sleep(_BETWEEN_LOOKS_S)
        # More than one look: for a moment between two frames nobody handles the exception.
        looks = 0 if _is_on_its_way(main) else looks + 1
        if looks == _LOOKS:
            looks, _Heard.is_said_again = 0, True
            _thread.interrupt_main(signal.Signals(number))


def _is_on_its_way(thread: int) -> bool:
    """Whether a thread is in the midst of handling an interruption, or an error that came up during that."""
    handled: object = sys._current_exceptions().get(thread)
    error = handled[1] if isinstance(handled, tuple) else handled  # a tuple before Python 3.12
    while isinstance(error, BaseException):
        if isinstance(error, Interrupted):
            return True
        error = error.__context__
    return False
