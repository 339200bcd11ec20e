"""Parts of a canvas: what is painted on a part lies in its place on the whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.training.layouts import Canvas
from geoseg_cli.training.materials import Palette
from geoseg_cli.training.painting import Sketch
from geoseg_cli.training.recipes import Recipe

SHAPE = (40, 56)


def blank() -> Sketch:
    rng = np.random.default_rng(2)
    canvas = Canvas.create(rng, SHAPE, 5.0)
    ids, stripes, height = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    return Sketch(canvas, Palette(), Recipe(base=("meadow",)), rng, ids, stripes, height)


@given(st.integers(0, 39), st.integers(0, 55), st.integers(1, 30), st.integers(1, 30))
def test_a_window_holds_the_mask_and_paints_the_whole(top: int, left: int, height: int, width: int) -> None:
    sketch = blank()
    where = np.zeros(SHAPE, bool)
    where[top : top + height, left : left + width] = True
    part, box = sketch.window(where)
    assert where[box].sum() == where.sum()
    assert part.canvas.shape == part.ids.shape == part.stripes.shape == part.height.shape == where[box].shape
    np.copyto(part.ids, np.int32(7), where=where[box])
    np.testing.assert_array_equal(sketch.ids == 7, where)


def test_a_window_keeps_the_positions_of_its_samples() -> None:
    canvas = blank().canvas
    part = canvas.window(slice(8, 24), slice(16, 56))
    assert part.shape == (16, 40)
    np.testing.assert_array_equal(part.y_m[0], canvas.y_m[8])
    np.testing.assert_array_equal(part.x_m[:, -1], canvas.x_m[:, 55])
