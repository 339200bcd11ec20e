"""Pairs of images and labels, and labels on the grid of their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg_cli.errors import AccessError, GridError, InputError, InputMissingError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.labels import LabelFile, find_pairs, read_labels

UTM = Affine(10, 0, 499_980, 0, -10, 4_900_020)
CLASSES = (0, 1, 2, 3)


def write(path: Path, labels: npt.NDArray[Any], **profile: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = labels[None] if labels.ndim == 2 else labels
    placed = {"crs": "EPSG:32631", "transform": UTM} | profile
    count, height, width = planes.shape
    with rasterio.open(
        path, "w", driver="GTiff", dtype=planes.dtype, count=count, height=height, width=width, **placed
    ) as file:
        file.write(planes)
    return path


def grid_of(labels: npt.NDArray[Any]) -> Grid:
    return Grid(CRS.from_epsg(32631), UTM, *labels.shape)


def touch(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs_in(folder: Path) -> list[tuple[str, str, str]]:
    inside = [
        (pair.image.relative_to(folder), pair.label.relative_to(folder), pair.place) for pair in find_pairs(folder)
    ]
    return [(image.as_posix(), label.as_posix(), place) for image, label, place in inside]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["images/a.tif", "labels/a.tif"], [("images/a.tif", "labels/a.tif", "a")]),
        (["images/a.TIF", "labels/a.tiff"], [("images/a.TIF", "labels/a.tiff", "a")]),
        (["b.tif", "b_label.tif"], [("b.tif", "b_label.tif", "b")]),
        (["images/a.tif", "labels/a_label.tif"], [("images/a.tif", "labels/a_label.tif", "a")]),
        (["rome/x.tif", "rome/x_label.tif"], [("rome/x.tif", "rome/x_label.tif", "rome")]),
        (["images/rome/x.tif", "labels/rome/x.tif"], [("images/rome/x.tif", "labels/rome/x.tif", "rome")]),
        (["rome/images/x.tif", "rome/labels/x.tif"], [("rome/images/x.tif", "rome/labels/x.tif", "rome")]),
        (["rome/may/x.tif", "rome/may/x_label.tif"], [("rome/may/x.tif", "rome/may/x_label.tif", "rome")]),
        (
            ["b.tif", "b_label.tif", "b_landcover.tif", "b_cloudmask.tif", ".b.tif", "notes.txt"],
            [("b.tif", "b_label.tif", "b")],
        ),
    ],
)
def test_both_layouts_are_found_with_their_place(
    tmp_path: Path, names: list[str], wanted: list[tuple[str, str, str]]
) -> None:
    touch(tmp_path, names)
    assert pairs_in(tmp_path) == wanted


def test_the_same_name_in_two_subfolders_is_two_pairs(tmp_path: Path) -> None:
    touch(tmp_path, [f"{place}/{name}" for place in ("oslo", "rome") for name in ("x.tif", "x_label.tif")])
    assert [pair.place for pair in find_pairs(tmp_path)] == ["oslo", "rome"]


def test_a_table_says_which_images_are_of_one_place(tmp_path: Path) -> None:
    touch(tmp_path, ["a.tif", "a_label.tif", "b.tif", "b_label.tif"])
    (tmp_path / "places.csv").write_text("file,place\na.tif,rome\nb.tif, rome\n")
    assert {pair.place for pair in find_pairs(tmp_path)} == {"rome"}


@pytest.mark.parametrize(
    ("table", "message"), [("file,place\na.tif,rome\n", "where b.tif is"), ("name,town\na.tif,rome\n", "no columns")]
)
def test_a_table_that_leaves_an_image_out_is_refused(tmp_path: Path, table: str, message: str) -> None:
    touch(tmp_path, ["a.tif", "a_label.tif", "b.tif", "b_label.tif"])
    (tmp_path / "places.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        find_pairs(tmp_path)


def test_no_pair_names_both_layouts(tmp_path: Path) -> None:
    touch(tmp_path, ["a.tif", "labels/b.tif"])
    with pytest.raises(InputMissingError, match="1 image, 1 label") as caught:
        find_pairs(tmp_path)
    assert "images/X.tif with labels/X.tif" in caught.value.hint
    assert "X_label.tif" in caught.value.hint


def test_no_folder_is_an_input_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no folder"):
        find_pairs(tmp_path / "absent")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["c.tif"], "1 image without label: c.tif"),
        (["labels/d.tif"], "1 label without image: labels/d.tif"),
        ([f"c{number}.tif" for number in range(7)], "7 images without label: .* and 2 more"),
        (["a.tiff"], "would be images with one label"),
    ],
)
def test_a_file_without_its_counterpart_is_named(tmp_path: Path, extra: list[str], message: str) -> None:
    touch(tmp_path, ["a.tif", "a_label.tif", *extra])
    with pytest.raises(InputError, match=message):
        find_pairs(tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["uint8", "int16", "uint16"]), st.data())
def test_a_window_of_labels_is_that_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, dtype: str, data: st.DataObject
) -> None:
    rng = np.random.default_rng(height * 41 + width)
    stored = rng.choice([0, 1, 2, 3, 255], (height, width)).astype(dtype)
    path = write(tmp_path_factory.mktemp("labels") / "x.tif", stored)
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(row, col, data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col)))
    found = read_labels(path, grid_of(stored), CLASSES, window)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, stored[window.rows, window.cols])


def test_nodata_and_ignored_values_are_unlabelled(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 7, 9, 255]], np.uint8)
    path = write(tmp_path / "x.tif", stored, nodata=7)
    found = read_labels(path, grid_of(stored), CLASSES, ignore=(9,))
    np.testing.assert_array_equal(found, [[0, 1, 255, 255, 255]])


def test_masked_pixels_are_unlabelled(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2]], np.uint8)
    path = write(tmp_path / "x.tif", stored)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.array([[255, 0, 255]], np.uint8))
    np.testing.assert_array_equal(read_labels(path, grid_of(stored), CLASSES), [[0, 255, 2]])


def test_labelled_pixels_are_those_with_a_class(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 255], [9, 9, 3]], np.uint8)
    with LabelFile(write(tmp_path / "x.tif", stored), grid_of(stored), CLASSES, ignore=(9,)) as file:
        assert file.labelled_pixels() == 3


def test_values_outside_the_legend_are_counted_and_the_option_is_named(tmp_path: Path) -> None:
    stored = np.array([[0, 8, 8], [40, 3, 8]], np.int16)
    path = write(tmp_path / "x.tif", stored)
    with pytest.raises(InputError, match=r"8 \(3 px\), 40 \(1 px\) are no classes") as caught:
        read_labels(path, grid_of(stored), CLASSES)
    assert "--ignore 8,40" in caught.value.hint


def test_a_nodata_value_that_is_a_class_is_refused(tmp_path: Path) -> None:
    stored = np.zeros((2, 2), np.uint8)
    with pytest.raises(InputError, match="0 is both the file's nodata value and a class"):
        read_labels(write(tmp_path / "x.tif", stored, nodata=0), grid_of(stored), CLASSES)


@pytest.mark.parametrize(
    ("stored", "message"),
    [(np.zeros((2, 4, 4), np.uint8), "has 2"), (np.zeros((4, 4), np.float32), "whole numbers")],
)
def test_several_bands_and_fractions_are_refused(tmp_path: Path, stored: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(write(tmp_path / "x.tif", stored), Grid(CRS.from_epsg(32631), UTM, 4, 4), CLASSES)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"crs": "EPSG:32632"}, "EPSG:32632"),
        ({"transform": UTM @ Affine.translation(0.5, 0)}, "499985"),
        ({"transform": UTM @ Affine.scale(2)}, "20, 0, 499980"),
    ],
)
def test_a_label_off_the_images_grid_is_refused_and_both_grids_are_said(
    tmp_path: Path, profile: dict[str, Any], said: str
) -> None:
    stored = np.zeros((4, 4), np.uint8)
    with pytest.raises(GridError, match="does not lie on the pixels") as caught:
        read_labels(write(tmp_path / "x.tif", stored, **profile), grid_of(stored), CLASSES)
    assert said in caught.value.message
    assert "EPSG:32631, transform (10, 0, 499980, 0, -10, 4900020)" in caught.value.message


def test_a_label_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", np.zeros((4, 5), np.uint8))
    with pytest.raises(GridError, match="label: 4 x 5 px"):
        read_labels(path, Grid(CRS.from_epsg(32631), UTM, 4, 4), CLASSES)


def test_links_to_places_are_followed_and_a_loop_ends(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", ["x.tif", "x_label.tif"])
    root = tmp_path / "root"
    root.mkdir()
    (root / "rome").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(root, target_is_directory=True)
    assert pairs_in(root) == [("rome/x.tif", "rome/x_label.tif", "rome")]


def test_a_folder_that_may_not_be_read_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, ["oslo/x.tif", "oslo/x_label.tif", "rome/y.tif"])
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:  # the tests may run as a user whom no mode stops
        if path.name == "rome":
            raise PermissionError(13, "Permission denied", str(path))
        return iter(listed(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(AccessError, match="rome may not be read"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,place\na.tif,K\u00f6ln\n".encode("latin-1"), "places.csv is not UTF-8"),
        (b"file,place\na.tif,rome\na.tif,oslo\n", "names a.tif twice"),
        (None, "places.csv is no file"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused(tmp_path: Path, table: bytes | None, message: str) -> None:
    touch(tmp_path, ["a.tif", "a_label.tif"])
    path = tmp_path / "places.csv"
    if table is None:
        path.mkdir()
    else:
        path.write_bytes(table)
    with pytest.raises(InputError, match=message):
        find_pairs(tmp_path)
