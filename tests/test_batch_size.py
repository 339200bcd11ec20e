"""How many tiles travel together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.batch_size import BatchSize, KnownSizes, most_to_try, sizes_to_try


def run(size: BatchSize, seconds_per_tile: dict[int, float], batches: int = 40, ahead: int = 3) -> list[int]:
    """Sizes of a run's batches; a few are cut before the first one is run."""
    cut = [size.next() for _ in range(ahead)]
    for index in range(batches):
        size.record(cut[index], cut[index] * seconds_per_tile[cut[index]] + (100 if index == 0 else 0))
        cut.append(size.next())
    return cut


def test_the_fastest_size_is_found_with_the_first_batches_and_kept() -> None:
    kept: list[int] = []
    sizes = run(BatchSize(2, [2, 4, 8, 16], kept.append), {2: 1.0, 4: 0.8, 8: 0.6, 16: 0.7})
    assert sizes[:9] == [2, 2, 2, 4, 4, 8, 8, 16, 16]
    assert set(sizes[15:]) == {8}
    assert kept == [8]


def test_a_gain_of_nothing_is_not_worth_a_larger_batch() -> None:
    assert set(run(BatchSize(2, [2, 4]), {2: 1.0, 4: 0.95})[12:]) == {2}


def test_the_slow_first_batch_does_not_count() -> None:
    # 100 s of warming up, in a batch of the usual size, would make that look slow.
    assert set(run(BatchSize(2, [2, 4]), {2: 0.5, 4: 0.6})[12:]) == {2}


def test_a_size_that_the_user_names_is_the_only_one() -> None:
    kept: list[int] = []
    size = BatchSize.fixed(5)
    assert {size.next() for _ in range(20)} == {5}
    size.record(5, 1.0)
    assert kept == []
    assert size.largest == 5


@given(st.integers(1, 64), st.integers(1, 500), st.integers(1, 20_000))
def test_sizes_fit_into_memory_and_several_times_into_the_scene(usual: int, most: int, tiles: int) -> None:
    sizes = sizes_to_try(usual, most, tiles)
    assert sizes == sorted(set(sizes))
    assert all(1 <= size <= max(most, 1) for size in sizes)
    assert len(sizes) == 1 or tiles >= 8 * sum(sizes)


def test_small_scenes_are_run_as_the_engine_likes() -> None:
    assert sizes_to_try(2, 100, 9) == [2]
    assert sizes_to_try(2, 100, 529) == [2, 4, 8, 16]
    assert sizes_to_try(16, 20, 10_000) == [16]
    assert sizes_to_try(16, 7, 10_000) == [7]


def test_a_batch_on_a_cpu_stays_what_the_engine_likes_for_larger_ones_cost_memory_alone() -> None:
    assert most_to_try(2, "onnx", "cpu") == 2
    assert most_to_try(16, "torch", "cuda:1") == 128
    assert most_to_try(8, "tensorrt", "cuda:0") == 8
    assert sizes_to_try(2, most_to_try(2, "onnx", "cpu"), 529) == [2]


def test_what_was_found_is_known_to_the_next_run_of_the_same_kind(tmp_path: Path) -> None:
    KnownSizes(["bundle", "cuda:0"], tmp_path).keep(32)
    assert KnownSizes(["bundle", "cuda:0"], tmp_path).load() == 32
    assert KnownSizes(["bundle", "cuda:1"], tmp_path).load() is None


@pytest.mark.parametrize("content", ["", "many", "0", "-3", "true", "1e9", "[2]", "\x00"])
def test_a_damaged_memory_is_none(tmp_path: Path, content: str) -> None:
    known = KnownSizes(["x"], tmp_path)
    known.keep(4)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert known.load() is None


def test_a_folder_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "batch").write_text("a file, not a folder")
    known = KnownSizes(["x"], tmp_path / "batch")
    known.keep(4)
    assert known.load() is None
