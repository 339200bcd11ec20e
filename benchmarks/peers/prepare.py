"""Make the scene of the contest, or the whole-scene answer that maps are compared with.

    python benchmarks/peers/prepare.py scene SIDE SCENE.tif [BUNDLE]
    python benchmarks/peers/prepare.py reference SCENE.tif REFERENCE.tif [BUNDLE]

The scene is a sample, mirrored until it has SIDE rows and columns, in the bands of the bundle: texture and classes are
those of a scene that the network maps well. It is ``l2a_12_bands.tif``, or ``l1c_13_bands.tif`` for a bundle that uses
the band of cirrus. The reference is one pass of the network over the whole scene, without tiles.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from task import read_planes, write_labels

from geoseg_cli.bundle import find_bundle
from geoseg_cli.catalog import sensors
from geoseg_cli.engines.torch_engine import load_network

SAMPLES = Path(__file__).resolve().parents[2] / "sample_scenes"


def main(what: str, *arguments: str) -> None:
    """Do one of the two."""
    if what == "scene":
        write_scene(int(arguments[0]), Path(arguments[1]), *arguments[2:])
    else:
        write_reference(Path(arguments[0]), Path(arguments[1]), *arguments[2:])


def mirror(pixels: npt.NDArray[np.uint16], side: int) -> npt.NDArray[np.uint16]:
    """(P, H, W) mirrored at its lower and right edges until it is (P, side, side)."""
    grown = np.pad(pixels, [(0, 0), *((0, max(0, side - size)) for size in pixels.shape[1:])], mode="symmetric")
    return grown[:, :side, :side]


def write_scene(side: int, path: Path, bundle: str = "landcover-lale") -> None:
    """Write the mirrored sample with the bundle's bands, named and scaled."""
    wanted = find_bundle(bundle).input_spec.bands
    own_names = [sensors()["sentinel-2"].find(band).name for band in wanted]  # type: ignore[union-attr]
    sample = "l1c_13_bands.tif" if "cirrus" in wanted else "l2a_12_bands.tif"
    with rasterio.open(SAMPLES / sample) as file:
        numbers = [file.descriptions.index(name) + 1 for name in own_names]
        pixels, profile = mirror(file.read(numbers), side), file.profile
        scales, offsets = (tuple(part[number - 1] for number in numbers) for part in (file.scales, file.offsets))
    profile.update(count=len(wanted), height=side, width=side)
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.descriptions, file.scales, file.offsets = own_names, scales, offsets


def write_reference(scene: Path, path: Path, bundle: str = "landcover-lale") -> None:
    """Write the class numbers of one pass over the whole scene."""
    opened = find_bundle(bundle)
    network = load_network(opened).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    planes = torch.from_numpy(read_planes(scene, opened.input_spec))[None]
    with torch.inference_mode():
        labels = network(planes.contiguous(memory_format=torch.channels_last))[0].argmax(0)
    write_labels(path, labels.numpy().astype(np.uint8), scene)


if __name__ == "__main__":
    main(*sys.argv[1:])
