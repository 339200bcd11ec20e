"""The page as text: what it holds, that it asks for nothing, and that no name can break out of its place."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from geoseg_cli.catalog import LandClass, Legend
from geoseg_cli.results.map_file import opened_map, read_map
from geoseg_cli.results.picture import read_picture
from geoseg_cli.results.report_page import PageMap, page_parts

HOSTILE = "</script><script>alert(1)</script>\"' onload=x <img src=http://evil.example/x> \u202e\x1b.tif"


class Page(HTMLParser):
    """Elements, texts, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def facts(self) -> list[dict]:
        return [json.loads(text) for text in self.texts["script"] if text.startswith("{")]


@pytest.fixture
def page_map(make_map, labels):
    def make(name: str = "maps/map.tif", height: int = 50, width: int = 70, max_px: int = 1000, **more) -> PageMap:
        path = make_map(labels(height, width), name=name, **more)
        with opened_map(path) as file:
            description, _, _ = read_map(path, file)
        picture = read_picture(path, max_px)
        scene = np.random.default_rng(0).integers(0, 255, (*picture.labels.shape, 4), np.uint8)
        scene[..., 3] = 255
        return PageMap(description, picture, scene)

    return make


def written(*maps: PageMap) -> str:
    return "".join(page_parts([one.description for one in maps], maps, "geoseg 9.8.7"))


def test_the_classes_and_the_scene_of_the_page_are_those_of_the_map(page_map, labels, legend):
    one = page_map()
    (facts,) = Page(written(one)).facts()
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(facts["labels"])), np.uint8)
    np.testing.assert_array_equal(pixels.reshape(facts["height"], facts["width"]), labels(50, 70))
    assert facts["classes"] == [[cls.value, *cls.rgb, cls.title] for cls in legend.classes]
    assert facts["transform"] == list(one.picture.frame.shown.transform)[:6]
    head, _, data = facts["scene"].partition(",")
    assert head == "data:image/webp;base64"
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
    assert seen.shape == (50, 70, 4)
    assert np.abs(seen[..., :3].mean(axis=(0, 1)) - one.scene[..., :3].mean(axis=(0, 1))).max() < 5


def test_the_table_holds_pixels_shares_and_hectares_of_every_class(page_map, labels, legend):
    text = written(page_map())
    pixels = labels(50, 70)
    answered = (pixels != legend.nodata).sum()
    for cls in legend.classes:
        count = (pixels == cls.value).sum()
        row = re.search(rf"<tr><th[^>]*><label>(?:(?!</tr>).)*{re.escape(cls.title)}.*?</tr>", text).group()
        cells = re.findall("<td>(.*?)</td>", row)
        # Pixels of 10 m in UTM: a hundredth of a hectare, to a thousandth.
        assert cells[0] == f"{count / answered:.1%}"
        assert float(cells[1]) == pytest.approx(count / 100, rel=2e-3, abs=0.01)
        assert cells[2] == f"{count:,}"
    assert f"<td>{(pixels == legend.nodata).sum():,}</td>" in text


def test_a_map_without_a_crs_has_no_hectares(page_map, grid):
    text = written(page_map(grid=grid(50, 70, None, Affine.identity())))
    assert "Hectares" not in text
    assert "no CRS: scale and north unknown" in text
    assert Page(text).facts()[0]["metres"] is None


def test_the_page_names_no_address_and_its_policy_allows_nothing_but_its_own_text(page_map):
    text = written(page_map("a.tif"), page_map("b.tif"))
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "style", "ping"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:,")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes)
    policies = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; img-src data:;")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    for part in (script, style):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" in policies[0]
    assert "unsafe" not in policies[0]
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|eval\(|innerHTML|https?://", script + style)


def test_no_name_and_no_tag_breaks_out_of_its_place(page_map):
    one = page_map()
    strange = Legend(HOSTILE, tuple(LandClass(c.value, c.name, HOSTILE, c.color) for c in one.picture.legend.classes))
    areas = tuple(replace(area, title=HOSTILE) for area in one.description.areas)
    stated = ("GEOSEG_INPUT", "GEOSEG_MODEL", "GEOSEG_BANDS", "GEOSEG_LEGEND")
    tags = {**one.description.tags, **dict.fromkeys(stated, HOSTILE)}
    description = replace(one.description, name=HOSTILE, legend=strange, areas=areas, tags=tags)
    broken = PageMap(description, replace(one.picture, legend=strange), one.scene, (HOSTILE,))
    text = written(broken, broken)
    plain_one = replace(one, notes=("a note",))
    page, plain = Page(text), Page(written(plain_one, plain_one))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    for (_, ours), (_, theirs) in zip(page.elements, plain.elements, strict=True):
        assert ours.keys() == theirs.keys()
    assert len(page.facts()) == 2
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_a_batch_has_one_table_per_legend_with_a_row_per_map(page_map, legend):
    maps = [page_map("a.tif"), page_map("b.tif", height=20), page_map("c.tif", legend=Legend("other", legend.classes))]
    page = Page(written(*maps))
    assert len(page.all("section")) == len(maps) + 2
    links = [one["href"] for one in page.all("a")]
    assert links == ["#map-1", "#map-2", "#map-3"]
    identifiers = [one["id"] for _, one in page.elements if "id" in one]
    assert {link[1:] for link in links} <= set(identifiers)
    assert len(identifiers) == len(set(identifiers))


def test_one_map_has_no_table_of_maps(page_map):
    assert "overview" not in [one.get("class") for one in Page(written(page_map())).all("section")]


def test_the_same_maps_make_the_same_page(page_map):
    one = page_map()
    assert written(one) == written(one)


def test_noise_at_full_size_stays_below_five_megabytes(page_map, grid, make_map, legend):
    pixels = np.random.default_rng(0).choice(np.array(legend.values, np.uint8), (1600, 1600))
    path = make_map(pixels)
    with opened_map(path) as file:
        description, _, _ = read_map(path, file)
    scene = np.full((1600, 1600, 4), 255, np.uint8)
    # Noise of the strength of a town in a stretched scene.
    scene[..., :3] = np.clip(np.random.default_rng(1).normal(110, 40, (1600, 1600, 3)), 0, 255)
    text = written(PageMap(description, read_picture(path, 1600), scene))
    assert len(text) < 5_000_000


def test_a_map_without_its_scene_has_no_swipe_but_says_why(page_map):
    text = written(replace(page_map(), scene=None, notes=("The scene is not shown.",)))
    assert '<p class="note">The scene is not shown.</p>' in text
    assert [one for one in Page(text).all("input") if one["type"] == "range"] == []
    assert Page(text).facts()[0]["scene"] is None
