"""``geoseg preview`` and ``geoseg report``: what they print, and how they exit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.conftest import write_scene


@pytest.fixture
def made(run: Run, model: Path, tmp_path: Path) -> Path:
    """A map that the command line made of a scene beside it."""
    numbers = np.random.default_rng(0).integers(1, 4, (3, 90, 70)).astype(np.uint16) * 5000
    write_scene(tmp_path / "scene.tif", numbers, bands=("red", "green", "blue"), tags=((1e-4, 0),) * 3)
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model)
    assert done.code == 0, done.err
    return tmp_path / "scene_cloudmask.tif"


def test_preview_prints_the_path_of_the_sheet(run: Run, made: Path, tmp_path: Path) -> None:
    done = run("preview", made, tmp_path / "scene.tif", "-o", tmp_path / "p.png", "--size", 64)
    assert (done.code, done.out, done.err) == (0, f"{tmp_path / 'p.png'}\n", "")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_report_finds_the_scene_and_prints_the_path_of_the_page(run: Run, made: Path, tmp_path: Path) -> None:
    done = run("report", made, "-o", tmp_path / "r.html")
    assert (done.code, done.out, done.err) == (0, f"{tmp_path / 'r.html'}\n", "")
    assert "data:image/webp" in (tmp_path / "r.html").read_text()


def test_a_scene_that_is_not_found_is_told_and_is_no_failure(run: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "scene.tif").unlink()
    done = run("report", made, "-o", tmp_path / "r.html")
    assert done.code == 0
    assert "The scene is not shown" in done.err
    done = run("report", made, "-o", tmp_path / "r.html", "-q", "--overwrite")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("command", ["preview", "report"])
def test_each_trouble_has_its_exit_code(run: Run, made: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "out"
    cases = {
        65: (tmp_path / "scene.tif", "-o", out),
        66: (tmp_path / "none.tif", "-o", out),
        73: (made, "-o", tmp_path / "gone" / "out"),
        2: (made, "-o", made, "--overwrite"),
    }
    for code, arguments in cases.items():
        done = run(command, *arguments)
        assert done.code == code, done.err
        assert "  -> " in done.err
        assert not out.exists()
    assert run(command, made, "-o", out).code == 0
    assert run(command, made, "-o", out).code == 73
    assert run(command, made, "-o", out, "--overwrite").code == 0


def test_a_scene_that_is_not_the_maps_is_refused_by_preview(run: Run, made: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "small.tif", np.ones((3, 9, 7), np.uint16), bands=("red", "green", "blue"))
    done = run("preview", made, tmp_path / "small.tif", "-o", tmp_path / "p.png")
    assert done.code == 65
    assert "does not lie on the scene" in done.err
    assert run("preview", made, tmp_path / "none.tif", "-o", tmp_path / "p.png").code == 66


def test_scenes_must_be_a_folder(run: Run, made: Path, tmp_path: Path) -> None:
    done = run("report", made, "-o", tmp_path / "r.html", "--scenes", made)
    assert done.code == 2
    assert "is no folder" in done.err


def test_names_of_files_cannot_command_the_terminal(run: Run, made: Path, tmp_path: Path) -> None:
    strange = made.rename(made.with_name("a\x1b[31m.tif"))
    for command in ("preview", "report"):
        done = run(command, strange, "-o", tmp_path / command)
        assert done.code == 0
        assert "\x1b" not in done.err
        assert "\x1b" not in run(command, strange.with_name("b\x1b.tif"), "-o", tmp_path / "x").err
