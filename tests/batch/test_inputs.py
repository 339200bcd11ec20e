"""What the user names, and the scenes and outputs that it comes to."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.batch.inputs import SceneUnit, find_scenes, read_list
from geoseg_cli.batch.naming import FIELDS, Naming
from geoseg_cli.errors import GeosegError, InputError, InputMissingError, UsageError
from tests.batch.conftest import Mask, Run, scenes_in
from tests.scenes.product_fixtures import make_landsat


def names(units: tuple[SceneUnit, ...]) -> list[str]:
    return [unit.path.name for unit in units]


def test_folders_are_looked_into_to_any_depth_and_products_are_not(tmp_path: Path) -> None:
    scenes_in(tmp_path, ["b.tif", "x/a.tif", "x/y/z/c.tif", ".hidden/d.tif", ".e.tif"])
    make_landsat(tmp_path / "x" / "landsat")
    found = find_scenes([tmp_path])
    assert names(found.units) == ["b.tif", "a.tif", "landsat", "c.tif"]
    assert {unit.root for unit in found.units} == {tmp_path}
    assert found.is_batch


def test_a_folder_that_leads_back_to_itself_is_walked_once(tmp_path: Path) -> None:
    scenes_in(tmp_path, ["x/a.tif"])
    (tmp_path / "x" / "back").symlink_to(tmp_path)
    assert names(find_scenes([tmp_path]).units) == ["a.tif"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [(["*_SR.tif"], ["a_SR.tif", "b_SR.tif"]), (["x/*"], ["b_SR.tif"]), (["b*", "c*"], ["c.tif", "b_SR.tif"])],
)
def test_patterns_are_compared_with_names_or_with_paths_below_the_folder(
    tmp_path: Path, patterns: list[str], expected: list[str]
) -> None:
    scenes_in(tmp_path, ["a_SR.tif", "c.tif", "x/b_SR.tif"])
    assert names(find_scenes([tmp_path], patterns).units) == expected
    with pytest.raises(InputMissingError, match="matches"):
        find_scenes([tmp_path], ["nothing*"])


def test_a_pattern_in_quotes_is_opened_and_one_without_a_match_is_a_missing_scene(tmp_path: Path) -> None:
    scenes_in(tmp_path, ["a.tif", "x/b.tif", "x/y/c.tif", "[old].tif"])
    assert names(find_scenes([tmp_path / "*" / "*.tif"]).units) == ["b.tif"]
    assert names(find_scenes([tmp_path / "**" / "*.tif"]).units) == ["[old].tif", "a.tif", "b.tif", "c.tif"]
    assert names(find_scenes([tmp_path / "[old].tif"]).units) == ["[old].tif"], "a file of that name"
    assert names(find_scenes([tmp_path / "no*.tif"]).units) == ["no*.tif"]


def test_a_scene_that_is_named_in_several_ways_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes_in(tmp_path, ["a.tif"])
    (tmp_path / "link.tif").symlink_to("a.tif")
    monkeypatch.chdir(tmp_path)
    listed = b"./a.tif\na.tif\n"
    units = find_scenes([Path("a.tif"), tmp_path, tmp_path / "link.tif", Path("-")], listed=listed).units
    assert names(units) == ["a.tif"]


def test_links_to_the_same_nothing_are_each_a_scene_to_name(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).symlink_to("nowhere.tif")
    assert names(find_scenes([tmp_path]).units) == ["a.tif", "b.tif"]


def test_maps_of_any_name_are_no_scenes(mask: Mask, tmp_path: Path) -> None:
    scenes_in(tmp_path / "in", ["a.tif", "b.tif"])
    template = ("--name-template", "{stem}-clouds.tif")
    for _ in range(2):
        assert set(mask(tmp_path / "in", *template)) == {"a.tif", "b.tif"}
    assert set(mask(tmp_path / "in", "--name-template", "gt-{stem}.tif", "--format", "gtiff")) == {"a.tif", "b.tif"}
    assert set(mask(tmp_path / "in", *template)) == {"a.tif", "b.tif"}


def test_a_list_is_lines_or_nul_or_json(tmp_path: Path) -> None:
    expected = [SceneUnit(Path("a b.tif")), SceneUnit(Path("c.tif"))]
    assert read_list(b"a b.tif\nc.tif\n\n") == expected
    assert read_list(b"a b.tif\r\nc.tif") == expected
    assert read_list(b"a b.tif\0c.tif\0") == expected
    assert read_list(b'{"path": "a b.tif"}\n{"scene": "c.tif", "status": "failed"}\n') == expected
    assert read_list(b'{"path": "a.tif", "output": "x.tif"}') == [SceneUnit(Path("a.tif"), output=Path("x.tif"))]
    for wrong in (b"{", b"{}", b'{"path": 3}', b'{"path": "a", "output": 3}'):
        with pytest.raises(UsageError, match="line 1"):
            read_list(wrong)
    with pytest.raises(InputMissingError):
        read_list(b"\n")


NAMES = st.text(st.characters(exclude_characters="\0\n\r{", exclude_categories=("Cs",)), min_size=1)


@given(st.lists(NAMES.filter(str.strip), min_size=2))
def test_any_names_survive_a_list_with_nul(texts: list[str]) -> None:
    data = b"\0".join(os.fsencode(text) for text in texts)
    assert [str(unit.path) for unit in read_list(data)] == [str(Path(text)) for text in texts]


def test_a_list_on_standard_input_is_run(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes_in(tmp_path, ["a.tif", "x/b.tif"])
    listed = json.dumps({"path": f"{tmp_path}/a.tif", "output": f"{tmp_path}/named.tif"}) + f"\n{tmp_path}/x\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(listed.encode())))
    done = run("cloudmask", "-", "--model", model, "-q")
    assert (done.code, set(done.out.split())) == (0, {f"{tmp_path}/named.tif", f"{tmp_path}/x/b_cloudmask.tif"})


def test_outputs_mirror_the_folders_below_each_root(tmp_path: Path) -> None:
    scenes_in(tmp_path, ["one/x/a.tif", "two/b.tif"])
    out = tmp_path / "out"
    units = find_scenes([tmp_path / "one", tmp_path / "two"]).units
    tasks = Naming("cloudmask", out_dir=out).tasks(units, keep_journal=True)
    assert [task.output for task in tasks] == [out / "x" / "a_cloudmask.tif", out / "b_cloudmask.tif"]
    assert {task.home for task in tasks} == {out}
    beside = Naming("cloudmask").tasks(units, keep_journal=True)
    assert [task.home for task in beside] == [tmp_path / "one", tmp_path / "two"]


def test_scenes_of_two_roots_that_would_share_a_map_are_refused_by_name(tmp_path: Path) -> None:
    scenes_in(tmp_path, ["one/a.tif", "two/a.tif"])
    units = find_scenes([tmp_path / "one", tmp_path / "two"]).units
    with pytest.raises(UsageError, match=r"one/a\.tif and .*two/a\.tif") as caught:
        Naming("cloudmask", out_dir=tmp_path).tasks(units, keep_journal=True)
    assert "{parent}" in caught.value.hint
    template = "{parent}_{stem}_{task}_{model}_{date}.tif"
    named = Naming("cloudmask", "m", tmp_path, template).tasks(units, keep_journal=True)
    assert [task.output.name for task in named] == ["one_a_cloudmask_m_undated.tif", "two_a_cloudmask_m_undated.tif"]


def test_the_date_is_that_of_the_product_s_name(tmp_path: Path) -> None:
    stem = "S2A_MSIL2A_20230625T104621_N0509_R051_T31UFS_20230626T150000"
    scenes_in(tmp_path, [f"{stem}.tif", "other_20230625.tif"])
    naming = Naming("t", template="{date}_{stem}.tif")
    assert naming.output_of(SceneUnit(tmp_path / f"{stem}.tif")).name == f"20230625_{stem}.tif"
    assert naming.output_of(SceneUnit(tmp_path / "other_20230625.tif")).name == "undated_other_20230625.tif"


WRONG = [
    "{nonsense}.tif", "{stem", "{stem!x}.tif", "{0}.tif", "../{stem}.tif", "/x/{stem}.tif", "{stem}.png",
    "{stem.x}.tif",
    "{stem:>9999999999}.tif", "{stem:>{date}}.tif",
]  # fmt: skip


@pytest.mark.parametrize("template", WRONG)
def test_a_template_that_names_no_map_is_refused_with_what_it_may_hold(template: str) -> None:
    with pytest.raises(UsageError) as caught:
        Naming("cloudmask", template=template)
    assert caught.value.hint
    if "nonsense" in template:
        assert all(f"{{{name}}}" in caught.value.hint for name in FIELDS)


def stac_item(name: str, href: str) -> dict[str, object]:
    asset = {
        "href": href,
        "type": "image/tiff; application=geotiff",
        "eo:bands": [{"name": "red", "common_name": "red"}],
        "raster:bands": [{"scale": 1e-4, "offset": 0.0}],
    }
    head = {"type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": []}
    return head | {"properties": {"datetime": "2023-06-25T10:46:21Z"}, "assets": {"red": asset}}


@pytest.mark.parametrize("kind", ["stac", "parquet", "paths"])
def test_a_catalogue_stands_for_its_scenes(mask: Mask, tmp_path: Path, kind: str) -> None:
    labels = scenes_in(tmp_path / "in", ["a.tif", "b.tif"])
    (tmp_path / "out").mkdir()
    items = [stac_item("first", "a.tif"), stac_item("second", "b.tif")]
    catalogue = tmp_path / "in" / ("c.json" if kind == "stac" else "c.parquet")
    if kind == "stac":
        catalogue.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        rows = [{"id": item["id"], "assets": item["assets"], "datetime": "2023-06-25T10:46:21Z"} for item in items]
        table = {"location": ["a.tif", "b.tif"]} if kind == "paths" else None
        made = pyarrow.table(table) if table else pyarrow.Table.from_pylist(rows)
        parquet.write_table(made, catalogue)
    stems = {"a", "b"} if kind == "paths" else {"first", "second"}
    for status in ("done", "unchanged"):
        assert set(mask(catalogue, "--out-dir", tmp_path / "out").values()) == {status}
        assert {path.name for path in (tmp_path / "out").glob("*.tif")} == {f"{stem}_cloudmask.tif" for stem in stems}
    assert len(labels) == 2


def collection(path: Path, *items: dict[str, object]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


@pytest.mark.parametrize("names", [("x", "x"), ("x:1", "x_1")])
def test_two_items_of_one_name_are_refused_before_one_replaces_the_other(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    one, other = stac_item(names[0], "a.tif"), stac_item(names[1], "b.tif")
    together = collection(tmp_path / "c.json", one, other)
    apart = [collection(tmp_path / "d.json", one), collection(tmp_path / "e.json", other)]
    for named in ([together], apart):
        with pytest.raises(InputError, match=rf"another item is called {names[1]}"):
            find_scenes(named)


def test_an_item_that_is_listed_twice_is_one_scene(tmp_path: Path) -> None:
    one = stac_item("x", "a.tif")
    named = [collection(tmp_path / "c.json", one, one), collection(tmp_path / "d.json", one)]
    (unit,) = find_scenes(named).units
    assert json.loads(unit.path.read_text()) == one


def test_a_table_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError) as caught:
        find_scenes([tmp_path / "c.parquet"])
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("text", [b"nonsense", b"PAR1PAR1"])
def test_a_damaged_table_is_named(tmp_path: Path, text: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "c.parquet").write_bytes(text)
    with pytest.raises(GeosegError, match=r"c\.parquet"):
        find_scenes([tmp_path / "c.parquet"])
