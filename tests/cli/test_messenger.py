"""Messages that nobody can read cost no map."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geoseg_cli.cli.messenger import Messenger

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


class Broken(io.StringIO):
    """A stream below which the disk is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_what_cannot_be_written_is_dropped() -> None:
    messenger = Messenger(Broken("kept"))
    assert messenger.write("lost") == 4
    messenger.flush()
    assert messenger.getvalue() == "kept"


@needs_full
def test_a_refusal_keeps_its_code_where_stderr_is_full(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "geoseg_cli", "classify", str(tmp_path / "nowhere.tif")]
        assert subprocess.run(command, stderr=full, check=False, timeout=120).returncode == 66


def test_a_signal_that_was_ignored_before_the_start_stays_ignored() -> None:
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); import geoseg_cli.cli as c; c._prepare_process();"
        "assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN; assert callable(signal.getsignal(signal.SIGTERM))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False, timeout=60)
    assert done.returncode == 0, signal.strsignal(signal.SIGHUP)
