"""HLS scenes: the product name decides what a band's name means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from geoseg_cli.errors import BandError, InputError
from geoseg_cli.scenes import hls
from geoseg_cli.scenes.product import Product
from tests.scenes.product_fixtures import read_numbers, read_reflectance, write_band

# From the HLS user guide, written down here again.
S30 = {
    **{"coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge071": "B05", "rededge075": "B06"},
    **{"rededge078": "B07", "nir": "B08", "nir08": "B8A", "nir09": "B09", "cirrus": "B10", "swir16": "B11"},
    "swir22": "B12",
}
L30 = {
    **{"coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "nir": "B05", "swir16": "B06", "swir22": "B07"},
    "cirrus": "B09",
}
THERMAL = ("B10", "B11")
SIDE = 6


def prefix(kind: str, date: str = "2023123") -> str:
    return f"HLS.{kind}.T10TEM.{date}T190911.v2.0"


def make_hls(folder: Path, kind: str, date: str = "2023123", **profile: Any) -> dict[str, npt.NDArray[Any]]:
    """Write all bands, Fmask, angles and metadata; numbers by band name."""
    names = list(S30.values()) if kind == "S30" else [*L30.values(), *THERMAL]
    rng = np.random.default_rng(3)
    planes = {name: rng.integers(-200, 9000, (SIDE, SIDE), dtype=np.int16) for name in names}
    for name, plane in planes.items():
        write_band(folder / f"{prefix(kind, date)}.{name}.tif", plane, **{"nodata": -9999, **profile})
    write_band(folder / f"{prefix(kind, date)}.Fmask.tif", np.full((SIDE, SIDE), 64, np.uint8), nodata=255)
    write_band(folder / f"{prefix(kind, date)}.SZA.tif", np.ones((SIDE, SIDE), np.uint16))
    (folder / f"{prefix(kind, date)}.cmr.xml").write_text("<Granule/>")
    return planes


def found(path: Path) -> Product:
    product = hls.find(path)
    assert product is not None
    return product


@pytest.mark.parametrize(("kind", "bands"), [("S30", S30), ("L30", L30)])
def test_every_band_has_a_ten_thousandth_of_its_number(tmp_path: Path, kind: str, bands: dict[str, str]) -> None:
    planes = make_hls(tmp_path, kind)
    reflectance, valid = read_reflectance(found(tmp_path), *bands)
    assert reflectance == pytest.approx(np.stack([planes[name] / 10000 for name in bands.values()]))
    assert valid.all()


def test_b05_is_red_edge_in_s30_and_near_infrared_in_l30(tmp_path: Path) -> None:
    planes = {kind: make_hls(tmp_path / kind, kind) for kind in ("S30", "L30")}
    rededge = read_numbers(found(tmp_path / "S30"), "rededge071")[0]
    assert (rededge[0] == planes["S30"]["B05"]).all()
    nir = read_numbers(found(tmp_path / "L30"), "nir")[0]
    assert (nir[0] == planes["L30"]["B05"]).all()
    with pytest.raises(BandError, match="missing band rededge071"):
        read_numbers(found(tmp_path / "L30"), "rededge071")


def test_b11_is_short_wave_infrared_in_s30_and_left_out_as_thermal_in_l30(tmp_path: Path) -> None:
    planes = {kind: make_hls(tmp_path / kind, kind) for kind in ("S30", "L30")}
    assert (read_numbers(found(tmp_path / "S30"), "swir16")[0][0] == planes["S30"]["B11"]).all()
    assert (read_numbers(found(tmp_path / "L30"), "swir16")[0][0] == planes["L30"]["B06"]).all()
    assert not set(THERMAL) & {layer.name for layer in found(tmp_path / "L30").layers}


@pytest.mark.parametrize("tag", [None, -9999])
def test_the_fill_number_and_fmask_255_tell_lost_pixels_with_and_without_a_tag(tmp_path: Path, tag: int | None) -> None:
    planes = make_hls(tmp_path, "L30", nodata=tag)
    planes["B04"][2, 3] = -9999
    write_band(tmp_path / f"{prefix('L30')}.B04.tif", planes["B04"], nodata=tag)
    fmask = np.full((SIDE, SIDE), 64, np.uint8)
    fmask[0, :3] = (255, 254, 194)
    write_band(tmp_path / f"{prefix('L30')}.Fmask.tif", fmask, nodata=255)
    valid = read_numbers(found(tmp_path), "red")[1]
    assert [tuple(place) for place in np.argwhere(~valid)] == [(0, 0), (2, 3)]


def test_a_scene_without_fmask_is_read_with_a_warning(tmp_path: Path) -> None:
    make_hls(tmp_path, "S30")
    (tmp_path / f"{prefix('S30')}.Fmask.tif").unlink()
    product = found(tmp_path)
    assert product.quality is None
    assert "Fmask.tif is not there" in product.warnings[0]


def test_two_scenes_in_a_folder_are_refused_and_the_prefix_or_metadata_chooses(tmp_path: Path) -> None:
    for date in ("2023123", "2023131"):
        make_hls(tmp_path, "S30", date)
    with pytest.raises(InputError, match="several HLS scenes") as caught:
        hls.find(tmp_path)
    assert prefix("S30", "2023123") in caught.value.message
    assert prefix("S30", "2023131") in caught.value.message
    for path in (tmp_path / prefix("S30", "2023131"), tmp_path / f"{prefix('S30', '2023131')}.cmr.xml"):
        assert all("2023131" in layer.file for layer in found(path).layers)


def test_l30_and_s30_in_one_folder_are_never_mixed(tmp_path: Path) -> None:
    for kind in ("S30", "L30"):
        make_hls(tmp_path, kind)
    with pytest.raises(InputError, match="several HLS scenes"):
        hls.find(tmp_path)


def test_other_folders_and_single_bands_are_none(tmp_path: Path) -> None:
    write_band(tmp_path / "HLS.S30.T10TEM.2023123.v1.5.B04.tif", np.ones((2, 2), np.int16))
    assert hls.find(tmp_path) is None
    assert hls.find(tmp_path / "absent") is None
    make_hls(tmp_path, "S30")
    assert hls.find(tmp_path / f"{prefix('S30')}.B04.tif") is None


def test_thermal_bands_alone_are_refused(tmp_path: Path) -> None:
    write_band(tmp_path / f"{prefix('L30')}.B10.tif", np.ones((2, 2), np.int16))
    with pytest.raises(InputError, match="no reflectance band"):
        hls.find(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    make_hls(tmp_path / "scene", "S30")
    path = tmp_path / "scene" / f"{prefix('S30')}.B04.tif"
    path.rename(tmp_path / "outside.tif")
    path.symlink_to(tmp_path / "outside.tif")
    with pytest.raises(InputError, match="leads out of its folder"):
        hls.find(tmp_path / "scene")


def test_the_statement_is_of_the_product_and_members_are_what_is_read(tmp_path: Path) -> None:
    make_hls(tmp_path, "S30")
    product = found(tmp_path)
    assert product.statement is not None
    assert product.statement.rung == "product"
    assert "0.0001 x DN" in product.statement.reason
    assert {path.name.split(".")[-2] for path in product.members} == {*S30.values(), "Fmask"}
