"""The sheet: pictures, legend, scale bar, north."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.catalog import LandClass, Legend
from geoseg_cli.errors import StorageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.picture import Frame, MapPicture, read_picture
from geoseg_cli.results.preview import HATCH, INK, WHITE, Panel, scale_bar, write_png, write_preview

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def read_png(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        assert (file.driver, file.count, file.dtypes[0]) == ("PNG", 3, "uint8")
        return np.moveaxis(file.read(), 0, -1)


def places(sheet: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
    """Where (h,w,3) stands on a sheet."""
    height, width, _ = part.shape
    lines = np.lib.stride_tricks.sliding_window_view(sheet, (1, width, 3))[:, :, 0]
    found = zip(*np.nonzero((lines == part[:1]).all(axis=(-3, -2, -1))), strict=True)
    return [(row, col) for row, col in found if np.array_equal(sheet[row : row + height, col : col + width], part)]


def test_the_map_stands_on_the_sheet_pixel_by_pixel_right_of_the_scene(tmp_path, make_map, labels):
    pixels = labels(60, 80)[:, 1:]
    picture = read_picture(make_map(pixels), 1000)
    scene = np.random.default_rng(1).integers(0, 255, (60, 79, 4), np.uint8)
    scene[..., 3] = 255
    write_preview(picture, "map.tif", tmp_path / "sheet.png", Panel("scene.tif", scene))
    sheet = read_png(tmp_path / "sheet.png")
    (left,), (right,) = places(sheet, scene[..., :3]), places(sheet, picture.colors()[..., :3])
    assert left[0] == right[0]
    assert right[1] >= left[1] + 79
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "sheet.png"]


def test_every_class_stands_in_the_legend_in_its_colour(tmp_path, make_map, labels, legend):
    pixels = np.full((60, 400), legend.values[0], np.uint8)
    write_preview(read_picture(make_map(pixels), 1000), "map", tmp_path / "sheet.png")
    sheet = read_png(tmp_path / "sheet.png")
    for cls in legend.classes:
        assert (sheet == cls.rgb).all(axis=-1).sum() >= 100, cls.title


def test_no_answer_is_hatched_and_stands_in_the_legend_only_where_it_occurs(tmp_path, make_map, legend):
    pixels = np.full((64, 400), legend.values[0], np.uint8)
    write_preview(read_picture(make_map(pixels), 1000), "map", tmp_path / "full.png")
    assert not (read_png(tmp_path / "full.png") == HATCH).all(axis=-1).any()
    pixels[:32] = legend.nodata
    write_preview(read_picture(make_map(pixels, name="holes.tif"), 1000), "map", tmp_path / "holes.png")
    sheet = read_png(tmp_path / "holes.png")
    (corner,) = places(sheet, np.full((32, 400, 3), legend.classes[0].rgb, np.uint8))
    above = sheet[corner[0] - 32 : corner[0], corner[1] : corner[1] + 400]
    assert {tuple(color) for color in above.reshape(-1, 3).tolist()} == {HATCH, WHITE}
    assert (sheet[corner[0] + 32 :] == HATCH).all(axis=-1).any()


@given(st.integers(16, 5000), st.floats(1e-3, 1e5))
def test_a_scale_bar_is_round_true_and_as_long_as_fits(width_px, metres_per_px):
    length_px, text = scale_bar(width_px, metres_per_px)
    number, unit = re.fullmatch(r"(\S+) (km|m)", text).groups()
    metres = float(number) * (1000 if unit == "km" else 1)
    lead = metres / 10 ** math.floor(math.log10(metres) + 1e-9)
    assert min(abs(lead - one) for one in (1, 2, 5)) < 1e-6
    assert length_px == max(1, round(metres / metres_per_px))
    assert metres <= 0.3 * width_px * metres_per_px * 1.0001
    assert metres * 2.5001 >= 0.3 * width_px * metres_per_px


def test_the_bar_on_the_sheet_is_as_long_as_its_text_says(tmp_path, make_map, legend):
    write_preview(read_picture(make_map(np.full((200, 500), 50, np.uint8)), 250), "map", tmp_path / "sheet.png")
    sheet = read_png(tmp_path / "sheet.png")
    # 250 px show 5 km: the bar is 1 km, 50 px of 4 rows.
    assert len(places(sheet, np.full((4, 50, 3), INK, np.uint8))) == 1
    assert not places(sheet, np.full((4, 51, 3), INK, np.uint8))


def test_without_a_crs_there_is_neither_bar_nor_arrow(tmp_path, legend):
    grid = Grid(None, rasterio.Affine.identity(), 100, 300)
    picture = MapPicture(Frame.fit(grid, 300), np.full((100, 300), 50, np.uint8), legend)
    write_preview(picture, "map", tmp_path / "sheet.png")
    assert not places(read_png(tmp_path / "sheet.png"), np.full((3, 20, 3), INK, np.uint8))


@pytest.mark.parametrize("title", ["a" * 500, "\x1b[31m\u202efdp.tif", "Größe, forêt, мох, 森林", ""])
def test_any_name_can_stand_above_a_map_and_in_its_legend(tmp_path, make_map, labels, title):
    picture = read_picture(make_map(labels(20, 20)), 100)
    strange = Legend("own", tuple(LandClass(c.value, c.name, title, c.color) for c in picture.legend.classes))
    write_preview(replace(picture, legend=strange), title, tmp_path / "sheet.png")
    assert read_png(tmp_path / "sheet.png").shape[1] < 400


def test_a_missing_folder_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        write_png(np.zeros((2, 2, 3), np.uint8), tmp_path / "gone" / "map.png")
