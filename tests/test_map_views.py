"""Maps with their scenes: which scene is taken for a map's, what is told, and what a page or sheet leaves alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geoseg_cli.catalog import legends
from geoseg_cli.errors import InputError, InputMissingError, OutputError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.map_views import ViewOptions, described, find_scene, page_map, preview_map, write_report
from geoseg_cli.results.verify import verify_map
from tests.conftest import write_scene
from tests.results.published import publish_map

UTM = Affine(10, 0, 499_980, 0, -10, 4_800_000)
OPTIONS = ViewOptions(300)
LEGEND = legends()["esa-worldcover"]


def make_scene(path: Path, height: int = 40, width: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0).integers(100, 4000, (3, height, width), np.uint16)
    return write_scene(path, numbers, bands=("B04", "B03", "B02"), transform=UTM)


def make_map(path: Path, scene: Path | None = None, **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.array(LEGEND.values, np.uint8)
    labels = values[np.random.default_rng(1).integers(0, len(values), (40, 60))]
    size = {"GEOSEG_INPUT_BYTES": str(scene.stat().st_size)} if scene else {}
    more = {"source": scene} if scene else {}
    return publish_map(path, labels, Grid(CRS.from_epsg(32631), UTM, 40, 60), LEGEND, tags=size | tags, **more)


def has_scene(page: Path) -> bool:
    return "data:image/webp" in page.read_text()


@pytest.mark.parametrize("place", ["scene.tif", "sub/scene.tif", "../scenes/scene.tif"])
def test_the_scene_is_found_where_the_item_says(tmp_path: Path, place: str) -> None:
    scene = make_scene(tmp_path / "maps" / place)
    made = make_map(tmp_path / "maps" / "map.tif", scene)
    assert write_report([made], tmp_path / "r.html", OPTIONS) == []
    assert has_scene(tmp_path / "r.html")


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 5e5, 0, 10, 4e6),
        Affine(0, -10, 5e5, -10, 0, 4e6),
        Affine.translation(5e5, 4e6) @ Affine.rotation(30) @ Affine.scale(10, -10),
        Affine.translation(5e5, 4e6) @ Affine.scale(10, -25),
    ],
    ids=["south-up", "swapped", "slanted", "oblong"],
)
@pytest.mark.parametrize("max_px", [30, 400])
def test_scene_and_classes_lie_on_each_other_however_they_are_stored(
    tmp_path: Path, transform: Affine, max_px: int
) -> None:
    labels = np.full((80, 120), LEGEND.values[0], np.uint8)
    labels[:40, :60] = LEGEND.values[1]
    numbers = np.repeat(np.where(labels == LEGEND.values[1], 3000, 100).astype(np.uint16)[None], 3, axis=0)
    write_scene(tmp_path / "scene.tif", numbers, bands=("B04", "B03", "B02"), transform=transform)
    made = publish_map(tmp_path / "map.tif", labels, Grid(CRS.from_epsg(32631), transform, 80, 120), LEGEND)
    description, is_intact = described(made)
    page = page_map(made, description, is_intact, ViewOptions(max_px))
    assert page.scene is not None
    is_bright = page.scene[..., 0] > 128
    is_first = page.picture.labels == LEGEND.values[1]
    assert is_first.mean() > 0.1
    # Along the border both are rounded on their own.
    assert (is_bright != is_first).mean() < (0.06 if max_px == 30 else 0.01)
    np.testing.assert_array_equal(page.scene[..., 3] > 0, page.picture.labels != LEGEND.nodata)


def test_a_folder_that_is_named_comes_before_what_the_item_says(tmp_path: Path) -> None:
    made = make_map(tmp_path / "maps" / "map.tif", make_scene(tmp_path / "maps" / "scene.tif"))
    other = make_scene(tmp_path / "far" / "away" / "scene.tif")
    tags = {"GEOSEG_INPUT": "scene.tif"}
    assert find_scene(made, tags, other.parent) == other
    assert find_scene(made, tags, tmp_path / "far") == tmp_path / "maps" / "scene.tif"


@pytest.mark.parametrize(
    "href",
    ["../../secret/scene.tif", "/etc/scene.tif", "file:///etc/scene.tif", "%2Fetc%2Fscene.tif", "a%00b", "../.."],
)
def test_an_item_cannot_lead_to_other_folders(tmp_path: Path, href: str) -> None:
    make_scene(tmp_path / "secret" / "scene.tif")
    made = make_map(tmp_path / "work" / "maps" / "map.tif")
    item = made.with_suffix(".json")
    fields = json.loads(item.read_text())
    fields["links"] = [{"rel": "derived_from", "href": href}]
    item.write_text(json.dumps(fields))
    assert find_scene(made, {"GEOSEG_INPUT": "scene.tif"}) is None


@pytest.mark.parametrize("name", ["../scene.tif", "/etc/passwd", "..", ".", "", "sub/scene.tif"])
def test_a_tag_cannot_lead_to_other_folders(tmp_path: Path, name: str) -> None:
    make_scene(tmp_path / "scene.tif")
    made = make_map(tmp_path / "maps" / "map.tif")
    assert find_scene(made, {"GEOSEG_INPUT": name}, tmp_path / "maps") is None


def test_a_scene_of_another_name_is_not_taken(tmp_path: Path) -> None:
    made = make_map(tmp_path / "map.tif", make_scene(tmp_path / "other.tif"))
    ((path, note),) = write_report([made], tmp_path / "r.html", OPTIONS)
    assert path == made
    assert "The scene is not shown" in note
    assert note in (tmp_path / "r.html").read_text()


def test_a_scene_of_another_size_is_shown_and_doubted(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif")
    made = make_map(tmp_path / "map.tif", scene, GEOSEG_INPUT_BYTES="12345")
    ((_, note),) = write_report([made], tmp_path / "r.html", OPTIONS)
    assert f"scene.tif has {scene.stat().st_size:,} bytes, the map was made from 12,345" in note
    assert has_scene(tmp_path / "r.html")
    assert preview_map(made, scene, tmp_path / "p.png", OPTIONS) == (note,)


def test_a_scene_that_cannot_be_read_is_told_without_its_folder(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", 20, 20)
    made = make_map(tmp_path / "map.tif", scene)
    write_report([made], tmp_path / "r.html", OPTIONS)
    text = (tmp_path / "r.html").read_text()
    assert "The scene is not shown: the map does not lie on the scene scene.tif" in text
    assert str(tmp_path) not in text


def test_of_a_refusal_with_a_table_only_its_first_line_is_told(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.ones((3, 40, 60), np.uint16), transform=UTM)
    ((_, note),) = write_report([make_map(tmp_path / "map.tif", scene)], tmp_path / "r.html", OPTIONS)
    assert note.startswith("The scene is not shown: scene.tif")
    assert "\n" not in note
    assert "\\n" not in (tmp_path / "r.html").read_text().partition('<p class="note">')[2].partition("</p>")[0]


def test_changed_pixels_are_told(tmp_path: Path) -> None:
    made = make_map(tmp_path / "map.tif")
    with rasterio.open(made, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(GEOSEG_PIXELS_SHA256="0" * 64)
    notes = [note for _, note in write_report([made], tmp_path / "r.html", OPTIONS)]
    assert any("not those that geoseg wrote" in note for note in notes)


def test_a_sheet_beside_the_map_leaves_its_sidecars_alone(tmp_path: Path) -> None:
    made = make_map(tmp_path / "map.tif", make_scene(tmp_path / "scene.tif"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    preview_map(made, tmp_path / "scene.tif", tmp_path / "map.png", OPTIONS)
    preview_map(made, None, tmp_path / "map.png", ViewOptions(300, overwrite=True))
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() - before.keys() == {"map.png"}
    assert {name: after[name] for name in before} == before
    assert verify_map(made).is_intact


def test_a_bad_map_of_several_leaves_no_page(tmp_path: Path) -> None:
    made, scene = make_map(tmp_path / "map.tif"), make_scene(tmp_path / "scene.tif")
    with pytest.raises(InputError, match="no class map of geoseg"):
        write_report([made, scene], tmp_path / "r.html", OPTIONS)
    with pytest.raises(InputMissingError):
        write_report([made, tmp_path / "none.tif"], tmp_path / "r.html", OPTIONS)
    assert not (tmp_path / "r.html").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_an_output_that_exists_or_is_an_input_is_refused(tmp_path: Path) -> None:
    made = make_map(tmp_path / "map.tif")
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(OutputError):
        write_report([made], tmp_path / "r.html", OPTIONS)
    with pytest.raises(OutputError):
        preview_map(made, None, tmp_path / "r.html", OPTIONS)
    with pytest.raises(UsageError, match="both input and output"):
        preview_map(made, None, made, ViewOptions(300, overwrite=True))
    assert (tmp_path / "r.html").read_text() == "mine"
