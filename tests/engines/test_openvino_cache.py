"""Compiled graphs between processes: found again they answer the same bytes, and nothing depends on them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from geoseg_cli.bundle import Bundle
from geoseg_cli.errors import ModelError
from tests.engines.pixelwise import CHANNELS, draw_pixels

# Not pytest.importorskip: openvino must be imported as the engine imports it.
if importlib.util.find_spec("openvino") is None:
    pytest.skip("the package openvino is not installed", allow_module_level=True)

from geoseg_cli.engines import openvino_cache, openvino_engine
from geoseg_cli.engines.openvino_cache import CompiledGraphs
from geoseg_cli.engines.openvino_engine import OpenVinoEngine


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder that is made when something is kept."""
    return tmp_path / "cache"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Counts what is compiled."""
    counted = Mock(side_effect=openvino_engine.compile_for)
    monkeypatch.setattr(openvino_engine, "compile_for", counted)
    return counted


def answer(bundle: Bundle, folder: Path, threads: int = 1) -> np.ndarray:
    """Logits of an engine that has kept what it keeps."""
    engine = OpenVinoEngine(bundle, threads=threads, kept=CompiledGraphs(folder))
    tile_px = bundle.card.extras.tile_px
    logits = engine.run(draw_pixels(2, CHANNELS, tile_px, tile_px))
    engine._compiler.shutdown(wait=True)
    engine.close()
    return logits


def kept(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_the_second_engine_compiles_nothing_and_answers_the_same_bytes(
    pixelwise: Bundle, cache: Path, compiler: Mock
) -> None:
    first = answer(pixelwise, cache)
    assert (compiler.call_count, len(kept(cache))) == (1, 1)
    assert (answer(pixelwise, cache) == first).all()
    assert compiler.call_count == 1


def test_after_another_version_or_another_rewriting_it_is_compiled_anew(
    pixelwise: Bundle, cache: Path, compiler: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(pixelwise, cache)
    monkeypatch.setattr(openvino_engine, "REWRITES", 0)
    answer(pixelwise, cache)
    monkeypatch.setattr(openvino_cache, "__version__", "0.0.0")
    answer(pixelwise, cache)
    assert (compiler.call_count, len(kept(cache))) == (3, 3)


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 4096, None])
def test_what_is_not_whole_is_compiled_again_and_replaced(
    pixelwise: Bundle, cache: Path, compiler: Mock, damage: bytes | None
) -> None:
    first = answer(pixelwise, cache)
    (path,) = kept(cache)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert (answer(pixelwise, cache) == first).all()
    assert compiler.call_count == 2
    assert (answer(pixelwise, cache) == first).all()
    assert compiler.call_count == 2


def test_a_graph_of_another_compiler_under_a_right_digest_is_compiled_again(
    pixelwise: Bundle, cache: Path, compiler: Mock
) -> None:
    first = answer(pixelwise, cache)
    (path,) = kept(cache)
    content = b"not what OpenVINO exports"
    path.write_bytes(openvino_cache.hashlib.sha256(content).digest() + content)
    assert (answer(pixelwise, cache) == first).all()
    assert compiler.call_count == 2


def test_of_tiles_of_other_shapes_the_first_is_kept(pixelwise: Bundle, cache: Path, compiler: Mock) -> None:
    sides = (8, 16, 24, 16)
    for compiled, folder_holds in ((4, 2), (6, 2)):
        engine = OpenVinoEngine(pixelwise, kept=CompiledGraphs(cache))
        for side in sides:
            engine.run(draw_pixels(1, CHANNELS, side, side + 1))
        engine._compiler.shutdown(wait=True)
        # the second engine finds its own tile and the first other one, and compiles two
        assert (compiler.call_count, len(kept(cache))) == (compiled, folder_holds)


def test_a_folder_that_cannot_be_made_changes_nothing(pixelwise: Bundle, cache: Path) -> None:
    cache.touch()
    assert (answer(pixelwise, cache / "below") == answer(pixelwise, cache.with_name("good"))).all()


def test_a_folder_that_may_not_be_looked_into_changes_nothing(
    pixelwise: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(pixelwise, cache)
    real = Path.stat

    def stat(path: Path, **given: bool) -> os.stat_result:
        if path.parent == cache:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **given)

    monkeypatch.setattr(Path, "stat", stat)
    assert (answer(pixelwise, cache) == first).all()


def test_what_was_unused_for_longest_goes_where_the_folder_is_full(
    pixelwise: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(pixelwise, cache)
    (one,) = kept(cache)
    size = one.stat().st_size
    monkeypatch.setattr(openvino_cache, "MAX_BYTES", int(2.5 * size))
    for age, name in ((300, "left.part"), (200, "older.graph")):
        (cache / name).write_bytes(bytes(size))
        os.utime(cache / name, (one.stat().st_mtime - age,) * 2)
    monkeypatch.setattr(openvino_engine, "REWRITES", 0)
    answer(pixelwise, cache)
    names = {path.name for path in kept(cache)}
    assert one.name in names
    assert len(names) == 2
    assert not names & {"left.part", "older.graph"}


def test_a_graph_that_changed_since_it_was_kept_is_refused(pixelwise: Bundle, cache: Path) -> None:
    answer(pixelwise, cache)
    graph = pixelwise.file("onnx")
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is not the file that the card describes"):
        OpenVinoEngine(pixelwise, kept=CompiledGraphs(cache))
