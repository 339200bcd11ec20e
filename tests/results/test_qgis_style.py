from __future__ import annotations

from xml.sax import parseString
from xml.sax.handler import ContentHandler

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.catalog import LandClass, Legend
from geoseg_cli.printable import printable
from geoseg_cli.results.qgis_style import qgis_style, read_style

COLORS = st.integers(0, 2**24 - 1).map(lambda number: f"#{number:06X}")


def entries_of(text: str) -> list[dict[str, str]]:
    """Attributes of every paletteEntry, by another parser than ours."""
    found: list[dict[str, str]] = []

    class Collect(ContentHandler):
        def startElement(self, name, attrs):
            if name == "paletteEntry":
                found.append(dict(attrs))

    parseString(text.encode(), Collect())
    return found


@given(st.lists(st.tuples(st.text(max_size=20), COLORS), min_size=1, max_size=12))
def test_any_legend_is_written_so_that_xml_parsers_read_it_back(rows):
    legend = Legend("any", tuple(LandClass(i, f"c{i}", title, color) for i, (title, color) in enumerate(rows)))
    text = qgis_style(legend)
    expected = [
        {"value": str(i), "color": color.lower(), "alpha": "255", "label": printable(title)}
        for i, (title, color) in enumerate(rows)
    ]
    assert entries_of(text) == expected
    assert [list(entry) for entry in read_style(text)] == [[int(e["value"]), e["color"], e["label"]] for e in expected]


@pytest.mark.parametrize("text", ["", "<qgis/>", '<qgis><rasterrenderer type="singlebandgray"/></qgis>'])
def test_other_styles_show_no_classes(text):
    with pytest.raises(ValueError, match=r"it "):
        read_style(text)
