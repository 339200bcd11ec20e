"""The least that decoding a scene can cost: GDAL reads every used block once, and nothing is done with the numbers."""

from __future__ import annotations

from collections import defaultdict

import rasterio
from rasterio.session import DummySession

from geoseg_cli.scenes import Scene


def read_plainly(scene: Scene) -> None:
    """Decode the bands that the network uses, block by block, in one thread; validity is not looked at."""
    files: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number in scene.bands.held_numbers:
        layer = scene.product.layers[number - 1]
        files[layer.file, layer.driver].append(layer.number)
    # Without a session of ours rasterio would look for credentials in the environment.
    with rasterio.Env(session=DummySession()):
        for (name, driver), bands in files.items():
            with rasterio.open(name, driver=driver) as file:
                for _, window in file.block_windows(bands[0]):
                    file.read(bands, window=window)
