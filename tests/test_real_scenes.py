"""Both commands on every real scene: a valid map on the scene's grid with its nodata, or the named refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rio_cogeo import cog_validate

from geoseg_cli.bundle import Bundle, find_bundle
from geoseg_cli.engines import Engine, EngineOptions, choose_engine
from geoseg_cli.errors import BandError, InputError
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import predict_scene
from geoseg_cli.scenes import SceneOptions

BUNDLES = ("landcover-lale", "cloud-lale")


@dataclass(frozen=True)
class Case:
    """A scene of the real data that holds several bands; radiometry as the data's README states it.

    Attributes:
        path: Below ``scenes``.
        radiometry: What ``--radiometry`` must say; the files have no tags.
        lacks: Bundle -> band that the scene lacks.
    """

    path: str
    radiometry: str = "dn"
    lacks: tuple[str, str] | None = None


CASES = (
    Case("s2_l2a_alberta_20190522/S2_L2A_20190522_alberta.tif"),
    Case("s2_toa_boa_belgium_20190411/S2_TOA_20190411.tif"),
    Case("s2_toa_boa_belgium_20190411/S2_BOA_iCOR_20190411.tif"),
    Case("s2_toa_boa_belgium_20190411/S2_BOA_SMAC_20190411.tif"),
    Case("l8_toa_boa_belgium_20200613/L8_TOA_20200613.tif", lacks=("landcover-lale", "nir")),
    Case("l8_toa_boa_belgium_20200613/L8_BOA_iCOR_20200613.tif", lacks=("landcover-lale", "nir")),
    Case("s2_terramesh/S2_L1C_20210723_282D_485L_3_3.tif", "dn-1000"),
    Case("s2_terramesh/S2_L2A_20210723_282D_485L_3_3.tif"),
    Case("s2_terramesh/S2_L1C_20230610_38D_378R_2_3.tif"),
    Case("s2_terramesh/S2_L2A_20230610_38D_378R_2_3.tif"),
    Case("s2_terramesh/S2_L1C_20200111_609U_541L_3_0.tif", "dn-1000"),
    Case("s2_terramesh/S2_L2A_20200111_609U_541L_3_0.tif"),
    Case("s2_l2a_boadella/Boadella_2020-01-23.tif"),
    Case("s2_l2a_boadella/Boadella_2020-09-14.tif"),
    Case("s2_l1c_eurosat/River_1.tif"),
    Case("s2_l1c_eurosat/Residential_2.tif"),
    Case("s2_l1c_eurosat/AnnualCrop_3.tif"),
)

# Landsat names of three visible bands fit two sensors: which is which has to be said.
GIVEN_BANDS = {"l8_toa_boa_belgium_20200613": ("blue", "green", "red")}


@cache
def engine_of(bundle: str) -> tuple[Bundle, Engine]:
    opened = find_bundle(bundle)
    return opened, choose_engine(opened, EngineOptions(engine="onnx", device="cpu"))[0]


@pytest.fixture(scope="module", autouse=True)
def _close_engines() -> Iterator[None]:
    yield
    for bundle in BUNDLES if engine_of.cache_info().currsize else ():
        engine_of(bundle)[1].close()
    engine_of.cache_clear()


def expected_validity(path: Path, numbers: list[int]) -> npt.NDArray[np.bool_]:
    """Where every used band differs from its nodata tag, computed with rasterio alone."""
    with rasterio.open(path) as file:
        bands = file.read(numbers)
        tags = [file.nodatavals[number - 1] for number in numbers]
    valid = np.ones(bands.shape[1:], bool)
    for band, tag in zip(bands, tags, strict=True):
        if tag is not None:
            valid &= band != tag
    return valid


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: Path(case.path).stem)
def test_a_real_scene_gives_a_valid_map_or_names_the_band_it_lacks(
    real_data: Path, tmp_path: Path, case: Case, bundle: str
) -> None:
    path, output = real_data / "scenes" / case.path, tmp_path / "map.tif"
    opened, engine = engine_of(bundle)
    bands = GIVEN_BANDS.get(path.parent.name)
    options = PredictOptions(scene=SceneOptions(radiometry=case.radiometry, bands=bands))
    if case.lacks and case.lacks[0] == bundle:
        with pytest.raises(BandError, match=case.lacks[1]):
            predict_scene(path, output, opened, engine, options)
        assert not list(tmp_path.iterdir())
        return
    report = predict_scene(path, output, opened, engine, options)
    assert cog_validate(output, strict=True, quiet=True) == (True, [], [])
    numbers = [row["index"] for row in report.decisions["bands"] if row["index"]]
    with rasterio.open(path) as source, rasterio.open(output) as made:
        assert (made.crs, made.transform, made.shape) == (source.crs, source.transform, source.shape)
        labels = made.read(1)
    np.testing.assert_array_equal(labels != 255, expected_validity(path, numbers))
    assert set(np.unique(labels)) <= {*opened.legend.values, 255}


def single_band_files(folder: Path) -> list[Path]:
    handled = {case.path for case in CASES}
    files = sorted(path for path in (folder / "scenes").rglob("*.[tT][iI][fF]"))
    return [path for path in files if path.relative_to(folder / "scenes").as_posix() not in handled]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_other_raster_of_the_real_scenes_is_refused_with_a_named_band_or_reason(
    real_data: Path, tmp_path: Path, bundle: str
) -> None:
    """One band a file, quality layers, class layers: none of them is a scene on its own."""
    opened, engine = engine_of(bundle)
    paths = single_band_files(real_data)
    assert len(paths) > 50
    for path in paths:
        with pytest.raises(InputError) as caught:
            predict_scene(path, tmp_path / "map.tif", opened, engine)
        assert caught.value.exit_code == 65
        assert caught.value.hint
        if isinstance(caught.value, BandError):
            assert any(band in caught.value.message for band in opened.input_spec.required)
    assert not list(tmp_path.iterdir())
