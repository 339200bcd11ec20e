"""An engine that is opened early is the one that would have been opened later, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg_cli import engines
from geoseg_cli.bundle import find_bundle
from geoseg_cli.cli.early_engine import EarlyEngine
from geoseg_cli.cli.request import Request
from geoseg_cli.engines import EngineOptions, fidelity, openvino_cache, openvino_engine
from geoseg_cli.errors import EngineError, GeosegError

MODEL = "landcover-lale"
ASKED = {"engine": "openvino", "device": "cpu", "precision": "fp32", "threads": 1, "trust": None}


def request(scene: Path, **given: Any) -> Request:
    return Request({"scenes": [str(scene)], "model": MODEL, **ASKED, **given}, "land-cover", MODEL, "landcover")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    path.touch()
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every engine that was opened, in order."""
    made: list[Any] = []

    def watched(choose: Callable[..., Any]) -> Callable[..., Any]:
        def choose_and_note(*arguments: Any) -> Any:
            made.append(choose(*arguments))
            return made[-1]

        return choose_and_note

    for name in ("choose_engine", "choose_prepared"):
        monkeypatch.setattr(engines, name, watched(getattr(engines, name)))
    return made


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder in which the network of these tests lies compiled for its own tile."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_cache, "user_cache_path", folder.joinpath)
        bundle = find_bundle(MODEL)
        engine, _ = engines.choose_engine(bundle, EngineOptions(**ASKED))
        side = bundle.card.extras.tile_px
        engine.run(np.zeros((1, bundle.input_spec.channels, side, side), np.float32))
        engine.close()
        yield folder


@pytest.fixture(autouse=True)
def prepared(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is looked for there."""
    for module in (fidelity, openvino_cache):
        monkeypatch.setattr(module, "user_cache_path", cache.joinpath)


def test_an_early_engine_is_taken_once(scene: Path, opened: list[Any]) -> None:
    early = EarlyEngine(request(scene))
    assert len(opened) == 1
    bundle, options = find_bundle(MODEL), EngineOptions(**ASKED)
    assert early.choose(bundle, options) is opened[0]
    assert early.choose(bundle, options) is opened[1]


@pytest.mark.parametrize("other", ["bundle", "options"])
def test_another_bundle_or_another_wish_gets_an_engine_of_its_own(scene: Path, opened: list[Any], other: str) -> None:
    early = EarlyEngine(request(scene))
    bundle = find_bundle("cloud-lale" if other == "bundle" else MODEL)
    options = EngineOptions(**{**ASKED, "threads": 2 if other == "options" else 1})
    assert early.choose(bundle, options) is opened[1]


@pytest.mark.parametrize(
    "given", [{"dry_run": True}, {"sandbox": True}, {"shard": "1/2"}, {"scheduler": "tcp://x"}, {"workers": 2}]
)
def test_nothing_is_opened_for_what_does_not_run_here(scene: Path, opened: list[Any], given: dict[str, Any]) -> None:
    EarlyEngine(request(scene, **given))
    assert not opened


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_an_engine_that_takes_the_callers_time_is_not_begun_on_suspicion(
    scene: Path, opened: list[Any], engine: str
) -> None:
    EarlyEngine(request(scene, engine=engine))
    assert not opened


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_nothing_is_compiled_or_measured_on_suspicion(
    scene: Path, opened: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    for module in (fidelity, openvino_cache):
        monkeypatch.setattr(module, "user_cache_path", (tmp_path / "new").joinpath)
    EarlyEngine(request(scene, precision=precision))
    assert not opened
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_golden_tiles_that_did_not_run_here_do_not_run_on_suspicion(
    scene: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """The graph is compiled in that precision, but the answer of the golden tiles is not kept."""
    monkeypatch.setattr(openvino_cache.CompiledGraphs, "has", lambda *_: True)
    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: True)
    closed = []
    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "_compile", lambda *_: None)
    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "close", lambda engine: closed.append(engine))
    EarlyEngine(request(scene, precision=precision))
    assert not opened
    assert len(closed) == 1


@pytest.mark.parametrize("name", ["items.json", "items.geojson", "items.parquet", "scene"])
def test_nothing_is_opened_for_what_may_list_scenes(tmp_path: Path, opened: list[Any], name: str) -> None:
    (tmp_path / name).touch()
    EarlyEngine(request(tmp_path / name))
    assert not opened


def test_nothing_is_opened_for_folders_several_scenes_and_what_is_not_there(tmp_path: Path, opened: list[Any]) -> None:
    EarlyEngine(request(tmp_path))
    EarlyEngine(request(tmp_path / "missing.tif"))
    EarlyEngine(request(tmp_path, scenes=[str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]))
    assert not opened


@pytest.mark.parametrize("given", [{"model": "no-such-bundle"}, {"model": "cloud-lale"}, {"engine": "no-such-engine"}])
def test_what_is_wrong_with_the_engine_is_told_in_its_turn(
    scene: Path, opened: list[Any], given: dict[str, Any]
) -> None:
    wrong = request(scene, **given)
    EarlyEngine(wrong)
    assert not opened
    with pytest.raises(GeosegError):
        _ = wrong.bundle(), wrong.engine_options()


@pytest.mark.parametrize("error", [OSError("a library is broken"), MemoryError(), RuntimeError("no thread")])
def test_trouble_that_nobody_foresaw_waits_for_its_turn_too(
    scene: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(engines, "choose_prepared", fail)
    monkeypatch.setattr(engines, "choose_engine", fail)
    early = EarlyEngine(request(scene))
    with pytest.raises(type(error)):
        early.choose(find_bundle(MODEL), EngineOptions(**ASKED))


def test_an_engine_that_does_not_run_here_is_refused_in_its_turn(scene: Path) -> None:
    early = EarlyEngine(request(scene, device="cuda:99"))
    with pytest.raises(EngineError):
        early.choose(find_bundle(MODEL), EngineOptions(**{**ASKED, "device": "cuda:99"}))
