"""Tiles of the Sentinel-2 archive on AWS: which image is which band, and which baseline says what its numbers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from geoseg_cli.errors import InputError, RadiometryError, StorageError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import SceneOptions, aws_tile, open_scene
from tests.scenes.product_fixtures import spec_of
from tests.scenes.safe_fixtures import ALL_MINUS_1000, Text, native_images, write_image

WANTED = {"blue": "B02", "red": "B04", "nir": "B08", "swir16": "B11"}


def write_tile(
    folder: Path, level: str, images: Mapping[str, npt.NDArray[Any]], baseline: str = "0301", ending: str = ".jp2"
) -> Path:
    """A tile folder; images are named as in :mod:`tests.scenes.safe_fixtures`: ``B02`` or ``B02_10m``."""
    for name, pixels in images.items():
        band, _, size = name.partition("_")
        inner = folder / f"R{size}" if size else folder
        write_image(inner / f"{band}{ending}", pixels, "GTiff" if ending == ".tif" else "JP2OpenJPEG")
    folder.mkdir(parents=True, exist_ok=True)
    info = {"path": "tiles/31/U/FS/2020/1/2/0", "utmZone": 31, "latitudeBand": "U", "gridSquare": "FS"}
    name = f"S2A_MSI{level}_20200102T104621_N{baseline}_R051_T31UFS_20200102T150000"
    (folder / "tileInfo.json").write_text(json.dumps({**info, "productName": name}))
    (folder / "metadata.xml").write_text(f'<n1:Level-{level[1:]}_Tile_ID xmlns:n1="https://example.org/t.xsd"/>')
    return folder


def reflectance_of(path: Path, options: SceneOptions | None = None) -> tuple[npt.NDArray[Any], str]:
    """(4, 120, 120) reflectance of the wanted bands, and which rung decided."""
    with open_scene(path, spec_of(*WANTED), options or SceneOptions()) as scene:
        assert scene.product.layout == "Sentinel-2 tile of the archive on AWS"
        patch = scene.read(scene.grid.window)
        assert patch.valid.all()
        return scene.to_reflectance(patch.pixels), scene.radiometry.rung


def expected(images: Mapping[str, npt.NDArray[Any]], add: float = 0.0) -> npt.NDArray[Any]:
    planes = [next(pixels for name, pixels in images.items() if name.startswith(band)) for band in WANTED.values()]
    large = [plane.repeat(120 // len(plane), 0).repeat(120 // len(plane), 1) for plane in planes]
    return (np.stack(large).astype(float) + add) / 10_000


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize(("baseline", "add"), [("0207", 0), ("0301", 0), ("0400", -1000), ("0510", -1000)])
def test_the_baseline_in_the_name_of_the_product_tells_the_offset(
    tmp_path: Path, level: str, baseline: str, add: int
) -> None:
    images = native_images(level, np.random.default_rng(1), -add)
    read, rung = reflectance_of(write_tile(tmp_path / "0", level, images, baseline))
    assert rung == "baseline"
    np.testing.assert_allclose(read, expected(images, add), atol=1e-6)


@pytest.mark.parametrize("name", ["tileInfo.json", "metadata.xml"])
def test_a_file_of_the_tile_stands_for_it_and_tiff_is_read_as_well(tmp_path: Path, name: str) -> None:
    images = native_images("L2A", np.random.default_rng(2))
    folder = write_tile(tmp_path / "0", "L2A", images, ending=".tif")
    np.testing.assert_allclose(reflectance_of(folder / name)[0], expected(images), atol=1e-6)


def test_of_several_pixel_sizes_the_finest_is_taken(tmp_path: Path) -> None:
    images = native_images("L2A", np.random.default_rng(3))
    coarse = {f"{band}_60m": np.full((20, 20), 7, np.uint16) for band in ("B02", "B04")}
    read, _ = reflectance_of(write_tile(tmp_path / "0", "L2A", {**images, **coarse}))
    np.testing.assert_allclose(read, expected(images), atol=1e-6)


def test_product_metadata_beside_the_tile_decide_before_its_name(tmp_path: Path) -> None:
    images = native_images("L2A", np.random.default_rng(4), 1000)
    folder = write_tile(tmp_path / "0", "L2A", images, "0400")
    text = Text(
        baseline="04.00", adds=ALL_MINUS_1000, name=json.loads((folder / "tileInfo.json").read_text())["productName"]
    )
    (folder / "product_metadata.xml").write_text(text.xml(images))
    read, rung = reflectance_of(folder)
    assert rung == "metadata"
    np.testing.assert_allclose(read, expected(images, -1000), atol=1e-6)
    changed = Text(baseline="04.00", adds=dict.fromkeys(range(13), -7000), name=text.name)
    (folder / "product_metadata.xml").write_text(changed.xml(images))
    with pytest.raises(RadiometryError, match=r"two sources disagree.*7000.*04\.00"):
        reflectance_of(folder)
    (folder / "product_metadata.xml").write_text(Text(baseline="04.00", adds=ALL_MINUS_1000).xml(images))
    with pytest.raises(InputError, match=r"product_metadata\.xml is of S2A_MSIL2A_2023"):
        reflectance_of(folder)


def test_zeros_and_lost_classes_are_lost_pixels(tmp_path: Path) -> None:
    images = native_images("L2A", np.random.default_rng(5))
    images["B04_10m"][3, 4] = 0
    images["SCL_20m"][30, 31] = 1
    folder = write_tile(tmp_path / "0", "L2A", images)
    with open_scene(folder, spec_of(*WANTED)) as scene:
        valid = scene.read(Window(0, 0, 120, 120)).valid
    lost = np.zeros((120, 120), bool)
    lost[3, 4] = lost[60:62, 62:64] = True
    np.testing.assert_array_equal(valid, ~lost)


def test_a_tile_without_the_name_of_its_product_says_nothing_of_its_numbers(tmp_path: Path) -> None:
    images = native_images("L1C", np.random.default_rng(6))
    folder = write_tile(tmp_path / "0", "L1C", images)
    info = json.loads((folder / "tileInfo.json").read_text())
    del info["productName"]
    (folder / "tileInfo.json").write_text(json.dumps(info))
    with pytest.raises(RadiometryError, match="nothing says what its uint16 numbers mean"):
        reflectance_of(folder)
    (folder / "productInfo.json").write_text(json.dumps({"name": "S2A_MSIL1C_20200102T104621_N0208_R051_T31UFS_x"}))
    assert reflectance_of(folder)[1] == "baseline"
    (folder / "tileInfo.json").write_text(json.dumps({**info, "productName": "S2B_MSIL1C_other"}))
    with pytest.raises(InputError, match=r"tileInfo\.json is of S2B_MSIL1C_other, productInfo\.json of S2A"):
        aws_tile.find(folder)


def test_a_tile_without_images_says_which_are_wanted(tmp_path: Path) -> None:
    folder = write_tile(tmp_path / "0", "L2A", {})
    with pytest.raises(InputError, match="a tile of the Sentinel-2 archive on AWS, and no image is there") as refusal:
        open_scene(folder, spec_of("red"))
    assert "R10m" in refusal.value.hint


def test_a_product_folder_of_the_archive_says_where_the_images_are(tmp_path: Path) -> None:
    info = {"name": "S2A_MSIL1C_x", "path": "products/2020/1/2/x", "tiles": [{"path": "tiles/31/U/FS/2020/1/2/0"}]}
    (tmp_path / "productInfo.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="is a product folder of the Sentinel-2 archive on AWS") as refusal:
        open_scene(tmp_path, spec_of("red"))
    assert "tiles/31/U/FS/2020/1/2/0" in refusal.value.hint


def test_an_image_that_leads_out_of_the_tile_is_refused(tmp_path: Path) -> None:
    images = native_images("L2A", np.random.default_rng(7))
    folder = write_tile(tmp_path / "0", "L2A", images)
    (folder / "R10m" / "B02.jp2").rename(tmp_path / "elsewhere.jp2")
    (folder / "R10m" / "B02.jp2").symlink_to(tmp_path / "elsewhere.jp2")
    with pytest.raises(InputError, match="leads out of the tile"):
        aws_tile.find(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"utmZone": "31"}'])
def test_other_files_of_that_name_make_no_tile(tmp_path: Path, text: str) -> None:
    (tmp_path / "tileInfo.json").write_text(text, encoding="latin-1")
    assert aws_tile.find(tmp_path) is None


CUT = b'{"utmZone": 31, "gridSq'


@pytest.mark.parametrize(
    ("damage", "named"),
    [(b"", "folder"), (b"\0\0\0", "folder"), (b"[" * 100_000, "folder"), (CUT, "folder"), (CUT, "tileInfo.json")],
    ids=["empty", "zeros", "deep", "cut", "cut, named"],
)
def test_damaged_tile_information_is_refused_by_its_name(tmp_path: Path, damage: bytes, named: str) -> None:
    folder = write_tile(tmp_path / "0", "L1C", native_images("L1C", np.random.default_rng(1)))
    (folder / "tileInfo.json").write_bytes(damage)
    with pytest.raises(StorageError, match=r"tileInfo.json is damaged"):
        open_scene(folder if named == "folder" else folder / named, spec_of(*WANTED))
