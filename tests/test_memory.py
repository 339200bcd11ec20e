"""The memory plan: what it counts, what it gives up first, and when it refuses."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.catalog import legends
from geoseg_cli.engines.fake_engine import FakeEngine
from geoseg_cli.errors import UsageError
from geoseg_cli.job import PredictOptions
from geoseg_cli.memory import (
    LEAST_CACHE_BYTES,
    MAX_CACHE_BYTES,
    MIB,
    Load,
    _available,
    _left_in_container,
    plan_memory,
    refuse_excess,
)
from geoseg_cli.predict import predict_scene
from geoseg_cli.results.clean_map import Cleaning, cleaned, cleaning_bytes
from tests.fakes.bundles import fake_bundle
from tests.test_predict import write_scene

# 13 bands of uint16 at 10 980 columns, ten classes.
LOAD = Load(
    width=10_980,
    read_width=10_980,
    carried_rows=32,
    tile_height=256,
    tile_width=256,
    stored_bytes=27,
    channels=15,
    classes=10,
    output_bands=1,
    output_width=10_980,
    cache_bytes=80 * MIB,
    tiles_at_once=2,
)


def test_a_whole_sentinel_2_scene_takes_less_than_one_gigabyte() -> None:
    assert plan_memory(LOAD, 2, None).total_bytes < 1e9


def test_parts_are_those_that_a_person_would_count() -> None:
    parts = plan_memory(LOAD, 2, None).parts
    assert parts["what is read of the scene"] == 2 * 256 * 10_980 * 27
    assert parts["answers"] == 4 * 2 * 256 * 256 * 10 * 4
    assert parts["block cache"] == (80 + 32) * MIB


def test_pieces_of_a_row_take_less_than_two_whole_rows_of_tiles() -> None:
    pieces = plan_memory(replace(LOAD, read_width=512), 2, None).parts
    assert pieces["what is read of the scene"] == (4 * 512 * 256 + 2 * 32 * 10_980) * 27
    wide = plan_memory(replace(LOAD, read_width=8192, carried_rows=0), 2, None).parts
    assert wide["what is read of the scene"] == 2 * 256 * 10_980 * 27


def test_tiles_that_wait_for_their_turn_take_no_working_memory() -> None:
    assert plan_memory(LOAD, 2, None).parts["network"] == plan_memory(LOAD, 64, None).parts["network"]


def test_queues_are_given_up_before_the_batch_and_the_batch_before_the_cache() -> None:
    full = plan_memory(LOAD, 8, None)
    seen = []
    for limit in range(full.total_bytes, 0, -5 * MIB):
        plan = plan_memory(LOAD, 8, limit)
        seen.append((plan.waiting, plan.batch, plan.cache_bytes))
    assert seen[0] == (2, 8, 112 * MIB)
    assert seen[-1] == (0, 1, LEAST_CACHE_BYTES)
    assert seen == sorted(seen, reverse=True)
    assert all(batch == 1 for _, batch, cache in seen if cache < 112 * MIB)


def test_large_batches_do_not_wait() -> None:
    # 800 x 800 px of 12 planes of 4 bytes and a byte: 30 MiB a tile
    large = replace(LOAD, tile_height=800, tile_width=800, channels=12)
    assert [plan_memory(large, batch, None).waiting for batch in (1, 2, 3)] == [2, 2, 0]


def test_a_batch_that_the_user_asked_for_stays() -> None:
    assert plan_memory(LOAD, 8, 1, is_batch_fixed=True).batch == 8


def test_the_cache_has_an_upper_bound() -> None:
    assert plan_memory(replace(LOAD, cache_bytes=10_000 * MIB), 2, None).cache_bytes == MAX_CACHE_BYTES


@given(
    width=st.integers(1, 200_000),
    tile=st.integers(1, 40),
    batch=st.integers(1, 64),
    limit=st.integers(1, 2**40),
    cache=st.integers(0, 2**34),
)
def test_a_plan_fits_or_is_the_smallest_there_is(width: int, tile: int, batch: int, limit: int, cache: int) -> None:
    load = replace(LOAD, width=width, tile_height=32 * tile, tile_width=32 * tile, cache_bytes=cache)
    plan = plan_memory(load, batch, limit)
    smallest = plan_memory(load, batch, 1)
    assert plan.fits == (plan.total_bytes <= limit)
    assert plan.total_bytes >= smallest.total_bytes
    if not plan.fits:
        assert plan == replace(smallest, limit_bytes=limit)


def test_too_little_is_refused_with_the_size_that_would_do() -> None:
    plan = plan_memory(LOAD, 2, 50 * MIB)
    with pytest.raises(UsageError, match="--max-memory 50M is too little") as caught:
        refuse_excess(plan)
    enough = int(caught.value.hint.split("--max-memory ")[1].split("M")[0])
    refuse_excess(plan_memory(LOAD, 2, enough * MIB))
    assert not plan_memory(LOAD, 2, (enough - 1) * MIB).fits


@pytest.mark.parametrize(("limit", "told"), [(700, "700"), (1024, "1K"), (5 * MIB // 2, "2M")])
def test_a_small_limit_is_named_as_it_was_given(limit: int, told: str) -> None:
    with pytest.raises(UsageError, match=f"--max-memory {told} is too little"):
        refuse_excess(plan_memory(LOAD, 2, limit))


def test_free_memory_is_what_linux_calls_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:   7 kB\n")
    assert _available(tmp_path / "meminfo") == 7 * 1024
    assert _available(tmp_path / "nothing") is None


@pytest.mark.parametrize(("limit", "left"), [("1000", 1000 - 700 + 300), ("max", None), ("600", 200), ("100", 0)])
def test_a_container_leaves_its_limit_less_what_is_in_use(tmp_path: Path, limit: str, left: int | None) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300\n")
    assert _left_in_container(tmp_path) == left
    assert _left_in_container(tmp_path / "nothing") is None


def test_a_job_that_gets_a_share_names_the_figure_of_the_user() -> None:
    plan = plan_memory(LOAD, 2, 25 * MIB)
    with pytest.raises(UsageError, match="--max-memory 50M is too little") as caught:
        refuse_excess(plan, 0.5)
    enough = int(caught.value.hint.split("--max-memory ")[1].split("M")[0])
    refuse_excess(plan_memory(LOAD, 2, enough * MIB // 2), 0.5)


def test_cleaning_counts_beside_what_stays_until_then_and_not_beside_what_is_gone() -> None:
    plain = plan_memory(LOAD, 2, None)
    small, large = (plan_memory(replace(LOAD, cleaning_bytes=size * MIB), 2, None) for size in (50, 5000))
    assert small.total_bytes == plain.total_bytes
    stays = sum(plain.parts[part] for part in ("network", "blending", "block cache"))
    assert large.total_bytes == stays + 5000 * MIB
    assert large.to_json()["parts_bytes"]["cleaning, afterwards"] == 5000 * MIB
    with pytest.raises(UsageError, match="most of it for cleaning"):
        refuse_excess(plan_memory(replace(LOAD, cleaning_bytes=5000 * MIB), 2, 2000 * MIB))


def peak_and_plan(scene: Path, options: PredictOptions) -> tuple[int, int]:
    """Bytes that a run took at once at most, as Python counts them, and what was planned."""
    noise = np.random.default_rng(1).normal(size=(4, 64, 64)).astype(np.float32)
    engine = FakeEngine(4, lambda pixels: np.repeat(noise[None], len(pixels), 0))
    tracemalloc.start()
    report = predict_scene(scene, scene.with_name("map.tif"), fake_bundle(), engine, options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, report.memory[0].total_bytes


@pytest.mark.parametrize("raster", ["probabilities", "entropy", "confidence", "seams"])
def test_a_further_raster_takes_no_more_than_is_planned_for_it(tmp_path: Path, raster: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.zeros((200, 4000), int), np.ones((200, 4000), bool))
    plain = PredictOptions(sidecars=False, overwrite=True)
    peak_and_plan(scene, plain)  # what is loaded once
    took, planned = peak_and_plan(scene, plain)
    took_more, planned_more = peak_and_plan(scene, replace(plain, **{raster: tmp_path / "more.tif"}))
    assert 0.3 * (planned_more - planned) < took_more - took < 1.1 * (planned_more - planned)


@pytest.mark.parametrize(
    "cleaning",
    [
        Cleaning(sieve_px=4), Cleaning(min_object_px=4), Cleaning(majority_px=31), Cleaning(dilate_px=20),
        Cleaning(min_object_px=4, dilate_px=2, majority_px=3, sieve_px=4),
    ],
)  # fmt: skip
def test_cleaning_takes_about_what_is_planned(cleaning: Cleaning) -> None:
    height, width = 1100, 800
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 4, (56, 41)), np.ones((20, 20), np.int64))[:height, :width].astype(np.uint8)
    stray = rng.random(labels.shape) < 0.01
    labels[stray] = rng.integers(0, 4, labels.shape)[stray]
    source, _ = cleaned(
        lambda: ((row, labels[row : row + 512].copy()) for row in range(0, height, 512)),
        height, legends()["cloudsen12"], cleaning,
    )  # fmt: skip
    tracemalloc.start()
    for _ in source():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    planned = cleaning_bytes(cleaning, height, width)
    assert 0.5 * planned < peak < 1.1 * planned


def test_a_map_that_is_not_cleaned_takes_nothing_for_it() -> None:
    assert cleaning_bytes(Cleaning(), 10_980, 10_980) == 0
