"""The catalogue entry: valid by the published schemas, and saying what the map is."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from jsonschema import Draft7Validator
from pystac.extensions.eo import EOExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.local_validator import get_local_schema_cache
from rasterio.crs import CRS
from referencing import Registry, Resource

from geoseg_cli.catalog import legends
from geoseg_cli.results.stac import EARLIEST, near_href
from tests.results.published import MODEL_SHA256

SCHEMAS = {
    schema["$id"].rstrip("#"): schema
    for schema in (json.loads(path.read_text()) for path in (Path(__file__).parents[1] / "schemas").glob("*.json"))
}
CORE = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"


def complaints(item: dict) -> list[str]:
    """What the core's schema and that of every declared extension say against an item."""
    every = get_local_schema_cache() | SCHEMAS
    registry = Registry().with_resources([(uri, Resource.from_contents(schema)) for uri, schema in every.items()])
    found = []
    for uri in (CORE, *item["stac_extensions"]):
        assert uri in every, f"{uri} has no local copy: nothing checks it"
        validator = Draft7Validator(every[uri], registry=registry)
        found += [f"{uri}: {error.json_path}: {error.message}" for error in validator.iter_errors(item)]
    return found


def item_of(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


@pytest.fixture
def item(make_map, labels) -> dict:
    return item_of(make_map(labels(40, 30)))


@pytest.mark.parametrize("legend_name", ["esa-worldcover", "cloudsen12"])
@pytest.mark.parametrize("with_crs", [True, False])
@pytest.mark.parametrize("acquired", [{}, {"GEOSEG_ACQUIRED": "2023-07-08T10:11:12Z"}])
def test_an_item_is_valid_by_the_published_schemas(make_map, grid, tmp_path, legend_name, with_crs, acquired):
    legend = legends()[legend_name]
    pixels = np.resize(np.array([*legend.values, legend.nodata], np.uint8), (20, 24))
    place = grid(20, 24) if with_crs else grid(20, 24, crs=None)
    confidence = tmp_path / "maps" / "c.tif"
    path = make_map(pixels, legend=legend, grid=place, tags=acquired, confidence=confidence)
    assert complaints(item_of(path)) == []
    pystac.Item.from_file(str(path.with_suffix(".json")))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("assets", "labels", "file:checksum"), "no hash"),
        (("assets", "labels", "classification:classes"), []),
        (("assets", "labels", "raster:bands"), [{"data_type": "byte"}]),
        (("properties", "proj:shape"), "wide"),
        (("properties", "proj:code"), 32631),
        (("properties", "eo:cloud_cover"), 101),
        (("properties", "processing:software"), "geoseg"),
        (("properties", "datetime"), "yesterday"),
        (("links",), [{"href": "x"}]),
        (("type",), "Map"),
    ],
)
def test_the_schemas_refuse_each_part_when_it_is_wrong(make_map, place, value):
    """Each of them is alive: no part of an item passes because nothing looks at it."""
    legend = legends()["cloudsen12"]
    item = item_of(make_map(np.resize(np.array(legend.values, np.uint8), (5, 6)), legend=legend))
    assert complaints(item) == []
    where = item
    for key in place[:-1]:
        where = where[key]
    where[place[-1]] = value
    assert complaints(item)


def test_count_and_percentage_are_those_of_the_pixels(make_map, labels, legend):
    pixels = labels(70, 50)
    classes = item_of(make_map(pixels))["assets"]["labels"]["classification:classes"]
    valid = (pixels != legend.nodata).sum()
    for row, cls in zip(classes, legend.classes, strict=True):
        count = int((pixels == cls.value).sum())
        assert (row["value"], row["name"], row["title"]) == (cls.value, cls.name, cls.title)
        assert f"#{row['color_hint']}" == cls.color
        assert row["count"] == count
        assert row["percentage"] == pytest.approx(100 * count / valid, abs=1e-6)
    assert sum(row["percentage"] for row in classes) == pytest.approx(100, abs=1e-4)


def test_cloud_cover_is_thick_and_thin_cloud_among_the_pixels_with_an_answer(make_map):
    pixels = np.array([[0, 0, 0, 1], [2, 3, 255, 255]], np.uint8)  # 6 answers: 1 thick, 1 thin, 1 shadow
    item = item_of(make_map(pixels, legend=legends()["cloudsen12"]))
    assert item["properties"]["eo:cloud_cover"] == pytest.approx(100 * 2 / 6, abs=1e-6)
    assert item["assets"]["labels"]["roles"] == ["data", "cloud"]


def test_a_land_cover_map_and_a_map_without_an_answer_state_no_cloud_cover(make_map, item):
    assert "eo:cloud_cover" not in item["properties"]
    empty = item_of(make_map(np.full((4, 5), 255, np.uint8), "b/map.tif", legend=legends()["cloudsen12"]))
    assert "eo:cloud_cover" not in empty["properties"]
    assert complaints(empty) == []


def test_the_grid_and_the_files_are_those_of_the_map(make_map, labels, tmp_path):
    path = make_map(labels(40, 30), confidence=tmp_path / "maps" / "sure enough.tif")
    item = pystac.Item.from_file(str(path.with_suffix(".json")))
    item.make_asset_hrefs_absolute()
    for key, target in (("labels", path), ("confidence", tmp_path / "maps" / "sure enough.tif")):
        asset = item.assets[key]
        facts = FileExtension.ext(asset)
        assert Path(asset.href.replace("%20", " ")) == target
        assert (facts.size, facts.checksum) == (
            target.stat().st_size,
            "1220" + hashlib.sha256(target.read_bytes()).hexdigest(),
        )
    projection = ProjectionExtension.ext(item)
    with rasterio.open(path) as file:
        assert (projection.code, projection.shape) == ("EPSG:32631", list(file.shape))
        assert projection.transform == list(file.transform)[:6]
        assert tuple(projection.bbox) == tuple(file.bounds)
        assert item.assets["labels"].extra_fields["geoseg:pixels_sha256"] == hashlib.sha256(file.read()).hexdigest()
    assert item.assets["confidence"].extra_fields["raster:bands"][0]["scale"] == 1 / 250


def test_pystac_reads_the_cloud_cover(make_map):
    path = make_map(np.array([[0, 1]], np.uint8), legend=legends()["cloudsen12"])
    assert EOExtension.ext(pystac.Item.from_file(str(path.with_suffix(".json")))).cloud_cover == 50


def test_the_time_is_that_of_the_scene_where_it_is_stated(make_map, labels):
    stated = make_map(labels(4, 5), tags={"GEOSEG_ACQUIRED": "2023-07-08T10:11:12Z"})
    assert item_of(stated)["properties"]["datetime"] == "2023-07-08T10:11:12Z"
    assert item_of(stated)["properties"]["created"] == "2024-05-06T07:08:09Z"


def test_where_nothing_states_the_time_it_is_an_interval_that_claims_nothing(item):
    times = item["properties"]
    assert times["datetime"] is None
    assert times["start_datetime"] == EARLIEST.isoformat().replace("+00:00", "Z") == "1972-07-23T00:00:00Z"
    assert times["end_datetime"] == times["created"] == "2024-05-06T07:08:09Z"


def test_links_lead_to_the_scene_and_to_the_models_content(make_map, labels, tmp_path):
    scene = tmp_path / "scenes" / "a b.tif"
    scene.parent.mkdir()
    scene.touch()
    path = make_map(labels(4, 5), source=scene)
    links = {link["rel"]: link for link in item_of(path)["links"]}
    assert links["derived_from"]["href"] == "../scenes/a%20b.tif"
    digest = base64.urlsafe_b64encode(bytes.fromhex(MODEL_SHA256)).decode().rstrip("=")
    assert links["describedby"]["href"] == f"ni:///sha-256;{digest}"
    assert "toy-model" in links["describedby"]["title"]


def test_an_array_that_is_no_file_gets_no_link(make_map, labels):
    path = make_map(labels(4, 5), source=Path("reflectance"))
    assert [link["rel"] for link in item_of(path)["links"]] == ["describedby"]


def test_no_path_of_the_machine_stands_in_any_sidecar(make_map, labels, tmp_path):
    scene = tmp_path / "somewhere" / "scene.tif"
    scene.parent.mkdir()
    scene.touch()
    path = make_map(labels(4, 5), "a/b/maps/map.tif", source=scene, confidence=tmp_path / "c.tif")
    assert list(item_of(path)["assets"]) == ["labels"], "the other raster lies too far away"
    for sidecar in ("map.json", "map.qml", "map.tif.aux.xml"):
        text = path.with_name(sidecar).read_text()
        assert str(tmp_path) not in text
        assert "somewhere" not in text
    assert [link["rel"] for link in item_of(path)["links"]] == ["describedby"]


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("/a/b/maps/x.tif", "./x.tif"),
        ("/a/b/maps/sub/x.tif", "./sub/x.tif"),
        ("/a/b/scenes/x ü#.tif", "../scenes/x%20%C3%BC%23.tif"),
        ("/a/b/x.tif", "../x.tif"),
        ("/a/x.tif", None),
        ("/a/b", None),
        ("/a/b/maps", None),
        ("/home/alice/x.tif", None),
    ],
)
def test_only_files_near_the_map_get_an_href(path, href):
    assert near_href(Path(path), Path("/a/b/maps")) == href


def test_a_crs_without_a_code_is_written_out(make_map, labels, grid):
    crs = CRS.from_proj4("+proj=laea +lat_0=47.3 +lon_0=8.1 +datum=WGS84 +units=m")
    path = make_map(labels(20, 30), grid=grid(20, 30, crs=crs, transform=Affine(10, 0, 0, 0, -10, 0)))
    item = item_of(path)
    assert item["properties"]["proj:code"] is None
    assert CRS.from_wkt(item["properties"]["proj:wkt2"]) == crs
    assert complaints(item) == []


def test_the_same_map_has_the_same_sidecars_byte_for_byte(make_map, labels):
    one, other = (make_map(labels(40, 30), f"{name}/map.tif") for name in ("one", "other"))
    for name in ("map.tif", "map.json", "map.qml", "map.tif.aux.xml"):
        assert one.with_name(name).read_bytes() == other.with_name(name).read_bytes(), name
