from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg_cli.errors import InputError, StorageError
from geoseg_cli.results.preview import BRIGHT, GAMMA, write_preview, write_quicklook
from geoseg_cli.results.raster import RasterSpec

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
REAL_DATA = Path(os.environ.get("GEOSEG_REAL_DATA") or Path(__file__).parents[3] / "shared" / "data")
SCENE = REAL_DATA / "scenes" / "s2_l2a_boadella" / "Boadella_2020-09-14.tif"


def read_png(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        assert (file.driver, file.count, file.dtypes[0]) == ("PNG", 4, "uint8")
        return np.moveaxis(file.read(), 0, -1)


def test_every_pixel_has_its_class_color_and_nodata_is_transparent(tmp_path, grid, legend, labels, make_cog):
    pixels = labels(90, 130)
    path = make_cog(RasterSpec(grid(90, 130), palette=legend.palette()), pixels[None])
    write_preview(path, legend, tmp_path / "map.png")
    picture = read_png(tmp_path / "map.png")
    assert picture.shape == (90, 130, 4)
    for cls in legend.classes:
        assert (picture[pixels == cls.value] == (*cls.rgb, 255)).all()
    assert (picture[pixels == 255][:, 3] == 0).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.png", "map.tif", "scratch.tif"]


@pytest.mark.parametrize(
    ("shape", "max_px", "wanted"),
    [((1, 1), 64, (1, 1)), ((700, 1), 64, (64, 1)), ((1000, 600), 100, (100, 60)), ((30, 50), 64, (30, 50))],
)
def test_pictures_are_shrunk_to_the_longest_side_and_never_enlarged(
    tmp_path, grid, legend, make_cog, shape, max_px, wanted
):
    path = make_cog(RasterSpec(grid(*shape)), np.full((1, *shape), 30, np.uint8))
    write_preview(path, legend, tmp_path / "map.png", max_px)
    assert read_png(tmp_path / "map.png").shape[:2] == wanted


def test_a_shrunk_map_holds_class_colors_only(tmp_path, grid, legend, labels, make_cog):
    path = make_cog(RasterSpec(grid(1500, 1300)), labels(1500, 1300)[None])
    write_preview(path, legend, tmp_path / "map.png", 333)
    colors = {tuple(color) for color in read_png(tmp_path / "map.png").reshape(-1, 4).tolist()}
    assert colors <= set(legend.palette().values())


@pytest.mark.parametrize(
    ("transform", "flip"),
    [
        (Affine(10, 0, 5e5, 0, 10, 5e6), np.s_[::-1]),
        (Affine(-10, 0, 5e5, 0, -10, 5e6), np.s_[:, ::-1]),
        (Affine(-10, 0, 5e5, 0, 10, 5e6), np.s_[::-1, ::-1]),
        (Affine(10, 0, 5e5, 0, -10, 5e6), np.s_[:]),
    ],
)
def test_north_is_up(tmp_path, grid, legend, labels, make_cog, transform, flip):
    pixels = labels(40, 50)
    write_preview(make_cog(RasterSpec(grid(40, 50)), pixels[None]), legend, tmp_path / "a.png")
    write_preview(make_cog(RasterSpec(grid(40, 50, transform=transform)), pixels[None]), legend, tmp_path / "b.png")
    assert np.array_equal(read_png(tmp_path / "b.png"), read_png(tmp_path / "a.png")[flip])


def test_an_image_without_a_grid_is_not_flipped(tmp_path, grid, legend, labels, make_cog):
    pixels = labels(20, 20)
    write_preview(make_cog(RasterSpec(grid(20, 20, None, Affine.identity())), pixels[None]), legend, tmp_path / "a.png")
    assert (read_png(tmp_path / "a.png")[pixels == 10][:, :3] == legend.classes[0].rgb).all()


def test_values_outside_the_legend_are_refused(tmp_path, grid, legend, make_cog):
    path = make_cog(RasterSpec(grid(5, 5)), np.full((1, 5, 5), 7, np.uint8))
    with pytest.raises(InputError, match=r"holds \[7\]"):
        write_preview(path, legend, tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()


def test_a_missing_map_and_a_missing_folder_are_storage_errors(tmp_path, grid, legend, labels, make_cog):
    with pytest.raises(StorageError, match="cannot read"):
        write_preview(tmp_path / "none.tif", legend, tmp_path / "map.png")
    path = make_cog(RasterSpec(grid(5, 5)), labels(5, 5)[None])
    with pytest.raises(StorageError, match="cannot write"):
        write_preview(path, legend, tmp_path / "gone" / "map.png")


def write_scene(path: Path, numbers: np.ndarray, nodata: int | None = 0) -> Path:
    bands, height, width = numbers.shape
    profile = {"count": bands, "height": height, "width": width, "dtype": "uint16", "nodata": nodata}
    with rasterio.open(path, "w", driver="GTiff", transform=Affine(10, 0, 0, 0, -10, 0), **profile) as file:
        file.write(numbers)
    return path


def test_reflectance_is_stretched_and_lifted(tmp_path):
    numbers = np.zeros((4, 2, 3), np.uint16)
    # Digital numbers with the offset of -1000: 1000 is black, 4000 is reflectance 0.3 and white, 2000 is 0.1.
    numbers[3], numbers[2], numbers[1] = 1000, 4000, 2000
    numbers[3, 0, 0] = 60_000
    numbers[1, 1, 2] = 0
    scene = write_scene(tmp_path / "s.tif", numbers)
    write_quicklook(scene, (4, 3, 2), 1e-4, -0.1, tmp_path / "s.png")
    picture = read_png(tmp_path / "s.png")
    middle = round(255 * (0.1 / BRIGHT) ** (1 / GAMMA))
    assert picture[0, 1].tolist() == [0, 255, middle, 255]
    assert picture[0, 0].tolist() == [255, 255, middle, 255], "brighter than bright is bright"
    assert picture[1, 2].tolist() == [0, 0, 0, 0], "nodata in one band"


def test_a_quicklook_is_shrunk_by_averaging(tmp_path):
    numbers = np.zeros((3, 8, 8), np.uint16)
    numbers[:, ::2] = 3000
    write_quicklook(write_scene(tmp_path / "s.tif", numbers, None), (1, 2, 3), 1e-4, 0, tmp_path / "s.png", 4)
    picture = read_png(tmp_path / "s.png")
    assert picture.shape == (4, 4, 4)
    assert (picture[..., 0] == round(255 * 0.5 ** (1 / GAMMA))).all()


@pytest.mark.skipif(not SCENE.exists(), reason=f"no real scene at {SCENE}")
def test_a_real_scene_is_neither_black_nor_blown_out(tmp_path):
    write_quicklook(SCENE, (4, 3, 2), 1e-4, 0.0, tmp_path / "s.png")
    picture = read_png(tmp_path / "s.png")
    with rasterio.open(SCENE) as file:
        assert picture.shape[:2] == file.shape
    brightness = picture[..., :3].mean()
    assert 50 < brightness < 180
