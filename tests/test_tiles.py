"""The tile plan: cover, order, overlap, cores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.errors import UsageError
from geoseg_cli.grid import Window
from geoseg_cli.tiles import TilePlan


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    multiple = draw(st.sampled_from([1, 4, 32]))
    tile = multiple * draw(st.integers(1, 8))
    overlap = draw(st.integers(0, tile // 2))
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    return TilePlan.cover(height, width, tile, overlap, multiple)


@given(plans())
def test_every_pixel_is_covered_and_no_window_leaves_the_scene(plan: TilePlan) -> None:
    hits = np.zeros((plan.rows.size, plan.cols.size), int)
    for tile in plan:
        window = tile.window
        assert 0 <= window.row < window.row_stop <= plan.rows.size
        assert 0 <= window.col < window.col_stop <= plan.cols.size
        hits[window.rows, window.cols] += 1
    assert hits.min() >= 1


@given(plans())
def test_no_tile_is_repeated_and_order_is_row_major(plan: TilePlan) -> None:
    tiles = list(plan)
    assert [tile.index for tile in tiles] == list(range(len(plan)))
    corners = [(tile.window.row, tile.window.col) for tile in tiles]
    assert corners == sorted(set(corners))


@given(plans())
def test_neighbours_share_at_least_the_overlap_asked_for(plan: TilePlan) -> None:
    for axis in (plan.rows, plan.cols):
        shared = [first + axis.tile - second for first, second in zip(axis.starts, axis.starts[1:], strict=False)]
        assert all(px >= axis.overlap for px in shared)


@given(st.integers(1, 20_000), st.sampled_from([(256, 64), (512, 64), (512, 32), (512, 16), (64, 32), (128, 0)]))
def test_all_tiles_begin_at_a_multiple_of_the_network_s_step(size: int, tiling: tuple[int, int]) -> None:
    tile, overlap = tiling
    axis = TilePlan.cover(size, size, tile, overlap, 32).rows
    assert all(start % 32 == 0 for start in axis.starts)
    # As few tiles as without, where that overlap allows it.
    if overlap % 32 == 0:
        assert len(axis.starts) == len(TilePlan.cover(size, size, tile, overlap).rows.starts)


@given(plans())
def test_only_the_last_tile_reaches_beyond_the_scene_and_by_less_than_a_step(plan: TilePlan) -> None:
    for axis in (plan.rows, plan.cols):
        beyond = [max(0, start + axis.tile - axis.size) for start in axis.starts]
        assert all(px == 0 for px in beyond[:-1])
        assert beyond[-1] < 32
        assert [axis.extent(index)[1] + px for index, px in enumerate(beyond)] == [axis.tile] * len(beyond)


@given(plans())
def test_the_largest_overlap_is_that_of_the_closest_neighbours(plan: TilePlan) -> None:
    for axis in (plan.rows, plan.cols):
        ends = [sum(axis.extent(index)) for index in range(len(axis.starts))]
        assert axis.largest_overlap == max(
            (end - start for end, start in zip(ends[:-1], axis.starts[1:], strict=True)), default=0
        )


@given(plans())
def test_cores_partition_the_scene(plan: TilePlan) -> None:
    owners = np.zeros((plan.rows.size, plan.cols.size), int)
    for tile in plan:
        core = plan.core(tile)
        assert core.intersection(tile.window) == core
        owners[core.rows, core.cols] += 1
    assert (owners == 1).all()


def test_a_scene_smaller_than_a_tile_needs_one_tile_fitted_to_the_multiple() -> None:
    plan = TilePlan.cover(1, 70, 512, 64, 32)
    assert (len(plan), plan.tile_height, plan.tile_width) == (1, 32, 96)
    assert plan[0, 0].window == Window(0, 0, 1, 70)


def test_the_last_tile_ends_at_the_edge_and_begins_where_the_network_steps() -> None:
    plan = TilePlan.cover(1000, 777, 256, 32, 32)
    assert list(plan)[-1].window == Window(768, 544, 232, 233)
    assert (plan.tile_height, plan.tile_width) == (256, 256)


@pytest.mark.parametrize(("tile", "overlap"), [(250, 0), (256, 129), (256, -1), (0, 0), (10**400 + 1, 0)])
def test_tiles_that_cannot_be_used_are_refused_with_the_nearest_that_can(tile: int, overlap: int) -> None:
    with pytest.raises(UsageError) as caught:
        TilePlan.cover(1000, 1000, tile, overlap, 32)
    assert "use --" in caught.value.hint


def test_the_plan_describes_itself() -> None:
    assert "4 tiles of 64 x 64 px" in str(TilePlan.cover(100, 100, 64, 8))
