"""The table of published and measured figures: complete, up to date and computed from the networks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "published_versus_measured.py"
REDONE = ("LALE", "MSCloudCAM")  # quick to count


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Give the script as a module; it puts its neighbours on the path, which is undone."""
    path = list(sys.path)
    specification = importlib.util.spec_from_file_location("published_versus_measured", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up by name.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture(scope="module")
def figures(script: ModuleType) -> dict[str, Any]:
    read: dict[str, Any] = script.read_figures()
    return read


@pytest.fixture(scope="module")
def table(script: ModuleType) -> str:
    text: str = script.TABLE.read_text(encoding="utf-8")
    return text


def test_every_published_figure_has_its_row(figures: dict[str, Any], table: str) -> None:
    for group in figures["group"]:
        assert f"## {group['title']}\n" in table
        for figure in group["figure"]:
            printed = f"{figure['published']} {figure['unit']}" if figure["published"] else "-"
            assert f"| {figure['what']} | {printed} | " in table


def test_every_contradiction_is_stated(figures: dict[str, Any], table: str) -> None:
    titles = [one["title"] for one in figures["contradiction"]]
    assert all(f"**{title}.**" in table for title in titles)
    assert [word for word in ("MSCloudCAM", "LALE", "1.7") if not any(word in title for title in titles)] == []


def test_every_source_is_explained(figures: dict[str, Any]) -> None:
    used = {figure["source"] for group in figures["group"] for figure in group["figure"] if figure["published"]}
    assert used <= set(figures["marks"])


@pytest.mark.parametrize("title", REDONE)
def test_measuring_again_gives_the_committed_rows(
    title: str, script: ModuleType, figures: dict[str, Any], table: str
) -> None:
    (group,) = (group for group in figures["group"] if group["title"] == title)
    assert script.render_group(group, script.measure_all([group])) in table


def test_a_row_says_how_far_ours_is_and_whether_it_prints_alike(script: ModuleType) -> None:
    figure = {"what": "size", "published": "1.60", "unit": "M", "source": "W"}
    assert script.render_figure(figure, 1.6049) == "| size | 1.60 M | 1.6049 M | +0.3% | yes | W |"
    assert script.render_figure(figure, 1.2) == "| size | 1.60 M | 1.2000 M | -25.0% | no | W |"
    assert script.render_figure(figure | {"published": ""}, 2.0) == "| size | - | 2.000 M | - | - | - |"


@pytest.mark.slow
def test_the_whole_table_is_up_to_date(script: ModuleType, figures: dict[str, Any], table: str) -> None:
    assert script.render(figures, script.measure_all(figures["group"])) == table
