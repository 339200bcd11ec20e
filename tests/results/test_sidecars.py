from __future__ import annotations

import re

import numpy as np
import pytest
import rasterio

from geoseg_cli.errors import OutputError, UsageError
from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.raster import RasterSpec
from geoseg_cli.results.sidecars import described_by_geoseg, sidecar_paths, sidecars


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


def test_what_geoseg_wrote_beside_a_map_is_told_from_the_users_own_files(tmp_path, make_map, labels):
    path = make_map(labels(8, 9))
    assert {p.name for p in described_by_geoseg(path)} == {"map.qml", "map.json"}
    for text in ("{}", "[]", "no JSON", '{"stac_version": "1.1.0", "properties": {"processing:software": {}}}', ""):
        path.with_suffix(".json").write_text(text)
        path.with_suffix(".qml").write_text("<qgis/>")
        assert list(described_by_geoseg(path)) == []


def test_what_described_an_older_map_goes_with_it_and_the_users_own_stays(make_map, labels):
    path = make_map(labels(8, 9))
    path.with_suffix(".json").write_text("my report")
    with OutputTransaction([path], overwrite=True) as transaction:
        transaction.path(path).write_bytes(b"new map")
        transaction.commit()
    assert {p.name: p.suffix for p in path.parent.iterdir()} == {"map.tif": ".tif", "map.json": ".json"}
    assert path.with_suffix(".json").read_text() == "my report"


def test_a_sidecar_that_is_there_is_not_replaced_unless_asked(make_map, labels):
    for name in ("map.json", "map.qml", "map.tif.aux.xml"):
        folder = name.replace(".", "_")
        make_map(labels(8, 9), f"{folder}/other.tif").with_name(name).write_text("precious")
        with pytest.raises(OutputError, match=re.escape(name)):
            make_map(labels(8, 9), f"{folder}/map.tif")
        path = make_map(labels(8, 9), f"{folder}/map.tif", overwrite=True)
        assert path.with_name(name).read_text() != "precious"


def test_a_map_is_not_written_over_an_item_that_is_its_scene(make_map, labels, tmp_path):
    with OutputTransaction([tmp_path / "a.tif", tmp_path / "a.qml"], inputs=[tmp_path / "a.json"]):
        pass
    (tmp_path / "a.json").write_text("{}")
    targets = [tmp_path / "a.tif", *sidecar_paths(tmp_path / "a.tif").values()]
    with (
        pytest.raises(UsageError, match="both input and output"),
        OutputTransaction(targets, overwrite=True, inputs=[tmp_path / "a.json"]),
    ):
        pass


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("names", [("map.tif", "map.tiff"), ("map.tiff", "map.tif"), ("map.tif", "map.TIF")])
def test_a_map_of_another_ending_does_not_take_what_describes_its_neighbour(make_map, labels, names, overwrite):
    first = make_map(labels(8, 9), names[0])
    beside = list(sidecar_paths(first).values())
    before = {path: path.read_bytes() for path in [first, *beside]}
    with pytest.raises(OutputError, match=rf"map\.(qml|json) would be replaced.*{re.escape(str(first))}") as caught:
        make_map(labels(8, 9, seed=1), names[1], overwrite=overwrite)
    assert "--no-sidecar" in caught.value.hint
    assert {path: path.read_bytes() for path in [first, *beside]} == before
    assert not first.with_name(names[1]).exists()


def test_without_sidecars_of_its_own_it_leaves_those_of_its_neighbour(make_map, labels):
    first = make_map(labels(8, 9))
    before = {path.name: path.read_bytes() for path in first.parent.iterdir()}
    other = first.with_name("map.tiff")
    with OutputTransaction([other], overwrite=True) as transaction:
        transaction.path(other).write_bytes(b"new map")
        transaction.commit()
    other.unlink()
    assert {path.name: path.read_bytes() for path in first.parent.iterdir()} == before


def test_what_describes_a_scene_of_the_same_stem_stays(make_map, labels, tmp_path):
    (tmp_path / "map.jp2").write_bytes(b"scene")
    (tmp_path / "map.json").write_text('{"stac_version": "1.1.0"}')
    with pytest.raises(OutputError, match=r"map\.json would be replaced"):
        make_map(labels(8, 9), "map.tif", overwrite=True)
    assert (tmp_path / "map.json").read_text() == '{"stac_version": "1.1.0"}'


def test_a_map_beside_a_raster_of_the_same_stem_is_made_and_made_again(make_map, labels, tmp_path):
    (tmp_path / "map.tiff").write_bytes(b"scene")
    for name in ("map.png", "map.jpg"):
        (tmp_path / name).write_bytes(b"picture of the map")
    path = make_map(labels(8, 9), "map.tif")
    old = path.with_suffix(".json").read_bytes()
    make_map(labels(8, 9, seed=1), "map.tif", overwrite=True)
    assert path.with_suffix(".json").read_bytes() != old
    (tmp_path / "map.tiff").unlink()
    path.with_suffix(".json").write_text("my report")  # nobody else's
    make_map(labels(8, 9), "map.tif", overwrite=True)
