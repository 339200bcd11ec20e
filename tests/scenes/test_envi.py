"""ENVI files: the header beside the numbers decides, whatever these begin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import BandError, InputError, InputMissingError, StorageError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import SceneOptions, open_scene
from tests.conftest import TEN_METRES

SPEC = InputSpec(("red", "nir"), (), (0.0, 0.0), (1.0, 1.0))
AS_DN = SceneOptions(radiometry="dn")


def numbers() -> npt.NDArray[np.uint16]:
    return np.random.default_rng(4).integers(1, 9000, (2, 7, 9), dtype=np.uint16)


def write_envi(folder: Path, name: str = "scene.dat", header: str = "scene.hdr", begin: bytes = b"") -> Path:
    """Numbers band by band in little-endian order, and a header written after the format's description."""
    data = bytearray(numbers().astype("<u2").tobytes())
    data[: len(begin)] = begin
    (folder / name).write_bytes(data)
    easting, northing = TEN_METRES.c, TEN_METRES.f
    (folder / header).write_text(
        "ENVI\nsamples = 9\nlines = 7\nbands = 2\nheader offset = 0\ndata type = 12\ninterleave = bsq\n"
        f"byte order = 0\nmap info = {{UTM, 1, 1, {easting}, {northing}, 10, 10, 31, North, WGS-84}}\n"
        "band names = {B08,\nB04}\ndata ignore value = 0\n"
    )
    return folder / name


def pixels_of(path: Path) -> npt.NDArray[np.uint16]:
    with open_scene(path, SPEC, AS_DN) as scene:
        assert (scene.product.layout, scene.path) == ("ENVI file", path)
        assert len(scene.identities) == 2
        patch = scene.read(Window(0, 0, 7, 9))
    assert patch.valid.all()
    return patch.pixels


@pytest.mark.parametrize(
    ("name", "header"),
    [
        *[(f"scene{ending}", "scene.hdr") for ending in ("", ".dat", ".img", ".bsq", ".bil", ".bip")],
        *[("scene.dat", "scene.dat.hdr"), ("scene.2020.dat", "scene.2020.hdr"), ("scene.img", "scene.HDR")],
    ],
)
def test_numbers_and_header_are_found_from_each_other(tmp_path: Path, name: str, header: str) -> None:
    data = write_envi(tmp_path, name, header)
    right = numbers()[::-1]
    np.testing.assert_array_equal(pixels_of(data), right)
    np.testing.assert_array_equal(pixels_of(tmp_path / header), right)


@pytest.mark.parametrize("begin", [b"{", b"<x", b"PK", b"GROUP", b"<VRTDataset", b"\xef\xbb\xbf"])
def test_the_numbers_may_begin_with_any_bytes(tmp_path: Path, begin: bytes) -> None:
    data = write_envi(tmp_path, begin=begin + bytes(len(begin) % 2))
    found = pixels_of_any(data)
    assert found[1].astype("<u2").tobytes().startswith(begin)


def pixels_of_any(path: Path) -> npt.NDArray[np.uint16]:
    with open_scene(path, SPEC, AS_DN) as scene:
        return scene.read(Window(0, 0, 7, 9)).pixels


def test_a_header_without_data_says_so(tmp_path: Path) -> None:
    write_envi(tmp_path).unlink()
    with pytest.raises(InputMissingError, match="its data are not there"):
        open_scene(tmp_path / "scene.hdr", SPEC, AS_DN)


def test_two_files_that_may_be_the_data_of_a_header_are_refused(tmp_path: Path) -> None:
    write_envi(tmp_path)
    (tmp_path / "scene.img").write_bytes(bytes(300))
    with pytest.raises(InputError, match=r"scene\.dat or scene\.img"):
        open_scene(tmp_path / "scene.hdr", SPEC, AS_DN)


def test_two_headers_of_one_file_are_refused(tmp_path: Path) -> None:
    data = write_envi(tmp_path)
    write_envi(tmp_path, header="scene.dat.hdr")
    with pytest.raises(InputError, match="needs one ENVI header"):
        open_scene(data, SPEC, AS_DN)


def test_numbers_that_end_too_early_are_no_zeros(tmp_path: Path) -> None:
    data = write_envi(tmp_path)
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(StorageError, match="says 252 bytes, it has 251"):
        open_scene(data, SPEC, AS_DN)


def test_a_mask_beside_the_numbers_is_not_read(tmp_path: Path) -> None:
    data = write_envi(tmp_path)
    with rasterio.open(
        tmp_path / "scene.dat.msk", "w", driver="GTiff", count=1, height=7, width=9, dtype="uint8", transform=TEN_METRES
    ) as file:
        file.write(np.zeros((1, 7, 9), np.uint8))
    with pytest.raises(InputError, match=r"scene\.dat\.msk"):
        open_scene(data, SPEC, AS_DN)


def with_header(path: Path, more: str, has_names: bool = False) -> Path:
    header = path.with_suffix(".hdr")
    text = header.read_text()
    header.write_text((text if has_names else text.replace("band names = {B08,\nB04}\n", "")) + more)
    return path


@pytest.mark.parametrize(
    "more",
    [
        "wavelength = {833.0,\n 665}\nwavelength units = Nanometers\n",
        "wavelength units = Micrometers\nWavelength = { 0.842, 0.66 }\n",
        "wavelength = {0.833, 0.665}\nwavelength units = um\n",
    ],
)
def test_bands_without_names_are_told_by_their_wavelengths(tmp_path: Path, more: str) -> None:
    np.testing.assert_array_equal(pixels_of(with_header(write_envi(tmp_path), more)), numbers()[::-1])


def test_names_count_where_wavelengths_stand_behind_them(tmp_path: Path) -> None:
    """GDAL says ``B08 (443 Nanometers)``; the name decides, the wavelength does not."""
    more = "wavelength = {443, 490}\nwavelength units = Nanometers\n"
    np.testing.assert_array_equal(pixels_of(with_header(write_envi(tmp_path), more, True)), numbers()[::-1])


@pytest.mark.parametrize(
    "more",
    [
        "wavelength = {0.833, 0.665}\n",
        "wavelength = {833, 665}\nwavelength units = Index\n",
        "wavelength = {833, 665, 560}\nwavelength units = Nanometers\n",
        "wavelength = {833, red}\nwavelength units = Nanometers\n",
        "wavelength = {665, 664}\nwavelength units = Nanometers\n",
    ],
    ids=["no unit", "no wavelength", "one too many", "no number", "two of one band"],
)
def test_wavelengths_that_leave_doubt_name_no_band(tmp_path: Path, more: str) -> None:
    with pytest.raises(BandError, match="no band has a name that is known"):
        open_scene(with_header(write_envi(tmp_path), more), SPEC, AS_DN)
