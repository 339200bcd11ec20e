"""A scene named as a list of single-band files: ``folder/a_B03.tif,a_B04.tif``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path


def split_list(path: Path) -> tuple[Path, ...] | None:
    """Files that a name with commas lists; None where it is the name of something else.

    Those after the first lie in its folder, unless they are absolute: so a list means the same from any folder.
    """
    first, *others = str(path).split(",")
    if not others or os.path.lexists(path):
        return None
    folder = Path(first).parent
    files = (Path(first), *(folder / name for name in others))
    return files if any(map(os.path.isfile, files)) else None


def common_stem(files: Sequence[Path]) -> str:
    """Words that all names begin with; that of the folder where they share none."""
    words = zip(*(re.split(r"([-_. ]+)", file.stem) for file in files), strict=False)
    shared = "".join(word for word, *_ in takewhile(lambda same: len(set(same)) == 1, words))
    return shared.rstrip("-_. ") or files[0].absolute().parent.name
