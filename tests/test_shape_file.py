"""Attributes of shapes, from GeoJSON and from GeoPackages; geometries and refusals are tested with areas."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import shapely

from geoseg_cli.errors import InputError
from geoseg_cli.shape_file import read_shapes
from tests.test_aoi import write_geopackage

POINTS = [shapely.Point(500_000 + 10 * x, 4_900_000) for x in range(3)]


def write_attributes(path: Path, values: list[object], name: str = 'the "class"') -> Path:
    write_geopackage(path, *POINTS)
    quoted = name.replace('"', '""')
    with sqlite3.connect(path) as base:
        table = base.execute("SELECT table_name FROM gpkg_contents").fetchone()[0].replace('"', '""')
        base.execute(f'ALTER TABLE "{table}" ADD COLUMN "{quoted}"')
        for number, value in enumerate(values, start=1):
            base.execute(f'UPDATE "{table}" SET "{quoted}" = ? WHERE fid = ?', [value, number])
    base.close()
    return path


def test_a_column_of_a_geopackage_comes_with_its_shapes(tmp_path: Path) -> None:
    file = read_shapes(write_attributes(tmp_path / "a.gpkg", [11, "oak", None]), "a test", 'the "class"')
    assert file.values == (11, "oak", None)
    assert [shape.x for shape in file.shapes] == [point.x for point in POINTS]
    assert file.crs.to_epsg() == 32631


def test_a_row_without_a_shape_is_left_out_with_its_value(tmp_path: Path) -> None:
    path = write_attributes(tmp_path / "a.gpkg", [1, 2, 3], name="kind")
    with sqlite3.connect(path) as base:
        base.execute('UPDATE "my ""fields""" SET geom = NULL WHERE fid = 2')
    base.close()
    file = read_shapes(path, "a test", "kind")
    assert (len(file.shapes), file.values) == (2, (1, 3))


def test_a_property_of_geojson_comes_with_all_shapes_of_its_feature(tmp_path: Path) -> None:
    one, two = ({"type": "Point", "coordinates": [x, 0]} for x in (1, 2))
    both = {"type": "GeometryCollection", "geometries": [one, two]}
    rows = [
        {"type": "Feature", "properties": {"kind": 11.0}, "geometry": both},
        {"type": "Feature", "properties": None, "geometry": one},
        {"type": "Feature", "properties": {"kind": 7}, "geometry": None},
    ]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": rows}))
    assert read_shapes(tmp_path / "a.geojson", "a test", "kind").values == (11.0, 11.0, None)
    assert read_shapes(tmp_path / "a.geojson", "a test").values == (None, None, None)


def test_an_attribute_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no attribute kind; it has fid, species") as caught:
        read_shapes(write_attributes(tmp_path / "a.gpkg", [1, 2, 3], name="species"), "a test", "kind")
    assert "--attribute" in caught.value.hint
    properties = {f"p{number}": 1 for number in range(12)}
    row = {"type": "Feature", "properties": properties, "geometry": {"type": "Point", "coordinates": [1, 2]}}
    (tmp_path / "a.geojson").write_text(json.dumps(row))
    with pytest.raises(InputError, match=r"it has p0, .*, p9 and 2 more"):
        read_shapes(tmp_path / "a.geojson", "a test", "kind")
