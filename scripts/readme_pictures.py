"""Draw the pictures of the README from the sample scenes and the maps that ``make demo`` made.

python scripts/demo.py && python scripts/readme_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import rasterio

from geoseg_cli.bundle import find_bundle
from geoseg_cli.results.preview import write_preview, write_quicklook

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "images"
SIDE_PX = 256


def main() -> None:
    """One row per sample scene: true colour, land cover, clouds."""
    PICTURES.mkdir(exist_ok=True)
    for scene in sorted((ROOT / "sample_scenes").glob("*.tif")):
        with rasterio.open(scene) as file:
            numbers = [file.descriptions.index(name) + 1 for name in ("B04", "B03", "B02")]
            scale, offset = file.scales[0], file.offsets[0]
        write_quicklook(scene, numbers, scale, offset, PICTURES / f"{scene.stem}.png", SIDE_PX)
        for suffix, bundle in (("landcover", "landcover-lale"), ("cloudmask", "cloud-lale")):
            name = f"{scene.stem}_{suffix}"
            write_preview(ROOT / "demo" / f"{name}.tif", find_bundle(bundle).legend, PICTURES / f"{name}.png", SIDE_PX)


if __name__ == "__main__":
    main()
