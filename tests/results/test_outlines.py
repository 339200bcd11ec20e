"""Outlines against GDAL's polygons of the whole map, whatever the strips are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from rasterio import features

from geoseg_cli.results import outlines
from geoseg_cli.results.components import component_strips, find_components
from geoseg_cli.results.outlines import OutlineTracer
from tests.results.test_sieve import NODATA, maps, plain_components, source_of

Labels = npt.NDArray[np.uint8]


def traced(labels: Labels, strip_px: int, keep_corners: bool = False) -> dict[int, shapely.Polygon]:
    source = source_of(labels, strip_px)
    components = find_components(source, NODATA, np.ones(len(labels), np.int64))
    tracer = OutlineTracer(labels.shape[1], components.last_rows, keep_corners)
    batches = [one for _, _, part in component_strips(source, NODATA, components) for one in tracer.add(part)]
    batches += tracer.finish()
    numbers = [int(number) for batch in batches for number in batch.components]
    assert len(set(numbers)) == len(numbers)
    return dict(zip(numbers, (shape for batch in batches for shape in batch.polygons), strict=True))


@given(maps())
def test_outlines_are_those_of_gdal_whatever_the_strips(case: tuple[Labels, int]) -> None:
    labels, strip_px = case
    found = traced(labels, strip_px)
    parts = plain_components(labels).astype(np.int32)
    expected = {int(value): shapely.geometry.shape(shape) for shape, value in features.shapes(parts, parts >= 0)}
    assert found.keys() == expected.keys()
    for number, polygon in found.items():
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert polygon.area == (parts == number).sum()
        assert shapely.symmetric_difference(polygon, expected[number]).area == 0


@given(maps())
def test_outlines_have_a_point_at_every_turn_and_nowhere_else(case: tuple[Labels, int]) -> None:
    for polygon in traced(*case).values():
        for ring in (polygon.exterior, *polygon.interiors):
            steps = np.diff(shapely.get_coordinates(ring), axis=0)
            assert (np.count_nonzero(steps, axis=1) == 1).all()
            is_level = steps[:, 1] == 0
            assert (is_level != np.roll(is_level, 1)).all()


@given(maps())
def test_with_the_corners_of_others_neighbours_share_every_point(case: tuple[Labels, int]) -> None:
    polygons = np.array(list(traced(*case, keep_corners=True).values()), object)
    assert shapely.coverage_is_valid(polygons)
    plain = traced(*case)
    assert all(shapely.equals(one, other) for one, other in zip(polygons, plain.values(), strict=True))


@given(maps())
def test_outlines_do_not_depend_on_the_strips_or_on_how_many_are_linked_at_once(case: tuple[Labels, int]) -> None:
    labels, strip_px = case
    whole = traced(labels, len(labels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlines, "MAX_SEGMENTS_AT_ONCE", 7)
        few = traced(labels, strip_px)
    assert whole.keys() == few.keys()
    assert all(shapely.equals_exact(whole[k], few[k], normalize=True) for k in whole)


@pytest.mark.parametrize("patch_px", [1, 5])
def test_outlines_of_a_large_map_cover_exactly_their_pixels(patch_px: int) -> None:
    coarse = np.random.default_rng(0).choice(
        np.array([1, 1, 1, 2, 3, 255], np.uint8), (300 // patch_px, 260 // patch_px)
    )
    labels = np.kron(coarse, np.ones((patch_px, patch_px), np.uint8)).astype(np.uint8)
    parts = plain_components(labels)
    found = traced(labels, 64)
    polygons = np.array([found[number] for number in range(parts.max() + 1)], object)
    assert shapely.is_valid(polygons).all()
    assert np.array_equal(shapely.area(polygons), np.bincount(parts[parts >= 0]))
    drawn = features.rasterize(zip(polygons, range(len(polygons)), strict=True), labels.shape, fill=-1, dtype="int32")
    assert np.array_equal(drawn, parts)


def test_corners_that_touch_make_a_hole_that_touches_the_outline() -> None:
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8)
    found = traced(labels, 2)
    assert shapely.equals(found[0], shapely.from_wkt("POLYGON((0 0,3 0,3 2,2 2,2 3,0 3,0 0),(1 1,1 2,2 2,2 1,1 1))"))
    assert [found[number].area for number in sorted(found)] == [7, 1, 1]


@pytest.mark.parametrize("strip_px", [1, 2, 3, 4])
def test_a_hole_whose_first_segment_begins_on_a_straight_line_stays_a_hole(strip_px: int) -> None:
    labels = np.array([[1, 1, 1, 1], [1, 2, 3, 1], [1, 2, 3, 1], [1, 1, 1, 1]], np.uint8)
    found = traced(labels, strip_px)
    assert [found[number].area for number in sorted(found)] == [12, 2, 2]
    assert shapely.equals(found[0], shapely.box(0, 0, 4, 4) - shapely.box(1, 1, 3, 3))


def test_a_map_without_a_class_has_no_outline() -> None:
    assert traced(np.full((3, 4), NODATA, np.uint8), 2) == {}
