"""What ``make demo`` says that it runs."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts import demo


@pytest.mark.parametrize("is_in_checkout", [True, False])
def test_the_command_that_it_prints_can_be_run_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_in_checkout: bool
) -> None:
    monkeypatch.chdir(demo.ROOT if is_in_checkout else tmp_path)
    (tmp_path / "a folder").mkdir()
    run: list[list[str]] = []

    def remember(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        run.append(arguments)
        return subprocess.CompletedProcess(arguments, 0, "")

    monkeypatch.setattr(subprocess, "run", remember)
    demo.run("classify", sorted(demo.SCENES.glob("*.tif")), tmp_path / "a folder")
    prompt, *words = shlex.split(capsys.readouterr().out)
    assert (prompt, words[0], words[1:]) == ("$", "geoseg", run[0][3:])
    scenes = words[2 : words.index("--out-dir")]
    assert len(scenes) == 2
    assert all(Path(scene).is_file() for scene in scenes)
    assert Path(words[words.index("--out-dir") + 1]).is_dir()
