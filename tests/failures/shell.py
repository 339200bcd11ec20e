"""Runs the command line as a shell would: inside the test's process, or in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from geoseg_cli.cli import main
from tests.failures.case import Case, Done, Made

ROOT = Path(__file__).resolve().parents[2]
OLD = b"an older map"


@dataclass(frozen=True)
class Shell:
    """Where a case runs.

    Attributes:
        folder: Holds the folders ``in``, ``out`` and ``model``.
        output: Where the map goes.
        monkeypatch, capfd: pytest's.
    """

    folder: Path
    output: Path
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]

    @property
    def model(self) -> Path:
        """The bundle that is run."""
        return self.folder / "model"

    def arguments(self, case: Case, made: Made) -> list[str]:
        """The command line of a case."""
        old = ["--overwrite"] if case.has_old_map else []
        return ["cloudmask", str(made.scene), "-o", str(self.output), "--model", str(self.model), *ENGINE, *old,
                *(option.replace("{folder}", str(self.folder)) for option in case.options)]  # fmt: skip

    def here(self, arguments: list[str]) -> Done:
        """Run in this process."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        stderr, code = sys.stderr, 0
        self.capfd.readouterr()
        try:
            main(arguments, "geoseg")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        finally:
            sys.stderr = stderr
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Done(code, *self.capfd.readouterr())

    def start(
        self,
        arguments: list[str],
        environment: Mapping[str, str] | None = None,
        limit: Callable[[], None] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a process of its own; ``limit`` is called in it before geoseg is."""
        return subprocess.Popen(
            [sys.executable, "-m", "geoseg_cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=limit, cwd=ROOT, env=os.environ | CHILD | dict(environment or {}),
        )  # fmt: skip

    def child(
        self,
        arguments: list[str],
        environment: Mapping[str, str] | None = None,
        limit: Callable[[], None] | None = None,
    ) -> Done:
        """Run in a process of its own, to its end."""
        process = self.start(arguments, environment, limit)
        out, err = process.communicate(timeout=280)
        return Done(process.returncode, out, err)


ENGINE = ("--engine", "onnx", "--device", "cpu")
CHILD = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
