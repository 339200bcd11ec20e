"""The page of ``geoseg report`` in a headless Chromium: it is seen, asks for nothing, and obeys mouse and keyboard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geoseg_cli.catalog import legends
from geoseg_cli.grid import Grid
from geoseg_cli.map_views import ViewOptions, write_report
from tests.conftest import write_scene
from tests.results.published import publish_map

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from chromium import Chromium, find_chromium

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed"),
]

UTM = Affine(10, 0, 499_980, 0, -10, 4_800_000)
LEGEND = legends()["cloudsen12"]
HEIGHT, WIDTH = 120, 160
LEFT, RIGHT = LEGEND.classes[1], LEGEND.classes[3]
"""The map is one class in its western half, another one in its eastern."""
GREEN = (0, 255, 0)
"""The scene in the eye of the reader."""
BIG_NAME = "a_name_without_any_place_to_break_it_" * 4 + ".tif"


@dataclass(frozen=True)
class Shown:
    """A page in a browser."""

    browser: Chromium
    folder: Path

    def value(self, expression: str) -> Any:
        """The value of an expression once all that was set going is laid out and drawn."""
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
        self.browser.value(frames)
        return self.browser.value(expression)

    def box(self, selector: str) -> dict[str, float]:
        """Where an element is seen, in CSS pixels."""
        self.value(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        return self.value(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")

    def at(self, selector: str, across: float, down: float) -> tuple[float, float]:
        box = self.box(selector)
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def color(self, across: float, down: float, section: str = "#map-1") -> tuple[int, int, int, int]:
        """What the canvas shows at a place, its sides being 1."""
        expression = f"""(() => {{
            const canvas = document.querySelector('{section} canvas');
            const place = [{across} * canvas.width, {down} * canvas.height].map(Math.floor);
            return [...canvas.getContext('2d').getImageData(...place, 1, 1).data];
        }})()"""
        return tuple(self.value(expression))

    def is_green(self, across: float, down: float) -> bool:
        return np.abs(np.array(self.color(across, down)) - (*GREEN, 255)).max() < 12

    def split(self) -> int:
        return int(self.value("document.querySelector('#map-1 input[type=range]').value"))

    def click(self, selector: str) -> None:
        place = self.at(selector, 0.5, 0.5)
        self.browser.mouse("mousePressed", *place)
        self.browser.mouse("mouseReleased", *place)

    def focus(self, selector: str) -> None:
        self.value(f"document.querySelector({selector!r}).focus()")

    def view(self) -> tuple[float, tuple[float, ...]]:
        """Zoom, and the picture's place in the middle of the canvas."""
        zoom, centre = self.value("(({zoom, centre}) => [zoom, centre])(document.querySelector('#map-1').dataset)")
        return float(zoom), tuple(map(float, centre.split()))


def page(folder: Path) -> Path:
    """Two maps with their scenes, and one without and of a long name."""
    labels = np.full((HEIGHT, WIDTH), LEFT.value, np.uint8)
    labels[:, WIDTH // 2 :] = RIGHT.value
    grid = Grid(CRS.from_epsg(32631), UTM, HEIGHT, WIDTH)
    numbers = np.ones((3, HEIGHT, WIDTH), np.uint16)
    # Percentiles need numbers below green: two rows above the rest.
    numbers[1] = 1000
    numbers[:, :8] = 1
    numbers[0, -8:] = numbers[2, -8:] = 1000
    write_scene(folder / "scene.tif", numbers, bands=("red", "green", "blue"), transform=UTM)
    maps = [publish_map(folder / f"{name}.tif", labels, grid, LEGEND) for name in ("one", "two")]
    maps.append(publish_map(folder / BIG_NAME, labels, grid, LEGEND, tags={"GEOSEG_INPUT": "gone.tif"}))
    write_report(maps, folder / "page.html", ViewOptions(1600))
    return folder / "page.html"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium(1200, 900) as browser:
        yield browser


@pytest.fixture
def shown(browser: Chromium, file: Path) -> Shown:
    browser.resize(1200, 900)
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(file)
    shown = Shown(browser, file.parent)
    shown.box("#map-1 canvas")
    browser.wait("document.querySelector('#map-1').dataset.state === 'ready'")
    return shown


def test_scene_and_map_are_seen_on_their_sides(shown: Shown) -> None:
    assert shown.is_green(0.25, 0.5)
    assert shown.color(0.75, 0.5) == (*RIGHT.rgb, 255)


def test_the_page_asks_for_nothing_and_complains_of_nothing(shown: Shown, file: Path) -> None:
    for number in (1, 2, 3):
        shown.box(f"#map-{number} canvas")
        shown.browser.wait(f"document.querySelector('#map-{number}').dataset.state === 'ready'")
    assert shown.browser.complaints == []
    asked = [address for address in shown.browser.requests if not address.startswith("data:")]
    assert asked == [file.absolute().as_uri()]


def test_what_is_put_into_the_page_cannot_reach_the_network(shown: Shown) -> None:
    """Without its policy the page could: the test's own picture would be asked for."""
    outcome = shown.value("""new Promise((resolve) => {
        const image = new Image();
        document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
        setTimeout(() => resolve('nothing was stopped'), 5000);
        image.src = 'http://127.0.0.1:9/x.png';
    })""")
    assert outcome == "img-src"
    script = shown.value("""(() => {
        const element = document.createElement('script');
        element.textContent = 'window.reached = true';
        document.body.append(element);
        return window.reached === true;
    })()""")
    assert script is False


def test_the_swipe_follows_the_keyboard(shown: Shown) -> None:
    shown.focus("#map-1 input[type=range]")
    assert shown.is_green(0.45, 0.5)
    for _ in range(15):
        shown.browser.press("ArrowLeft", 37)
    assert shown.split() == 35
    assert shown.color(0.45, 0.5) == (*LEFT.rgb, 255)
    shown.browser.press("Home", 36)
    assert shown.color(0.05, 0.5) == (*LEFT.rgb, 255)
    shown.browser.press("End", 35)
    assert shown.is_green(0.9, 0.5)


def test_the_swipe_follows_the_mouse_on_the_map_and_on_the_slider(shown: Shown) -> None:
    shown.browser.drag(shown.at("#map-1 canvas", 0.5, 0.3), shown.at("#map-1 canvas", 0.2, 0.4))
    assert shown.split() == pytest.approx(20, abs=1)
    assert shown.color(0.4, 0.5) == (*LEFT.rgb, 255)
    start = shown.at("#map-1 input[type=range]", 0.2, 0.5)
    shown.browser.drag(start, shown.at("#map-1 input[type=range]", 0.8, 0.5))
    assert 75 <= shown.split() <= 85
    assert shown.is_green(0.6, 0.5)


def test_a_class_is_switched_off_and_on_by_mouse_and_keyboard(shown: Shown) -> None:
    box = f"#map-1 input[value='{RIGHT.value}'][type=checkbox]"
    assert shown.color(0.75, 0.5) == (*RIGHT.rgb, 255)
    shown.click(box)
    assert shown.is_green(0.75, 0.5), "the scene is seen where a class is hidden"
    shown.focus(box)
    shown.browser.press(" ", 32)
    assert shown.color(0.75, 0.5) == (*RIGHT.rgb, 255)
    shown.click("#map-1 button[data-action=none]")
    assert shown.is_green(0.75, 0.5)
    shown.click("#map-1 button[data-action=all]")
    assert shown.color(0.75, 0.5) == (*RIGHT.rgb, 255)
    assert shown.color(0.75, 0.5, "#map-2") in {(*RIGHT.rgb, 255), (0, 0, 0, 0)}


def test_the_wheel_zooms_only_where_the_map_has_the_focus(shown: Shown) -> None:
    place = shown.at("#map-1 canvas", 0.75, 0.5)
    shown.browser.mouse("mouseWheel", *place, deltaX=0, deltaY=-120)
    assert shown.value("document.querySelector('#map-1').dataset.zoom") is None
    shown.focus("#map-1 canvas")
    place = shown.at("#map-1 canvas", 0.75, 0.5)
    shown.browser.mouse("mouseWheel", *place, deltaX=0, deltaY=-120)
    shown.browser.wait("document.querySelector('#map-1').dataset.zoom > 1")
    zoom, (col, _) = shown.view()
    # What lay under the pointer stays there: three quarters across.
    assert col + (0.75 - 0.5) * WIDTH / zoom == pytest.approx(0.75 * WIDTH, abs=1)


def test_buttons_and_dragging_move_and_zoom(shown: Shown) -> None:
    shown.click("#map-1 button[data-action=in]")
    shown.click("#map-1 button[data-action=in]")
    zoom, centre = shown.view()
    assert (zoom, centre) == (2.25, (WIDTH / 2, HEIGHT / 2))
    box = shown.box("#map-1 canvas")
    shown.browser.drag(shown.at("#map-1 canvas", 0.75, 0.5), shown.at("#map-1 canvas", 0.65, 0.5))
    assert shown.view()[1][0] == pytest.approx(WIDTH / 2 + 0.1 * WIDTH / 2.25, abs=1)
    assert box["width"] > 0
    shown.click("#map-1 button[data-action=out]")
    assert shown.view()[0] == 1.5
    shown.click("#map-1 button[data-action=whole]")
    assert shown.view() == (1, (WIDTH / 2, HEIGHT / 2))


def test_the_keyboard_moves_zooms_and_reads_classes(shown: Shown) -> None:
    shown.focus("#map-1 canvas")
    for _ in range(4):
        shown.browser.press("+")
    assert shown.view()[0] == pytest.approx(1.5**4, abs=1e-3)
    for _ in range(8):
        shown.browser.press("ArrowRight", 39)
    col, row = shown.view()[1]
    assert col > WIDTH / 2
    assert row == HEIGHT / 2
    text = shown.value("document.querySelector('#map-1 output').textContent")
    x, y = UTM @ (col, row)
    assert text == f"{RIGHT.title} ({RIGHT.value}) at x {x:.0f}, y {y:.0f} (EPSG:32631)"
    for _ in range(40):
        shown.browser.press("ArrowLeft", 37)
    assert shown.view()[1][0] == pytest.approx(WIDTH / 2 / 1.5**4, abs=1), "the view stays on the map"
    shown.browser.press("0")
    assert shown.view()[0] == 1


def test_the_class_under_the_pointer_is_named(shown: Shown) -> None:
    shown.browser.mouse("mouseMoved", *shown.at("#map-1 canvas", 0.2, 0.5))
    text = shown.value("document.querySelector('#map-1 output').textContent")
    assert text.startswith(f"{LEFT.title} ({LEFT.value}) at x 5002")


def test_everything_is_reached_with_the_tabulator_and_seen_to_be(shown: Shown) -> None:
    shown.value("window.scrollTo(0, 0)")
    reached: list[str] = []
    for _ in range(60):
        shown.browser.press("Tab", 9)
        reached.append(
            shown.value("""(() => {
                const element = document.activeElement;
                const seen = getComputedStyle(element).outlineStyle !== 'none';
                const place = element.closest('section')?.id || '';
                return `${place} ${element.tagName} ${element.type || ''} ${element.dataset.action || ''} ${seen}`;
            })()""")
        )
    for wanted in (
        " A   true",
        "map-1 CANVAS   true",
        "map-1 INPUT range  true",
        "map-1 INPUT checkbox  true",
        "map-1 BUTTON button in true",
        "map-1 BUTTON button none true",
        "map-1 SUMMARY   true",
        "map-3 CANVAS   true",
    ):
        assert wanted in reached


def test_every_control_has_a_name(shown: Shown) -> None:
    shown.browser.send("Accessibility.enable")
    nodes = shown.browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"slider", "checkbox", "button", "link", "application", "region"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert {role for role, _ in named} == roles
    assert all(name.strip() for _, name in named)
    titles = [name for role, name in named if role == "checkbox"]
    assert titles[: len(LEGEND.classes)] == [cls.title for cls in LEGEND.classes]


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_sticks_out_of_a_phone(shown: Shown, width: int) -> None:
    shown.browser.resize(width, 740, 2, is_phone=True)
    shown.browser.wait(f"innerWidth === {width}")
    for element in ("#map-1", "#map-3"):
        shown.value(f"document.querySelector('{element} details').open = true")
    assert shown.value("document.documentElement.scrollWidth") == width
    shown.value("window.scrollTo(1000, 0)")
    assert shown.value("window.scrollX") == 0
    canvas = shown.box("#map-1 canvas")
    assert canvas["x"] >= 0
    assert canvas["right"] <= width
    shown.browser.wait("document.querySelector('#map-1').dataset.state === 'ready'")
    assert shown.color(0.75, 0.5) == (*RIGHT.rgb, 255)
    for control in ("input[type=range]", "button[data-action=in]"):
        box = shown.box(f"#map-1 {control}")
        assert box["height"] >= 32
        assert box["right"] <= width


def test_fingers_swipe_zoom_and_move(shown: Shown) -> None:
    shown.browser.resize(360, 740, 2, is_phone=True)
    shown.browser.send("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        shown.browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    def at(across: float, down: float) -> tuple[float, float]:
        return shown.at("#map-1 canvas", across, down)

    try:
        touch("touchStart", at(0.5, 0.5))
        for across in (0.4, 0.3, 0.2):
            touch("touchMove", at(across, 0.5))
        touch("touchEnd")
        assert shown.split() == pytest.approx(20, abs=1)
        touch("touchStart", at(0.4, 0.5), at(0.6, 0.5))
        for far in (0.15, 0.2, 0.25, 0.3):
            touch("touchMove", at(0.5 - far, 0.5), at(0.5 + far, 0.5))
        touch("touchEnd")
        zoom, centre = shown.view()
        assert zoom == pytest.approx(3, rel=0.15)
        assert centre == pytest.approx((WIDTH / 2, HEIGHT / 2), abs=4)
        touch("touchStart", at(0.7, 0.5))
        for across in (0.65, 0.6, 0.5):
            touch("touchMove", at(across, 0.5))
        touch("touchEnd")
        assert shown.view()[1][0] > centre[0] + 5
    finally:
        shown.browser.send("Emulation.setTouchEmulationEnabled", enabled=False)


def test_maps_out_of_sight_are_given_back_and_come_again(shown: Shown) -> None:
    shown.browser.resize(500, 400)
    shown.box("#map-3 canvas")
    shown.browser.wait("document.querySelector('#map-3').dataset.state === 'ready'")
    shown.browser.wait("document.querySelector('#map-1').dataset.state === undefined")
    shown.box("#map-1 canvas")
    shown.browser.wait("document.querySelector('#map-1').dataset.state === 'ready'")
    assert shown.color(0.75, 0.5) == (*RIGHT.rgb, 255)


def test_dark_is_dark_and_light_is_light(file: Path, tmp_path: Path) -> None:
    for dark in (False, True):
        with Chromium(400, 300, dark=dark) as browser:
            browser.open(file)
            browser.picture(tmp_path / "seen.png")
        with rasterio.open(tmp_path / "seen.png") as picture:
            corner = picture.read()[:3, 2, 2]
        assert (corner.max() < 60) if dark else (corner.min() > 200)


def test_a_map_without_a_scene_shows_the_map_alone(shown: Shown) -> None:
    shown.box("#map-3 canvas")
    shown.browser.wait("document.querySelector('#map-3').dataset.state === 'ready'")
    assert shown.color(0.25, 0.5, "#map-3") == (*LEFT.rgb, 255)
    assert shown.value("document.querySelector('#map-3 input[type=range]')") is None
    assert "is not shown" in shown.value("document.querySelector('#map-3 .note').textContent")
