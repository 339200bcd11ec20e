"""``open_result``: pixels, flags, place and provenance of a map as an array, and what is refused."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli import open_result
from geoseg_cli.catalog import LandClass, Legend, legends
from geoseg_cli.errors import GeosegError, InputError, InputMissingError, StorageError, UsageError
from geoseg_cli.results import data_array
from geoseg_cli.results.verify import verify_map

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pixels(labels):
    return labels(70, 90)


@pytest.fixture
def path(make_map, pixels) -> Path:
    return make_map(pixels)


def test_pixels_place_and_name_are_those_of_the_map(path, pixels):
    found = open_result(path)
    assert (found.dims, found.dtype, found.name) == (("y", "x"), np.uint8, "land_cover")
    np.testing.assert_array_equal(found.values, pixels)
    assert (found.rio.crs.to_epsg(), found.rio.nodata) == (32631, 255)
    # Centres of pixels of 10 m whose first corner is (500 000, 5 000 000).
    np.testing.assert_array_equal(found.x.values, 500_005 + 10 * np.arange(90))
    np.testing.assert_array_equal(found.y.values, 4_999_995 - 10 * np.arange(70))
    assert found.x.attrs["standard_name"] == "projection_x_coordinate"


@pytest.mark.parametrize("name", ["esa-worldcover", "cloudsen12"])
def test_flags_say_what_the_legend_says(make_map, name):
    legend = legends()[name]
    said = open_result(make_map(np.full((4, 5), legend.values[0], np.uint8), legend=legend)).attrs
    assert said["flag_values"].dtype == np.uint8
    assert said["flag_values"].tolist() == list(legend.values)
    assert said["flag_meanings"].split(" ") == [one.name for one in legend.classes]
    assert said["flag_titles"].splitlines() == [one.title for one in legend.classes]
    assert said["flag_colors"].split(" ") == [one.color for one in legend.classes]
    assert (said["legend"], said["_FillValue"], said["_FillValue"].dtype) == (name, 255, np.uint8)


def test_the_tags_of_the_map_come_along(path):
    with rasterio.open(path) as file:
        tags = {name: text for name, text in file.tags().items() if name.startswith(("GEOSEG_", "TIFFTAG_SOFTWARE"))}
    assert tags["GEOSEG_MODEL"] == "toy-model"
    assert tags.items() <= open_result(path).attrs.items()


def test_netcdf_keeps_pixels_flags_and_place(path, pixels, tmp_path):
    before = open_result(path)
    before.to_netcdf(tmp_path / "map.nc")
    with xr.open_dataset(tmp_path / "map.nc", mask_and_scale=False, decode_coords="all") as after:
        found = after["land_cover"]
        np.testing.assert_array_equal(found.values, pixels)
        assert (found.dtype, found.attrs["flag_values"].dtype) == (np.uint8, np.uint8)
        np.testing.assert_array_equal(found.attrs["flag_values"], before.attrs["flag_values"])
        plain = {name: value for name, value in before.attrs.items() if name != "flag_values"}
        assert plain.items() <= {name: found.attrs[name] for name in plain}.items()
        assert (found.rio.crs.to_epsg(), found.rio.transform()) == (32631, before.rio.transform())


def test_a_class_is_chosen_by_its_name_as_the_guide_says(path, pixels, legend):
    """The example of ``docs/results.md``, run as it stands there."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "open_result" in code]
    done = subprocess.run([sys.executable, "-c", example], cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    water = next(one.value for one in legend.classes if one.name == "water")
    assert done.stdout == f"{(pixels == water).sum()} pixels of water\n"


def test_pixels_are_read_when_they_are_used(make_map, legend):
    noise = np.random.default_rng(0).choice(np.array(legend.values, np.uint8), (1200, 1100))
    path = make_map(noise)
    found = open_result(path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(rasterio.errors.RasterioIOError):
        found.load()


@pytest.mark.parametrize("chunks", [32, {"y": 20, "x": 50}, "auto", True])
def test_chunks_are_passed_through(path, pixels, chunks):
    found = open_result(path, chunks=chunks)
    assert found.chunks is not None
    if isinstance(chunks, dict):
        assert found.chunks == ((20, 20, 20, 10), (50, 40))
    np.testing.assert_array_equal(found.compute().values, pixels)
    assert open_result(path).chunks is None


def test_chunks_without_dask_are_refused_with_a_remedy(path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(data_array, "find_spec", lambda name: None if name == "dask" else find(name))
    with pytest.raises(UsageError, match="dask") as caught:
        open_result(path, chunks=32)
    assert "pip install dask" in caught.value.hint
    assert open_result(path).shape == (70, 90)


def test_a_relative_path_still_leads_there_after_the_folder_changed(path, pixels, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    found = open_result(path.name)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(found.values, pixels)


def test_what_lies_beside_the_map_is_not_believed(path, pixels):
    aux = path.with_name(f"{path.name}.aux.xml")
    aux.write_text(
        '<PAMDataset><Metadata><MDI key="GEOSEG_MODEL">another</MDI></Metadata><GeoTransform>0,1,0,0,0,1</GeoTransform>'
        '<PAMRasterBand band="1"><NoDataValue>10</NoDataValue><Description>other</Description></PAMRasterBand>'
        "</PAMDataset>"
    )
    with rasterio.open(path) as fooled:
        assert fooled.nodata == 10, "the file would have been believed"
    found = open_result(path)
    assert (found.rio.nodata, found.name, found.attrs["GEOSEG_MODEL"]) == (255, "land_cover", "toy-model")
    assert found.rio.transform() == Affine(10, 0, 500_000, 0, -10, 5_000_000)
    np.testing.assert_array_equal(found.values, pixels)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (None, Affine.identity()),
        ("EPSG:32631", Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10)),
    ],
    ids=["nowhere", "rotated"],
)  # fmt: skip
def test_maps_of_any_grid_are_opened(make_map, grid, labels, crs, transform):
    place = grid(12, 15, crs=rasterio.CRS.from_user_input(crs) if crs else None, transform=transform)
    found = open_result(make_map(labels(12, 15), grid=place))
    assert (found.dims, found.shape, found.rio.crs) == (("y", "x"), (12, 15), place.crs)
    np.testing.assert_array_equal(found.values, labels(12, 15))
    assert found.rio.transform().almost_equals(transform)


def broken(path: Path, how: str) -> Path:
    if how == "missing":
        return path.with_name("nowhere.tif")
    if how == "confidence":
        return path.with_name("c.tif")
    if how == "cut":
        path.write_bytes(path.read_bytes()[:300])
    if how == "text":
        path.write_text("no map")
    if how == "other":
        shutil.copy(ROOT / "sample_scenes" / "l2a_12_bands.tif", path)
    return path


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("missing", InputMissingError), ("text", InputError), ("other", InputError), ("confidence", InputError),
        ("cut", StorageError),
    ],
)  # fmt: skip
def test_what_is_no_map_is_refused_as_verify_does(make_map, pixels, tmp_path, how, kind):
    path = broken(make_map(pixels, confidence=tmp_path / "maps" / "c.tif"), how)
    with pytest.raises(kind) as mine:
        open_result(path)
    with pytest.raises(GeosegError) as other:
        verify_map(path)
    assert type(mine.value) is type(other.value)
    assert (mine.value.message, mine.value.hint) == (other.value.message, other.value.hint)


names = st.lists(st.text(max_size=8), min_size=1, max_size=6)


@given(names)
def test_every_class_has_a_word_of_its_own_that_the_conventions_allow(texts):
    """CF 1.11, section 3.5: alphanumeric signs and ``_ - . + @``, blanks between."""
    legend = Legend("any", tuple(LandClass(value, text, text, "#000000") for value, text in enumerate(texts)))
    found = data_array.words(legend)
    assert len(set(found)) == len(texts)
    assert " ".join(found).split() == list(found)
    assert all(re.fullmatch(r"[A-Za-z0-9_\-.+@]+", word) for word in found)


def test_the_name_is_a_function_however_often_it_is_imported():
    """A module of that name in the package would take the function's place once it is loaded."""
    code = (
        "from geoseg_cli import open_result as first\nimport geoseg_cli.results.data_array\n"
        "from geoseg_cli import open_result as second\nprint(callable(first), first is second)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
