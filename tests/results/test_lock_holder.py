"""Looking who holds an output: true while somebody does, and nobody is disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geoseg_cli.results.lock import STALE_AFTER_S, OutputLock, lock_path
from geoseg_cli.results.lock_holder import is_held


def test_an_output_is_held_while_a_run_holds_it(tmp_path: Path) -> None:
    target = tmp_path / "map.tif"
    assert not is_held(target)
    with OutputLock([target]):
        assert is_held(target)
        assert is_held(target), "looking ended it"
    assert not is_held(target)
    assert not lock_path(target).exists(), "looking left something"


def test_a_killed_process_holds_nothing_though_its_file_is_there(tmp_path: Path) -> None:
    target = tmp_path / "map.tif"
    code = (
        "import os, signal, sys; from pathlib import Path; from geoseg_cli.results.lock import OutputLock\n"
        "OutputLock([Path(sys.argv[1])]).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert lock_path(target).exists()
    assert not is_held(target)
    with OutputLock([target]):
        assert is_held(target)


@pytest.mark.parametrize(("age_s", "expected"), [(0, True), (STALE_AFTER_S / 2, True), (STALE_AFTER_S + 5, False)])
def test_another_machine_holds_an_output_while_it_gives_signs_of_life(
    tmp_path: Path, age_s: float, expected: bool
) -> None:
    path = lock_path(tmp_path / "map.tif")
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    os.utime(path, (time.time() - age_s,) * 2)
    assert is_held(tmp_path / "map.tif") is expected


def test_a_file_that_says_nothing_holds_nothing(tmp_path: Path) -> None:
    for text in ("", "[]", "{"):
        lock_path(tmp_path / "map.tif").write_text(text)
        assert not is_held(tmp_path / "map.tif")
