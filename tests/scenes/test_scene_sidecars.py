"""Files beside a scene: they count only where the user says so, only add, and lead nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import BandError, InputError
from geoseg_cli.scenes import Scene, SceneOptions, open_scene
from tests.conftest import TEN_METRES, write_scene

SPEC = InputSpec(("red", "nir"), (), (0.0, 0.0), (1.0, 1.0))
PIXELS = np.random.default_rng(0).integers(1, 9000, (2, 20, 30), dtype=np.uint16)
WORLD = "10\n0\n0\n-10\n600005\n5699995\n"
NOTES = (
    "<PAMDataset><SRS>EPSG:32631</SRS><GeoTransform>6.0e5, 10, 0, 5.7e6, 0, -10</GeoTransform>"
    '<PAMRasterBand band="1"><Description>nir</Description><NoDataValue>7</NoDataValue><Scale>0.0001</Scale>'
    "<Offset>-0.1</Offset></PAMRasterBand>"
    '<PAMRasterBand band="2"><Description>red</Description><NoDataValue>9</NoDataValue><Scale>0.0001</Scale>'
    "<Offset>-0.1</Offset></PAMRasterBand></PAMDataset>"
)


def bare(folder: Path, pixels: np.ndarray[Any, Any] = PIXELS, driver: str = "GTiff", **profile: Any) -> Path:
    """A file that says nothing but its numbers."""
    path = folder / ("scene.jp2" if driver == "JP2OpenJPEG" else "scene.tif")
    shape = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning) if "transform" not in profile else rasterio.Env(),
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        rasterio.open(path, "w", driver=driver, **shape, **profile, **lossless) as file,
    ):
        file.write(pixels)
    return path


def opened(path: Path, **options: Any) -> Scene:
    return open_scene(path, SPEC, SceneOptions(sidecars=True, **options))


def beside(path: Path, notes: str) -> Path:
    written = path.with_name(path.name + ".aux.xml")
    written.write_text(notes)
    return written


@pytest.mark.parametrize("driver", ["GTiff", "JP2OpenJPEG"])
def test_notes_give_what_the_file_lacks(tmp_path: Path, driver: str) -> None:
    pixels = PIXELS.copy()
    pixels[0, 3, 4], pixels[1, 5, 6], pixels[0, 7, 8] = 7, 9, 9
    path = bare(tmp_path, pixels, driver)
    notes = beside(path, NOTES)
    with opened(path) as scene:
        patch = scene.read(scene.grid.window)
        assert scene.grid.transform == Affine(10, 0, 600_000, 0, -10, 5_700_000)
        assert scene.grid.crs == rasterio.crs.CRS.from_epsg(32631)
        np.testing.assert_array_equal(patch.pixels, pixels[::-1])
        assert sorted(map(tuple, np.argwhere(~patch.valid))) == [(3, 4), (5, 6)]
        assert scene.to_reflectance(patch.pixels) == pytest.approx(pixels[::-1] * 1e-4 - 0.1, abs=1e-6)
        assert scene.warnings == ()
        assert notes in scene.identities
    with pytest.raises(BandError):
        open_scene(path, SPEC, SceneOptions())


def test_a_world_file_gives_the_grid_from_the_centre_of_the_first_pixel(tmp_path: Path) -> None:
    path = bare(tmp_path, crs="EPSG:32631")
    (tmp_path / "scene.tfw").write_text(WORLD)
    with opened(path, bands=("red", "nir"), radiometry="dn") as scene:
        assert scene.grid.transform == Affine(10, 0, 600_000, 0, -10, 5_700_000)
    with open_scene(path, SPEC, SceneOptions(bands=("red", "nir"), radiometry="dn")) as scene:
        assert scene.grid.transform.is_identity
        assert any("scene.tfw beside the scene is not read" in warning for warning in scene.warnings)


def test_the_users_nodata_decides_before_the_notes(tmp_path: Path) -> None:
    pixels = np.full((2, 4, 4), 7, np.uint16)
    path = bare(tmp_path, pixels)
    beside(path, NOTES)
    with opened(path, nodata=None) as scene:
        assert scene.read(scene.grid.window).valid.all()


@pytest.mark.parametrize("domain", ["OVERVIEWS", ""])
def test_an_overview_file_is_refused_and_never_read(tmp_path: Path, domain: str) -> None:
    path = bare(tmp_path)
    trap = write_scene(tmp_path / "trap.tif", np.full((2, 10, 15), 666, np.uint16))
    beside(
        path, f'<PAMDataset><Metadata domain="{domain}"><MDI key="OVERVIEW_FILE">{trap}</MDI></Metadata></PAMDataset>'
    )
    with pytest.raises(InputError, match=r"names another file .*OVERVIEW_FILE"):
        opened(path, bands=("red", "nir"), radiometry="dn")


def test_overviews_beside_the_scene_are_not_read(tmp_path: Path) -> None:
    path = bare(tmp_path)
    beside(path, NOTES)
    write_scene(tmp_path / "trap.tif", np.full((2, 10, 15), 666, np.uint16)).rename(tmp_path / "scene.tif.ovr")
    with opened(path) as scene:
        np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, PIXELS[::-1])
        small = scene.source.read_small(scene.grid.window, 10, 15)[0]  # type: ignore[attr-defined]
        assert not (small == 666).any()


@pytest.mark.parametrize(
    ("notes", "says"),
    [
        (NOTES.replace("EPSG:32631", "EPSG:32632"), "different CRS"),
        (NOTES.replace("6.0e5", "6.1e5"), "where the scene lies"),
        (NOTES.replace("<NoDataValue>7<", "<NoDataValue>8<"), "different things of band 1"),
        (NOTES.replace('band="2"', 'band="3"'), "there is no band 3"),
        (NOTES.replace('band="2"', 'band="1"'), "two are of one"),
        (NOTES.replace("6.0e5, 10, 0", "6.0e5, 0, 0"), "onto a line"),
        (NOTES.replace("EPSG:32631", "EPSG:0"), "is no CRS"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><PAMDataset/>', "document type"),
    ],
)
def test_notes_that_contradict_the_file_or_themselves_are_refused(tmp_path: Path, notes: str, says: str) -> None:
    path = bare(tmp_path, crs="EPSG:32631", transform=TEN_METRES, nodata=7) if "is no" not in says else bare(tmp_path)
    whole = notes.replace("<NoDataValue>9<", "<NoDataValue>7<")
    beside(path, whole)
    assert tuple(TEN_METRES)[:6] == (10, 0, 600_000, 0, -10, 5_700_000)
    with pytest.raises(InputError, match=says):
        opened(path)


@pytest.mark.parametrize("text", ["", "1 2 3", "a b c d e f", "0 0 0 0 0 0", "1 0 0 -1 nan 5"])
def test_a_world_file_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = bare(tmp_path)
    (tmp_path / "scene.tfw").write_text(text)
    with pytest.raises(InputError, match=r"scene\.tfw"):
        opened(path, bands=("red", "nir"), radiometry="dn")


def test_a_world_file_and_notes_that_disagree_are_refused(tmp_path: Path) -> None:
    path = bare(tmp_path)
    beside(path, NOTES)
    (tmp_path / "scene.tfw").write_text(WORLD.replace("600005", "600000"))
    with pytest.raises(InputError, match=r"scene\.tfw and scene\.tif\.aux\.xml say different things"):
        opened(path)
