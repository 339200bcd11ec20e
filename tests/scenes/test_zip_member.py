"""One raster in a zip: read as it was packed, refused by name where the zip cannot be trusted."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg_cli.batch.naming import place_and_stem
from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import GeosegError, InputError, InputMissingError, StorageError
from geoseg_cli.scenes import SceneOptions, open_scene
from tests.conftest import write_scene

SPEC = InputSpec(("red",), (), (0.0,), (1.0,))
DN = SceneOptions(radiometry="dn")
PIXELS = np.random.default_rng(0).integers(1, 9000, (1, 20, 30), dtype=np.uint16)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    scene = write_scene(tmp_path / "a.tif", PIXELS, ["red"])
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(scene, "in/a.tif")
        file.writestr("in/readme.txt", "x")
    scene.unlink()
    return path


@pytest.mark.parametrize("form", ["/vsizip/{}/in/a.tif", "/vsizip//{}/in/a.tif"])
def test_a_raster_in_a_zip_is_read_and_mapped_beside_the_zip(packed: Path, form: str) -> None:
    name = Path(form.format(packed))
    with open_scene(name, SPEC, DN) as scene:
        np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, PIXELS)
        assert list(scene.identities) == [packed]
        assert scene.product.layout == "GeoTIFF in a zip"
    assert place_and_stem(name) == (packed.parent, "a")


def test_a_zip_without_a_member_is_answered_with_how_to_name_one(packed: Path) -> None:
    for name in (Path(f"/vsizip/{packed}"), packed):
        with pytest.raises(InputError) as caught:
            open_scene(name, SPEC, DN)
        assert "no such" not in caught.value.message
        assert f"/vsizip/{packed}/MEMBER.tif" in caught.value.hint
    with pytest.raises(InputMissingError, match="holds no in;"):
        open_scene(Path(f"/vsizip/{packed}/in"), SPEC, DN)


def test_a_relative_zip_is_found(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed.parent)
    with open_scene(Path("/vsizip/some.zip/in/a.tif"), SPEC, DN) as scene:
        np.testing.assert_array_equal(scene.read(scene.grid.window).pixels, PIXELS)


@pytest.mark.parametrize(
    ("member", "kind", "says"),
    [
        ("in/b.tif", InputMissingError, "holds no in/b.tif"),
        ("in/readme.txt", InputError, "only .tif, .tiff and .jp2"),
        ("../../etc/passwd", InputMissingError, "holds no"),
    ],
)
def test_other_members_are_refused_by_name(packed: Path, member: str, kind: type[GeosegError], says: str) -> None:
    with pytest.raises(kind, match=says):
        open_scene(Path(f"/vsizip/{packed}/{member}"), SPEC, DN)


def test_a_zip_that_is_not_there_or_on_a_network_is_refused(tmp_path: Path) -> None:
    for name in (f"{tmp_path}/none.zip/a.tif", "/vsicurl/https://example.org/a.zip/a.tif"):
        with pytest.raises(InputMissingError, match="no such zip file"):
            open_scene(Path(f"/vsizip/{name}"), SPEC, DN)


def test_a_damaged_member_is_damage(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[700] ^= 255
    packed.write_bytes(data)
    with pytest.raises(StorageError):
        open_scene(Path(f"/vsizip/{packed}/in/a.tif"), SPEC, DN)


def test_a_zip_that_leads_out_is_refused(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr("../out.tif", "x")
    with pytest.raises(InputError):
        open_scene(Path(f"/vsizip/{packed}/in/a.tif"), SPEC, DN)


def test_gdal_reads_what_we_read(packed: Path) -> None:
    with rasterio.open(f"/vsizip/{packed}/in/a.tif") as file:
        np.testing.assert_array_equal(file.read(), PIXELS)
