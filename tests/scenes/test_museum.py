"""Odd, broken and hostile files: each is read rightly or refused by name, with a cure and its exit code."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.shutil import copy as copy_raster
from rasterio.transform import Affine

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import GeosegError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import SceneOptions, open_scene
from geoseg_cli.scenes.raster_file import open_geotiff
from tests.conftest import TEN_METRES, write_scene

NAMES = ("blue", "green", "red", "nir")
SPEC = InputSpec(NAMES, (), (0.0,) * 4, (1.0,) * 4)
DN = SceneOptions(radiometry="dn")
SECRET = b"nobody must ever read these bytes" * 8

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def noise(height: int = 24, width: int = 32, dtype: str = "uint16") -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(1, 250, (4, height, width)).astype(dtype)


def good(path: Path, **rest: Any) -> Path:
    return write_scene(path, noise(), NAMES, **rest)


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("this is not the file you are looking for\n" * 50)


def empty(path: Path) -> None:
    path.touch()


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>404 not found</body></html>")


def zip_archive(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(200))


def jpeg_2000(path: Path) -> None:
    path.write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200))


def virtual_raster(path: Path) -> None:
    secret = path.with_name("secret")
    secret.write_bytes(SECRET)
    path.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8">'
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{secret}</SourceFilename></VRTRasterBand></VRTDataset>"
    )


def header_only(path: Path) -> None:
    path.write_bytes(b"II*\0\x08\0\0\0")


def directory_beyond_any_file(path: Path) -> None:
    path.write_bytes(b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(200))


def directory_cut(path: Path) -> None:
    path.write_bytes(b"MM\0*\0\0\0\x08\0\x05" + bytes(30))


def half(path: Path) -> None:
    data = good(path, compress="deflate").read_bytes()
    path.write_bytes(data[: len(data) // 2])


def ground_control_points(path: Path) -> None:
    write_scene(path, noise(), NAMES, crs=None, transform=None)
    corners = [(0, 0), (0, 32), (24, 0), (24, 32)]
    points = [GroundControlPoint(row=r, col=c, x=5 + c / 1e4, y=50 - r / 1e4) for r, c in corners]
    with rasterio.open(path, "r+") as file:
        file.gcps = (points, rasterio.crs.CRS.from_epsg(4326))


def rational_polynomials(path: Path) -> None:
    write_scene(path, noise(), NAMES, crs=None, transform=None)
    one = [1.0] + [0.0] * 19
    with rasterio.open(path, "r+") as file:
        file.rpcs = RPC(0.0, 1.0, 50.0, 1.0, one, one, 12.0, 12.0, 5.0, 1.0, one, one, 16.0, 16.0, 0.0, 0.0)


def rgb_picture(path: Path) -> None:
    write_scene(path, noise(dtype="uint8")[:3], photometric="RGB")


def named_picture(path: Path) -> None:
    write_scene(path, noise(dtype="uint8"), NAMES)


def class_map(path: Path) -> None:
    write_scene(path, noise(dtype="uint8")[:1])
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255)})


def radar(path: Path) -> None:
    write_scene(path, noise(dtype="complex64"), NAMES)


def three_bands(path: Path) -> None:
    write_scene(path, noise()[:3], NAMES[:3])


def unnamed_bands(path: Path) -> None:
    write_scene(path, noise())


def sparse_8_terabytes(path: Path) -> None:
    layout = {"tiled": True, "blockxsize": 8192, "blockysize": 8192, "bigtiff": "yes", "sparse_ok": True}
    size = {"height": 1_000_000, "width": 1_000_000, "count": 4, "dtype": "uint16"}
    rasterio.open(path, "w", driver="GTiff", crs="EPSG:32631", transform=TEN_METRES, **size, **layout).close()


REFUSED: list[tuple[Callable[[Path], Any], int, str, str]] = [
    (lambda path: None, 66, "there is no such file", "check the path"),
    (folder, 65, "is a folder", "SAFE folder"),
    (os.mkfifo, 65, "no regular file", "name a file"),
    (text, 65, "no TIFF", "gdal_translate"),
    (empty, 65, "empty", "GeoTIFF"),
    (html, 65, "an XML or HTML text", "GeoTIFF"),
    (zip_archive, 65, "zip archive", "MEMBER.tif"),
    (jpeg_2000, 74, "truncated or damaged", "download it again"),
    (virtual_raster, 65, "GDAL virtual raster", "gdal_translate"),
    (header_only, 74, "truncated", "download it again"),
    (lambda path: path.write_bytes(b"II*\0"), 74, "the header is incomplete", "download it again"),
    (directory_beyond_any_file, 74, "truncated", "download it again"),
    (directory_cut, 74, "its directory at byte 8", "download it again"),
    (half, 74, "truncated", "download it again"),
    (ground_control_points, 65, "4 ground control points", "gdalwarp -tps"),
    (rational_polynomials, 65, "rational polynomial", "gdalwarp -rpc"),
    (rgb_picture, 65, "8-bit rendered image", "16-bit"),
    (named_picture, 65, "8-bit rendered image", "16-bit"),
    (class_map, 65, "8-bit rendered image", "16-bit"),
    (radar, 65, "complex", "optical"),
    (three_bands, 65, "missing band nir", "--bands"),
    (unnamed_bands, 65, "no band has a name", "--bands"),
    (sparse_8_terabytes, 65, "7450.6 GiB", "--max-pixels 1000000000000"),
]


@pytest.mark.parametrize(
    ("build", "code", "says", "cure"), REFUSED, ids=[getattr(row[0], "__name__", "?") for row in REFUSED]
)
def test_a_bad_file_is_refused_by_name(
    tmp_path: Path, build: Callable[[Path], Any], code: int, says: str, cure: str
) -> None:
    path = tmp_path / "scene.tif"
    build(path)
    with pytest.raises(GeosegError) as caught:
        open_scene(path, SPEC, DN)
    assert caught.value.exit_code == code
    assert str(path) in caught.value.message
    assert says in caught.value.message
    assert cure in caught.value.hint
    assert SECRET[:20].decode() not in caught.value.message


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = good(tmp_path / "scene.tif")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything: let the system say no in its place

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(GeosegError, match="no permission") as caught:
        open_scene(path, SPEC, DN)
    assert caught.value.exit_code == 77


def test_a_path_through_a_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(GeosegError) as caught:
        open_scene(good(tmp_path / "scene.tif") / "scene.tif", SPEC, DN)
    assert caught.value.exit_code == 66


def test_a_huge_file_opens_when_the_limit_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    sparse_8_terabytes(path)
    with pytest.raises(GeosegError, match="no band has a name"):
        open_scene(path, SPEC, SceneOptions(radiometry="dn", max_pixels=1_000_000_000_000))


def cloud_optimized(path: Path) -> None:
    plain = good(path.with_name("plain.tif"), nodata=0, mask=noise()[0] > 20)
    copy_raster(plain, path, driver="COG", compress="deflate", blocksize=128)


def tags_at_the_end(path: Path) -> None:
    """Tags that are written after the pixels end the file: when they go, the pixels are still there."""
    good(path, compress="deflate")
    with rasterio.open(path, "r+") as file:
        file.nodata = 7
        file.update_tags(note="n" * 500)


TRUNCATED: dict[str, Callable[[Path], Any]] = {
    "uncompressed": good,
    "tiles": lambda path: good(path, tiled=True, blockxsize=16, blockysize=16, compress="lzw"),
    "bigtiff": lambda path: good(path, bigtiff="yes", compress="zstd"),
    "cog": cloud_optimized,
    "tags at the end": tags_at_the_end,
}


@pytest.mark.parametrize("build", TRUNCATED.values(), ids=list(TRUNCATED))
def test_a_truncated_file_is_refused_or_reads_as_if_it_were_whole(tmp_path: Path, build: Callable[[Path], Any]) -> None:
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    build(whole)
    data = whole.read_bytes()
    with open_scene(whole, SPEC, DN) as scene:
        right, grid, reason = scene.read(scene.grid.window), scene.grid, scene.nodata_reason
    refusals = []
    for length in sorted({*range(0, len(data), max(1, len(data) // 120)), *range(len(data) - 40, len(data))}):
        cut.write_bytes(data[:length])
        try:
            with open_scene(cut, SPEC, DN) as scene:
                patch = scene.read(scene.grid.window)
                assert (scene.grid, scene.nodata_reason) == (grid, reason)
                np.testing.assert_array_equal(patch.pixels, right.pixels)
                np.testing.assert_array_equal(patch.valid, right.valid)
        except GeosegError as error:
            refusals.append((length, error.exit_code))
    assert len(refusals) > 100
    assert all(code == (74 if length >= 4 else 65) for length, code in refusals)


def test_the_lost_window_is_named(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", np.ones((4, 600, 600), "uint16"), NAMES, interleave="pixel")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_geotiff(path)
    assert source.read((1, 2), Window(0, 0, 200, 600))[1].all()
    with pytest.raises(GeosegError, match="cannot read rows 500 to 599, columns 10 to 19") as caught:
        source.read((1, 2), Window(500, 10, 100, 10))
    source.close()
    assert caught.value.exit_code == 74


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mutated_files_end_in_pixels_or_in_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    cloud_optimized(path)
    data = path.read_bytes()
    rng = random.Random(7)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        mutant = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            mutant[rng.randrange(900 if rng.random() < 0.7 else len(data))] = rng.randrange(256)
        path.write_bytes(mutant)
        try:
            with open_scene(path, SPEC, DN) as scene:
                scene.read(Window(0, 0, 1, 1))
            outcomes["read"] += 1
        except GeosegError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 0
    assert outcomes["refused"] > 0


def test_no_crs_is_one_warning(tmp_path: Path) -> None:
    path = good(tmp_path / "scene.tif", crs=None)
    with open_scene(path, SPEC, DN) as scene:
        assert scene.grid.crs is None
        assert scene.grid.transform == TEN_METRES
        (warning,) = scene.warnings
        assert "no CRS" in warning


def test_neither_crs_nor_transform_warns_no_more(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = good(tmp_path / "scene.tif", crs=None, transform=None)
    recwarn.clear()
    with open_scene(path, SPEC, DN) as scene:
        assert scene.grid.transform == Affine.identity()
        assert len(scene.warnings) == 1
    assert not recwarn.list


def test_a_rotated_scene_keeps_its_grid_and_pixels(tmp_path: Path) -> None:
    turned = TEN_METRES @ Affine.rotation(30.0)
    with open_scene(good(tmp_path / "scene.tif", transform=turned), SPEC, DN) as scene:
        assert scene.grid.transform.almost_equals(turned)
        assert scene.warnings == ()
        np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, noise())


def test_a_south_up_scene_is_read_as_stored_and_says_so(tmp_path: Path) -> None:
    flipped = Affine(10.0, 0.0, 600_000.0, 0.0, 10.0, 5_600_000.0)
    with open_scene(good(tmp_path / "scene.tif", transform=flipped), SPEC, DN) as scene:
        assert scene.grid.transform == flipped
        assert any("south-up" in warning for warning in scene.warnings)
        np.testing.assert_array_equal(scene.read(Window(2, 3, 4, 5)).pixels, noise()[:, 2:6, 3:8])


def test_pixels_on_a_line_are_no_grid(tmp_path: Path) -> None:
    path = good(tmp_path / "scene.tif", transform=Affine(10.0, 10.0, 5.0, 10.0, 10.0, 5.0))
    with pytest.raises(GeosegError, match="onto a line") as caught:
        open_scene(path, SPEC, DN)
    assert caught.value.exit_code == 65


def test_a_scene_of_nodata_has_no_valid_pixel(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", np.zeros((4, 30, 20), "uint16"), NAMES, nodata=0)
    with open_scene(path, SPEC, DN) as scene:
        assert not scene.read(scene.grid.window).valid.any()


def test_a_scene_of_one_pixel_is_read(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", np.full((4, 1, 1), 9, "int16"), NAMES)
    with open_scene(path, SPEC, DN) as scene:
        assert scene.read(Window(0, 0, 1, 1)).pixels.tolist() == [[[9]]] * 4


@pytest.mark.parametrize(
    "name", ["http:x.tif", "a#b.tif", "a%20b c.tif", "-o.tif", "été ☃.tif", "x.jp2", "zip+a!b.tif", "noextension"]
)
def test_odd_names_are_only_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_scene(Path(name), SPEC, DN) as scene:
        np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, noise())
        assert scene.path == tmp_path / name


def test_files_beside_the_scene_are_ignored(tmp_path: Path) -> None:
    path, trap = good(tmp_path / "scene.tif", nodata=3), tmp_path / "trap.tif"
    write_scene(trap, np.full((4, 12, 16), 666, "uint16"))
    (tmp_path / "scene.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3857</SRS><GeoTransform>1, 2, 0, 3, 0, 2</GeoTransform>"
        f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{trap}</MDI></Metadata>'
        + "".join(
            f'<PAMRasterBand band="{band}"><Description>nir</Description><NoDataValue>100</NoDataValue>'
            "<Scale>5</Scale><Offset>9</Offset></PAMRasterBand>"
            for band in range(1, 5)
        )
        + "</PAMDataset>"
    )
    (tmp_path / "scene.tif.ovr").write_bytes(trap.read_bytes())
    write_scene(tmp_path / "scene.tif.msk", np.zeros((1, 24, 32), "uint8"))
    (tmp_path / "scene.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    with open_scene(path, SPEC, SceneOptions(radiometry="dn")) as scene:
        patch = scene.read(scene.grid.window)
        assert scene.bands.held_numbers == (1, 2, 3, 4)
        assert scene.grid.transform == TEN_METRES
        assert scene.grid.crs == rasterio.crs.CRS.from_epsg(32631)
        assert scene.nodata_reason == "nodata tag 3"
        (warning,) = scene.warnings
        assert all(name in warning for name in ("scene.tif.aux.xml", "scene.tif.msk", "scene.tfw", "not read"))
    np.testing.assert_array_equal(patch.pixels, noise())
    np.testing.assert_array_equal(patch.valid, (noise() != 3).all(axis=0))
