"""Run s2cloudless in an environment of its own; it is a peer to compare with, not a part of geoseg.

    python3 -m venv PEER && PEER/bin/pip install s2cloudless
    PEER/bin/python benchmarks/peers/run_s2cloudless.py IN.npz OUT.npz

IN.npz holds images (H, W, 10) float32, top-of-atmosphere reflectance of Sentinel-2's B01 B02 B04 B05 B08 B8A B09 B10
B11 B12; OUT.npz gets a mask (H, W) uint8 under each name, 1 cloud. The settings are the package's own defaults
(version 1.7.3: threshold 0.4, average over 1 px, dilation 1 px), the same for all images.
"""

from __future__ import annotations

import sys

import numpy as np
from s2cloudless import S2PixelCloudDetector


def main(read_from: str, write_to: str) -> None:
    """Mask every image of a file."""
    detector = S2PixelCloudDetector()
    with np.load(read_from, allow_pickle=False) as images:
        masks = {name: detector.get_cloud_masks(images[name][None])[0].astype(np.uint8) for name in images.files}
    np.savez_compressed(write_to, **masks)


if __name__ == "__main__":
    main(*sys.argv[1:])
