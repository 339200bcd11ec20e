"""The engine of a scene alone is opened before the readers and writers are imported, once, and never for nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import geoseg_cli.engines
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import EngineOptions
from geoseg_cli.engines.fake_engine import IdentityEngine
from geoseg_cli.errors import EngineError
from tests.cli.conftest import Run
from tests.test_predict import random_scene

IMPORTED_LATER = ("geoseg_cli.job", "geoseg_cli.scenes", "geoseg_cli.results", "rasterio")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scenes" / "scene.tif"
    path.parent.mkdir()
    random_scene(path, 90, 70)
    return path


@pytest.fixture
def opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[IdentityEngine]:
    """Engines that were opened, in order."""
    found: list[IdentityEngine] = []

    def choose(bundle: Bundle, options: EngineOptions) -> tuple[IdentityEngine, str]:
        found.append(IdentityEngine(4))
        return found[-1], "fake on cpu"

    monkeypatch.setattr(geoseg_cli.engines, "choose_engine", choose)
    return found


def test_the_engine_is_opened_before_what_reads_and_writes_is_imported(scene: Path, model: Path) -> None:
    code = (
        "import sys, json\n"
        "import geoseg_cli.engines as engines\n"
        "from geoseg_cli.engines.fake_engine import IdentityEngine\n"
        "seen = []\n"
        "def choose(bundle, options):\n"
        f"    seen.append([name for name in {IMPORTED_LATER!r} if name in sys.modules])\n"
        "    return IdentityEngine(4), 'fake on cpu'\n"
        "engines.choose_engine = choose\n"
        "from geoseg_cli.cli import main\n"
        "sys.argv = ['geoseg', *sys.argv[1:]]\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(json.dumps(seen))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "cloudmask", scene, "--model", model, "-o", scene.with_name("map.tif"), "-q"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[]]
    assert scene.with_name("map.tif").is_file()


def test_it_is_opened_once_and_runs_the_scene(run: Run, opened: list[IdentityEngine], scene: Path, model: Path) -> None:
    assert run("cloudmask", scene, "--model", model, "-o", scene.with_name("map.tif")).code == 0
    assert len(opened) == 1
    assert opened[0].batches


def test_it_is_closed_where_the_request_cannot_be_run(
    run: Run, opened: list[IdentityEngine], scene: Path, model: Path
) -> None:
    done = run("cloudmask", scene, "--model", model, "-o", scene.with_name("map.tif"), "--bounds", "1 2 3")
    assert done.code == 2
    assert "--bounds" in done.err
    assert [engine.closed for engine in opened] == [True]


@pytest.mark.parametrize("options", [("--dry-run",), ("--shard", "1/2", "--out-dir", ".")])
def test_it_is_not_opened_where_no_scene_alone_is_run(
    run: Run,
    opened: list[IdentityEngine],
    scene: Path,
    model: Path,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(scene.parent)
    monkeypatch.setattr("geoseg_cli.cli.runs._run", lambda *_: None)
    assert run("cloudmask", scene, "--model", model, *options).code == 0
    assert run("cloudmask", scene, scene, "--model", model).code == 0
    assert run("cloudmask", scene.parent, "--model", model).code == 0
    assert opened == []


def test_why_no_engine_opens_is_told_once_in_its_own_words(
    run: Run, monkeypatch: pytest.MonkeyPatch, scene: Path, model: Path
) -> None:
    def refuse(bundle: Bundle, options: EngineOptions) -> tuple[IdentityEngine, str]:
        raise EngineError("no engine runs on cpu: none is there", "see `geoseg doctor`")

    monkeypatch.setattr(geoseg_cli.engines, "choose_engine", refuse)
    done = run("cloudmask", scene, "--model", model, "-o", scene.with_name("map.tif"))
    assert (done.code, done.err.count("no engine runs on cpu")) == (69, 1)


def test_another_bundle_or_other_options_get_an_engine_of_their_own(
    opened: list[IdentityEngine], scene: Path, model: Path
) -> None:
    from geoseg_cli.cli.early import EarlyEngine
    from geoseg_cli.cli.request import Request

    given = {"scenes": [str(scene)], "model": str(model), "trust": None, "engine": "auto", "device": "auto",
             "precision": "auto"}  # fmt: skip
    bundle = Bundle.open(model)
    with EarlyEngine(Request(given, "cloud", "cloud-lale", "_clouds")) as early:
        assert early.choose(bundle, EngineOptions(precision="fp32"))[0] is opened[1]
        assert early.choose(bundle, EngineOptions())[0] is opened[0]
        assert early.choose(bundle, EngineOptions())[0] is opened[2]
    assert [engine.closed for engine in opened] == [False, False, False]
