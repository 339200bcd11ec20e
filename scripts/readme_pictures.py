"""Draw the pictures of the README from the sample scenes and from the maps and the page that ``make demo`` made.

    python scripts/demo.py && python scripts/readme_pictures.py

The screenshot of the page needs Chromium.
"""

from __future__ import annotations

from pathlib import Path

from chromium import Chromium, find_chromium
from PIL import Image

from geoseg_cli.results.picture import read_picture
from geoseg_cli.results.preview import write_png
from geoseg_cli.scenes.true_colour import true_colour

ROOT = Path(__file__).resolve().parent.parent
DEMO, PICTURES = ROOT / "demo", ROOT / "docs" / "images"
SIDE_PX = 256
SHEET = "l1c_13_bands_landcover"
"""The map that is shown with its legend."""

WINDOW = {"width": 1100, "height": 820}
SWIPE = 45
COLOURS = 128
"""In what is shown for its looks; classes keep theirs, since they are the commonest."""


def main() -> None:
    """One row per sample scene: true colour, land cover, clouds; then a sheet and a page."""
    PICTURES.mkdir(exist_ok=True)
    for scene in sorted((ROOT / "sample_scenes").glob("*.tif")):
        for suffix in ("landcover", "cloudmask"):
            picture = read_picture(DEMO / f"{scene.stem}_{suffix}.tif", SIDE_PX)
            write_png(picture.colors(), PICTURES / f"{scene.stem}_{suffix}.png")
        frame = picture.frame
        seen = true_colour(scene, frame.grid, frame.height, frame.width)
        write_png(frame.show_image(seen.rgba), PICTURES / f"{scene.stem}.png")
    save_small(DEMO / f"{SHEET}.png", PICTURES / "preview.png")
    if find_chromium() is None:
        print("without Chromium there is no new picture of the page")
        return
    screenshot(DEMO / "report.html", PICTURES / "report.png")


def screenshot(page: Path, out_png: Path) -> None:
    """The first map of the page, swiped and zoomed."""
    with Chromium(**WINDOW) as browser:
        browser.open(page)
        browser.wait("document.querySelector('#map-1').dataset.state === 'ready'")
        browser.value("document.querySelector('#map-1').scrollIntoView()")
        browser.value(f"document.querySelector('#map-1 input[type=range]').value = {SWIPE}")
        browser.value("document.querySelector('#map-1 input[type=range]').dispatchEvent(new Event('input'))")
        browser.value("document.querySelector('#map-1 button[data-action=in]').click()")
        browser.picture(out_png)
    save_small(out_png, out_png)


def save_small(picture: Path, out_png: Path) -> None:
    """Keep few colours: a repository carries its pictures for ever."""
    few = Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(out_png, "PNG", optimize=True)
    print(f"{out_png.name}: {out_png.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
