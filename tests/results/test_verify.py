"""``verify_map``: an untouched map is intact, and each thing that can change is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling

from geoseg_cli.catalog import legends
from geoseg_cli.errors import GeosegError, InputError, InputMissingError, StorageError
from geoseg_cli.results.verify import verify_map


@pytest.fixture
def small(make_map, labels) -> Path:
    return make_map(labels(60, 50))


@pytest.fixture
def large(make_map, labels) -> Path:
    return make_map(labels(1100, 600))


def rewrite(path: Path, pixels=None, palette=None, tags=None, resampling=Resampling.nearest) -> None:
    """Make another COG in its place, with some things changed and the others kept."""
    other = path.with_name("other.tmp")
    with rasterio.open(path) as file:
        profile = {**file.profile, "driver": "GTiff"}
        kept = file.read(), file.colormap(1), file.tags(), file.descriptions
    with rasterio.open(other, "w", **profile) as file:
        file.write(kept[0] if pixels is None else pixels[None])
        file.write_colormap(1, palette or kept[1])
        file.update_tags(**(kept[2] if tags is None else tags))
        file.descriptions = kept[3]
        if max(file.shape) > 512:
            file.build_overviews([2, 4], resampling)
    sidecar = path.with_name(f"{path.name}.aux.xml")
    text = sidecar.read_bytes() if sidecar.exists() else None
    path.unlink()
    sidecar.unlink(missing_ok=True)
    rasterio.shutil.copy(other, path, driver="COG", OVERVIEWS="FORCE_USE_EXISTING", BLOCKSIZE="512")
    other.unlink()
    if text is not None:
        sidecar.write_bytes(text)


def failed(path: Path) -> set[str]:
    """Checks that fail, without those of files that can no longer agree with another map."""
    return {check.split()[0] for check in verify_map(path).problems}


@pytest.mark.parametrize("name", ["esa-worldcover", "cloudsen12"])
def test_an_untouched_map_is_intact(make_map, tmp_path, grid, name):
    legend = legends()[name]
    values = np.array([*legend.values, legend.nodata], np.uint8)
    pixels = np.random.default_rng(0).choice(values, (1030, 700))
    for number, crs in enumerate((grid(1, 1).crs, None)):
        folder = tmp_path / str(number)
        path = make_map(pixels, f"{number}/map.tif", legend=legend, grid=grid(1030, 700, crs=crs),
                        confidence=folder / "c.tif", source=folder / "scene.tif")  # fmt: skip
        verdict = verify_map(path)
        assert verdict.is_intact, verdict.problems
        assert len(verdict.checks) == 9
        assert verdict.absent == ()


def test_a_map_alone_is_intact_and_what_is_absent_is_told(small):
    for name in ("map.json", "map.qml", "map.tif.aux.xml"):
        small.with_name(name).unlink()
    verdict = verify_map(small)
    assert verdict.is_intact
    assert set(verdict.absent) == {"map.json", "map.qml", "map.tif.aux.xml"}


def test_one_changed_pixel_is_found(large):
    with rasterio.open(large) as file:
        pixels = file.read(1)
    pixels[900, 300] = 10 if pixels[900, 300] != 10 else 20
    rewrite(large, pixels)
    assert failed(large) == {"pixels", "attributes", "item"}


def test_a_value_that_is_no_class_is_named(small):
    with rasterio.open(small) as file:
        pixels = file.read(1)
    pixels[3, 4] = 77
    rewrite(small, pixels)
    assert any("[77]" in text for text in verify_map(small).problems["pixels"])


def test_overviews_of_averages_are_found(large):
    """Averages of classes: what a resampling that is not made for classes leaves."""
    rewrite(large, resampling=Resampling.average)
    found = verify_map(large).problems
    assert set(found) >= {"overviews"}
    assert "pixels" not in found
    assert any("no classes" in text for text in found["overviews"])


def test_another_colour_is_named_with_its_class(small):
    with rasterio.open(small) as file:
        palette = dict(file.colormap(1))
    rewrite(small, palette=palette | {10: (1, 2, 3, 255)})
    (text,) = verify_map(small).problems["legend"]
    assert "Tree cover" in text
    assert "#010203" in text
    assert "#006400" in text


def test_a_map_exactly_one_block_wide_counts_as_tiled(make_map, labels):
    """rasterio takes it for one in strips."""
    path = make_map(labels(1100, 512))
    rewrite(path)
    with rasterio.open(path) as file:
        assert file.block_shapes == [(512, 512)]
    assert "structure" not in verify_map(path).problems


def test_a_file_that_is_no_cog_any_more_is_found(large):
    with rasterio.open(large, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(NOTE="edited")
    assert failed(large) == {"structure", "item"}


def test_a_plain_tiff_of_the_same_pixels_lacks_its_structure(large):
    plain = large.with_name("plain.tif")
    with rasterio.open(large) as file:
        profile = {**file.profile, "driver": "GTiff", "tiled": False}
        for option in ("blockxsize", "blockysize"):
            profile.pop(option)
        pixels, palette, tags = file.read(), file.colormap(1), file.tags()
    with rasterio.open(plain, "w", **profile) as file:
        file.write(pixels)
        file.write_colormap(1, palette)
        file.update_tags(**tags)
    verdict = verify_map(plain)
    assert set(verdict.problems) == {"structure"}
    assert len(verdict.problems["structure"]) == 3, "no COG, no overviews, not tiled"


def test_missing_provenance_is_named_and_sidecars_are_not_compared(small):
    with rasterio.open(small) as file:
        tags = file.tags()
    rewrite(small, tags={name: text for name, text in tags.items() if name != "GEOSEG_MODEL_SHA256"})
    verdict = verify_map(small)
    assert verdict.problems == {"provenance": ("the tag GEOSEG_MODEL_SHA256 is missing",)}


@pytest.mark.parametrize(
    ("name", "old", "new", "check"),
    [
        ("map.tif.aux.xml", "<Category>Tree cover</Category>", "<Category>Trees</Category>", "attributes"),
        ("map.tif.aux.xml", "<F>100</F>", "<F>101</F>", "attributes"),
        ("map.tif.aux.xml", "</PAMDataset>", "<SRS>EPSG:3035</SRS></PAMDataset>", "attributes"),
        ("map.tif.aux.xml", "</PAMDataset>", "", "attributes"),
        ("map.qml", 'label="Grassland"', 'label="Meadow"', "style"),
        ("map.qml", "#ffff4c", "#ffff4d", "style"),
        ("map.qml", "paletted", "hillshade", "style"),
        ("map.json", '"count": ', '"count": 1', "item"),
        ("map.json", '"./map.tif"', '"./scene.tif"', "item"),
        ("map.json", '"file:size": ', '"file:size": 1', "item"),
        ("map.json", '"1220', '"1221', "item"),
        ("map.json", '"proj:shape": [\n      60', '"proj:shape": [\n      61', "item"),
        ("map.json", "500000.0", "500010.0", "item"),
        ("map.json", "2024-05-06", "2024-05-07", "item"),
        ("map.json", "1972", "1973", "item"),
        ("map.json", "EPSG:32631", "EPSG:32632", "item"),
        ("map.json", '"bbox": [\n    3.0', '"bbox": [\n    3.1', "item"),
        ("map.json", '"Polygon"', '"Point"', "item"),
        ("map.json", "        [\n          3.0,", "        [\n          3.1,", "item"),
        ("map.json", '"geoseg:pixels_sha256": "', '"geoseg:pixels_sha256": "0', "item"),
        ("map.json", "tree_cover", "trees", "item"),
        ("map.json", "{", "[", "item"),
    ],
)
def test_a_sidecar_that_says_something_else_is_named(small, name, old, new, check):
    sidecar = small.with_name(name)
    text = sidecar.read_text()
    assert old in text
    sidecar.write_text(text.replace(old, new, 1))
    assert failed(small) == {check}


def test_a_sidecar_of_any_bytes_is_a_failed_check_and_no_error(small):
    for name, check in (("map.tif.aux.xml", "attributes"), ("map.qml", "style"), ("map.json", "item")):
        kept = small.with_name(name).read_bytes()
        for junk in (b"\xff\xfe\x00", b"", b"[" * 100_000, b"{}", b'{"properties": {}, "assets": {"labels": 3}}'):
            small.with_name(name).write_bytes(junk)
            assert failed(small) == {check}, junk[:10]
        small.with_name(name).write_bytes(kept)


def test_another_raster_of_the_item_is_compared_too(make_map, labels, tmp_path):
    path = make_map(labels(20, 30), confidence=tmp_path / "maps" / "c.tif")
    assert verify_map(path).is_intact
    shutil.copy(path, tmp_path / "maps" / "c.tif")
    assert failed(path) == {"item"}
    (tmp_path / "maps" / "c.tif").unlink()
    (text,) = verify_map(path).problems["item (map.json)"]
    assert "c.tif is not there" in text


def test_an_item_cannot_send_the_check_to_far_away_files(small):
    item = json.loads(small.with_suffix(".json").read_text())
    for href in ("/etc/passwd", "../../../../../etc/passwd", "https://example.org/x.tif"):
        item["assets"]["more"] = {"href": href}
        small.with_suffix(".json").write_text(json.dumps(item))
        (text,) = verify_map(small).problems["item (map.json)"]
        assert "does not lie near the map" in text


@pytest.mark.parametrize("name", ["map.tif.ovr", "map.tif.msk", "map.tfw"])
def test_a_neighbour_that_readers_would_believe_is_named(small, name):
    small.with_name(name).write_bytes(b"1\n0\n0\n-1\n0\n0\n")
    (text,) = verify_map(small).problems["neighbours"]
    assert name in text


def test_what_gdal_and_qgis_add_while_looking_is_no_change(small):
    """Statistics and histograms are kept in the ``.aux.xml``, which is written anew for it."""
    if shutil.which("gdalinfo") is None:
        pytest.skip("needs GDAL's command line")
    before = small.with_name("map.tif.aux.xml").read_text()
    subprocess.run(["gdalinfo", "-stats", "-hist", str(small)], capture_output=True, check=True)
    assert "STATISTICS" in small.with_name("map.tif.aux.xml").read_text() != before
    assert verify_map(small).is_intact, verify_map(small).problems


def test_a_map_that_was_renamed_without_its_sidecars_is_intact(small):
    moved = small.with_name("other.tif")
    small.rename(moved)
    assert verify_map(moved).is_intact


def test_a_map_that_was_renamed_with_its_item_no_longer_agrees(small):
    small.rename(small.with_name("other.tif"))
    small.with_suffix(".json").rename(small.with_name("other.json"))
    assert failed(small.with_name("other.tif")) == {"item"}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_map_is_damaged(make_map, share):
    """Noise, so that the file's end is not merely padding."""
    values = np.array(legends()["esa-worldcover"].values, np.uint8)
    path = make_map(np.random.default_rng(1).choice(values, (900, 900)))
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(StorageError) as caught:
        verify_map(path)
    assert caught.value.exit_code == 74
    assert str(path) in caught.value.message


def test_what_is_no_map_of_geoseg_is_refused(tmp_path, small, make_map, labels):
    text = tmp_path / "text.tif"
    text.write_text("this is text")
    scene = tmp_path / "scene.tif"
    with rasterio.open(scene, "w", driver="GTiff", dtype="uint8", count=1, height=5, width=5) as file:
        file.write(np.zeros((1, 5, 5), np.uint8))
    make_map(labels(20, 30), "other/map.tif", confidence=tmp_path / "other" / "c.tif")
    for path in (text, scene, tmp_path / "other" / "c.tif"):
        with pytest.raises(InputError, match="no class map of geoseg"):
            verify_map(path)
    with pytest.raises(InputMissingError):
        verify_map(tmp_path / "nowhere.tif")


@pytest.mark.parametrize("tag", ["GEOSEG_CLASSES", "GEOSEG_MODEL_SHA256", "TIFFTAG_DATETIME", "GEOSEG_PIXELS_SHA256"])
@pytest.mark.parametrize("text", ["[]", "{", "null", '[{"value": 300, "name": "a", "title": "b", "color_hint": "zz"}]'])
def test_tags_from_anyone_are_a_failed_check_or_a_named_error(small, tag, text):
    with rasterio.open(small) as file:
        tags = file.tags()
    rewrite(small, tags=tags | {tag: text})
    try:
        outcome: object = verify_map(small).is_intact
    except GeosegError as error:
        outcome = error.exit_code
    assert outcome in (False, 65)
