"""Which layout a path is, decided by what lies there and never by trying drivers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geoseg_cli.scenes import single_file
from geoseg_cli.scenes.product import Product

if TYPE_CHECKING:
    from geoseg_cli.scenes import SceneOptions


def find_product(path: Path, options: SceneOptions) -> Product:
    """Say which file holds which band.

    Args:
        path: Absolute path of a file or folder.
        options: What the user says about the scene.

    Raises:
        GeosegError: There is nothing, or nothing that is known.
    """
    return single_file.find(path, max_bytes=options.max_bytes)
