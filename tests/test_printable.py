"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from geoseg_cli.printable import counted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((1, "scene"), "1 scene"),
        ((0, "scene"), "0 scenes"),
        ((2, "scene"), "2 scenes"),
        ((12_345, "pixel"), "12,345 pixels"),
        ((1, "class", "classes"), "1 class"),
        ((3, "class", "classes"), "3 classes"),
        ((1, "part was", "parts were"), "1 part was"),
    ],
)
def test_one_thing_is_no_plural(given: tuple[int, str], told: str) -> None:
    assert counted(*given) == told
