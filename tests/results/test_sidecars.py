from __future__ import annotations

import numpy as np
import pytest
import rasterio

from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.raster import RasterSpec
from geoseg_cli.results.sidecars import sidecars


@pytest.mark.parametrize(
    ("raster", "mine"),
    [
        ("map.tif", ["map.tif.aux.xml", "map.tif.msk", "map.tif.ovr", "map.tfw", "map.tifw", "map.TFW", "map.wld"]),
        ("map.tiff", ["map.tiff.ovr", "map.tfw", "map.tiffw"]),
        ("map.png", ["map.png.aux.xml", "map.pgw", "map.wld"]),
        ("map.v2.tif", ["map.v2.tif.ovr", "map.v2.tfw"]),
    ],
)
def test_what_readers_take_together_with_a_raster_is_found(tmp_path, raster, mine):
    for name in [*mine, "map.qml", "map.json", "map.txt", "map2.tfw", "other.tif.aux.xml"]:
        (tmp_path / name).touch()
    assert {p.name for p in sidecars(tmp_path / raster)} >= set(mine)
    assert {p.name for p in sidecars(tmp_path / raster)} <= {*mine}


def test_files_that_are_no_images_have_none(tmp_path):
    for name in ("report.json.aux.xml", "report.wld", "report.jw"):
        (tmp_path / name).touch()
    assert list(sidecars(tmp_path / "report.json")) == []


def test_a_world_file_that_another_image_may_own_is_left(tmp_path):
    for name in ("scene.jp2", "scene.wld", "scene.tfw"):
        (tmp_path / name).touch()
    assert [p.name for p in sidecars(tmp_path / "scene.tif")] == []


def test_poisoned_sidecars_do_not_touch_a_published_map(tmp_path, grid, labels, make_work):
    """Left in place, the old metadata and overviews would be served for the new file."""
    out = tmp_path / "out" / "map.tif"
    out.parent.mkdir()
    pixels = labels(700, 600)
    out.write_bytes(b"old")
    out.with_name("map.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3035</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>10</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    with rasterio.open(
        out.with_name("map.tif.ovr"), "w", driver="GTiff", height=350, width=300, count=1, dtype="uint8",
        transform=grid(1, 1).transform,
    ) as file:  # fmt: skip
        file.write(np.full((1, 350, 300), 77, np.uint8))
    out.with_name("map.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    with OutputTransaction([out], overwrite=True) as transaction:
        work = make_work(RasterSpec(grid(700, 600)), pixels[None], transaction.scratch("w.tif"))
        write_cog(work, transaction.path(out))
        transaction.commit()
    with rasterio.open(out) as file:
        assert (file.crs, file.transform, file.nodata) == (grid(1, 1).crs, grid(1, 1).transform, 255)
        assert np.array_equal(file.read(1), pixels)
        assert 77 not in file.read(1, out_shape=(350, 300))
        assert [p for p in file.files if not p.endswith("map.tif")] == []
