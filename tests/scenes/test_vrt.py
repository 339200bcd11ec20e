"""Virtual rasters: all files that their pixels come from count as the scene's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import InputError, StorageError, UsageError
from geoseg_cli.job import PredictOptions, open_job
from geoseg_cli.predict import check_outputs
from geoseg_cli.scenes import SceneOptions, open_scene
from tests.conftest import write_scene
from tests.fakes.bundles import fake_bundle

SPEC = InputSpec(("red",), (), (0.0,), (1.0,))
ALLOWED = SceneOptions(radiometry="dn", bands=("red",), drivers=("VRT",))


def write_vrt(path: Path, source: str, begin: str = "") -> Path:
    path.write_text(
        f'{begin}<VRTDataset rasterXSize="8" rasterYSize="6"><SRS>EPSG:32631</SRS>'
        "<GeoTransform>499980, 10, 0, 4900020, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A virtual raster of a virtual raster of a file."""
    write_scene(tmp_path / "a.tif", np.full((1, 6, 8), 500, np.uint16))
    write_vrt(tmp_path / "inner.vrt", "a.tif")
    return write_vrt(tmp_path / "outer.vrt", "inner.vrt")


def test_sources_of_a_virtual_raster_are_its_members(nested: Path) -> None:
    with open_scene(nested, SPEC, ALLOWED) as scene:
        assert [path.name for path in scene.product.members] == ["outer.vrt", "inner.vrt", "a.tif"]
        scene.refuse_change()
        write_scene(nested.with_name("a.tif"), np.full((1, 12, 8), 500, np.uint16))
        with pytest.raises(StorageError, match=r"a\.tif changed"):
            scene.refuse_change()


def test_no_output_replaces_a_source_of_a_virtual_raster(nested: Path) -> None:
    bundle = fake_bundle()
    options = PredictOptions(scene=ALLOWED, overwrite=True)
    with (
        open_job(nested, bundle, options) as job,
        pytest.raises(UsageError, match="both input and output"),
    ):
        check_outputs(job, nested.with_name("a.tif"))


@pytest.mark.parametrize("begin", ['<?xml version="1.0"?>\n', "\ufeff", "<!-- made by hand -->\n" * 9])
def test_a_virtual_raster_is_known_whatever_stands_before_its_root(tmp_path: Path, begin: str) -> None:
    write_scene(tmp_path / "a.tif", np.full((1, 6, 8), 500, np.uint16))
    path = write_vrt(tmp_path / "a.vrt", "a.tif", begin)
    with pytest.raises(InputError, match="virtual raster"):
        open_scene(path, SPEC)
    if not begin.startswith("\ufeff"):
        open_scene(path, SPEC, ALLOWED).close()
