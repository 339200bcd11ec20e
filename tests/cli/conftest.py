"""Run the command line inside the test process, with an engine whose answer is known."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from geoseg_cli.catalog import legends
from geoseg_cli.cli import main
from geoseg_cli.engines.fake_engine import IdentityEngine
from tests.fakes.bundles import card_fields


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A bundle folder with a card and no weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "item.json").write_text(json.dumps(card_fields(legends()["cloudsen12"])))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """``run("cloudmask", scene, ...)`` as a shell would, through an identity engine."""
    import geoseg_cli.engines

    monkeypatch.setattr(geoseg_cli.engines, "choose_engine", lambda bundle, options: (IdentityEngine(4), "fake on cpu"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["geoseg", *map(str, arguments)])
        capfd.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        return Done(code, *capfd.readouterr())

    yield command
    for number, handler in handlers.items():
        signal.signal(number, handler)
